//! Learning from preferences (DPO, Rafailov et al. 2023, arXiv:2305.18290).
//!
//! A pair's loss is −log σ(z) with z = β·(gain of the better answer − gain of the worse), where a gain is how much
//! likelier an answer has become than it is to the reference: the base with its adapter off.

use crate::training::decoder::{Batch, Lesson};
use crate::training::linear::{Adapters, Gradients};
use crate::training::ops::TensorError;
use crate::training::trainer::{Found, Step, StepError, Trainer};

/// Pairs of a better and a worse answer.
#[derive(Debug)]
pub struct Preferences {
    pairs: Vec<[Batch; 2]>,
    beta: f64,
    /// The negative log-likelihoods of the pairs that the reference was asked about.
    reference: Vec<Option<[f64; 2]>>,
}

/// How preferences fared in a step or an evaluation.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Preferred {
    /// The share of pairs whose better answer gained more than the worse one.
    pub accuracy: f64,
    /// Mean of β·(gain of the better − gain of the worse).
    pub margin: f64,
}

/// Sums over pairs.
#[derive(Debug, Default)]
struct Sums {
    loss: f64,
    margin: f64,
    better: usize,
}

impl Sums {
    /// Adds a pair of this margin; gives the loss's slope, −d loss/dz.
    fn add(&mut self, margin: f64) -> f64 {
        // −log σ(z), without an overflow at either end.
        self.loss += (-margin.abs()).exp().ln_1p() + (-margin).max(0.0);
        self.margin += margin;
        self.better += usize::from(margin > 0.0);
        1.0 / (1.0 + margin.exp())
    }

    fn preferred(&self, pairs: usize) -> Preferred {
        let count = pairs as f64;
        Preferred { accuracy: self.better as f64 / count, margin: self.margin / count }
    }
}

impl Preferences {
    /// Of pairs of which each answer is a batch of its own.
    pub fn new(pairs: Vec<[Batch; 2]>, beta: f64) -> Self {
        let reference = vec![None; pairs.len()];
        Self { pairs, beta, reference }
    }

    /// How many pairs there are.
    pub fn len(&self) -> usize {
        self.pairs.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.pairs.is_empty()
    }

    /// One step on the pairs of these numbers, each of which counts the same.
    pub fn step(
        &mut self,
        trainer: &mut Trainer,
        numbers: &[usize],
    ) -> Result<(Step, Preferred), StepError> {
        let (gradients, found, preferred) = self.gradients(trainer, numbers)?;
        Ok((trainer.apply(gradients, found)?, preferred))
    }

    /// The gradients of the mean loss of the pairs of these numbers, and what it is.
    pub fn gradients(
        &mut self,
        trainer: &Trainer,
        numbers: &[usize],
    ) -> Result<(Gradients, Found, Preferred), TensorError> {
        let mut gradients = Gradients::new(trainer.adapters.0.len());
        let mut sums = Sums::default();
        let (mut learned, mut tokens) = (0, 0);
        for &number in numbers {
            let reference = self.reference(trainer, number)?;
            // The gradient of better − worse; by how much it counts is known behind the way forward of both.
            let mut difference = Gradients::new(trainer.adapters.0.len());
            let mut found = [0.0; 2];
            for (place, factor) in [(0, 1.0), (1, -1.0)] {
                let batch = &self.pairs[number][place];
                let lesson = Lesson { adapters: &trainer.adapters, keeps: &trainer.keeps, factor };
                found[place] = trainer.decoder.learn(batch, &lesson, &mut difference)?.sum;
                learned += batch.learned();
                tokens += batch.tokens.len();
            }
            let slope = sums.add(self.margin(found, reference));
            let factor = self.beta * slope / numbers.len() as f64;
            gradients.add_times(difference, factor)?;
        }
        let loss = sums.loss / numbers.len() as f64;
        Ok((gradients, Found { loss, learned, tokens }, sums.preferred(numbers.len())))
    }

    /// The mean loss of all pairs; nothing changes.
    pub fn evaluate(&mut self, trainer: &Trainer) -> Result<(f64, Preferred), TensorError> {
        let mut sums = Sums::default();
        for number in 0..self.pairs.len() {
            let reference = self.reference(trainer, number)?;
            let found = self.losses(trainer, number, &trainer.adapters)?;
            sums.add(self.margin(found, reference));
        }
        let pairs = self.pairs.len();
        Ok((sums.loss / pairs as f64, sums.preferred(pairs)))
    }

    /// z of a pair, of the negative log-likelihoods of its answers now and to the reference.
    fn margin(&self, now: [f64; 2], reference: [f64; 2]) -> f64 {
        let [better, worse] = [0, 1].map(|place| reference[place] - now[place]);
        self.beta * (better - worse)
    }

    /// What the reference finds of a pair; it is asked once.
    fn reference(&mut self, trainer: &Trainer, number: usize) -> Result<[f64; 2], TensorError> {
        if let Some(found) = self.reference[number] {
            return Ok(found);
        }
        let mut off = trainer.adapters.clone();
        for adapter in &mut off.0 {
            adapter.scale = 0.0;
        }
        let found = self.losses(trainer, number, &off)?;
        self.reference[number] = Some(found);
        Ok(found)
    }

    fn losses(
        &self,
        trainer: &Trainer,
        number: usize,
        adapters: &Adapters,
    ) -> Result<[f64; 2], TensorError> {
        let [better, worse] = &self.pairs[number];
        let loss = |batch: &Batch| trainer.decoder.loss(batch, adapters).map(|loss| loss.sum);
        Ok([loss(better)?, loss(worse)?])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn loss(margin: f64) -> f64 {
        let mut sums = Sums::default();
        sums.add(margin);
        sums.loss
    }

    #[test]
    fn slopes_are_those_of_the_loss_and_nothing_overflows() {
        for margin in [-40.0, -3.0, -0.1, 0.0, 0.5, 7.0] {
            let h = 1e-5;
            let expected = (loss(margin - h) - loss(margin + h)) / (2.0 * h);
            let found = Sums::default().add(margin);
            assert!((found - expected).abs() < 1e-8, "{margin}: {found} {expected}");
        }
        assert_eq!((loss(-1000.0), loss(1000.0)), (1000.0, 0.0));
        assert!((loss(0.0) - std::f64::consts::LN_2).abs() < 1e-15);
        assert_eq!((Sums::default().add(-1000.0), Sums::default().add(1000.0)), (1.0, 0.0));
    }
}
