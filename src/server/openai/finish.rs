//! How replies end.

use crate::chat::{Event, ToolCall};
use crate::engine::frames::{Done, Reason};
use crate::server::problem::{Kind, Problem};

/// How a reply ends: known when it is over.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Finish {
    has_called: bool,
    pub(super) done: Option<Done>,
}

impl Finish {
    pub(super) fn hear(&mut self, event: &Event) {
        match event {
            Event::ToolCall(_) => self.has_called = true,
            Event::Done(done) => self.done = Some(*done),
            _ => {}
        }
    }

    /// OpenAI's word for it; a reply that the server broke off is none.
    pub(super) fn reason(&self) -> Result<&'static str, Problem> {
        match self.done.map(|done| done.reason) {
            Some(Reason::EndOfText | Reason::Stop) if self.has_called => Ok("tool_calls"),
            Some(Reason::EndOfText | Reason::Stop) => Ok("stop"),
            Some(Reason::Length | Reason::ContextFull) => Ok("length"),
            Some(Reason::Cancelled) | None => {
                Err(Problem::new(Kind::Cancelled, "the reply was broken off"))
            }
        }
    }
}

/// The arguments of a call as JSON.
pub(super) fn arguments(call: &ToolCall) -> String {
    serde_json::to_string(&call.arguments).unwrap_or_default()
}
