//! AdamW (Loshchilov and Hutter 2017, arXiv:1711.05101), its schedules and the clipping of gradients.

use candle_core::{Device, Result, Tensor};

use crate::training::linear::{Adapters, Gradients};
use crate::training::ops::read;

/// The numbers of AdamW.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AdamW {
    /// How much of the mean of gradients stays with each step.
    pub beta1: f64,
    /// How much of the mean of squares.
    pub beta2: f64,
    /// Added to the root of the mean square.
    pub epsilon: f64,
    /// The share of each weight, times the rate, that goes with each step.
    pub weight_decay: f64,
}

impl Default for AdamW {
    fn default() -> Self {
        Self { beta1: 0.9, beta2: 0.999, epsilon: 1e-8, weight_decay: 0.01 }
    }
}

/// Means of one tensor's gradients and of their squares.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Moments {
    /// Of the gradients.
    pub first: Vec<f32>,
    /// Of their squares.
    pub second: Vec<f32>,
}

/// The optimiser's memory: the moments of A and of B of each adapter.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Memory {
    /// Steps taken.
    pub steps: u64,
    /// Of A and of B, in the order of the adapters.
    pub moments: Vec<[Moments; 2]>,
}

impl Memory {
    /// Before the first step.
    pub fn new(adapters: &Adapters) -> Self {
        let empty = |tensor: &Tensor| {
            let count = tensor.elem_count();
            Moments { first: vec![0.0; count], second: vec![0.0; count] }
        };
        let moments = adapters.0.iter().map(|lora| [empty(&lora.a), empty(&lora.b)]).collect();
        Self { steps: 0, moments }
    }

    /// One step: p ← p − rate·(m̂/(√v̂ + ε)) after p ← p·(1 − rate·decay), in the order of PyTorch's operations.
    pub fn step(
        &mut self,
        numbers: &AdamW,
        rate: f64,
        adapters: &mut Adapters,
        gradients: &Gradients,
    ) -> Result<()> {
        self.steps += 1;
        let update = Update::new(numbers, rate, self.steps);
        for ((lora, gradient), moments) in
            adapters.0.iter_mut().zip(&gradients.0).zip(&mut self.moments)
        {
            let Some(gradient) = gradient else { continue };
            let [first, second] = moments;
            lora.a = update.apply(&lora.a, &gradient.a, first)?;
            lora.b = update.apply(&lora.b, &gradient.b, second)?;
        }
        Ok(())
    }
}

/// The numbers of one step.
struct Update {
    /// What a gradient adds to the first moment. 1 − β is rounded behind the subtraction, as PyTorch does it.
    first_share: f32,
    /// What stays of the second moment, and what a gradient adds to it.
    second_stays: f32,
    second_share: f32,
    /// What stays of a weight.
    stays: f32,
    /// The rate over the first moment's correction.
    step: f32,
    /// The root of the second moment's correction.
    root: f32,
    epsilon: f32,
}

impl Update {
    /// Of step `number`, counted from 1: moments began at zero, which is corrected for.
    fn new(numbers: &AdamW, rate: f64, number: u64) -> Self {
        let correction = |beta: f64| 1.0 - beta.powi(number as i32);
        Self {
            first_share: (1.0 - numbers.beta1) as f32,
            second_stays: numbers.beta2 as f32,
            second_share: (1.0 - numbers.beta2) as f32,
            stays: (1.0 - rate * numbers.weight_decay) as f32,
            step: (rate / correction(numbers.beta1)) as f32,
            root: correction(numbers.beta2).sqrt() as f32,
            epsilon: numbers.epsilon as f32,
        }
    }

    /// The weight behind the step.
    fn apply(&self, weight: &Tensor, gradient: &Tensor, moments: &mut Moments) -> Result<Tensor> {
        let mut values = read::<f32, _>(weight, <[f32]>::to_vec)?;
        let gradient = gradient.contiguous()?;
        read::<f32, _>(&gradient, |gradient| {
            let moments = moments.first.iter_mut().zip(&mut moments.second);
            for ((value, gradient), (first, second)) in values.iter_mut().zip(gradient).zip(moments)
            {
                *first += (gradient - *first) * self.first_share;
                *second = *second * self.second_stays + self.second_share * gradient * gradient;
                let length = second.sqrt() / self.root + self.epsilon;
                *value = *value * self.stays - self.step * *first / length;
            }
        })?;
        Tensor::from_vec(values, weight.shape(), &Device::Cpu)
    }
}

/// The length of all gradients together (Euclid's norm).
pub fn gradient_norm(gradients: &Gradients) -> Result<f64> {
    let mut squares = 0.0;
    for gradient in gradients.0.iter().flatten() {
        for tensor in [&gradient.a, &gradient.b] {
            let tensor = tensor.contiguous()?;
            squares += read::<f32, _>(&tensor, |values| {
                values.iter().map(|value| f64::from(*value).powi(2)).sum::<f64>()
            })?;
        }
    }
    Ok(squares.sqrt())
}

/// Shortens gradients that are together longer than `most`, as PyTorch's `clip_grad_norm_` does.
pub fn clip(gradients: &mut Gradients, norm: f64, most: f64) -> Result<()> {
    let factor = most / (norm + 1e-6);
    if factor >= 1.0 {
        return Ok(());
    }
    for gradient in gradients.0.iter_mut().flatten() {
        gradient.a = (&gradient.a * factor)?;
        gradient.b = (&gradient.b * factor)?;
    }
    Ok(())
}

/// How the rate changes from step to step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Schedule {
    /// It stays.
    Constant,
    /// It falls to nothing in a straight line.
    Linear,
    /// It falls to nothing along half a cosine.
    Cosine,
}

impl Schedule {
    /// The share of the full rate at a step, counted from 0, of `steps`; the first `warmup` steps rise to it.
    pub fn at(self, step: u64, steps: u64, warmup: u64) -> f64 {
        if step < warmup {
            return (step + 1) as f64 / warmup as f64;
        }
        let done = (step - warmup) as f64 / (steps.saturating_sub(warmup)).max(1) as f64;
        match self {
            Self::Constant => 1.0,
            Self::Linear => (1.0 - done).max(0.0),
            Self::Cosine => 0.5 * (1.0 + (std::f64::consts::PI * done.min(1.0)).cos()),
        }
    }
}
