//! What an object of a file of examples means.

use serde_json::{Map, Value, json};

use super::{Answer, Example, Talk, Turns};

/// The forms of examples, as people call them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Form {
    /// A text.
    Text,
    /// A text and how it goes on.
    Completion,
    /// A conversation as OpenAI writes it.
    Messages,
    /// A conversation as ShareGPT writes it.
    ShareGpt,
    /// An instruction.
    Alpaca,
    /// A better and a worse answer.
    Preference,
}

impl Form {
    /// What people call it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Completion => "prompt/completion",
            Self::Messages => "messages",
            Self::ShareGpt => "ShareGPT conversations",
            Self::Alpaca => "Alpaca instructions",
            Self::Preference => "prompt/chosen/rejected",
        }
    }
}

/// An object's form and what it says, or why it makes no sense.
pub(super) fn example(value: &Value) -> Result<(Form, Example), String> {
    let Value::Object(fields) = value else { return Err("it is no JSON object".to_owned()) };
    let has = |name: &str| fields.get(name).is_some_and(|value| !value.is_null());
    let text = |name: &str| fields.get(name).and_then(Value::as_str);
    if has("chosen") && has("rejected") {
        return Ok((Form::Preference, preference(fields)?));
    }
    if has("messages") {
        return Ok((Form::Messages, conversation(fields, "messages", Dialect::OpenAi)?));
    }
    if has("conversations") {
        // Some write OpenAI's fields under ShareGPT's name.
        let first = fields["conversations"].get(0);
        let is_open_ai = first.is_some_and(|first| first.get("role").is_some());
        let dialect = if is_open_ai { Dialect::OpenAi } else { Dialect::ShareGpt };
        return Ok((Form::ShareGpt, conversation(fields, "conversations", dialect)?));
    }
    if let (Some(instruction), Some(output)) = (text("instruction"), text("output")) {
        let input = text("input").filter(|input| !input.is_empty());
        let asked =
            input.map_or(instruction.to_owned(), |input| format!("{instruction}\n\n{input}"));
        let messages = vec![
            json!({"role": "user", "content": asked}),
            json!({"role": "assistant", "content": output}),
        ];
        return Ok((Form::Alpaca, Example::Conversation(Talk { messages, tools: None })));
    }
    if let (Some(prompt), Some(completion)) = (text("prompt"), text("completion")) {
        if completion.is_empty() {
            return Err("completion: it is empty".to_owned());
        }
        let (prompt, completion) = (prompt.to_owned(), completion.to_owned());
        return Ok((Form::Completion, Example::Completion { prompt, completion }));
    }
    match text("text") {
        Some("") => Err("text: it is empty".to_owned()),
        Some(text) => Ok((Form::Text, Example::Text(text.to_owned()))),
        None => {
            let names: Vec<&str> = fields.keys().map(String::as_str).take(8).collect();
            Err(format!("none of the known fields is in it (it has {})", names.join(", ")))
        }
    }
}

/// How turns are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Dialect {
    OpenAi,
    ShareGpt,
}

fn conversation(
    fields: &Map<String, Value>,
    field: &str,
    dialect: Dialect,
) -> Result<Example, String> {
    let messages = turns(&fields[field], field, dialect)?;
    if !messages.iter().any(|message| message["role"] == "assistant") {
        return Err(format!("{field}: the assistant says nothing, so there is nothing to learn"));
    }
    Ok(Example::Conversation(Talk { messages, tools: tools(fields)? }))
}

fn turns(value: &Value, field: &str, dialect: Dialect) -> Result<Turns, String> {
    // A column of CSV or Parquet has them as text.
    let parsed;
    let value = match value {
        Value::String(text) => {
            parsed = serde_json::from_str(text).map_err(|error| format!("{field}: {error}"))?;
            &parsed
        }
        other => other,
    };
    let Value::Array(turns) = value else { return Err(format!("{field}: it is no array")) };
    let numbered = turns.iter().enumerate();
    numbered
        .map(|(number, one)| turn(one, dialect, &format!("{field}: entry {}", number + 1)))
        .collect()
}

fn turn(value: &Value, dialect: Dialect, place: &str) -> Result<Value, String> {
    let Value::Object(fields) = value else { return Err(format!("{place} is no object")) };
    let message = match dialect {
        Dialect::OpenAi => fields.clone(),
        Dialect::ShareGpt => from_share_gpt(fields)?,
    };
    if !message.get("role").is_some_and(Value::is_string) {
        return Err(format!("{place} has no role"));
    }
    let mut message = message;
    if let Some(Value::Array(parts)) = message.get("content") {
        let (text, reasoning) = joined(parts).map_err(|reason| format!("{place}: {reason}"))?;
        message.insert("content".to_owned(), text.into());
        if !reasoning.is_empty() {
            message.insert("reasoning_content".to_owned(), reasoning.into());
        }
    }
    if message.get("content").is_none_or(Value::is_null) && !message.contains_key("tool_calls") {
        return Err(format!("{place} has no content"));
    }
    Ok(Value::Object(message))
}

/// Content in parts as one text, which every template reads; and what of it is reasoning.
fn joined(parts: &[Value]) -> Result<(String, String), String> {
    let (mut text, mut reasoning) = (String::new(), String::new());
    for part in parts {
        let words = part.get("text").or_else(|| part.get("value")).and_then(Value::as_str);
        match (part["type"].as_str(), words) {
            (Some("text"), Some(words)) => text.push_str(words),
            (Some("reasoning"), Some(words)) => reasoning.push_str(words),
            (kind, _) => {
                let kind = kind.unwrap_or("unknown");
                return Err(format!("a part of its content is {kind}, not text"));
            }
        }
    }
    Ok((text, reasoning))
}

fn from_share_gpt(turn: &Map<String, Value>) -> Result<Map<String, Value>, String> {
    let mut message = Map::new();
    let value = turn.get("value").cloned().unwrap_or_default();
    let role = match turn.get("from").and_then(Value::as_str) {
        Some("human" | "user") => "user",
        Some("gpt" | "assistant" | "model" | "chatgpt") => "assistant",
        Some("system") => "system",
        Some("tool" | "function" | "observation" | "function_response") => "tool",
        Some("function_call") => {
            let text = value.as_str().unwrap_or_default();
            let call: Value = serde_json::from_str(text)
                .map_err(|error| format!("function_call: its value is no JSON ({error})"))?;
            let calls: Vec<Value> = match call {
                Value::Array(calls) => calls,
                one => vec![one],
            };
            let calls = calls.into_iter().map(|call| json!({"type": "function", "function": call}));
            message.insert("role".to_owned(), "assistant".into());
            message.insert("content".to_owned(), "".into());
            message.insert("tool_calls".to_owned(), calls.collect());
            return Ok(message);
        }
        _ => return Ok(message),
    };
    message.insert("role".to_owned(), role.into());
    message.insert("content".to_owned(), value);
    Ok(message)
}

/// The tools on offer in a conversation, in OpenAI's form; as an array or as the text of one.
fn tools(fields: &Map<String, Value>) -> Result<Option<Value>, String> {
    let given = match fields.get("tools") {
        None | Some(Value::Null) => return Ok(None),
        Some(Value::String(text)) if text.trim().is_empty() => return Ok(None),
        Some(Value::String(text)) => {
            serde_json::from_str(text).map_err(|error| format!("tools: {error}"))?
        }
        Some(other) => other.clone(),
    };
    let Value::Array(all) = given else { return Err("tools: it is no array".to_owned()) };
    let wrapped = all.into_iter().map(|tool| {
        if tool.get("function").is_some() {
            tool
        } else {
            json!({"type": "function", "function": tool})
        }
    });
    let wrapped: Vec<Value> = wrapped.collect();
    Ok((!wrapped.is_empty()).then(|| wrapped.into()))
}

/// `prompt`, `chosen` and `rejected`: all texts; or all turns, in which case the prompt may be what both answers begin
/// with; or `conversations` with one turn each.
fn preference(fields: &Map<String, Value>) -> Result<Example, String> {
    let (chosen, rejected) = (&fields["chosen"], &fields["rejected"]);
    let (prompt, chosen, rejected) = match (fields.get("prompt"), chosen, rejected) {
        (Some(Value::String(prompt)), Value::String(chosen), Value::String(rejected)) => {
            if chosen == rejected {
                return Err("chosen and rejected are the same".to_owned());
            }
            return Ok(Example::Preference {
                prompt: Answer::Text(prompt.clone()),
                chosen: Answer::Text(chosen.clone()),
                rejected: Answer::Text(rejected.clone()),
            });
        }
        (Some(prompt @ Value::Array(_)), chosen, rejected) => (
            turns(prompt, "prompt", Dialect::OpenAi)?,
            turns(chosen, "chosen", Dialect::OpenAi)?,
            turns(rejected, "rejected", Dialect::OpenAi)?,
        ),
        (_, Value::Array(_), Value::Array(_)) => {
            let mut chosen = turns(chosen, "chosen", Dialect::OpenAi)?;
            let mut rejected = turns(rejected, "rejected", Dialect::OpenAi)?;
            let same = chosen.iter().zip(&rejected).take_while(|(one, other)| one == other).count();
            let prompt = chosen.drain(..same).collect();
            rejected.drain(..same);
            (prompt, chosen, rejected)
        }
        (_, chosen @ Value::Object(_), rejected @ Value::Object(_)) => {
            let prompt = fields.get("conversations").ok_or("there is no prompt in it")?;
            let one = |value, place| Ok::<_, String>(vec![turn(value, Dialect::ShareGpt, place)?]);
            let prompt = turns(prompt, "conversations", Dialect::ShareGpt)?;
            (prompt, one(chosen, "chosen")?, one(rejected, "rejected")?)
        }
        _ => {
            return Err(
                "prompt, chosen and rejected are neither all texts nor all turns".to_owned()
            );
        }
    };
    if chosen == rejected {
        return Err("chosen and rejected are the same".to_owned());
    }
    for (name, answer) in [("chosen", &chosen), ("rejected", &rejected)] {
        if !answer.last().is_some_and(|last| last["role"] == "assistant") {
            return Err(format!("{name}: it does not end with the assistant's turn"));
        }
    }
    Ok(Example::Preference {
        prompt: Answer::Turns(prompt),
        chosen: Answer::Turns(chosen),
        rejected: Answer::Turns(rejected),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(line: &str) -> String {
        example(&serde_json::from_str(line).unwrap()).unwrap_err()
    }

    fn read(line: &str) -> (Form, Example) {
        example(&serde_json::from_str(line).unwrap()).unwrap()
    }

    #[test]
    fn all_known_forms_are_read() {
        assert_eq!(read(r#"{"text": "a"}"#), (Form::Text, Example::Text("a".into())));
        let completion = Example::Completion { prompt: "a".into(), completion: "b".into() };
        assert_eq!(read(r#"{"prompt": "a", "completion": "b"}"#), (Form::Completion, completion));
        let messages = vec![
            json!({"role": "user", "content": "a"}),
            json!({"role": "assistant", "content": "b"}),
        ];
        let expected = Example::Conversation(Talk { messages, tools: None });
        for (form, line) in [
            (
                Form::Messages,
                r#"{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}"#,
            ),
            (
                Form::Messages,
                r#"{"messages": "[{\"role\": \"user\", \"content\": \"a\"}, {\"role\": \"assistant\", \"content\": \"b\"}]"}"#,
            ),
            (
                Form::ShareGpt,
                r#"{"conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]}"#,
            ),
            (Form::Alpaca, r#"{"instruction": "a", "input": "", "output": "b"}"#),
        ] {
            assert_eq!(read(line), (form, expected.clone()));
        }
    }

    #[test]
    fn calls_of_tools_become_those_of_chat_templates() {
        let line = r#"{"conversations": [{"from": "human", "value": "a"},
            {"from": "function_call", "value": "{\"name\": \"f\", \"arguments\": {\"x\": 1}}"},
            {"from": "observation", "value": "2"}, {"from": "gpt", "value": "b"}],
            "tools": "[{\"name\": \"f\"}]"}"#;
        let Example::Conversation(talk) = read(line).1 else { panic!("no conversation") };
        assert_eq!(talk.messages[1]["tool_calls"][0]["function"]["arguments"]["x"], 1);
        assert_eq!(talk.messages[2]["role"], "tool");
        assert_eq!(talk.tools.unwrap()[0]["function"]["name"], "f");
    }

    #[test]
    fn preferences_are_read_however_the_prompt_is_given() {
        let turns = |role: &str, text: &str| vec![json!({"role": role, "content": text})];
        let expected = Example::Preference {
            prompt: Answer::Turns(turns("user", "a")),
            chosen: Answer::Turns(turns("assistant", "b")),
            rejected: Answer::Turns(turns("assistant", "c")),
        };
        for line in [
            r#"{"prompt": [{"role": "user", "content": "a"}], "chosen": [{"role": "assistant", "content": "b"}],
                "rejected": [{"role": "assistant", "content": "c"}]}"#,
            r#"{"chosen": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}],
                "rejected": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "c"}]}"#,
            r#"{"conversations": [{"from": "human", "value": "a"}], "chosen": {"from": "gpt", "value": "b"},
                "rejected": {"from": "gpt", "value": "c"}}"#,
        ] {
            assert_eq!(read(line), (Form::Preference, expected.clone()));
        }
        assert!(refused(r#"{"prompt": "a", "chosen": "b", "rejected": "b"}"#).contains("the same"));
    }

    #[test]
    fn what_makes_no_sense_is_said() {
        for (line, reason) in [
            (r#"{"txt": "a"}"#, "it has txt"),
            (r#"{"messages": [{"role": "user", "content": "a"}]}"#, "nothing to learn"),
            (r#"{"messages": [{"role": "assistant"}]}"#, "entry 1 has no content"),
            (r#"{"conversations": [{"from": "me", "value": "a"}]}"#, "no role"),
            (r#"{"prompt": "a", "completion": ""}"#, "completion: it is empty"),
            ("[]", "no JSON object"),
        ] {
            let said = refused(line);
            assert!(said.contains(reason), "{line}: {said}");
        }
    }
}
