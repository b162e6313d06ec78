//! A linear map of a frozen matrix, a bias and an adapter.

use candle_core::{Result, Tensor};

use crate::training::lora::{Lora, LoraGradient};
use crate::training::weight::Weight;

/// Adapters of a model, by the numbers that its linear maps have for them.
#[derive(Debug, Clone, Default)]
pub struct Adapters(pub Vec<Lora>);

/// Their gradients so far.
#[derive(Debug, Clone, Default)]
pub struct Gradients(pub Vec<Option<LoraGradient>>);

impl Gradients {
    /// None yet, for so many adapters.
    pub fn new(count: usize) -> Self {
        Self(vec![None; count])
    }

    /// Adds others, each times a factor.
    pub fn add_times(&mut self, others: Self, factor: f64) -> Result<()> {
        for (number, other) in others.0.into_iter().enumerate() {
            if let Some(LoraGradient { a, b }) = other {
                self.add(number, LoraGradient { a: (a * factor)?, b: (b * factor)? })?;
            }
        }
        Ok(())
    }

    fn add(&mut self, number: usize, more: LoraGradient) -> Result<()> {
        self.0[number] = Some(match self.0[number].take() {
            Some(sum) => LoraGradient { a: (sum.a + more.a)?, b: (sum.b + more.b)? },
            None => more,
        });
        Ok(())
    }
}

/// What went through a linear map, for the way back.
#[derive(Debug, Clone, Copy)]
pub struct Passed<'a> {
    /// \[rows, in\].
    pub x: &'a Tensor,
    /// x·Aᵀ of its adapter, where it has one.
    pub inner: Option<&'a Tensor>,
}

/// W·x + bias, and an adapter beside it.
#[derive(Debug, Clone)]
pub struct Linear {
    /// The frozen matrix.
    pub weight: Weight,
    /// Added to every row.
    pub bias: Option<Tensor>,
    /// The number of its adapter.
    pub adapter: Option<usize>,
}

impl Linear {
    /// A frozen matrix alone.
    pub fn new(weight: Weight) -> Self {
        Self { weight, bias: None, adapter: None }
    }

    /// \[rows, in\] to \[rows, out\]; also x·Aᵀ of its adapter, for the way back.
    pub fn forward(&self, x: &Tensor, adapters: &Adapters) -> Result<(Tensor, Option<Tensor>)> {
        let mut y = self.weight.hold(x.dtype())?.forward(x)?;
        if let Some(bias) = &self.bias {
            y = y.broadcast_add(bias)?;
        }
        let Some(adapter) = self.adapter.map(|number| &adapters.0[number]) else {
            return Ok((y, None));
        };
        let inner = adapter.inner(x)?;
        Ok(((y + adapter.outer(&inner)?)?, Some(inner)))
    }

    /// The gradient of x; that of the adapter is added up.
    pub fn backward(
        &self,
        passed: Passed<'_>,
        dy: &Tensor,
        adapters: &Adapters,
        gradients: &mut Gradients,
    ) -> Result<Tensor> {
        let Passed { x, inner } = passed;
        let dx = self.weight.hold(x.dtype())?.backward(dy)?;
        let (Some(number), Some(inner)) = (self.adapter, inner) else { return Ok(dx) };
        let (gradient, more) = adapters.0[number].backward(x, inner, dy)?;
        gradients.add(number, gradient)?;
        dx + more
    }
}
