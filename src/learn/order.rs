//! What is asked of a run, what it says while it goes on, and how it ended.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use nfl_models::Role;

use super::data::{Bad, Form};
use super::preference::Preferred;
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
    /// The share of the examples that is not learned, but looked at.
    pub evaluation_share: Option<f64>,
    /// Leave examples out that make no sense.
    pub skip_bad: bool,
    /// What becomes of examples that are too long.
    pub long: Long,
    /// β, where preferences are learned (DPO).
    pub preference: Option<f64>,
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
    /// Strength of the noise on embeddings (NEFTune); none when 0.
    pub noise: f64,
    /// Looks at the evaluation examples without an improvement after which the run ends; then the best adapter is kept.
    pub patience: Option<u64>,
    /// Where all random numbers start.
    pub seed: u64,
    /// Steps between checkpoints.
    pub save_every: u64,
    /// Steps between looks at the evaluation examples.
    pub evaluate_every: u64,
    /// Steps after which the adapter is handed out, to be heard.
    pub sample_every: Option<u64>,
    /// Go on from the checkpoint.
    pub resume: bool,
    /// What blocks keep for the way back.
    pub keep: Keep,
}

/// What becomes of an example that is longer than a micro-batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Long {
    /// It is learned in parts, of which none sees another.
    Cut,
    /// It is left out.
    Skip,
    /// It makes no sense.
    Refuse,
}

/// Lengths of examples, in tokens.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Lengths {
    /// The shortest.
    pub least: usize,
    /// Half of them are not longer.
    pub median: usize,
    /// 95 of 100 are not longer.
    pub most: usize,
    /// The longest.
    pub longest: usize,
}

impl Lengths {
    /// Of some lengths; all 0 when there are none.
    pub fn of(mut all: Vec<usize>) -> Self {
        all.sort_unstable();
        let at = |share: f64| {
            let place = (share * all.len() as f64).ceil() as usize;
            all.get(place.saturating_sub(1)).copied().unwrap_or(0)
        };
        Self { least: at(0.0), median: at(0.5), most: at(0.95), longest: at(1.0) }
    }
}

/// What there is to learn.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Contents {
    /// Examples.
    pub examples: usize,
    /// How many of each form there are in the file.
    pub forms: BTreeMap<Form, usize>,
    /// Examples of the file that are there already.
    pub duplicates: usize,
    /// Examples that were left out because they make no sense.
    pub bad: Bad,
    /// How long they are.
    pub lengths: Lengths,
    /// Examples that do not fit a micro-batch.
    pub long: usize,
    /// Conversations that are learned turn by turn.
    pub rewritten: usize,
    /// Tokens.
    pub tokens: usize,
    /// Tokens that are learned.
    pub learned: usize,
    /// Micro-batches that they fill.
    pub batches: usize,
}

/// What a run is made of: the SHA-256 of each part, in hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The numbers of the order that change results.
    pub recipe: String,
    /// The examples.
    pub data: String,
    /// The frozen weights.
    pub base: String,
}

/// What a run says while it goes on.
#[derive(Debug, Clone)]
pub enum Report {
    /// What there is to learn, and to look at.
    Data {
        /// To learn.
        learned: Contents,
        /// To look at.
        evaluated: Contents,
    },
    /// What it is made of.
    Made(Identity),
    /// It goes on behind this step.
    Resumed(u64),
    /// The evaluation examples were looked at.
    Evaluated(Evaluated),
    /// The adapter behind a step, as GGUF.
    Sample {
        /// The step.
        step: u64,
        /// The file's bytes.
        adapter: Vec<u8>,
    },
    /// A step was taken.
    Stepped {
        /// What it came to.
        step: Step,
        /// Of preferences.
        preferred: Option<Preferred>,
        /// How long it took.
        took: Duration,
    },
}

/// A look at the evaluation examples.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Evaluated {
    /// Steps taken before.
    pub step: u64,
    /// The loss, in nats a token; of preferences a pair.
    pub loss: f64,
    /// Of preferences.
    pub preferred: Option<Preferred>,
}

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Outcome {
    /// Steps taken in all.
    pub steps: u64,
    /// Whether it was stopped before its end; then there is a checkpoint.
    pub stopped: bool,
    /// The step and the loss of the adapter that was kept, where the best one was looked for.
    pub best: Option<(u64, f64)>,
    /// Numbers that were trained.
    pub trained: usize,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_those_of_the_nearest_rank() {
        let lengths = Lengths::of((1..=100).rev().collect());
        assert_eq!(lengths, Lengths { least: 1, median: 50, most: 95, longest: 100 });
        assert_eq!(Lengths::of(Vec::new()), Lengths::default());
        assert_eq!(Lengths::of(vec![7]).most, 7);
    }
}
