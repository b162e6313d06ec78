//! How likely tokens were, in the two forms that OpenAI has for it.

use serde_json::Map;

use super::wire::{CompletionLogprobs, Logprob, Logprobs, TopLogprob};
use crate::chat::{TokenChance, TokenChances};

/// What stands for a token that the model rules out: JSON has no minus infinity.
const LEAST: f32 = -9999.0;

fn finite(logprob: f32) -> f32 {
    logprob.max(LEAST)
}

/// A token of a chat.
pub(super) fn of_chat(chances: TokenChances) -> Logprob {
    let TokenChances { chosen, top } = chances;
    let top = top.into_iter().map(|chance| TopLogprob {
        id: chance.id,
        token: String::from_utf8_lossy(&chance.bytes).into_owned(),
        logprob: finite(chance.logprob),
        bytes: chance.bytes,
    });
    Logprob {
        id: chosen.id,
        token: String::from_utf8_lossy(&chosen.bytes).into_owned(),
        logprob: finite(chosen.logprob),
        top_logprobs: top.collect(),
        bytes: chosen.bytes,
    }
}

/// The tokens of a chat's content: they come before their text, and those whose text was none of it are left out.
#[derive(Debug, Default)]
pub(super) struct ChatLogprobs {
    pending: Vec<Logprob>,
}

impl ChatLogprobs {
    pub(super) fn token(&mut self, chances: TokenChances) {
        self.pending.push(of_chat(chances));
    }

    /// Those of the text that has come now.
    pub(super) fn take(&mut self) -> Vec<Logprob> {
        std::mem::take(&mut self.pending)
    }

    /// What has come is no content.
    pub(super) fn forget(&mut self) {
        self.pending.clear();
    }
}

/// Tokens as a chat tells of them.
pub(super) fn wrapped(content: Vec<Logprob>) -> Logprobs {
    Logprobs { content, refusal: None }
}

/// Gathers the tokens of a completion, whose places are counted in characters of the text.
#[derive(Debug, Default)]
pub(super) struct TextLogprobs {
    /// Characters before the next token.
    offset: usize,
    pending: CompletionLogprobs,
    /// How many of them have had their text.
    with_text: usize,
}

impl TextLogprobs {
    /// Takes a token with what the model thought of it; None when nothing stood before it.
    pub(super) fn token(&mut self, token: &TokenChance, top: Option<&[TokenChance]>) {
        let pending = &mut self.pending;
        pending.tokens.push(text_of(token));
        let own = f64::from(finite(token.logprob));
        pending.token_logprobs.push(top.is_some().then_some(own));
        pending.top_logprobs.push(top.map(|top| {
            let mut found = Map::new();
            for chance in top.iter().chain([token]) {
                // The likelier of two tokens with one text comes first, and stays.
                let logprob = f64::from(finite(chance.logprob));
                found.entry(text_of(chance)).or_insert_with(|| logprob.into());
            }
            found
        }));
        pending.text_offset.push(self.offset);
        // A byte within a character begins none.
        self.offset += token.bytes.iter().filter(|byte| **byte & 0xC0 != 0x80).count();
    }

    /// The text of all tokens so far has come.
    pub(super) fn has_text(&mut self) {
        self.with_text = self.pending.tokens.len();
    }

    /// Forgets the tokens whose text did not come.
    pub(super) fn forget_textless(&mut self) {
        let CompletionLogprobs { tokens, token_logprobs, top_logprobs, text_offset } =
            &mut self.pending;
        tokens.truncate(self.with_text);
        token_logprobs.truncate(self.with_text);
        top_logprobs.truncate(self.with_text);
        text_offset.truncate(self.with_text);
    }

    /// What has come since the last time.
    pub(super) fn take(&mut self) -> CompletionLogprobs {
        self.with_text = 0;
        std::mem::take(&mut self.pending)
    }
}

/// The text of a token; bytes that are no text are written out, so that no two tokens get the same key.
fn text_of(token: &TokenChance) -> String {
    str::from_utf8(&token.bytes).map_or_else(
        |_| {
            let bytes = token.bytes.iter().map(|byte| format!("\\x{byte:02x}"));
            format!("bytes:{}", bytes.collect::<String>())
        },
        str::to_owned,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chance(id: i32, bytes: &[u8], logprob: f32) -> TokenChance {
        TokenChance { id, bytes: bytes.to_vec(), logprob }
    }

    #[test]
    fn places_count_characters_and_keys_differ() {
        let mut found = TextLogprobs::default();
        found.token(&chance(1, b"", 0.0), None);
        found.token(&chance(2, "é!".as_bytes(), -1.0), Some(&[chance(3, b"e", f32::NEG_INFINITY)]));
        found.token(&chance(4, b"\xc3", -2.0), Some(&[]));
        found.token(&chance(5, b"\xa9", -3.0), Some(&[]));
        found.token(&chance(6, b"z", -4.0), Some(&[]));
        let found = found.take();
        assert_eq!(found.tokens, ["", "é!", "bytes:\\xc3", "bytes:\\xa9", "z"]);
        assert_eq!(found.text_offset, [0, 0, 2, 3, 3]);
        assert_eq!(found.token_logprobs[..2], [None, Some(-1.0)]);
        let top = found.top_logprobs[1].as_ref().unwrap();
        assert_eq!((top["é!"].as_f64(), top["e"].as_f64()), (Some(-1.0), Some(-9999.0)));
    }

    #[test]
    fn clients_find_the_likeliest_token_by_comparing_numbers() {
        let (likely, unlikely) = (chance(2, b"a", -0.428_441_6), chance(3, b"a", -9.0));
        for (token, is_likeliest) in [(&likely, true), (&unlikely, false)] {
            let mut found = TextLogprobs::default();
            found.token(token, Some(std::slice::from_ref(&likely)));
            let written = serde_json::to_value(found.take()).unwrap();
            let same = written["token_logprobs"][0] == written["top_logprobs"][0]["a"];
            assert_eq!(same, is_likeliest, "{written}");
        }
    }
}
