//! How likely tokens were, as llama-server writes it.

use serde_json::{Value, json};

use crate::chat::{TokenChance, TokenChances};

/// A token that was chosen, with the likeliest ones in its place.
pub(super) fn value(chances: &TokenChances) -> Value {
    let mut value = one(&chances.chosen);
    value["top_logprobs"] = chances.top.iter().map(one).collect();
    value
}

fn one(chance: &TokenChance) -> Value {
    json!({
        "id": chance.id,
        "token": whole(&chance.bytes),
        "bytes": chance.bytes,
        // JSON has no infinity.
        "logprob": chance.logprob.max(f32::MIN),
    })
}

/// The whole characters at the beginning of bytes.
fn whole(bytes: &[u8]) -> &str {
    match std::str::from_utf8(bytes) {
        Ok(text) => text,
        Err(error) => std::str::from_utf8(&bytes[..error.valid_up_to()]).unwrap_or_default(),
    }
}
