//! The table of tokens that becomes `tokenizer.ggml.tokens`, `scores` and `token_type`.

use std::collections::HashMap;
use std::path::Path;

use nfl_models::gguf::{Metadata, Text};

use super::error::VocabularyError;
use super::limits::TOKEN_BYTES_MAX;

/// The type of a token, with llama.cpp's numbers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum TokenType {
    Normal = 1,
    Unknown = 2,
    Control = 3,
    UserDefined = 4,
    Unused = 5,
    Byte = 6,
}

/// Texts, types and (for SentencePiece vocabularies) scores by id.
#[derive(Clone, Debug)]
pub(super) struct TokenTable {
    texts: Vec<String>,
    types: Vec<TokenType>,
    scores: Option<Vec<f32>>,
}

/// The score of added tokens in a SentencePiece vocabulary.
pub(super) const ADDED_SCORE: f32 = -1000.0;

/// The score of ids that no token has.
const PADDING_SCORE: f32 = -10_000.0;

impl TokenTable {
    /// `size` ids without a token: `[PAD0]`, `[PAD1]`, …, unused.
    pub(super) fn padded(size: usize, scored: bool) -> Self {
        Self {
            texts: (0..size).map(|id| format!("[PAD{id}]")).collect(),
            types: vec![TokenType::Unused; size],
            scores: scored.then(|| vec![PADDING_SCORE; size]),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.texts.len()
    }

    /// Gives an id its token; the score counts only where there are scores.
    pub(super) fn set(&mut self, id: usize, text: String, token_type: TokenType, score: f32) {
        self.texts[id] = text;
        self.types[id] = token_type;
        self.set_score(id, score);
    }

    pub(super) fn set_score(&mut self, id: usize, score: f32) {
        if let Some(scores) = &mut self.scores {
            scores[id] = score;
        }
    }

    pub(super) fn text(&self, id: usize) -> &str {
        &self.texts[id]
    }

    pub(super) fn token_type(&self, id: usize) -> TokenType {
        self.types[id]
    }

    /// The id of a text.
    pub(super) fn find(&self, text: &str) -> Option<usize> {
        self.texts.iter().position(|candidate| candidate == text)
    }

    /// Refuses what llama.cpp would abort on or read otherwise: two ids with one text, texts with a NUL (it reads
    /// up to there), texts without end.
    pub(super) fn check(&self, path: &Path) -> Result<(), VocabularyError> {
        let mut ids = HashMap::with_capacity(self.len());
        for (id, text) in self.texts.iter().enumerate() {
            let problem = if text.contains('\0') {
                Some("contains a NUL, where llama.cpp would stop reading it".to_owned())
            } else if text.len() > TOKEN_BYTES_MAX {
                Some(format!("has {} bytes, the limit is {TOKEN_BYTES_MAX}", text.len()))
            } else {
                None
            };
            if let Some(problem) = problem {
                return Err(VocabularyError::Token { path: path.to_owned(), id, problem });
            }
            // llama.cpp itself names empty tokens after their id.
            if let Some(first) = ids.insert(text, id).filter(|_| !text.is_empty()) {
                return Err(VocabularyError::DuplicateToken {
                    path: path.to_owned(),
                    token: text.clone(),
                    first,
                    second: id,
                });
            }
        }
        Ok(())
    }

    /// Appends the table's entries.
    pub(super) fn write(self, metadata: &mut Metadata) {
        let texts: Vec<Text> = self.texts.into_iter().map(Text::from).collect();
        metadata.set("tokenizer.ggml.tokens", texts);
        if let Some(scores) = self.scores {
            metadata.set("tokenizer.ggml.scores", scores);
        }
        let types: Vec<i32> = self.types.into_iter().map(|token_type| token_type as i32).collect();
        metadata.set("tokenizer.ggml.token_type", types);
    }
}

/// Whether a token that is not marked special should be one all the same: some checkpoints forget to say so.
pub(super) fn looks_special(token: &str) -> bool {
    // Pad tokens of DeepSeek, mask and control tokens of Gemma.
    matches!(token, "<pad>" | "<mask>" | "<2mass>" | "[@BOS@]")
        || (token.starts_with("<|") && token.ends_with("|>"))
        || (token.starts_with("<｜") && token.ends_with("｜>"))
        || (token.starts_with("<unused") && token.ends_with('>'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_that_llama_cpp_cannot_hold_are_refused() {
        let path = Path::new("tokenizer.json");
        let mut table = TokenTable::padded(3, false);
        table.check(path).unwrap();
        table.set(2, "[PAD0]".to_owned(), TokenType::Normal, 0.0);
        let error = table.check(path).unwrap_err();
        assert!(matches!(error, VocabularyError::DuplicateToken { first: 0, second: 2, .. }));
        table.set(2, "a\0b".to_owned(), TokenType::Normal, 0.0);
        assert!(matches!(table.check(path).unwrap_err(), VocabularyError::Token { id: 2, .. }));
        table.set(2, "x".repeat(1 << 20), TokenType::Normal, 0.0);
        assert!(table.check(path).unwrap_err().to_string().contains("1048576 bytes"));
        table.set(1, String::new(), TokenType::Normal, 0.0);
        table.set(2, String::new(), TokenType::Normal, 0.0);
        table.check(path).unwrap();
    }

    #[test]
    fn forgotten_special_tokens_are_recognised() {
        for token in ["<|im_end|>", "<pad>", "<｜User｜>", "<unused7>"] {
            assert!(looks_special(token), "{token}");
        }
        for token in ["<s>", "<|", "hello", "<think>"] {
            assert!(!looks_special(token), "{token}");
        }
    }
}
