//! A request: what is asked, and the one place where it is validated.

use nfl_models::Hint;
use serde_json::{Map, Value};
use thiserror::Error;

use super::form::{Format, Think, Turn};
use super::tools::{ToolCall, Tools};

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
    /// A tool, with the result of a call.
    Tool,
}

impl Role {
    /// The name that chat templates know.
    pub fn name(self) -> &'static str {
        match self {
            Self::System => "system",
            Self::User => "user",
            Self::Assistant => "assistant",
            Self::Tool => "tool",
        }
    }

    /// The role of a name that chat templates know; `developer` is the newer name for `system`.
    pub fn from_name(name: &str) -> Option<Self> {
        match name {
            "system" | "developer" => Some(Self::System),
            "user" => Some(Self::User),
            "assistant" => Some(Self::Assistant),
            "tool" | "function" => Some(Self::Tool),
            _ => None,
        }
    }
}

/// One turn of a conversation.
#[derive(Debug, Clone, PartialEq)]
pub struct Message {
    /// Who speaks.
    pub role: Role,
    /// What is said.
    pub content: String,
    /// What the model thought before it spoke; empty when nothing is known of it.
    pub thinking: String,
    /// The tools that the model called.
    pub tool_calls: Vec<ToolCall>,
    /// Of a tool's result: the tool's name, when it is known.
    pub tool_name: Option<String>,
    /// Of a tool's result: the call that it answers.
    pub tool_call_id: Option<String>,
}

impl Message {
    /// A turn of `role`.
    pub fn new(role: Role, content: impl Into<String>) -> Self {
        Self {
            role,
            content: content.into(),
            thinking: String::new(),
            tool_calls: Vec::new(),
            tool_name: None,
            tool_call_id: None,
        }
    }
}

/// What the model is to answer.
#[derive(Debug, Clone, PartialEq)]
pub enum Input {
    /// A text to continue as it stands; no template.
    Text(String),
    /// Tokens to continue as they stand.
    Tokens(Vec<i32>),
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
    pub(super) tools: Tools,
    pub(super) format: Format,
    pub(super) think: Think,
    pub(super) turn: Turn,
    pub(super) template_variables: Map<String, Value>,
    pub(super) client: u64,
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
    /// Tools that contradict themselves or the rest of the request.
    #[error("tools: {0}")]
    Tools(String),
    /// A form of the reply that cannot be enforced.
    #[error("format: {0}")]
    Format(String),
    /// A wish about thinking that the model cannot fulfil.
    #[error("thinking: {0}")]
    Think(String),
    /// A last message that the model cannot go on with.
    #[error("the last message cannot be continued: {0}")]
    Turn(&'static str),
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
            Self::Tools(_) => {
                Some("offer tools that this model can be held to, and choose among them".to_owned())
            }
            Self::Format(_) => Some("ask for a form that can be enforced".to_owned()),
            Self::Think(_) => Some("leave the choice to the model".to_owned()),
            Self::Turn(_) => Some("end the conversation with the user's message".to_owned()),
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
            tools: Tools::default(),
            format: Format::Text,
            think: Think::Default,
            turn: Turn::Next,
            template_variables: Map::new(),
            client: 0,
        })
    }

    /// The same request, with tools that the model may call.
    ///
    /// # Errors
    /// [`RequestError::Tools`] when they contradict themselves.
    pub fn tools(self, tools: Tools) -> Result<Self, RequestError> {
        tools.check()?;
        Ok(Self { tools, ..self })
    }

    /// The same request, for a reply of a certain form. What the model thinks before it is free.
    ///
    /// # Errors
    /// [`RequestError::Format`] when a grammar stands in the sampling too.
    pub fn format(self, format: Format) -> Result<Self, RequestError> {
        if format != Format::Text && self.sampling.constraint.is_some() {
            return Err(RequestError::Format("there is a grammar already".to_owned()));
        }
        Ok(Self { format, ..self })
    }

    /// The same request, with a wish about thinking.
    #[must_use]
    pub fn think(self, think: Think) -> Self {
        Self { think, ..self }
    }

    /// The same request, whose reply begins there in the conversation. A last message that says nothing is left out when
    /// it is to be continued: the reply is a turn of its own then.
    ///
    /// # Errors
    /// [`RequestError::Turn`] when the last message is not one that the model can go on with.
    pub fn turn(mut self, turn: Turn) -> Result<Self, RequestError> {
        let Input::Conversation(messages) = &mut self.input else { return Ok(self) };
        self.turn = turn;
        if turn != Turn::Same {
            return Ok(self);
        }
        let is_own = |message: &Message| message.role == Role::Assistant;
        match messages.as_slice() {
            [.., last] if !is_own(last) => Err(RequestError::Turn("it is not the model's own")),
            [.., last] if !last.tool_calls.is_empty() => {
                Err(RequestError::Turn("it calls tools, whose results come next"))
            }
            [.., before, _] if is_own(before) => {
                Err(RequestError::Turn("the one before it is the model's own, too"))
            }
            [_, .., last] if last.content.is_empty() && last.thinking.is_empty() => {
                messages.pop();
                self.turn = Turn::Next;
                Ok(self)
            }
            _ => Ok(self),
        }
    }

    /// The same request, with further variables for the chat template.
    #[must_use]
    pub fn template_variables(self, template_variables: Map<String, Value>) -> Self {
        Self { template_variables, ..self }
    }

    /// The same request, from a client: requests of one wait for each other before they wait for those of another.
    #[must_use]
    pub fn client(self, client: u64) -> Self {
        Self { client, ..self }
    }

    /// Whether the model is to be asked for anything but a continuation of a text.
    pub fn is_conversation(&self) -> bool {
        matches!(self.input, Input::Conversation(_))
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
