//! What `nfl run` says of a reply beside its text: the probabilities of its tokens, and all of it as JSON.

use serde_json::{Value, json};

use crate::chat::{TokenChance, TokenChances};
use crate::engine::frames::{Done, Reason};
use crate::term::{neutral, table};

/// The tokens of a reply, each with what the model thought of it.
#[derive(Debug, Default)]
pub(super) struct Thoughts(Vec<TokenChances>);

impl Thoughts {
    pub(super) fn push(&mut self, chances: TokenChances) {
        self.0.push(chances);
    }

    /// A line a token: its text, its probability, and those of the likeliest ones.
    pub(super) fn table(&self) -> String {
        let text =
            |one: &TokenChance| neutral(&format!("{:?}", String::from_utf8_lossy(&one.bytes)));
        let share = |one: &TokenChance| format!("{:.2} %", 100.0 * f64::from(one.logprob).exp());
        let rows: Vec<Vec<String>> = self
            .0
            .iter()
            .map(|TokenChances { chosen, top }| {
                let others = top.iter().map(|other| format!("{} {}", text(other), share(other)));
                let others = others.collect::<Vec<_>>().join("  ");
                vec![text(chosen), format!("{:.4}", chosen.logprob), share(chosen), others]
            })
            .collect();
        table::render(&rows, &[1, 2])
    }

    fn document(&self) -> Value {
        let one = |TokenChance { id, bytes, logprob }: &TokenChance| {
            // A token may be a part of a character: then its bytes tell more than its text.
            json!({"id": id, "token": String::from_utf8_lossy(bytes), "bytes": bytes, "logprob": logprob})
        };
        let all = self.0.iter().map(|chances| {
            let mut document = one(&chances.chosen);
            document["top"] = chances.top.iter().map(one).collect();
            document
        });
        all.collect()
    }
}

/// A reply as one JSON object; with the probabilities of its tokens when they were asked for.
pub(super) fn document(reply: &str, done: &Done, thoughts: Option<&Thoughts>) -> Value {
    let mut document = json!({
        "text": reply,
        "reason": match done.reason {
            Reason::EndOfText => "end",
            Reason::Stop => "stop",
            Reason::Length => "length",
            Reason::Cancelled => "cancelled",
            Reason::ContextFull => "context_full",
        },
        "prompt_tokens": done.prompt_tokens,
        "cached_tokens": done.cached_tokens,
        "generated_tokens": done.generated_tokens,
        "drafted_tokens": done.drafted_tokens,
        "accepted_tokens": done.accepted_tokens,
        "prompt_ms": done.prompt_ms,
        "first_token_ms": done.first_token_ms,
        "decode_ms": done.decode_ms,
        "seed": done.seed,
    });
    if let Some(thoughts) = thoughts {
        document["logprobs"] = thoughts.document();
    }
    document
}
