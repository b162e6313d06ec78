//! Why a run failed, and what helps.

use std::io;
use std::path::PathBuf;

use nfl_models::Hint;
use nfl_models::gguf::GgufError;
use nfl_models::template::TemplateError;
use safetensors::SafeTensorError;
use thiserror::Error;

use super::data::DataError;
use crate::engine::process::EngineError;
use crate::training::base::BaseError;
use crate::training::files::FileError;
use crate::training::ops::TensorError;
use crate::training::trainer::StepError;

/// Why a run failed. Its last checkpoint is as it was.
#[derive(Debug, Error)]
pub enum LearnError {
    /// The examples.
    #[error(transparent)]
    Data(#[from] DataError),
    /// The model's file.
    #[error(transparent)]
    File(#[from] GgufError),
    /// What the file cannot be used for.
    #[error(transparent)]
    Base(#[from] BaseError),
    /// The model's chat template.
    #[error(transparent)]
    Template(#[from] TemplateError),
    /// Conversations for a model without a template.
    #[error("the examples are conversations, and the model has no chat template")]
    NoTemplate,
    /// A template in which the beginning of a conversation depends on its end.
    #[error(
        "the chat template writes what comes before turn {turn} differently once that turn is there"
    )]
    TemplateChanges {
        /// The turn, from 1.
        turn: usize,
    },
    /// The tokenizer.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// A step.
    #[error(transparent)]
    Step(#[from] StepError),
    /// candle refused.
    #[error(transparent)]
    Tensor(#[from] TensorError),
    /// An adapter's file.
    #[error(transparent)]
    Adapter(#[from] FileError),
    /// A file of the run.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// A checkpoint that is no safetensors file, or lacks a tensor.
    #[error("checkpoint: {0}")]
    CheckpointFile(#[from] SafeTensorError),
    /// A checkpoint that makes no sense.
    #[error("checkpoint: {0}")]
    Checkpoint(String),
    /// A checkpoint of another run.
    #[error("the checkpoint is of another run: {0}")]
    OtherRun(&'static str),
    /// An adapter with infinities in it.
    #[error("step {0}: the adapter has numbers that are not finite")]
    NotFinite(u64),
    /// Preferences for a run that learns texts.
    #[error("the examples are preferences (prompt, chosen, rejected)")]
    Preferences,
    /// Other examples for a run that learns preferences.
    #[error("--dpo learns from preferences, and some examples are none")]
    NoPreferences,
    /// A run's folder that has a checkpoint already.
    #[error("{}: there is a checkpoint of a run that was stopped", .0.display())]
    Unfinished(PathBuf),
    /// Nothing to learn in all examples.
    #[error("none of the {0} examples has a token that is to be learned")]
    NothingLearned(usize),
}

impl Hint for LearnError {
    fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::Data(error) => return error.hint(),
            Self::File(error) => return error.hint(),
            Self::Template(error) => return error.hint(),
            Self::Engine(error) => return error.hint(),
            Self::NoTemplate => {
                "give texts ({\"text\": …}) or prompts with completions, or take a model that was made to converse"
            }
            Self::TemplateChanges { .. } => {
                "give each conversation as several examples that end with the assistant's turn"
            }
            Self::Step(StepError::NotFinite { .. }) | Self::NotFinite(_) => {
                "begin again with a lower --rate, or a --clip; the last checkpoint is whole, from before it went wrong"
            }
            Self::OtherRun(_) => {
                "choose another --output, or give the run's own model, data and numbers"
            }
            Self::Preferences => "add --dpo to learn from them",
            Self::NoPreferences => {
                "each needs prompt, chosen and rejected; without --dpo texts and conversations are learned"
            }
            Self::Unfinished(_) => "add --resume to go on with it, or choose another --output",
            Self::NothingLearned(_) => {
                "see what --preview shows of them, and whether --length is long enough"
            }
            Self::Io { source, .. } if source.kind() == io::ErrorKind::StorageFull => {
                "free some space: the last checkpoint is whole, and --resume goes on from it"
            }
            _ => return None,
        };
        Some(hint.to_owned())
    }
}
