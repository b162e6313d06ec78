//! What happens while a reply is made, in the words of a front end.

use crate::engine::frames::Done;

/// One step of a reply.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// The prompt is being read: the share that is done, 0 to 1.
    Reading(f32),
    /// Text of the reply: whole characters.
    Text(String),
    /// The reply is complete, with its account.
    Done(Done),
}
