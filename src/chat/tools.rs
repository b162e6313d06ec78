//! Tools: what a model may call, and its calls.

use serde_json::{Map, Value};

use super::request::RequestError;

/// Tools on offer in one request.
pub const TOOLS_MAX: usize = 256;

/// A function that the model may call.
#[derive(Debug, Clone, PartialEq)]
pub struct Tool {
    /// Its name.
    pub name: String,
    /// What it is for.
    pub description: Option<String>,
    /// The JSON Schema of its arguments, an object.
    pub parameters: Value,
}

/// A call of a tool.
#[derive(Debug, Clone, PartialEq)]
pub struct ToolCall {
    /// What its result refers to.
    pub id: String,
    /// The tool's name.
    pub name: String,
    /// The arguments, in the order in which they were written.
    pub arguments: Map<String, Value>,
}

/// Which tool the model is to call.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Choice {
    /// Whether and which is the model's choice.
    #[default]
    Auto,
    /// None; the tools are not even shown.
    None,
    /// At least one.
    Required,
    /// This one.
    Named(String),
}

/// The tools of a request.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Tools {
    /// What is on offer.
    pub list: Vec<Tool>,
    /// Which are to be called.
    pub choice: Choice,
    /// Whether one reply may have one call only.
    pub one_call: bool,
}

impl Tools {
    /// Whether the model sees any.
    pub fn are_offered(&self) -> bool {
        !self.list.is_empty() && self.choice != Choice::None
    }

    pub(super) fn check(&self) -> Result<(), RequestError> {
        let refuse = |reason: String| Err(RequestError::Tools(reason));
        if self.list.len() > TOOLS_MAX {
            return refuse(format!("{}, {TOOLS_MAX} are the most", self.list.len()));
        }
        for (index, tool) in self.list.iter().enumerate() {
            if tool.name.is_empty() {
                return refuse("one has no name".to_owned());
            }
            if self.list[..index].iter().any(|other| other.name == tool.name) {
                return refuse(format!("{} is offered twice", tool.name));
            }
        }
        match &self.choice {
            Choice::Required if self.list.is_empty() => {
                refuse("one must be called, and none is offered".to_owned())
            }
            Choice::Named(name) if !self.list.iter().any(|tool| tool.name == *name) => {
                refuse(format!("{name} must be called, and is not offered"))
            }
            _ => Ok(()),
        }
    }
}
