//! Tools on offer and the choice among them: OpenAI's chat wraps a function in an object, its Responses API does not.

use serde_json::{Map, Value, json};

use super::fields::Fields;
use super::messages::{invalid, object};
use super::refusal::Answer;
use crate::chat::{Choice, Tool, Tools};

/// Takes `tools`, `tool_choice` and `parallel_tool_calls`.
pub(super) fn read(fields: &mut Fields) -> Answer<Tools> {
    let offered = fields.take::<Vec<Value>>("tools")?.unwrap_or_default();
    let mut list = Vec::with_capacity(offered.len());
    for (index, value) in offered.iter().enumerate() {
        list.push(tool(value, &format!("tools[{index}]"))?);
    }
    let choice = fields.take::<Value>("tool_choice")?;
    let parallel = fields.take::<bool>("parallel_tool_calls")?.unwrap_or(true);
    let (choice, allowed) = choice.as_ref().map_or(Ok((Choice::Auto, None)), self::choice)?;
    if let Some(allowed) = allowed {
        if let Some(unknown) =
            allowed.iter().find(|name| !list.iter().any(|tool| tool.name == **name))
        {
            return Err(invalid("tool_choice.tools", &format!("{unknown} is not offered")));
        }
        list.retain(|tool| allowed.contains(&tool.name));
    }
    Ok(Tools { list, choice, one_call: !parallel })
}

fn tool(value: &Value, at: &str) -> Answer<Tool> {
    let tool = object(value, at)?;
    match tool.get("type").and_then(Value::as_str) {
        Some("function") => {}
        Some(other) => {
            let text = format!("{other:?} tools are not supported: only functions are");
            return Err(invalid(&format!("{at}.type"), &text).code("unsupported_tool"));
        }
        None => return Err(invalid(&format!("{at}.type"), "missing")),
    }
    let (function, at) = match tool.get("function") {
        Some(value) => (object(value, at)?, format!("{at}.function")),
        None => (tool, at.to_owned()),
    };
    let name = function.get("name").and_then(Value::as_str);
    let name = name.ok_or_else(|| invalid(&format!("{at}.name"), "missing"))?;
    let parameters = match function.get("parameters") {
        None | Some(Value::Null) => json!({"type": "object", "properties": {}}),
        Some(schema @ Value::Object(_)) => schema.clone(),
        Some(_) => {
            return Err(invalid(&format!("{at}.parameters"), "expected a JSON Schema object"));
        }
    };
    let description = function.get("description").and_then(Value::as_str).map(str::to_owned);
    Ok(Tool { name: name.to_owned(), description, parameters })
}

/// The choice, and the names of the tools that it leaves.
fn choice(value: &Value) -> Answer<(Choice, Option<Vec<String>>)> {
    let unknown = || invalid("tool_choice", &format!("{value} is not known"));
    if let Some(word) = value.as_str() {
        return Ok((mode(word).ok_or_else(unknown)?, None));
    }
    let object = value.as_object().ok_or_else(unknown)?;
    match object.get("type").and_then(Value::as_str) {
        Some("function") => {
            let name = function_name(object).ok_or_else(unknown)?;
            Ok((Choice::Named(name.to_owned()), None))
        }
        Some("allowed_tools") => {
            let allowed = object.get("allowed_tools").and_then(Value::as_object).unwrap_or(object);
            let word = allowed.get("mode").and_then(Value::as_str).unwrap_or("auto");
            let tools = allowed.get("tools").and_then(Value::as_array).ok_or_else(unknown)?;
            let name = |tool: &Value| Some(function_name(tool.as_object()?)?.to_owned());
            let names = tools.iter().map(name).collect::<Option<_>>().ok_or_else(unknown)?;
            Ok((mode(word).ok_or_else(unknown)?, Some(names)))
        }
        _ => Err(unknown()),
    }
}

fn mode(word: &str) -> Option<Choice> {
    match word {
        "auto" => Some(Choice::Auto),
        "none" => Some(Choice::None),
        "required" => Some(Choice::Required),
        _ => None,
    }
}

fn function_name(object: &Map<String, Value>) -> Option<&str> {
    let function = object.get("function").and_then(Value::as_object).unwrap_or(object);
    function.get("name")?.as_str()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tools(value: &Value) -> Answer<Tools> {
        read(&mut Fields::of(value.as_object().unwrap().clone()))
    }

    fn named(names: &[&str]) -> Vec<Value> {
        names.iter().map(|name| json!({"type": "function", "function": {"name": name}})).collect()
    }

    #[test]
    fn every_choice_is_known() {
        for (choice, expected) in [
            (json!(null), Choice::Auto),
            (json!("auto"), Choice::Auto),
            (json!("none"), Choice::None),
            (json!("required"), Choice::Required),
            (json!({"type": "function", "function": {"name": "b"}}), Choice::Named("b".into())),
            (json!({"type": "function", "name": "b"}), Choice::Named("b".into())),
        ] {
            let found =
                tools(&json!({"tools": named(&["a", "b"]), "tool_choice": choice})).unwrap();
            assert_eq!((found.choice, found.list.len(), found.one_call), (expected, 2, false));
        }
        let allowed = json!({"type": "allowed_tools", "allowed_tools": {"mode": "required", "tools": named(&["b"])}});
        let request = json!({"tools": named(&["a", "b"]), "tool_choice": allowed, "parallel_tool_calls": false});
        let found = tools(&request).unwrap();
        assert_eq!((found.choice, found.list[0].name.as_str()), (Choice::Required, "b"));
        assert!(found.one_call && found.list.len() == 1);
    }

    #[test]
    fn a_function_stands_in_an_object_or_alone() {
        let flat = json!({"tools": [{"type": "function", "name": "f", "description": "d",
            "parameters": {"type": "object"}, "strict": true}]});
        let found = tools(&flat).unwrap().list.remove(0);
        assert_eq!((found.name.as_str(), found.description.as_deref()), ("f", Some("d")));
        assert_eq!(found.parameters, json!({"type": "object"}));
    }

    #[test]
    fn what_cannot_be_offered_is_refused() {
        for (request, place) in [
            (json!({"tools": [{"type": "web_search"}]}), "tools[0].type"),
            (json!({"tools": [{"type": "function", "function": {}}]}), "tools[0].function.name"),
            (
                json!({"tools": [{"type": "function", "name": "f", "parameters": 1}]}),
                "tools[0].parameters",
            ),
            (json!({"tool_choice": "any"}), "tool_choice"),
            (json!({"tool_choice": {"type": "mcp"}}), "tool_choice"),
            (
                json!({"tool_choice": {"type": "allowed_tools", "mode": "auto", "tools": named(&["x"])}}),
                "tool_choice.tools",
            ),
        ] {
            assert_eq!(tools(&request).unwrap_err().param.as_deref(), Some(place));
        }
    }
}
