//! A conversation in, a stream of events out: what every front end speaks, and nothing but this.

pub mod event;
pub mod request;
pub mod responder;

pub use event::Event;
pub use request::{Input, Message, Request, RequestError, Role};
pub use responder::{ChatError, Responder};
