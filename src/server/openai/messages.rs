//! The turns of a conversation, as OpenAI's chat has them.

use serde_json::{Map, Value};

use super::refusal::{Answer, Refusal};
use crate::chat::{Message, Role, ToolCall};

/// What stands between the text parts of a turn, as with llama-server: a line's end, and a paragraph's in what the assistant
/// said.
fn between_parts(role: Role) -> &'static str {
    if role == Role::Assistant { "\n\n" } else { "\n" }
}

/// The turns of `messages`.
pub(super) fn conversation(messages: &Value) -> Answer<Vec<Message>> {
    let Some(list) = messages.as_array() else {
        return Err(Refusal::invalid(Some("messages"), "messages: expected an array"));
    };
    let mut turns: Vec<Message> = Vec::with_capacity(list.len());
    for (index, value) in list.iter().enumerate() {
        let at = format!("messages[{index}]");
        let mut turn = turn(value, &at)?;
        name_tool(&mut turn, &turns);
        turns.push(turn);
    }
    Ok(turns)
}

/// A tool's result refers to a call; templates want the tool's name, too.
pub(super) fn name_tool(turn: &mut Message, before: &[Message]) {
    if turn.tool_name.is_none()
        && let Some(id) = &turn.tool_call_id
    {
        let mut calls = before.iter().rev().flat_map(|message| &message.tool_calls);
        turn.tool_name = calls.find(|call| call.id == *id).map(|call| call.name.clone());
    }
}

fn turn(value: &Value, at: &str) -> Answer<Message> {
    let object = object(value, at)?;
    let role = match object.get("role").and_then(Value::as_str) {
        Some(name @ ("system" | "developer" | "user" | "assistant" | "tool")) => {
            Role::from_name(name)
        }
        _ => None,
    };
    let Some(role) = role else {
        let text = "expected system, developer, user, assistant or tool";
        return Err(invalid(&format!("{at}.role"), text));
    };
    let content = match object.get("content") {
        None | Some(Value::Null) => None,
        Some(value) => Some(content(value, &format!("{at}.content"), between_parts(role))?),
    };
    let tool_calls = match object.get("tool_calls") {
        None | Some(Value::Null) => Vec::new(),
        Some(value) if role == Role::Assistant => calls(value, &format!("{at}.tool_calls"))?,
        Some(_) => {
            return Err(invalid(&format!("{at}.tool_calls"), "only an assistant calls tools"));
        }
    };
    if object.get("function_call").is_some_and(|value| !value.is_null()) {
        return Err(invalid(&format!("{at}.function_call"), "give tool_calls instead"));
    }
    let said_nothing = content.is_none() && tool_calls.is_empty();
    let refused = object.get("refusal").and_then(Value::as_str);
    if said_nothing && (role != Role::Assistant || refused.is_none()) {
        return Err(invalid(&format!("{at}.content"), "missing"));
    }
    let text = |name: &str| object.get(name).and_then(Value::as_str).map(str::to_owned);
    Ok(Message {
        thinking: text("reasoning_content").or_else(|| text("reasoning")).unwrap_or_default(),
        tool_calls,
        tool_call_id: text("tool_call_id"),
        tool_name: text("name").filter(|_| role == Role::Tool),
        ..Message::new(role, content.or(refused.map(str::to_owned)).unwrap_or_default())
    })
}

/// A text, or text parts with something between them.
fn content(value: &Value, at: &str, between: &str) -> Answer<String> {
    match value {
        Value::String(text) => Ok(text.clone()),
        Value::Array(parts) => {
            let parts = parts.iter().enumerate();
            let texts: Vec<&str> = parts
                .map(|(index, part)| part_text(part, &format!("{at}[{index}]")))
                .collect::<Answer<_>>()?;
            Ok(texts.join(between))
        }
        _ => Err(invalid(at, "expected a string or an array of parts")),
    }
}

/// The text of a part of a turn, whatever OpenAI's interfaces call it.
pub(super) fn part_text<'part>(part: &'part Value, at: &str) -> Answer<&'part str> {
    let kind = part.get("type").and_then(Value::as_str).unwrap_or_default();
    let text = match kind {
        "text" | "input_text" | "output_text" => part.get("text"),
        "refusal" => part.get("refusal"),
        "image_url" | "input_image" => return Err(unseen(at, "image")),
        "input_audio" | "audio" => return Err(unseen(at, "audio")),
        "input_video" | "video_url" => return Err(unseen(at, "video")),
        "file" | "input_file" => return Err(unseen(at, "file")),
        other => return Err(invalid(&format!("{at}.type"), &format!("{other:?} is not known"))),
    };
    text.and_then(Value::as_str).ok_or_else(|| invalid(&format!("{at}.text"), "expected a string"))
}

fn unseen(at: &str, what: &str) -> Refusal {
    invalid(at, &format!("{what} input is not supported: models read text only here"))
        .code("unsupported_content")
}

fn calls(value: &Value, at: &str) -> Answer<Vec<ToolCall>> {
    let list = value.as_array().ok_or_else(|| invalid(at, "expected an array"))?;
    list.iter()
        .enumerate()
        .map(|(index, value)| {
            let at = format!("{at}[{index}]");
            let call = object(value, &at)?;
            let function = call.get("function").and_then(Value::as_object);
            let function = function.ok_or_else(|| invalid(&format!("{at}.function"), "missing"))?;
            let id = call.get("id").and_then(Value::as_str).unwrap_or_default();
            self::call(id, function, &format!("{at}.function"))
        })
        .collect()
}

/// A call of the function that `function` names; its arguments are JSON as text.
pub(super) fn call(id: &str, function: &Map<String, Value>, at: &str) -> Answer<ToolCall> {
    let name = function.get("name").and_then(Value::as_str);
    let name = name.ok_or_else(|| invalid(&format!("{at}.name"), "missing"))?;
    let bad = || invalid(&format!("{at}.arguments"), "expected the text of a JSON object");
    let arguments = match function.get("arguments") {
        None | Some(Value::Null) => Map::new(),
        Some(Value::Object(map)) => map.clone(),
        Some(Value::String(text)) if text.trim().is_empty() => Map::new(),
        Some(Value::String(text)) => serde_json::from_str(text).map_err(|_| bad())?,
        Some(_) => return Err(bad()),
    };
    Ok(ToolCall { id: id.to_owned(), name: name.to_owned(), arguments })
}

pub(super) fn object<'value>(value: &'value Value, at: &str) -> Answer<&'value Map<String, Value>> {
    value.as_object().ok_or_else(|| invalid(at, "expected an object"))
}

/// Something is wrong at a place in the request.
pub(super) fn invalid(at: &str, text: &str) -> Refusal {
    Refusal::invalid(Some(at), format!("{at}: {text}"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn turns_come_as_templates_want_them() {
        let call = json!({"id": "call_1", "type": "function",
            "function": {"name": "add", "arguments": "{\"b\": 1, \"a\": [2]}"}});
        let found = conversation(&json!([
            {"role": "developer", "content": "Be brief."},
            {"role": "user", "content": [{"type": "text", "text": "one"}, {"type": "text", "text": "two"}]},
            {"role": "assistant", "content": null, "tool_calls": [call], "reasoning_content": "hm"},
            {"role": "tool", "tool_call_id": "call_1", "content": "3"},
        ]))
        .unwrap();
        let arguments: Vec<&String> = found[2].tool_calls[0].arguments.keys().collect();
        assert_eq!(arguments, ["b", "a"]);
        assert_eq!((found[0].role, found[2].thinking.as_str()), (Role::System, "hm"));
        assert_eq!(found[1].content, "one\ntwo");
        assert_eq!(found[3].tool_name.as_deref(), Some("add"));
    }

    #[test]
    fn what_makes_no_sense_is_named_by_its_place() {
        for (messages, place) in [
            (json!("hi"), "messages"),
            (json!([7]), "messages[0]"),
            (json!([{}]), "messages[0].role"),
            (json!([{"role": "oracle", "content": ""}]), "messages[0].role"),
            (json!([{"role": "user"}]), "messages[0].content"),
            (json!([{"role": "assistant"}]), "messages[0].content"),
            (json!([{"role": "user", "content": 3}]), "messages[0].content"),
            (
                json!([{"role": "user", "content": [{"type": "text"}]}]),
                "messages[0].content[0].text",
            ),
            (json!([{"role": "user", "content": [{"type": "x"}]}]), "messages[0].content[0].type"),
            (
                json!([{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:"}}]}]),
                "messages[0].content[0]",
            ),
            (
                json!([{"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": "[1]"}}]}]),
                "messages[0].tool_calls[0].function.arguments",
            ),
            (json!([{"role": "user", "content": "", "tool_calls": []}]), "messages[0].tool_calls"),
        ] {
            assert_eq!(conversation(&messages).unwrap_err().param.as_deref(), Some(place));
        }
    }
}
