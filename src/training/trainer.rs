//! The loop: micro-batches to a step, steps to a run.

use candle_core::Result;

use crate::training::block::Keep;
use crate::training::decoder::{Batch, Decoder, Lesson, Loss};
use crate::training::linear::{Adapters, Gradients};
use crate::training::optimizer::{self, AdamW, Memory, Schedule};

/// The numbers of a run.
#[derive(Debug, Clone, PartialEq)]
pub struct Recipe {
    /// Steps of the optimiser.
    pub steps: u64,
    /// The full learning rate.
    pub rate: f64,
    /// How it changes.
    pub schedule: Schedule,
    /// Steps in which it rises.
    pub warmup: u64,
    /// The optimiser.
    pub adamw: AdamW,
    /// The length that gradients are shortened to; none when 0.
    pub clip: f64,
}

/// What one step came to.
#[derive(Debug, Clone, Copy)]
pub struct Step {
    /// Which, from 1.
    pub number: u64,
    /// Mean loss of its learned tokens before the step, in nats.
    pub loss: f64,
    /// Learned tokens.
    pub learned: usize,
    /// All tokens.
    pub tokens: usize,
    /// The learning rate.
    pub rate: f64,
    /// The length of the gradients before they were shortened.
    pub gradient_norm: f64,
}

/// What the way forward of a step came to.
#[derive(Debug, Clone, Copy)]
pub struct Found {
    /// Its mean loss.
    pub loss: f64,
    /// Learned tokens.
    pub learned: usize,
    /// All tokens.
    pub tokens: usize,
}

/// Why a step was not taken.
#[derive(Debug, thiserror::Error)]
pub enum StepError {
    /// There is nothing to learn.
    #[error("none of the step's {tokens} tokens is to be learned")]
    NothingLearned {
        /// Its tokens.
        tokens: usize,
    },
    /// Numbers beyond numbers.
    #[error("step {step}: the loss is {loss}")]
    NotFinite {
        /// Which.
        step: u64,
        /// What it was.
        loss: f64,
    },
    /// A trainable tensor that got no gradient: an error of ours.
    #[error("adapter {0} got no gradient")]
    NoGradient(usize),
    /// candle refused.
    #[error(transparent)]
    Tensor(#[from] candle_core::Error),
}

/// A run of training.
#[derive(Debug)]
pub struct Trainer {
    /// The frozen base.
    pub decoder: Decoder,
    /// What is trained.
    pub adapters: Adapters,
    /// What the optimiser remembers.
    pub memory: Memory,
    /// The numbers.
    pub recipe: Recipe,
    /// What each block keeps.
    pub keeps: Vec<Keep>,
}

impl Trainer {
    /// One step on some micro-batches. Losses are divided by all learned tokens of the step, however they are spread over
    /// its micro-batches.
    pub fn step(&mut self, batches: &[Batch]) -> std::result::Result<Step, StepError> {
        let learned: usize = batches.iter().map(Batch::learned).sum();
        let tokens = batches.iter().map(|batch| batch.tokens.len()).sum();
        if learned == 0 {
            return Err(StepError::NothingLearned { tokens });
        }
        let mut gradients = Gradients::new(self.adapters.0.len());
        let mut sum = 0.0;
        let lesson =
            Lesson { adapters: &self.adapters, keeps: &self.keeps, factor: 1.0 / learned as f64 };
        for batch in batches.iter().filter(|batch| batch.learned() > 0) {
            sum += self.decoder.learn(batch, &lesson, &mut gradients)?.sum;
        }
        self.apply(gradients, Found { loss: sum / learned as f64, learned, tokens })
    }

    /// Ends a step: checks, shortens and applies its gradients.
    pub fn apply(
        &mut self,
        mut gradients: Gradients,
        found: Found,
    ) -> std::result::Result<Step, StepError> {
        let number = self.memory.steps + 1;
        let Found { loss, learned, tokens } = found;
        if let Some(missing) = gradients.0.iter().position(Option::is_none) {
            return Err(StepError::NoGradient(missing));
        }
        let gradient_norm = optimizer::gradient_norm(&gradients)?;
        if !loss.is_finite() || !gradient_norm.is_finite() {
            return Err(StepError::NotFinite { step: number, loss });
        }
        if self.recipe.clip > 0.0 {
            optimizer::clip(&mut gradients, gradient_norm, self.recipe.clip)?;
        }
        let recipe = &self.recipe;
        let share = recipe.schedule.at(self.memory.steps, recipe.steps, recipe.warmup);
        let rate = recipe.rate * share;
        self.memory.step(&recipe.adamw, rate, &mut self.adapters, &gradients)?;
        Ok(Step { number, loss, learned, tokens, rate, gradient_norm })
    }

    /// The loss of some batches; nothing changes.
    pub fn evaluate(&self, batches: &[Batch]) -> Result<Loss> {
        let mut all = Loss { sum: 0.0, tokens: 0 };
        for batch in batches.iter().filter(|batch| batch.learned() > 0) {
            let loss = self.decoder.loss(batch, &self.adapters)?;
            all.sum += loss.sum;
            all.tokens += loss.tokens;
        }
        Ok(all)
    }
}
