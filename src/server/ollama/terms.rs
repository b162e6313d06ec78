//! What all requests to a model may say besides their text: how long it stays, thinking, form, probabilities.

use serde_json::Value;

use super::super::problem::Problem;
use super::model::Asked;
use super::options::Options;
use super::wire;
use crate::chat::pool::{Ask, KeepAlive};
use crate::chat::{Effort, Format, Think};
use crate::store::Capability;

/// The likeliest tokens that may be asked for.
const TOP_LOGPROBS_MAX: i64 = 20;

/// The terms of a request, checked.
#[derive(Debug, Clone)]
#[expect(clippy::struct_excessive_bools, reason = "independent switches of the protocol")]
pub(super) struct Terms {
    pub(super) stream: bool,
    pub(super) format: Format,
    pub(super) think: Wish,
    pub(super) options: Options,
    pub(super) keep_alive: Option<KeepAlive>,
    /// Leave out the oldest messages of a conversation that is too long, and say so.
    pub(super) truncate: bool,
    /// Forget the older half of a context that is full, and go on.
    pub(super) shift: bool,
    /// Tell of each token's probability, and of so many likeliest ones.
    pub(super) logprobs: Option<u32>,
    /// Say what the model would read, and do not ask it.
    pub(super) render_only: bool,
}

/// What is said about thinking.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wish {
    /// Nothing.
    Unsaid,
    /// This.
    Said(Think),
}

impl Terms {
    /// Checks what a client sent.
    pub(super) fn read(sent: wire::Terms) -> Result<Self, Problem> {
        let top = sent.top_logprobs.unwrap_or(0);
        if !(0..=TOP_LOGPROBS_MAX).contains(&top) {
            let words = format!("top_logprobs must be between 0 and {TOP_LOGPROBS_MAX}");
            return Err(Problem::invalid(words));
        }
        Ok(Self {
            stream: sent.stream.unwrap_or(true),
            format: format(sent.format)?,
            think: think(sent.think)?,
            options: Options::read(sent.options)?,
            keep_alive: keep_alive(sent.keep_alive)?,
            truncate: sent.truncate.unwrap_or(false),
            shift: sent.shift.unwrap_or(false),
            logprobs: sent.logprobs.unwrap_or(false).then_some(top as u32),
            render_only: sent.render_only.unwrap_or(false),
        })
    }

    /// The question to the pool for a model.
    pub(super) fn ask(&self, asked: &Asked) -> Result<Ask, Problem> {
        let mut ask = Ask { keep_alive: self.keep_alive, ..asked.ask() };
        self.options.load(&mut ask)?;
        Ok(ask)
    }

    /// What the model is told about thinking: to do so where it can and nobody says otherwise.
    pub(super) fn think(&self, asked: &Asked) -> Result<Think, Problem> {
        let can = asked.can(Capability::Thinking);
        match self.think {
            Wish::Unsaid if can => Ok(Think::On),
            Wish::Said(think) if can => Ok(think),
            Wish::Unsaid | Wish::Said(Think::Off) => Ok(Think::Default),
            Wish::Said(_) => Err(asked.cannot("thinking")),
        }
    }
}

/// How long a model stays: seconds as a number, or a duration as Go writes it.
pub(super) fn keep_alive(sent: Option<Value>) -> Result<Option<KeepAlive>, Problem> {
    match sent {
        None | Some(Value::Null) => Ok(None),
        Some(Value::Number(seconds)) => Ok(seconds.as_f64().map(KeepAlive::from_seconds)),
        Some(Value::String(text)) => {
            let read = KeepAlive::from_duration(&text);
            read.map(Some).map_err(|error| Problem::invalid(error.to_string()))
        }
        Some(other) => {
            let kind = match other {
                Value::Bool(_) => "bool",
                Value::Array(_) => "[]interface {}",
                _ => "map[string]interface {}",
            };
            Err(Problem::invalid(format!("Unsupported type: '{kind}'")))
        }
    }
}

fn think(sent: Option<Value>) -> Result<Wish, Problem> {
    let effort = match sent {
        None | Some(Value::Null) => return Ok(Wish::Unsaid),
        Some(Value::Bool(true)) => return Ok(Wish::Said(Think::On)),
        Some(Value::Bool(false)) => return Ok(Wish::Said(Think::Off)),
        Some(Value::String(text)) => match text.as_str() {
            "low" => Effort::Low,
            "medium" => Effort::Medium,
            // No model knows more.
            "high" | "max" => Effort::High,
            _ => {
                let known = "must be \"high\", \"medium\", \"low\", \"max\", true, or false";
                let words = format!("invalid think value: {text:?} ({known})");
                return Err(Problem::invalid(words));
            }
        },
        Some(_) => return Err(Problem::invalid("think must be a boolean or string")),
    };
    Ok(Wish::Said(Think::Effort(effort)))
}

fn format(sent: Option<Value>) -> Result<Format, Problem> {
    match sent {
        None | Some(Value::Null) => Ok(Format::Text),
        Some(Value::String(text)) if text.is_empty() => Ok(Format::Text),
        Some(Value::String(text)) if text == "json" => Ok(Format::Json),
        Some(schema @ Value::Object(_)) => Ok(Format::Schema(schema.to_string())),
        Some(other) => {
            let known = "expected \"json\" or a valid JSON Schema object";
            Err(Problem::invalid(format!("invalid format: {other}; {known}")))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::json;

    use super::*;

    fn refused(sent: &Value) -> String {
        let sent: wire::Terms = serde_json::from_value(sent.clone()).unwrap();
        Terms::read(sent).unwrap_err().message
    }

    #[test]
    fn refusals_are_ollamas() {
        for (sent, words) in [
            (json!({"top_logprobs": 21}), "top_logprobs must be between 0 and 20"),
            (json!({"top_logprobs": -1}), "top_logprobs must be between 0 and 20"),
            (json!({"keep_alive": "300"}), "time: invalid duration \"300\""),
            (json!({"keep_alive": "x"}), "time: invalid duration \"x\""),
            (json!({"keep_alive": true}), "Unsupported type: 'bool'"),
            (
                json!({"format": "yaml"}),
                "invalid format: \"yaml\"; expected \"json\" or a valid JSON Schema object",
            ),
            (
                json!({"think": "much"}),
                "invalid think value: \"much\" (must be \"high\", \"medium\", \"low\", \"max\", true, or false)",
            ),
        ] {
            assert_eq!(refused(&sent), words, "{sent}");
        }
    }

    #[test]
    fn terms_are_read() {
        let read = |sent: Value| Terms::read(serde_json::from_value(sent).unwrap()).unwrap();
        let terms = read(json!({}));
        assert!(terms.stream && !terms.truncate && !terms.shift && terms.logprobs.is_none());
        assert_eq!(
            (terms.format, terms.think, terms.keep_alive),
            (Format::Text, Wish::Unsaid, None)
        );
        let terms = read(json!({"stream": false, "format": {"type": "object"}, "think": "max",
            "keep_alive": 1.5, "truncate": true, "shift": true, "logprobs": true, "top_logprobs": 2}));
        assert!(!terms.stream && terms.truncate && terms.shift && terms.logprobs == Some(2));
        assert_eq!(terms.format, Format::Schema("{\"type\":\"object\"}".to_owned()));
        assert_eq!(terms.think, Wish::Said(Think::Effort(Effort::High)));
        assert_eq!(terms.keep_alive, Some(KeepAlive::For(Duration::from_millis(1500))));
        assert_eq!(read(json!({"keep_alive": "-1m"})).keep_alive, Some(KeepAlive::Forever));
        assert_eq!(read(json!({"format": "json", "think": false})).format, Format::Json);
    }
}
