//! Items: what a conversation is made of in the Responses API.

use serde_json::{Map, Value, json};

use crate::chat::{Message, Role};
use crate::server::openai::ids;
use crate::server::openai::messages::{call, invalid, name_tool, object, part_text};
use crate::server::openai::refusal::Answer;

/// The items of `input`, each with a name and a type; a string is what a user says.
pub(super) fn read(input: &Value) -> Answer<Vec<Value>> {
    match input {
        Value::String(text) => {
            let content = [json!({"type": "input_text", "text": text})];
            let item = json!({"type": "message", "role": "user", "content": content});
            Ok(vec![named(item.as_object().cloned().unwrap_or_default())])
        }
        Value::Array(list) => {
            let items = list.iter().enumerate();
            let item =
                |(index, value)| Ok(named(object(value, &format!("input[{index}]"))?.clone()));
            items.map(item).collect()
        }
        _ => Err(invalid("input", "expected a string or an array of items")),
    }
}

fn named(mut item: Map<String, Value>) -> Value {
    let kind = item.get("type").and_then(Value::as_str).unwrap_or("message").to_owned();
    if !item.get("id").is_some_and(Value::is_string) {
        let prefix = match kind.as_str() {
            "function_call" => "fc_",
            "function_call_output" => "fco_",
            "reasoning" => "rs_",
            _ => "msg_",
        };
        item.insert("id".to_owned(), ids::fresh(prefix).into());
    }
    item.insert("type".to_owned(), kind.into());
    Value::Object(item)
}

/// Adds the turns that items stand for. What a model thought, said and called in one go is one turn.
pub(super) fn conversation<'item>(
    items: impl Iterator<Item = &'item Value>,
    turns: &mut Vec<Message>,
) -> Answer<()> {
    for (index, item) in items.enumerate() {
        let at = format!("input[{index}]");
        let item = object(item, &at)?;
        let text = |name: &str| item.get(name).and_then(Value::as_str);
        match text("type").unwrap_or_default() {
            "message" => message(item, &at, turns)?,
            "reasoning" => {
                let thinking =
                    item.get("content").map_or(Ok(String::new()), |value| thoughts(value, &at))?;
                turns.push(Message { thinking, ..Message::new(Role::Assistant, "") });
            }
            "function_call" => {
                let call = call(text("call_id").unwrap_or_default(), item, &at)?;
                match turns.last_mut() {
                    Some(last) if last.role == Role::Assistant => last.tool_calls.push(call),
                    _ => turns.push(Message {
                        tool_calls: vec![call],
                        ..Message::new(Role::Assistant, "")
                    }),
                }
            }
            "function_call_output" => {
                let output = item
                    .get("output")
                    .ok_or_else(|| invalid(&format!("{at}.output"), "missing"))?;
                let id =
                    text("call_id").ok_or_else(|| invalid(&format!("{at}.call_id"), "missing"))?;
                let content = content(output, &format!("{at}.output"))?;
                let mut turn = Message::new(Role::Tool, content);
                turn.tool_call_id = Some(id.to_owned());
                name_tool(&mut turn, turns);
                turns.push(turn);
            }
            other => {
                return Err(invalid(&format!("{at}.type"), &format!("{other:?} is not supported")));
            }
        }
    }
    Ok(())
}

fn message(item: &Map<String, Value>, at: &str, turns: &mut Vec<Message>) -> Answer<()> {
    let role = match item.get("role").and_then(Value::as_str) {
        Some(name @ ("system" | "developer" | "user" | "assistant")) => Role::from_name(name),
        _ => None,
    };
    let expected = "expected system, developer, user or assistant";
    let role = role.ok_or_else(|| invalid(&format!("{at}.role"), expected))?;
    let said = item.get("content").ok_or_else(|| invalid(&format!("{at}.content"), "missing"))?;
    let said = content(said, &format!("{at}.content"))?;
    match turns.last_mut() {
        Some(last) if role == Role::Assistant && is_thought_alone(last) => last.content = said,
        _ => turns.push(Message::new(role, said)),
    }
    Ok(())
}

fn is_thought_alone(turn: &Message) -> bool {
    turn.role == Role::Assistant
        && !turn.thinking.is_empty()
        && turn.content.is_empty()
        && turn.tool_calls.is_empty()
}

fn content(value: &Value, at: &str) -> Answer<String> {
    match value {
        Value::String(text) => Ok(text.clone()),
        Value::Array(parts) => {
            let parts = parts.iter().enumerate();
            let texts: Vec<&str> = parts
                .map(|(index, part)| part_text(part, &format!("{at}[{index}]")))
                .collect::<Answer<_>>()?;
            Ok(texts.join("\n\n"))
        }
        _ => Err(invalid(at, "expected a string or an array of parts")),
    }
}

fn thoughts(value: &Value, at: &str) -> Answer<String> {
    let parts = value.as_array().map(Vec::as_slice).unwrap_or_default();
    let text = |part: &Value| part.get("text").and_then(Value::as_str).map(str::to_owned);
    let texts: Option<Vec<String>> = parts.iter().map(text).collect();
    texts
        .map(|texts| texts.concat())
        .ok_or_else(|| invalid(&format!("{at}.content"), "expected texts"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn turns(input: &Value) -> Answer<Vec<Message>> {
        let mut turns = Vec::new();
        conversation(read(input)?.iter(), &mut turns)?;
        Ok(turns)
    }

    #[test]
    fn what_a_model_did_in_one_go_is_one_turn() {
        let found = turns(&json!([
            {"role": "user", "content": "Add."},
            {"type": "reasoning", "summary": [], "content": [{"type": "reasoning_text", "text": "hm"}]},
            {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "Wait."}]},
            {"type": "function_call", "call_id": "c1", "name": "add", "arguments": "{\"a\": 1}"},
            {"type": "function_call", "call_id": "c2", "name": "add", "arguments": "{\"a\": 2}"},
            {"type": "function_call_output", "call_id": "c2", "output": "3"},
            {"role": "assistant", "content": "Three."},
        ]))
        .unwrap();
        let roles: Vec<Role> = found.iter().map(|turn| turn.role).collect();
        assert_eq!(roles, [Role::User, Role::Assistant, Role::Tool, Role::Assistant]);
        assert_eq!((found[1].thinking.as_str(), found[1].content.as_str()), ("hm", "Wait."));
        assert_eq!(found[1].tool_calls.len(), 2);
        assert_eq!(found[2].tool_name.as_deref(), Some("add"));
    }

    #[test]
    fn every_item_gets_a_name_and_a_type() {
        let items = read(&json!("Hi")).unwrap();
        assert_eq!(items[0]["content"][0]["text"], "Hi");
        assert!(items[0]["id"].as_str().unwrap().starts_with("msg_"));
        let own = read(&json!([{"id": "mine", "role": "user", "content": ""}])).unwrap();
        assert_eq!((&own[0]["id"], &own[0]["type"]), (&json!("mine"), &json!("message")));
    }

    #[test]
    fn what_makes_no_sense_is_named_by_its_place() {
        for (input, place) in [
            (json!(7), "input"),
            (json!([7]), "input[0]"),
            (json!([{"role": "tool", "content": ""}]), "input[0].role"),
            (json!([{"role": "user"}]), "input[0].content"),
            (json!([{"type": "web_search_call"}]), "input[0].type"),
            (
                json!([{"type": "function_call", "name": "f", "arguments": "["}]),
                "input[0].arguments",
            ),
            (json!([{"type": "function_call_output", "output": ""}]), "input[0].call_id"),
            (
                json!([{"role": "user", "content": [{"type": "input_image"}]}]),
                "input[0].content[0]",
            ),
        ] {
            assert_eq!(turns(&input).unwrap_err().param.as_deref(), Some(place), "{input}");
        }
    }
}
