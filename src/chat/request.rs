//! A request: what is asked, and the one place where it is validated.

use nfl_models::Hint;
use thiserror::Error;

use crate::engine::llama::TOP_LOGPROBS_MAX;
use crate::engine::options::{
    OptionError, STOP_BYTES_MAX, STOP_STRINGS_MAX, Sampling, Speculation,
};
use crate::engine::steering::Steering;

/// Who speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Instructions that stand above the conversation.
    System,
    /// The person.
    User,
    /// The model.
    Assistant,
}

impl Role {
    /// The name that chat templates know.
    pub fn name(self) -> &'static str {
        match self {
            Self::System => "system",
            Self::User => "user",
            Self::Assistant => "assistant",
        }
    }
}

/// One turn of a conversation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Who speaks.
    pub role: Role,
    /// What is said.
    pub content: String,
}

impl Message {
    /// A turn of `role`.
    pub fn new(role: Role, content: impl Into<String>) -> Self {
        Self { role, content: content.into() }
    }
}

/// What the model is to answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input {
    /// A text to continue as it stands; no template.
    Text(String),
    /// A conversation to answer, put into the model's own form by its chat template.
    Conversation(Vec<Message>),
    /// A gap in a text to fill.
    Infill {
        /// What stands before the gap.
        prefix: String,
        /// What stands behind it.
        suffix: String,
    },
}

/// A valid request.
#[derive(Debug, Clone, PartialEq)]
pub struct Request {
    pub(super) input: Input,
    pub(super) sampling: Sampling,
    pub(super) stop: Vec<String>,
    pub(super) tokens_max: Option<u32>,
    pub(super) ignore_end: bool,
    pub(super) shift: bool,
    pub(super) speculation: Speculation,
    pub(super) steering: Steering,
    pub(super) logprobs: Option<u32>,
}

/// Why a request was refused.
#[derive(Debug, Error, PartialEq)]
pub enum RequestError {
    /// A number that makes no sense.
    #[error("{0}")]
    Option(#[from] OptionError),
    /// Nothing to answer.
    #[error("the conversation has no message")]
    Empty,
    /// A stop string that is empty, too long, or one too many.
    #[error("stop strings: {0}")]
    Stop(String),
    /// No tokens asked for.
    #[error("tokens to generate: 0")]
    NoTokens,
    /// More of the likeliest tokens than are told.
    #[error("logprobs: {0} tokens, {TOP_LOGPROBS_MAX} are the most")]
    Logprobs(u32),
}

impl Hint for RequestError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::Option(_) => Some("give a value in that range".to_owned()),
            Self::Empty => Some("give the model something to answer".to_owned()),
            Self::Stop(_) => Some(format!(
                "give at most {STOP_STRINGS_MAX} strings of 1 to {STOP_BYTES_MAX} bytes"
            )),
            Self::NoTokens => Some("ask for at least 1".to_owned()),
            Self::Logprobs(_) => {
                Some("ask for fewer; 0 tells of the chosen token alone".to_owned())
            }
        }
    }
}

impl Request {
    /// Checks what is asked.
    ///
    /// # Errors
    /// [`RequestError`] names the value that is out of bounds.
    pub fn new(
        input: Input,
        sampling: Sampling,
        stop: Vec<String>,
        tokens_max: Option<u32>,
    ) -> Result<Self, RequestError> {
        sampling.check()?;
        if matches!(&input, Input::Conversation(messages) if messages.is_empty()) {
            return Err(RequestError::Empty);
        }
        if stop.len() > STOP_STRINGS_MAX {
            return Err(RequestError::Stop(format!("{} are too many", stop.len())));
        }
        if let Some(bad) = stop.iter().find(|text| text.is_empty() || text.len() > STOP_BYTES_MAX) {
            return Err(RequestError::Stop(format!("one has {} bytes", bad.len())));
        }
        if tokens_max == Some(0) {
            return Err(RequestError::NoTokens);
        }
        Ok(Self {
            input,
            sampling,
            stop,
            tokens_max,
            ignore_end: false,
            shift: false,
            speculation: Speculation::Off,
            steering: Steering::default(),
            logprobs: None,
        })
    }

    /// The same request, going on when the model wants to end (`yes`): for measurements.
    #[must_use]
    pub fn ignore_end(self, yes: bool) -> Self {
        Self { ignore_end: yes, ..self }
    }

    /// The same request, guessing tokens ahead.
    #[must_use]
    pub fn speculation(self, speculation: Speculation) -> Self {
        Self { speculation, ..self }
    }

    /// The same request, with adapters and control vectors.
    ///
    /// # Errors
    /// [`RequestError`] names the number that is out of bounds.
    pub fn steering(self, steering: Steering) -> Result<Self, RequestError> {
        steering.check()?;
        Ok(Self { steering, ..self })
    }

    /// The same request, telling with each token its probability and those of so many likeliest ones.
    ///
    /// # Errors
    /// [`RequestError::Logprobs`] when that are too many.
    pub fn logprobs(self, top: Option<u32>) -> Result<Self, RequestError> {
        match top {
            Some(top) if top as usize > TOP_LOGPROBS_MAX => Err(RequestError::Logprobs(top)),
            logprobs => Ok(Self { logprobs, ..self }),
        }
    }

    /// The same request, forgetting the older half of a full context (`yes`) instead of ending.
    #[must_use]
    pub fn shift(self, yes: bool) -> Self {
        Self { shift: yes, ..self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(sampling: Sampling, stop: &[&str], tokens_max: Option<u32>) -> String {
        let stop = stop.iter().map(|&text| text.to_owned()).collect();
        Request::new(Input::Text("x".into()), sampling, stop, tokens_max).unwrap_err().to_string()
    }

    #[test]
    fn values_out_of_bounds_are_named() {
        let hot = Sampling { temperature: -1.0, ..Sampling::default() };
        assert_eq!(refused(hot, &[], None), "temperature: -1 is outside 0 to 100");
        assert_eq!(refused(Sampling::default(), &[""], None), "stop strings: one has 0 bytes");
        assert_eq!(refused(Sampling::default(), &[], Some(0)), "tokens to generate: 0");
        let empty =
            Request::new(Input::Conversation(Vec::new()), Sampling::default(), Vec::new(), None);
        assert_eq!(empty.unwrap_err(), RequestError::Empty);
    }
}
