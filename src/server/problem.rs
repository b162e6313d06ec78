//! What went wrong with a request, before a dialect puts it into its own words.

use axum::http::StatusCode;
use nfl_models::Hint;

use crate::chat::pool::PoolError;
use crate::chat::{ChatError, RequestError};
use crate::engine::frames::Failure;
use crate::engine::process::EngineError;
use crate::store::StoreError;

/// Whose fault it is, in the classes that dialects tell apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// The request cannot be carried out as it is.
    Invalid,
    /// The prompt does not fit into the context.
    TooLong,
    /// The body is larger than is read.
    TooLarge,
    /// There is no such model or thing.
    NotFound,
    /// A key is missing or wrong.
    Unauthorized,
    /// The key, the host or the origin may not do that.
    Forbidden,
    /// Too many requests from one client.
    RateLimited,
    /// Too many requests from all.
    Busy,
    /// The client went away.
    Cancelled,
    /// It is not made.
    Unsupported,
    /// It is ours.
    Internal,
}

impl Kind {
    fn status(self) -> StatusCode {
        match self {
            Self::Invalid | Self::TooLong => StatusCode::BAD_REQUEST,
            Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::NotFound => StatusCode::NOT_FOUND,
            Self::Unauthorized => StatusCode::UNAUTHORIZED,
            Self::Forbidden => StatusCode::FORBIDDEN,
            Self::RateLimited => StatusCode::TOO_MANY_REQUESTS,
            Self::Busy => StatusCode::SERVICE_UNAVAILABLE,
            // nginx's number for it, which Ollama uses too.
            Self::Cancelled => StatusCode::from_u16(499).unwrap_or(StatusCode::BAD_REQUEST),
            Self::Unsupported => StatusCode::NOT_IMPLEMENTED,
            Self::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }
}

/// What went wrong.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Problem {
    pub(super) kind: Kind,
    pub(super) status: StatusCode,
    pub(super) message: String,
    pub(super) hint: Option<String>,
    /// Seconds after which it is worth another try.
    pub(super) retry_after: Option<u32>,
    /// Tokens of the prompt and room of the context, when the one is too long for the other.
    pub(super) tokens: Option<(usize, usize)>,
}

impl Problem {
    pub(super) fn new(kind: Kind, message: impl Into<String>) -> Self {
        let retry_after = matches!(kind, Kind::Busy | Kind::RateLimited).then_some(1);
        Self {
            kind,
            status: kind.status(),
            message: message.into(),
            hint: None,
            retry_after,
            tokens: None,
        }
    }

    pub(super) fn invalid(message: impl Into<String>) -> Self {
        Self::new(Kind::Invalid, message)
    }

    fn of(kind: Kind, error: &(impl Hint + std::fmt::Display)) -> Self {
        Self { hint: error.hint(), ..Self::new(kind, error.to_string()) }
    }

    /// Message and hint as one text, for dialects that have one field.
    pub(super) fn text(&self) -> String {
        match &self.hint {
            Some(hint) => format!("{} ({hint})", self.message),
            None => self.message.clone(),
        }
    }
}

impl From<RequestError> for Problem {
    fn from(error: RequestError) -> Self {
        Self::of(Kind::Invalid, &error)
    }
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        let kind = match &error {
            StoreError::Missing { .. } => Kind::NotFound,
            StoreError::Name(_)
            | StoreError::Digest(_)
            | StoreError::Host(_)
            | StoreError::Ending(_) => Kind::Invalid,
            _ => Kind::Internal,
        };
        Self::of(kind, &error)
    }
}

impl From<EngineError> for Problem {
    fn from(error: EngineError) -> Self {
        (&error).into()
    }
}

impl From<&EngineError> for Problem {
    fn from(error: &EngineError) -> Self {
        let kind = match error {
            EngineError::Failed(failure) => match failure {
                Failure::PromptTooLong { .. } | Failure::TextTooLong { .. } => Kind::TooLong,
                Failure::Request(_)
                | Failure::NoClassifier
                | Failure::OnlyRanks
                | Failure::EmbeddingsOnly
                | Failure::VocabularyOnly => Kind::Invalid,
                Failure::Busy { .. } => Kind::Busy,
                Failure::Cancelled => Kind::Cancelled,
                _ => Kind::Internal,
            },
            EngineError::TooLong(_) => Kind::TooLarge,
            EngineError::Cancelled => Kind::Cancelled,
            _ => Kind::Internal,
        };
        let mut problem = Self::of(kind, error);
        problem.tokens = match error {
            EngineError::Failed(Failure::PromptTooLong { prompt_tokens, context_tokens }) => {
                Some((*prompt_tokens, *context_tokens))
            }
            EngineError::Failed(Failure::TextTooLong { tokens, limit_tokens, .. }) => {
                Some((*tokens, *limit_tokens))
            }
            _ => None,
        };
        problem
    }
}

impl From<ChatError> for Problem {
    fn from(error: ChatError) -> Self {
        (&error).into()
    }
}

impl From<&ChatError> for Problem {
    fn from(error: &ChatError) -> Self {
        match error {
            ChatError::Engine(error) => error.into(),
            ChatError::Request(error) => Self::of(Kind::Invalid, error),
            ChatError::Template(_) | ChatError::NoTemplate => Self::of(Kind::Invalid, error),
            ChatError::File(_) => Self::of(Kind::Internal, error),
        }
    }
}

impl From<PoolError> for Problem {
    fn from(error: PoolError) -> Self {
        match error {
            PoolError::Store(error) => error.into(),
            PoolError::Load(error) => (&*error).into(),
            PoolError::Plan(_) => Self::of(Kind::Invalid, &error),
            PoolError::Stalled { .. } => Self::of(Kind::Internal, &error),
            PoolError::Busy { .. } | PoolError::Closed => Self::of(Kind::Busy, &error),
            PoolError::Cancelled => Self::of(Kind::Cancelled, &error),
        }
    }
}
