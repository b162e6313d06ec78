//! The fields of a request: taken by name, so that an error says which one is wrong, and nothing that was asked for goes
//! unnoticed.

use std::sync::Arc;

use axum::extract::{FromRequest, Request};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::forms::Names;
use super::refusal::{Answer, Refusal};
use crate::server::Server;
use crate::server::body::Raw;
use crate::server::problem::{Kind, Problem};

/// Fields that change nothing of an answer here: whom it is for, how it is billed or stored, how fast it comes, and what
/// is about media of a model's own that no answer here has.
pub(super) const HARMLESS: &[&str] = &[
    "backend_sampling",
    "cache_prompt",
    "id_slot",
    "metadata",
    "n_cache_reuse",
    "n_discard",
    "n_keep",
    "prediction",
    "prompt_cache_key",
    "prompt_cache_options",
    "prompt_cache_retention",
    "safety_identifier",
    "service_tier",
    "store",
    "user",
    "verbosity",
];

/// Fields that clients know from elsewhere, with what is to be used instead.
const ELSEWHERE: &[(&str, &str)] = &[
    ("functions", "offer them as tools"),
    ("function_call", "use tool_choice"),
    ("guided_json", "use response_format"),
    ("guided_grammar", "use grammar"),
    ("repetition_penalty", "use repeat_penalty"),
    ("format", "use response_format"),
    ("truncation", "prompts are never cut"),
];

/// What is left of a request's JSON object.
#[derive(Debug)]
pub(super) struct Fields(Map<String, Value>);

impl FromRequest<Arc<Server>> for Fields {
    type Rejection = Refusal;

    async fn from_request(request: Request, server: &Arc<Server>) -> Answer<Self> {
        let limit = server.config.body_bytes_max;
        let raw = Raw::from_request(request, server).await.map_err(|_| {
            let text = format!("the request's body is longer than {limit} bytes");
            Refusal::from(Problem::new(Kind::TooLarge, text))
        })?;
        Self::parse(&raw)
    }
}

impl Fields {
    /// Refuses what the form of this request does not have, unless it asks for nothing.
    pub(super) fn keep_to(&self, form: &Names) -> Answer<()> {
        let mut others = self.0.iter().filter(|(name, _)| !form.contains(*name));
        match others.find(|(_, value)| !asks_for_nothing(value)) {
            Some((name, _)) => Err(unsupported(name)),
            None => Ok(()),
        }
    }

    /// The object in a body.
    fn parse(raw: &Raw) -> Answer<Self> {
        match raw.parse::<Value>()? {
            Value::Object(fields) => Ok(Self(fields)),
            _ => Err(Refusal::invalid(None, "the request's body must be a JSON object")),
        }
    }

    /// An object within a request.
    pub(super) fn of(object: Map<String, Value>) -> Self {
        Self(object)
    }

    /// A field's value; null is as good as nothing.
    pub(super) fn take<T: DeserializeOwned>(&mut self, name: &str) -> Answer<Option<T>> {
        match self.0.remove(name) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => serde_json::from_value(value)
                .map(Some)
                .map_err(|error| Refusal::invalid(Some(name), format!("{name}: {error}"))),
        }
    }

    /// A field's value, which stays.
    pub(super) fn get(&self, name: &str) -> Option<&Value> {
        self.0.get(name)
    }

    /// Gives a field a value when it has none.
    pub(super) fn default(&mut self, name: &str, value: Value) {
        if self.0.get(name).is_none_or(Value::is_null) {
            self.0.insert(name.to_owned(), value);
        }
    }

    /// Calls a field as another interface does.
    pub(super) fn rename(&mut self, name: &str, other: &str) {
        if let Some(value) = self.0.remove(name) {
            self.0.insert(other.to_owned(), value);
        }
    }

    /// A field that must be there.
    pub(super) fn need<T: DeserializeOwned>(&mut self, name: &str) -> Answer<T> {
        let missing =
            || Refusal::invalid(Some(name), format!("missing required parameter: {name}"));
        self.take(name)?.ok_or_else(missing)
    }

    /// The first field of several names that is there; the others are taken as well.
    pub(super) fn first<T: DeserializeOwned>(&mut self, names: &[&str]) -> Answer<Option<T>> {
        let mut found = None;
        for name in names {
            let value = self.take(name)?;
            found = found.or(value);
        }
        Ok(found)
    }

    /// A field that may only have one of these values.
    pub(super) fn only(&mut self, name: &str, allowed: &[Value]) -> Answer<()> {
        match self.take::<Value>(name)? {
            Some(value) if !asks_for_nothing(&value) && !allowed.contains(&value) => {
                Err(Refusal::invalid(Some(name), format!("{name}: {value} is not supported")))
            }
            _ => Ok(()),
        }
    }

    /// Refuses what is left, unless it asks for nothing.
    pub(super) fn finish(self) -> Answer<()> {
        for (name, value) in self.0 {
            if HARMLESS.contains(&name.as_str()) || asks_for_nothing(&value) {
                continue;
            }
            return Err(unsupported(&name));
        }
        Ok(())
    }
}

fn unsupported(name: &str) -> Refusal {
    let advice = ELSEWHERE.iter().find(|(known, _)| *known == name);
    let advice = advice.map_or(String::new(), |(_, advice)| format!(": {advice}"));
    let message = format!("unsupported parameter: {name}{advice}");
    Refusal::invalid(Some(name), message).code("unsupported_parameter")
}

/// Whether a value leaves out what its field is for.
fn asks_for_nothing(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(yes) => !yes,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty(),
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.is_empty(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn fields(value: &Value) -> Fields {
        Fields::parse(&Raw(value.to_string().into())).unwrap()
    }

    #[test]
    fn what_is_left_is_refused_unless_it_asks_for_nothing() {
        let mut some = fields(&json!({"n": 2, "user": "me", "audio": null, "lora": [], "x": 0}));
        assert_eq!(some.take::<u32>("n").unwrap(), Some(2));
        assert_eq!(some.take::<u32>("m").unwrap(), None);
        assert!(some.finish().is_ok());
        for (field, words) in [
            (json!({"audio": {"voice": "alloy"}}), "unsupported parameter: audio"),
            (json!({"functions": [1]}), "unsupported parameter: functions: offer them as tools"),
        ] {
            assert_eq!(fields(&field).finish().unwrap_err().problem.message, words);
        }
    }

    #[test]
    fn errors_name_the_field() {
        let error = fields(&json!({"n": "two"})).take::<u32>("n").unwrap_err();
        assert_eq!(error.param.as_deref(), Some("n"));
        assert!(error.problem.message.starts_with("n: invalid type: string"), "{error:?}");
        let error = fields(&json!({})).need::<u32>("model").unwrap_err();
        assert_eq!(error.problem.message, "missing required parameter: model");
    }
}
