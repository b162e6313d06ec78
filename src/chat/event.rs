//! What happens while a reply is made, in the words of a front end.

use super::tools::ToolCall;
use crate::engine::frames::Done;

/// One step of a reply.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// The prompt is being read: the share that is done, 0 to 1.
    Reading(f32),
    /// The prompt is read: its tokens, and how many of them were known already.
    Read {
        /// Tokens of the prompt.
        tokens: u32,
        /// How many of them were not read again.
        cached_tokens: u32,
    },
    /// A token was chosen, and what the model thought of it: only when that was asked. Its text comes as soon as it is
    /// whole characters.
    Token(Box<TokenChances>),
    /// What the model thinks before it speaks: whole characters.
    Thinking(String),
    /// Text of the reply: whole characters.
    Text(String),
    /// The model calls a tool; the call is complete and its arguments are JSON.
    ToolCall(ToolCall),
    /// The reply is complete, with its account.
    Done(Done),
}

/// A token and how likely it was.
#[derive(Debug, Clone, PartialEq)]
pub struct TokenChances {
    /// The token that was chosen.
    pub chosen: TokenChance,
    /// The likeliest tokens, the likeliest first.
    pub top: Vec<TokenChance>,
}

/// A token of the vocabulary and the natural logarithm of its probability, before any sampler.
#[derive(Debug, Clone, PartialEq)]
pub struct TokenChance {
    /// Its number.
    pub id: i32,
    /// Its bytes, which may be a part of a character.
    pub bytes: Vec<u8>,
    /// The natural logarithm of its probability.
    pub logprob: f32,
}
