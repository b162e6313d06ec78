//! Why there is no model to answer.

use std::sync::Arc;
use std::time::Duration;

use nfl_models::Hint;
use thiserror::Error;

use crate::chat::responder::ChatError;
use crate::engine::plan::PlanError;
use crate::store::StoreError;

/// Why there is no model to answer.
#[derive(Debug, Error)]
pub enum PoolError {
    /// There is none of that name, or its files are not what they were.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// It fits nowhere.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// It was not loaded. All who wait for it get the same answer, and so do those who ask again too soon.
    #[error(transparent)]
    Load(Arc<ChatError>),
    /// Loading came to a standstill.
    #[error("loading the model stood still for {} s, and was given up", after.as_secs())]
    Stalled {
        /// For so long.
        after: Duration,
    },
    /// As many requests wait as may.
    #[error("{waiting} requests are waiting already")]
    Busy {
        /// Their number.
        waiting: usize,
    },
    /// Whoever asked went away.
    #[error("cancelled")]
    Cancelled,
    /// The pool is being shut down.
    #[error("the server is shutting down")]
    Closed,
}

impl Hint for PoolError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::Store(error) => error.hint(),
            Self::Plan(error) => error.hint(),
            Self::Load(error) => error.hint(),
            Self::Stalled { .. } => Some(
                "see whether the disk or the driver hangs; --load-timeout gives it more time"
                    .to_owned(),
            ),
            Self::Busy { .. } => Some("try again in a moment".to_owned()),
            Self::Cancelled | Self::Closed => None,
        }
    }
}

/// Why a model was not loaded, for everybody who waits for it.
#[derive(Debug, Clone)]
pub(super) enum Refusal {
    /// It fits nowhere.
    Plan(PlanError),
    /// It failed.
    Load(Arc<ChatError>),
    /// It stood still.
    Stalled(Duration),
    /// The pool is being shut down.
    Closed,
}

impl From<Refusal> for PoolError {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Plan(error) => Self::Plan(error),
            Refusal::Load(error) => Self::Load(error),
            Refusal::Stalled(after) => Self::Stalled { after },
            Refusal::Closed => Self::Closed,
        }
    }
}
