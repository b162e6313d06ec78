//! Why there is no plan, with numbers, and what would fit.

use nfl_models::Hint;
use thiserror::Error;

use super::machine::Machine;
use crate::engine::options::{CPU, CacheType, OptionError};
use crate::term::units;

/// Why there is no plan.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum PlanError {
    /// A regular expression that is none.
    #[error("tensor override {pattern}: {reason}")]
    Pattern {
        /// The expression.
        pattern: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A device that there is not.
    #[error("tensor override: no device {device}")]
    Device {
        /// The name that was given.
        device: String,
        /// The names that there are.
        known: Vec<String>,
    },
    /// A number that llama.cpp would not take.
    #[error(transparent)]
    Option(#[from] OptionError),
    /// Heads that the type's blocks do not divide.
    #[error(
        "cache type {cache_type}: heads of {key_length} and {value_length} values are no multiple of its blocks"
    )]
    CacheType {
        /// The type.
        cache_type: CacheType,
        /// Values of a key.
        key_length: u64,
        /// Values of a value.
        value_length: u64,
    },
    /// More than main memory holds.
    #[error("main memory: {what} needs {needed}, {usable} can be used")]
    Memory {
        /// What needs it.
        what: String,
        /// Bytes in words.
        needed: String,
        /// Bytes in words.
        usable: String,
        /// What would fit.
        advice: String,
    },
    /// Layers that were asked for and do not fit.
    #[error(
        "GPU memory: {layers} layers and a context of {context_tokens} tokens need more than the {usable} that can be used"
    )]
    GpuLayers {
        /// Layers asked for.
        layers: u32,
        /// Tokens of context.
        context_tokens: u64,
        /// Bytes in words.
        usable: String,
        /// What would fit.
        advice: String,
    },
    /// The draft model has no plan.
    #[error("draft model: {0}")]
    Draft(Box<PlanError>),
    /// The model has no plan beside its draft model.
    #[error("beside the draft model, which takes {needed}: {error}")]
    BesideDraft {
        /// Bytes of the draft model in words.
        needed: String,
        /// Why not.
        error: Box<PlanError>,
    },
}

impl PlanError {
    pub(super) fn of_draft(self) -> Self {
        Self::Draft(Box::new(self))
    }

    pub(super) fn beside_draft(bytes: u64, error: Self) -> Self {
        Self::BesideDraft { needed: units::bytes(bytes), error: Box::new(error) }
    }

    pub(super) fn unknown_device(device: &str, machine: &Machine) -> Self {
        let gpus = machine.gpus.iter().map(|gpu| gpu.name.clone());
        let known = std::iter::once(CPU.to_owned()).chain(gpus).collect();
        Self::Device { device: device.to_owned(), known }
    }
}

impl Hint for PlanError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::Pattern { .. } => {
                Some("write --override-tensor REGEX=DEVICE, such as \"ffn_.*_exps=CPU\"".to_owned())
            }
            Self::Device { known, .. } => Some(format!("devices here: {}", known.join(", "))),
            Self::Option(_) => None,
            Self::CacheType { .. } => Some("take f16 or f32".to_owned()),
            Self::Memory { advice, .. } | Self::GpuLayers { advice, .. } => Some(advice.clone()),
            Self::Draft(error) | Self::BesideDraft { error, .. } => Some(match error.hint() {
                Some(hint) => format!("{hint}; or leave --draft out"),
                None => "leave --draft out".to_owned(),
            }),
        }
    }
}
