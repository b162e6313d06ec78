//! How long things took, as llama-server writes it.

use serde_json::{Value, json};

use crate::engine::frames::Done;

/// Tokens and their times.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Timings {
    /// Tokens of the prompt that were known already.
    pub(super) cached: u32,
    /// Tokens of the prompt that were read.
    pub(super) read: u32,
    pub(super) prompt_ms: f64,
    /// Tokens of the reply.
    pub(super) generated: u32,
    /// How many of them were computed after the first one.
    pub(super) decoded: u32,
    pub(super) decode_ms: f64,
}

impl Timings {
    pub(super) fn of(done: &Done) -> Self {
        Self {
            cached: done.cached_tokens,
            read: done.prompt_tokens.saturating_sub(done.cached_tokens),
            prompt_ms: done.prompt_ms,
            generated: done.generated_tokens,
            decoded: done.decoded_tokens,
            decode_ms: done.decode_ms,
        }
    }

    pub(super) fn value(&self) -> Value {
        let (prompt_each, prompt_rate) = rates(self.read, self.prompt_ms);
        let (decode_each, decode_rate) = rates(self.decoded, self.decode_ms);
        json!({
            "cache_n": self.cached,
            "prompt_n": self.read,
            "prompt_ms": self.prompt_ms,
            "prompt_per_token_ms": prompt_each,
            "prompt_per_second": prompt_rate,
            "predicted_n": self.generated,
            "predicted_ms": self.decode_ms,
            "predicted_per_token_ms": decode_each,
            "predicted_per_second": decode_rate,
        })
    }
}

/// The timings of a reply that is complete.
pub(super) fn of(done: &Done) -> Value {
    let mut value = Timings::of(done).value();
    if done.drafted_tokens > 0 {
        value["draft_n"] = done.drafted_tokens.into();
        value["draft_n_accepted"] = done.accepted_tokens.into();
    }
    value
}

/// Milliseconds a token, and tokens a second; 0 where nothing was measured.
fn rates(tokens: u32, ms: f64) -> (f64, f64) {
    if tokens == 0 || ms <= 0.0 {
        return (0.0, 0.0);
    }
    (ms / f64::from(tokens), f64::from(tokens) * 1e3 / ms)
}
