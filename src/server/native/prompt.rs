//! Prompts of llama-server's dialect: texts, tokens and mixtures of both.

use serde_json::Value;

use crate::engine::runner::Runner;
use crate::server::problem::{Kind, Problem};

/// Prompts of one request.
pub(super) const PROMPTS_MAX: usize = 128;

/// A prompt as it was sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Prompt(Vec<Piece>);

/// A part of a prompt.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    Text(String),
    Token(i32),
}

impl Prompt {
    /// The prompt in a JSON value.
    pub(super) fn one(value: &Value) -> Result<Self, Problem> {
        let piece = |value: &Value| match value {
            Value::String(text) => Ok(Piece::Text(text.clone())),
            Value::Number(number) => {
                let token = number.as_i64().and_then(|token| i32::try_from(token).ok());
                let refused = || Problem::invalid(format!("prompt: {number} is no token"));
                token.map(Piece::Token).ok_or_else(refused)
            }
            _ => Err(Problem::invalid("prompt: neither a text nor a token")),
        };
        match value {
            Value::Array(values) => Ok(Self(values.iter().map(piece).collect::<Result<_, _>>()?)),
            Value::Object(object) => {
                if object.get("multimodal_data").is_some_and(|data| !data.is_null()) {
                    return Err(Problem::new(
                        Kind::Unsupported,
                        "multimodal_data: models do not see or hear here",
                    ));
                }
                let missing = || Problem::invalid("prompt: an object needs prompt_string");
                let text = object.get("prompt_string").and_then(Value::as_str);
                Ok(Self(vec![Piece::Text(text.ok_or_else(missing)?.to_owned())]))
            }
            other => Ok(Self(vec![piece(other)?])),
        }
    }

    /// The prompts in a JSON value, and whether they are several by their form.
    pub(super) fn all(value: &Value) -> Result<(Vec<Self>, bool), Problem> {
        let Value::Array(values) = value else { return Ok((vec![Self::one(value)?], false)) };
        if values.is_empty() {
            return Err(Problem::invalid("prompt: it is empty"));
        }
        // Numbers among texts make one prompt, texts alone are several.
        if values.iter().any(Value::is_number) && values.iter().all(|value| !value.is_array()) {
            return Ok((vec![Self::one(value)?], false));
        }
        if values.len() > PROMPTS_MAX {
            let count = values.len();
            return Err(Problem::invalid(format!("prompt: {count}, {PROMPTS_MAX} are the most")));
        }
        Ok((values.iter().map(Self::one).collect::<Result<_, _>>()?, true))
    }

    /// The tokens: names of special tokens are these tokens, and what the model wants in front of a text comes in front of
    /// the first one.
    pub(super) fn tokens(
        &self,
        runner: &dyn Runner,
        add_special: bool,
        parse_special: bool,
    ) -> Result<Vec<i32>, Problem> {
        let mut tokens = Vec::new();
        for (index, piece) in self.0.iter().enumerate() {
            match piece {
                Piece::Token(token) => tokens.push(*token),
                Piece::Text(text) => {
                    let is_first = index == 0;
                    tokens.extend(runner.tokenize(text, add_special && is_first, parse_special)?);
                }
            }
        }
        Ok(tokens)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::engine::fake::Fake;

    /// The tokens of every prompt; a byte is its token, and 256 begins a text.
    fn read(value: &Value) -> Result<Vec<Vec<i32>>, String> {
        let fake = Fake::new(&["<s>", "</s>"]).with_info(|info| info.adds_begin = true);
        let (prompts, _) = Prompt::all(value).map_err(|problem| problem.message)?;
        Ok(prompts.iter().map(|prompt| prompt.tokens(&fake, true, true).unwrap()).collect())
    }

    #[test]
    fn texts_and_tokens_may_be_mixed_and_several() {
        assert_eq!(read(&json!("ab")), Ok(vec![vec![256, 97, 98]]));
        assert_eq!(read(&json!([1, 2])), Ok(vec![vec![1, 2]]));
        assert_eq!(read(&json!([1, "a", "b"])), Ok(vec![vec![1, 97, 98]]));
        assert_eq!(read(&json!(["a", 1])), Ok(vec![vec![256, 97, 1]]));
        assert_eq!(read(&json!(["a", "b"])), Ok(vec![vec![256, 97], vec![256, 98]]));
        let several = json!([[1, "a"], {"prompt_string": "b"}, "</s>"]);
        assert_eq!(read(&several), Ok(vec![vec![1, 97], vec![256, 98], vec![256, 257]]));
    }

    #[test]
    fn what_is_no_prompt_is_refused() {
        assert_eq!(read(&json!([])), Err("prompt: it is empty".to_owned()));
        assert_eq!(read(&json!(null)), Err("prompt: neither a text nor a token".to_owned()));
        assert_eq!(read(&json!([1.5])), Err("prompt: 1.5 is no token".to_owned()));
        assert_eq!(read(&json!({})), Err("prompt: an object needs prompt_string".to_owned()));
        assert!(read(&json!(vec!["a"; PROMPTS_MAX + 1])).is_err());
    }
}
