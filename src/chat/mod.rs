//! A conversation in, a stream of events out: what every front end speaks, and nothing but this.

pub mod carried;
pub mod event;
pub mod form;
mod plan;
pub mod pool;
mod prompt;
pub mod request;
pub mod responder;
pub mod syntax;
pub mod template;
pub mod tools;

pub use event::{Event, TokenChance, TokenChances};
pub use form::{Effort, Format, Think, Turn};
pub use request::{Input, Message, Request, RequestError, Role};
pub use responder::{ChatError, Responder};
pub use template::{Capabilities, Descent};
pub use tools::{Choice, Tool, ToolCall, Tools};

#[cfg(test)]
mod grammar_tests;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod turn_tests;
