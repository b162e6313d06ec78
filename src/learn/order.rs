//! What is asked of a run, what it says while it goes on, and how it ended.

use std::path::PathBuf;
use std::time::Duration;

use nfl_models::Role;

use crate::training::block::Keep;
use crate::training::optimizer::Schedule;
use crate::training::trainer::Step;

/// What is asked of a run.
#[derive(Debug, Clone, PartialEq)]
pub struct Order {
    /// The model: a GGUF file.
    pub model: PathBuf,
    /// What PEFT is to call the model.
    pub model_name: String,
    /// The examples.
    pub data: PathBuf,
    /// Examples that are not learned, but looked at.
    pub evaluation: Option<PathBuf>,
    /// Where everything goes.
    pub output: PathBuf,
    /// Rank of the adapters.
    pub rank: usize,
    /// Their α.
    pub alpha: f64,
    /// Whether their scale is α/√rank.
    pub rank_stabilized: bool,
    /// The linear maps that get adapters.
    pub roles: Vec<Role>,
    /// Steps of the optimiser.
    pub steps: u64,
    /// Tokens of a micro-batch.
    pub length: usize,
    /// Micro-batches of a step.
    pub micro_batches: usize,
    /// The learning rate.
    pub rate: f64,
    /// How it changes.
    pub schedule: Schedule,
    /// Steps in which it rises.
    pub warmup: u64,
    /// AdamW's decay.
    pub weight_decay: f64,
    /// The length that gradients are shortened to.
    pub clip: f64,
    /// Where all random numbers start.
    pub seed: u64,
    /// Steps between checkpoints.
    pub save_every: u64,
    /// Steps between looks at the evaluation examples.
    pub evaluate_every: u64,
    /// Go on from the checkpoint.
    pub resume: bool,
    /// What blocks keep for the way back.
    pub keep: Keep,
}

/// What a run says while it goes on.
#[derive(Debug, Clone, Copy)]
pub enum Report {
    /// What there is to learn.
    Data {
        /// Examples.
        examples: usize,
        /// Tokens.
        tokens: usize,
        /// Tokens that are learned.
        learned: usize,
        /// Micro-batches that they fill.
        batches: usize,
    },
    /// It goes on behind this step.
    Resumed(u64),
    /// The loss on the evaluation examples, in nats a token, behind so many steps.
    Evaluated {
        /// Steps taken.
        step: u64,
        /// Mean loss.
        loss: f64,
    },
    /// A step was taken.
    Stepped {
        /// What it came to.
        step: Step,
        /// How long it took.
        took: Duration,
    },
}

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Outcome {
    /// Steps taken in all.
    pub steps: u64,
    /// Whether it was stopped before its end; then there is a checkpoint.
    pub stopped: bool,
    /// Numbers that were trained.
    pub trained: usize,
}
