//! Prompts and texts to embed: a string, tokens, both mixed, or a list of these.

use serde_json::{Map, Value};

use super::messages;
use super::refusal::{Answer, Refusal};
use crate::chat::{Input, Responder};
use crate::engine::embedding::Passage;
use crate::server::problem::Problem;

/// Prompts of one request.
const PROMPTS_MAX: usize = 2048;

/// One prompt.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Prompt {
    Text(String),
    Tokens(Vec<i32>),
    /// Texts and tokens in turn.
    Mixed(Vec<Part>),
}

/// A part of a mixed prompt.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Part {
    Text(String),
    Token(i32),
}

/// The prompts in the field `at`. A list that holds a number is one prompt, any other list is one of prompts.
pub(super) fn read(value: &Value, at: &str) -> Answer<Vec<Prompt>> {
    let prompts: Vec<Prompt> = match value {
        Value::Array(list) if !list.iter().any(Value::is_number) => {
            list.iter().map(|each| one(each, at)).collect::<Answer<_>>()?
        }
        one => vec![self::one(one, at)?],
    };
    let refuse = |text: String| Err(Refusal::invalid(Some(at), format!("{at}: {text}")));
    match prompts.len() {
        0 => refuse("the list is empty".to_owned()),
        count if count > PROMPTS_MAX => {
            refuse(format!("{count} are too many, {PROMPTS_MAX} are the most"))
        }
        _ => Ok(prompts),
    }
}

fn one(value: &Value, at: &str) -> Answer<Prompt> {
    let text = "expected a string, an array of tokens, or an array of these";
    let refuse = || Refusal::invalid(Some(at), format!("{at}: {text}"));
    match value {
        Value::String(text) => Ok(Prompt::Text(text.clone())),
        Value::Array(list) => {
            let parts: Vec<Part> =
                list.iter().map(part).collect::<Option<_>>().ok_or_else(refuse)?;
            let token = |part: &Part| match part {
                Part::Token(token) => Some(*token),
                Part::Text(_) => None,
            };
            match parts.iter().map(token).collect::<Option<Vec<i32>>>() {
                Some(tokens) if tokens.is_empty() => Err(refuse()),
                Some(tokens) => Ok(Prompt::Tokens(tokens)),
                None => Ok(Prompt::Mixed(parts)),
            }
        }
        Value::Object(object) => wrapped(object, at)?.ok_or_else(refuse),
        _ => Err(refuse()),
    }
}

fn part(value: &Value) -> Option<Part> {
    match value {
        Value::String(text) => Some(Part::Text(text.clone())),
        number => Some(Part::Token(i32::try_from(number.as_i64()?).ok()?)),
    }
}

/// llama-server's objects around a prompt: `prompt_string`, or `content` with text parts.
fn wrapped(object: &Map<String, Value>, at: &str) -> Answer<Option<Prompt>> {
    if let Some(Value::Array(parts)) = object.get("content") {
        let parts = parts.iter().enumerate();
        let texts =
            parts.map(|(index, part)| messages::part_text(part, &format!("{at}.content[{index}]")));
        return Ok(Some(Prompt::Text(texts.collect::<Answer<String>>()?)));
    }
    if object.contains_key("multimodal_data") {
        return Err(messages::invalid(at, "models read text only here"));
    }
    let text = object.get("prompt_string").and_then(Value::as_str);
    Ok(text.map(|text| Prompt::Text(text.to_owned())))
}

impl Prompt {
    /// Its tokens, with those that the model wants around a text. Names of special tokens in a text stay text.
    pub(super) fn tokens(&self, model: &Responder) -> Result<Vec<i32>, Problem> {
        let runner = model.runner();
        match self {
            Self::Text(text) => Ok(runner.tokenize(text, true, false)?),
            Self::Tokens(tokens) => Ok(tokens.clone()),
            Self::Mixed(parts) => {
                let mut tokens = Vec::new();
                for (index, part) in parts.iter().enumerate() {
                    match part {
                        Part::Token(token) => tokens.push(*token),
                        Part::Text(text) => {
                            tokens.extend(runner.tokenize(text, index == 0, false)?);
                        }
                    }
                }
                Ok(tokens)
            }
        }
    }

    /// What a model is to continue.
    pub(super) fn input(&self, model: Option<&Responder>) -> Result<Input, Problem> {
        match (self, model) {
            (Self::Text(text), _) => Ok(Input::Text(text.clone())),
            (Self::Tokens(tokens), _) => Ok(Input::Tokens(tokens.clone())),
            (Self::Mixed(_), Some(model)) => Ok(Input::Tokens(self.tokens(model)?)),
            (Self::Mixed(_), None) => Ok(Input::Tokens(Vec::new())),
        }
    }

    /// What a model is to embed.
    pub(super) fn passage(&self, model: &Responder) -> Result<Passage, Problem> {
        match self {
            Self::Text(text) => Ok(Passage::Text(text.clone())),
            other => Ok(Passage::Tokens(other.tokens(model)?)),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn lists_are_prompts_or_one_prompt() {
        let text = |text: &str| Prompt::Text(text.to_owned());
        let tokens = |tokens: &[i32]| Prompt::Tokens(tokens.to_vec());
        let mixed = Prompt::Mixed(vec![Part::Token(1), Part::Text("a".to_owned())]);
        for (value, expected) in [
            (json!(""), vec![text("")]),
            (json!([1, 2]), vec![tokens(&[1, 2])]),
            (json!([1, "a"]), vec![mixed.clone()]),
            (json!(["a", "b"]), vec![text("a"), text("b")]),
            (json!(["a", [1]]), vec![text("a"), tokens(&[1])]),
            (json!([[1], [1, "a"]]), vec![tokens(&[1]), mixed]),
            (json!({"prompt_string": "a"}), vec![text("a")]),
            (
                json!([{"content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}]),
                vec![text("ab")],
            ),
        ] {
            assert_eq!(read(&value, "prompt").unwrap(), expected);
        }
        for value in [
            json!([]),
            json!(7),
            json!([[]]),
            json!([1.5]),
            json!([null]),
            json!({}),
            json!([1, [2]]),
            json!({"content": [{"type": "image_url"}]}),
            json!({"content": "a"}),
        ] {
            assert!(read(&value, "prompt").is_err(), "{value}");
        }
    }
}
