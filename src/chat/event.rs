//! What happens while a reply is made, in the words of a front end.

use crate::engine::frames::Done;
use crate::engine::llama::Logprobs;

/// One step of a reply.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// The prompt is being read: the share that is done, 0 to 1.
    Reading(f32),
    /// A token was chosen, and what the model thought of it: only when that was asked. Its text comes as soon as it is
    /// whole characters.
    Token {
        /// Its number.
        id: i32,
        /// Its probability and those of the likeliest ones.
        logprobs: Box<Logprobs>,
    },
    /// Text of the reply: whole characters.
    Text(String),
    /// The reply is complete, with its account.
    Done(Done),
}
