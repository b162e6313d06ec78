//! What `nfl run` says of a reply beside its text: the probabilities of its tokens, and all of it as JSON.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::failure::Failure;
use crate::chat::Responder;
use crate::engine::frames::{Done, Reason};
use crate::engine::llama::Logprobs;
use crate::term::{neutral, table};

/// The tokens of a reply, each with what the model thought of it.
#[derive(Debug, Default)]
pub(super) struct Thoughts(Vec<(i32, Logprobs)>);

/// The bytes of tokens by their numbers.
type Pieces = BTreeMap<i32, Vec<u8>>;

impl Thoughts {
    pub(super) fn push(&mut self, token: i32, logprobs: Logprobs) {
        self.0.push((token, logprobs));
    }

    /// The bytes of every token that is named.
    fn pieces(&self, responder: &mut Responder) -> Result<Pieces, Failure> {
        let mut pieces = Pieces::new();
        for (token, logprobs) in &self.0 {
            for token in logprobs.top.iter().map(|(token, _)| token).chain([token]) {
                if !pieces.contains_key(token) {
                    pieces.insert(*token, responder.engine().detokenize(&[*token], true)?);
                }
            }
        }
        Ok(pieces)
    }

    /// A line a token: its text, its probability, and those of the likeliest ones.
    pub(super) fn table(&self, responder: &mut Responder) -> Result<String, Failure> {
        let pieces = self.pieces(responder)?;
        let text = |token: &i32| neutral(&format!("{:?}", String::from_utf8_lossy(&pieces[token])));
        let share = |logprob: f32| format!("{:.2} %", 100.0 * f64::from(logprob).exp());
        let rows: Vec<Vec<String>> = self
            .0
            .iter()
            .map(|(token, logprobs)| {
                let mut row =
                    vec![text(token), format!("{:.4}", logprobs.logprob), share(logprobs.logprob)];
                let others = logprobs.top.iter();
                let others =
                    others.map(|(token, logprob)| format!("{} {}", text(token), share(*logprob)));
                row.push(others.collect::<Vec<_>>().join("  "));
                row
            })
            .collect();
        Ok(table::render(&rows, &[1, 2]))
    }

    fn document(&self, responder: &mut Responder) -> Result<Value, Failure> {
        let pieces = self.pieces(responder)?;
        let one = |token: i32, logprob: f32| {
            let bytes = &pieces[&token];
            // A token may be a part of a character: then its bytes tell more than its text.
            json!({"id": token, "token": String::from_utf8_lossy(bytes), "bytes": bytes, "logprob": logprob})
        };
        let all = self.0.iter().map(|(token, logprobs)| {
            let mut document = one(*token, logprobs.logprob);
            document["top"] =
                logprobs.top.iter().map(|(token, logprob)| one(*token, *logprob)).collect();
            document
        });
        Ok(all.collect())
    }
}

/// A reply as one JSON object; with the probabilities of its tokens when they were asked for.
pub(super) fn document(
    reply: &str,
    done: &Done,
    thoughts: Option<&Thoughts>,
    responder: &mut Responder,
) -> Result<Value, Failure> {
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
        document["logprobs"] = thoughts.document(responder)?;
    }
    Ok(document)
}
