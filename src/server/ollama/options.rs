//! The `options` of a request: how tokens are chosen and how the model is loaded, with Ollama's names and types.

use serde_json::{Map, Value};

use super::super::problem::Problem;
use crate::chat::carried;
use crate::chat::pool::{Ask, Lease};
use crate::engine::options::{LoadMode, Sampling};
use crate::store::Parameters;

/// What an option's value is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Integer,
    Float,
    Truth,
    Texts,
}

/// The options there are. Those of the last lines mean nothing any more, but clients send them.
const FORMS: &[(&str, Form)] = &[
    ("num_ctx", Form::Integer),
    ("num_batch", Form::Integer),
    ("num_gpu", Form::Integer),
    ("main_gpu", Form::Integer),
    ("use_mmap", Form::Truth),
    ("num_thread", Form::Integer),
    ("draft_num_predict", Form::Integer),
    ("num_keep", Form::Integer),
    ("seed", Form::Integer),
    ("num_predict", Form::Integer),
    ("top_k", Form::Integer),
    ("top_p", Form::Float),
    ("min_p", Form::Float),
    ("typical_p", Form::Float),
    ("repeat_last_n", Form::Integer),
    ("temperature", Form::Float),
    ("repeat_penalty", Form::Float),
    ("presence_penalty", Form::Float),
    ("frequency_penalty", Form::Float),
    ("stop", Form::Texts),
    ("mirostat", Form::Integer),
    ("mirostat_tau", Form::Float),
    ("mirostat_eta", Form::Float),
    ("tfs_z", Form::Float),
    ("penalize_newline", Form::Truth),
    ("numa", Form::Truth),
    ("low_vram", Form::Truth),
    ("f16_kv", Form::Truth),
    ("logits_all", Form::Truth),
    ("vocab_only", Form::Truth),
    ("use_mlock", Form::Truth),
    ("embedding_only", Form::Truth),
];

/// Options that were checked: names and forms are right, and no null is left.
#[derive(Debug, Clone, Default)]
pub(super) struct Options(Parameters);

impl Options {
    /// Checks what a client sent. Names that are not known are left out, as Ollama does: clients send many.
    pub(super) fn read(sent: Option<Map<String, Value>>) -> Result<Self, Problem> {
        let mut kept = Map::new();
        for (name, value) in sent.unwrap_or_default() {
            let form = FORMS.iter().find(|(known, _)| *known == name).map(|(_, form)| *form);
            let Some(form) = form.filter(|_| !value.is_null()) else { continue };
            let value = checked(&name, form, value)?;
            kept.insert(name, value);
        }
        let text = Value::Object(kept).to_string();
        let parameters = Parameters::from_json(&text)
            .map_err(|error| Problem::invalid(format!("options: {error}")))?;
        Ok(Self(parameters))
    }

    /// Writes what concerns loading into a question to the pool.
    pub(super) fn load(&self, ask: &mut Ask) -> Result<(), Problem> {
        let number = |name: &str| self.number(name);
        ask.wishes.context_tokens = number("num_ctx")?;
        ask.wishes.micro_batch_tokens = number("num_batch")?;
        ask.threads = number("num_thread")?;
        // Below zero is the planner's choice, and zero is none on GPUs.
        if let Some(layers) = self.0.integer("num_gpu").filter(|layers| *layers >= 0) {
            ask.wishes.gpu_layers = Some(u32::try_from(layers).unwrap_or(u32::MAX));
        }
        let mapped = self.0.truth("use_mmap");
        ask.wishes.load_mode =
            mapped.map(|mapped| if mapped { LoadMode::Map } else { LoadMode::Read });
        if self.0.truth("use_mlock") == Some(true) {
            ask.wishes.lock_memory = true;
        }
        Ok(())
    }

    /// How tokens are chosen: as the request says, else as the model's maker says, else by our defaults.
    pub(super) fn sampling(&self, lease: &Lease) -> Result<Sampling, Problem> {
        let sampling = carried::sampling(&self.0, &lease.sampling());
        Ok(Sampling {
            penalty_tokens: match self.0.integer("repeat_last_n") {
                // The whole context.
                Some(-1) => None,
                _ => sampling.penalty_tokens,
            },
            seed: match self.0.integer("seed") {
                Some(seed) if seed < 0 => None,
                Some(seed) => Some(u32::try_from(seed).map_err(|_| {
                    Problem::invalid(format!("option \"seed\": {seed} is above {}", u32::MAX))
                })?),
                None => sampling.seed,
            },
            ..sampling
        })
    }

    /// The texts before which a reply ends.
    pub(super) fn stop(&self, lease: &Lease) -> Vec<String> {
        if self.0.has("stop") { carried::stop(&self.0) } else { lease.stop() }
    }

    /// The most tokens of a reply; below zero there is no limit.
    pub(super) fn tokens_max(&self, lease: &Lease) -> Option<u32> {
        if self.0.has("num_predict") { carried::tokens_max(&self.0) } else { lease.tokens_max() }
    }

    /// A number that is a choice when it is above zero.
    fn number(&self, name: &str) -> Result<Option<u32>, Problem> {
        let number = self.0.integer(name).filter(|number| *number > 0);
        let refused = |_| Problem::invalid(format!("option \"{name}\" is too large"));
        number.map(u32::try_from).transpose().map_err(refused)
    }
}

/// A value in the form of its option. JavaScript writes whole numbers as it likes.
fn checked(name: &str, form: Form, value: Value) -> Result<Value, Problem> {
    let refuse =
        |wanted: &str| Err(Problem::invalid(format!("option \"{name}\" must be {wanted}")));
    match form {
        Form::Integer => match value.as_i64().or(value.as_f64().map(|number| number as i64)) {
            Some(number) => Ok(number.into()),
            None => refuse("of type integer"),
        },
        Form::Float if !value.is_number() => refuse("of type float32"),
        Form::Truth if !value.is_boolean() => refuse("of type boolean"),
        Form::Texts => match &value {
            Value::Array(texts) if texts.iter().all(Value::is_string) => Ok(value),
            Value::Array(_) => refuse("of an array of strings"),
            _ => refuse("of type array"),
        },
        Form::Float | Form::Truth => Ok(value),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(value: &Value) -> Result<Options, Problem> {
        Options::read(value.as_object().cloned())
    }

    #[test]
    fn forms_are_checked_in_ollamas_words() {
        for (options, words) in [
            (json!({"num_ctx": "x"}), "option \"num_ctx\" must be of type integer"),
            (json!({"temperature": "x"}), "option \"temperature\" must be of type float32"),
            (json!({"use_mmap": 1}), "option \"use_mmap\" must be of type boolean"),
            (json!({"stop": "x"}), "option \"stop\" must be of type array"),
            (json!({"stop": [1]}), "option \"stop\" must be of an array of strings"),
        ] {
            assert_eq!(read(&options).unwrap_err().message, words);
        }
        let fine = json!({"unknown": {}, "seed": null, "num_ctx": 128.0, "rope_freq": 1, "tfs_z": 1,
            "penalize_newline": true, "num_gqa": 8});
        let mut ask = Ask::new("x");
        read(&fine).unwrap().load(&mut ask).unwrap();
        assert_eq!(ask.wishes.context_tokens, Some(128));
    }

    #[test]
    fn what_concerns_loading_reaches_the_pool() {
        let options = json!({"num_gpu": 0, "num_thread": 3, "num_batch": 64, "use_mmap": false,
            "num_ctx": 0, "use_mlock": true});
        let mut ask = Ask::new("x");
        read(&options).unwrap().load(&mut ask).unwrap();
        let wishes = &ask.wishes;
        assert_eq!(
            (wishes.gpu_layers, ask.threads, wishes.context_tokens),
            (Some(0), Some(3), None)
        );
        assert_eq!((wishes.micro_batch_tokens, wishes.load_mode), (Some(64), Some(LoadMode::Read)));
        assert!(wishes.lock_memory);
        read(&json!({"num_gpu": -1})).unwrap().load(&mut ask).unwrap();
        assert!(read(&json!({"num_ctx": 1_i64 << 40})).unwrap().load(&mut ask).is_err());
    }
}
