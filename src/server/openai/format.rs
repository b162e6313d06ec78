//! The form of a reply, and how much the model thinks before it.

use serde_json::{Map, Value};

use super::fields::Fields;
use super::messages::invalid;
use super::refusal::{Answer, Refusal};
use crate::chat::{Effort, Format, Think};

/// Takes `response_format` and llama-server's `json_schema` and `grammar`, of which there may be one.
pub(super) fn read(fields: &mut Fields) -> Answer<Format> {
    let asked = fields.take::<Map<String, Value>>("response_format")?;
    let asked = asked.map(|format| response_format(&format)).transpose()?;
    let schema = fields.take::<Value>("json_schema")?;
    let schema = schema.map(|schema| self::schema(Some(&schema), "json_schema")).transpose()?;
    let grammar = fields.take::<String>("grammar")?.filter(|grammar| !grammar.is_empty());
    let wishes =
        [asked.filter(|format| *format != Format::Text), schema, grammar.map(Format::Grammar)];
    let mut wishes = wishes.into_iter().flatten();
    let first = wishes.next().unwrap_or_default();
    if wishes.next().is_some() {
        let text = "a reply has one form: give response_format, json_schema or grammar";
        return Err(Refusal::invalid(Some("response_format"), text));
    }
    Ok(first)
}

/// A form by its type; the schema stands in `json_schema` (chat) or beside the type (Responses).
pub(super) fn response_format(format: &Map<String, Value>) -> Answer<Format> {
    let kind = format.get("type").and_then(Value::as_str);
    match kind {
        Some("text") => Ok(Format::Text),
        Some("json_object") => match format.get("schema") {
            None | Some(Value::Null) => Ok(Format::Json),
            schema => self::schema(schema, "response_format.schema"),
        },
        Some("json_schema") => {
            let wrapper = format.get("json_schema").and_then(Value::as_object).unwrap_or(format);
            schema(wrapper.get("schema"), "response_format.json_schema.schema")
        }
        _ => Err(invalid("response_format.type", "expected text, json_object or json_schema")),
    }
}

/// A schema; one that says nothing is any object.
fn schema(schema: Option<&Value>, at: &str) -> Answer<Format> {
    match schema {
        None | Some(Value::Null) => Ok(Format::Json),
        Some(Value::Object(map)) if map.is_empty() => Ok(Format::Json),
        Some(schema @ (Value::Object(_) | Value::Bool(true))) => {
            Ok(Format::Schema(schema.to_string()))
        }
        Some(_) => Err(invalid(at, "expected a JSON Schema object")),
    }
}

/// What is asked of thinking.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Thinking {
    pub(super) think: Think,
    /// Variables for the chat template.
    pub(super) variables: Map<String, Value>,
}

impl Thinking {
    /// Takes `reasoning_effort`, `reasoning`, `chat_template_kwargs` and llama-server's fields around thinking.
    pub(super) fn read(fields: &mut Fields) -> Answer<Self> {
        let variables =
            fields.take::<Map<String, Value>>("chat_template_kwargs")?.unwrap_or_default();
        let mut think = match variables.get("enable_thinking") {
            None | Some(Value::Null) => Think::Default,
            Some(Value::Bool(yes)) => switch(*yes),
            Some(_) => {
                return Err(invalid("chat_template_kwargs.enable_thinking", "expected a boolean"));
            }
        };
        if let Some(yes) = fields.take("enable_thinking")? {
            think = switch(yes);
        }
        let reasoning = fields.take::<Map<String, Value>>("reasoning")?.unwrap_or_default();
        let effort = fields.take::<String>("reasoning_effort")?;
        let within = reasoning.get("effort").and_then(Value::as_str).map(str::to_owned);
        if let Some(word) = effort.or(within) {
            think = self::effort(&word)?;
        }
        budget(fields, &mut think)?;
        fields.only("reasoning_format", &["auto".into(), "deepseek".into()])?;
        Ok(Self { think, variables })
    }
}

fn switch(on: bool) -> Think {
    if on { Think::On } else { Think::Off }
}

fn effort(word: &str) -> Answer<Think> {
    Ok(match word {
        "none" => Think::Off,
        "minimal" | "low" => Think::Effort(Effort::Low),
        "medium" => Think::Effort(Effort::Medium),
        "high" | "xhigh" | "max" => Think::Effort(Effort::High),
        other => {
            let text = format!("{other:?} is none of none, minimal, low, medium, high, xhigh");
            return Err(invalid("reasoning_effort", &text));
        }
    })
}

/// A budget of 0 is no thinking; others cannot be kept.
fn budget(fields: &mut Fields, think: &mut Think) -> Answer<()> {
    for name in ["reasoning_budget_tokens", "thinking_budget_tokens", "reasoning_budget"] {
        match fields.take::<i64>(name)? {
            None | Some(-1) => {}
            Some(0) => *think = Think::Off,
            Some(_) => {
                return Err(invalid(name, "only -1 (as the model likes) and 0 (none) are kept"));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn fields(value: &Value) -> Fields {
        Fields::of(value.as_object().unwrap().clone())
    }

    #[test]
    fn forms_are_read_wherever_they_stand() {
        let schema = || Format::Schema("{\"type\":\"integer\"}".to_owned());
        let integer = json!({"type": "integer"});
        for (request, expected) in [
            (json!({}), Format::Text),
            (
                json!({"response_format": {"type": "text"}, "grammar": "root ::= \"a\""}),
                Format::Grammar("root ::= \"a\"".to_owned()),
            ),
            (json!({"response_format": {"type": "json_object"}}), Format::Json),
            (json!({"response_format": {"type": "json_object", "schema": integer}}), schema()),
            (
                json!({"response_format": {"type": "json_schema", "json_schema": {"name": "n", "strict": true, "schema": integer}}}),
                schema(),
            ),
            (
                json!({"response_format": {"type": "json_schema", "name": "n", "schema": integer}}),
                schema(),
            ),
            (
                json!({"response_format": {"type": "json_schema", "json_schema": {"name": "n"}}}),
                Format::Json,
            ),
            (json!({"json_schema": integer}), schema()),
            (json!({"json_schema": {}}), Format::Json),
        ] {
            assert_eq!(read(&mut fields(&request)).unwrap(), expected);
        }
        for request in [
            json!({"response_format": {"type": "sound"}}),
            json!({"response_format": "json"}),
            json!({"response_format": {"type": "json_object", "schema": 123}}),
            json!({"json_schema": integer, "grammar": "root ::= \"a\""}),
        ] {
            assert!(read(&mut fields(&request)).is_err(), "{request}");
        }
    }

    #[test]
    fn thinking_is_asked_for_in_many_ways() {
        for (request, expected) in [
            (json!({}), Think::Default),
            (json!({"reasoning_effort": "none"}), Think::Off),
            (json!({"reasoning_effort": "xhigh"}), Think::Effort(Effort::High)),
            (json!({"reasoning": {"effort": "low"}}), Think::Effort(Effort::Low)),
            (json!({"chat_template_kwargs": {"enable_thinking": false}}), Think::Off),
            (json!({"enable_thinking": true}), Think::On),
            (json!({"reasoning_budget_tokens": 0}), Think::Off),
            (json!({"thinking_budget_tokens": -1, "reasoning_format": "auto"}), Think::Default),
        ] {
            assert_eq!(Thinking::read(&mut fields(&request)).unwrap().think, expected);
        }
        for request in [
            json!({"reasoning_effort": "some"}),
            json!({"chat_template_kwargs": {"enable_thinking": "no"}}),
            json!({"reasoning_budget_tokens": 100}),
            json!({"reasoning_format": "none"}),
        ] {
            assert!(Thinking::read(&mut fields(&request)).is_err(), "{request}");
        }
    }
}
