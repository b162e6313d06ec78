//! The parameters that a model carries: how its tokens are chosen and how it is loaded, with Ollama's names and types.

use serde_json::{Map, Number, Value};

/// Bytes of a model's parameters.
pub(super) const PARAMETERS_BYTES_MAX: u64 = 1 << 20;

/// What a parameter's value is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Integer,
    Float,
    Truth,
    /// Texts; each `PARAMETER` adds one.
    Texts,
}

/// The parameters that a Modelfile may set. The last ones mean nothing any more, but stand in files that people have.
const FORMS: &[(&str, Form)] = &[
    ("temperature", Form::Float),
    ("top_k", Form::Integer),
    ("top_p", Form::Float),
    ("min_p", Form::Float),
    ("typical_p", Form::Float),
    ("repeat_penalty", Form::Float),
    ("repeat_last_n", Form::Integer),
    ("presence_penalty", Form::Float),
    ("frequency_penalty", Form::Float),
    ("seed", Form::Integer),
    ("stop", Form::Texts),
    ("num_predict", Form::Integer),
    ("num_keep", Form::Integer),
    ("num_ctx", Form::Integer),
    ("num_batch", Form::Integer),
    ("num_gpu", Form::Integer),
    ("main_gpu", Form::Integer),
    ("num_thread", Form::Integer),
    ("use_mmap", Form::Truth),
    ("draft_num_predict", Form::Integer),
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
    ("num_gqa", Form::Integer),
    ("rope_frequency_base", Form::Float),
    ("rope_frequency_scale", Form::Float),
];

/// Parameters by name, in the order in which they were given.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Parameters(Map<String, Value>);

impl Parameters {
    /// Sets a parameter from its text in a Modelfile; a second `stop` joins the first.
    ///
    /// # Errors
    /// Says in words what is wrong with the name or the value.
    pub fn set(&mut self, name: &str, text: &str) -> Result<(), String> {
        let names = || FORMS.iter().map(|(name, _)| *name);
        let Some((name, form)) = FORMS.iter().find(|(known, _)| *known == name) else {
            let nearest = nfl_models::nearest(name, names())
                .map_or(String::new(), |nearest| format!("; there is {nearest}"));
            return Err(format!("there is no parameter {name}{nearest}"));
        };
        let bad = |wanted: &str| format!("{name} is {wanted}, not {text:?}");
        let value = match form {
            Form::Integer => Value::from(text.parse::<i64>().map_err(|_| bad("a whole number"))?),
            Form::Float => float(text).ok_or_else(|| bad("a number"))?,
            Form::Truth => Value::from(truth(text).ok_or_else(|| bad("true or false"))?),
            Form::Texts => {
                let texts = self.0.entry(*name).or_insert_with(|| Value::Array(Vec::new()));
                if let Value::Array(texts) = texts {
                    texts.push(text.into());
                }
                return Ok(());
            }
        };
        self.0.insert((*name).to_owned(), value);
        Ok(())
    }

    /// The parameters of a JSON object. Names and forms that are not known are kept, since others may know them.
    ///
    /// # Errors
    /// When the text is no JSON object.
    pub fn from_json(text: &str) -> Result<Self, serde_json::Error> {
        serde_json::from_str(text).map(Self)
    }

    /// As a JSON object.
    pub fn json(&self) -> String {
        Value::Object(self.0.clone()).to_string()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Names and values as a Modelfile has them, one a line: several for `stop`.
    pub fn lines(&self) -> impl Iterator<Item = (&str, String)> {
        self.0.iter().flat_map(|(name, value)| {
            let values = match value {
                Value::Array(values) => values.clone(),
                other => vec![other.clone()],
            };
            values.into_iter().map(move |value| match value {
                Value::String(text) => (name.as_str(), text),
                other => (name.as_str(), other.to_string()),
            })
        })
    }

    /// A number.
    pub fn float(&self, name: &str) -> Option<f32> {
        self.0.get(name)?.as_f64().map(|number| number as f32)
    }

    /// A whole number.
    pub fn integer(&self, name: &str) -> Option<i64> {
        self.0.get(name)?.as_i64()
    }

    /// Whether it holds or not.
    pub fn truth(&self, name: &str) -> Option<bool> {
        self.0.get(name)?.as_bool()
    }

    /// Whether there is one of that name.
    pub fn has(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    /// Names and values, in their order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value))
    }

    /// Texts; of a single one, that.
    pub fn texts(&self, name: &str) -> Vec<String> {
        match self.0.get(name) {
            Some(Value::Array(texts)) => {
                texts.iter().filter_map(|text| text.as_str().map(str::to_owned)).collect()
            }
            Some(Value::String(text)) => vec![text.clone()],
            _ => Vec::new(),
        }
    }

    /// These over those: what is set here holds.
    #[must_use]
    pub fn over(self, base: &Self) -> Self {
        let mut together = base.0.clone();
        together.extend(self.0);
        Self(together)
    }
}

fn float(text: &str) -> Option<Value> {
    Number::from_f64(text.parse::<f64>().ok()?).map(Value::Number)
}

/// As Go reads truth values, which Ollama's Modelfiles are written in.
fn truth(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}
