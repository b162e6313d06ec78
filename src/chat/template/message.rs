//! Messages as JSON objects, in the form that a template expects.

use serde_json::{Map, Value, json};

use super::probe::Habits;
use crate::chat::request::{Message, Role};
use crate::chat::syntax::Family;
use crate::chat::tools::{Tool, ToolCall};

/// Letters and digits of an identifier where a template counts them.
const SHORT_ID: usize = 9;

/// Tools as the OpenAI dialect writes them, which templates were made for.
pub(in crate::chat) fn tools(tools: &[Tool]) -> Value {
    let one = |tool: &Tool| {
        let mut function = Map::new();
        function.insert("name".to_owned(), json!(tool.name));
        function.insert("description".to_owned(), json!(tool.description.as_deref().unwrap_or("")));
        let nothing = json!({"type": "object", "properties": {}});
        let given = tool.parameters.as_object().is_some_and(|schema| !schema.is_empty());
        let parameters = if given { tool.parameters.clone() } else { nothing };
        function.insert("parameters".to_owned(), parameters);
        json!({"type": "function", "function": function})
    };
    tools.iter().map(one).collect()
}

/// What is told of tools where the template has no place for them.
pub(super) fn told(offered: &[Tool], family: &Family) -> String {
    let mut text = String::from("You can call these functions:\n");
    for tool in tools(offered).as_array().into_iter().flatten() {
        text.push_str(&tool["function"].to_string());
        text.push('\n');
    }
    let example = ToolCall {
        id: "0".to_owned(),
        name: "NAME".to_owned(),
        arguments: Map::from_iter([("ARGUMENT".to_owned(), json!("VALUE"))]),
    };
    text.push_str(
        "To call a function, write its name and its arguments in this form, and nothing else:\n",
    );
    text.push_str(&family.spelled(&[example]));
    text
}

/// Messages whose calls and results are spelled out in their content, as far as the template shows neither.
pub(super) fn spelled(messages: &[Message], habits: &Habits, family: &Family) -> Vec<Message> {
    let mut written = Vec::new();
    for message in messages {
        let mut message = message.clone();
        if !habits.shows_calls && !message.tool_calls.is_empty() {
            let calls = family.spelled(&std::mem::take(&mut message.tool_calls));
            let between = if message.content.is_empty() { "" } else { "\n" };
            message.content = format!("{}{between}{calls}", message.content);
        }
        if !habits.shows_results && message.role == Role::Tool {
            let (_, name) = reference(&message, messages);
            let of = name.map_or(String::new(), |name| format!(" of {name}"));
            message = Message::new(Role::User, format!("Result{of}: {}", message.content));
        }
        // Two turns of one side in a row are one: templates that know no results insist on taking turns.
        match written.last_mut() {
            Some(Message { role, content, .. })
                if !habits.shows_results && *role == Role::User && message.role == Role::User =>
            {
                content.push_str("\n\n");
                content.push_str(&message.content);
            }
            _ => written.push(message),
        }
    }
    written
}

pub(super) fn all(messages: &[Message], habits: &Habits, source: &str) -> Vec<Value> {
    let joins = source.contains("Cannot pass both content and thinking");
    let mut written = Vec::new();
    let mut place = 0;
    while let Some(message) = messages.get(place) {
        place += 1;
        if habits.one_call && message.tool_calls.len() > 1 {
            let results = messages[place..].iter().take_while(|next| next.role == Role::Tool);
            let results: Vec<&Message> = results.collect();
            place += results.len();
            apart(message, &results, messages, (habits, joins), &mut written);
        } else {
            written.push(object(message, messages, habits, joins));
        }
    }
    written
}

/// A message with several calls, for a template that knows one in a message: each call with its result.
fn apart(
    message: &Message,
    results: &[&Message],
    messages: &[Message],
    (habits, joins): (&Habits, bool),
    written: &mut Vec<Value>,
) {
    let mut left: Vec<&Message> = results.to_vec();
    for (index, call) in message.tool_calls.iter().enumerate() {
        let mut single = Message { tool_calls: vec![call.clone()], ..message.clone() };
        if index > 0 {
            single.content.clear();
            single.thinking.clear();
        }
        written.push(object(&single, messages, habits, joins));
        let answers = |result: &&Message| result.tool_call_id.as_deref() == Some(&*call.id);
        // Results without an identifier come in the order of the calls.
        let found = left
            .iter()
            .position(answers)
            .or_else(|| left.iter().position(|result| result.tool_call_id.is_none()));
        if let Some(found) = found {
            written.push(object(left.remove(found), messages, habits, joins));
        }
    }
    written.extend(left.into_iter().map(|result| object(result, messages, habits, joins)));
}

fn object(message: &Message, messages: &[Message], habits: &Habits, joins: bool) -> Value {
    let mut fields = Map::new();
    let mut set = |name: &str, value: Value| {
        fields.insert(name.to_owned(), value);
    };
    set("role", json!(message.role.name()));
    let calls = !message.tool_calls.is_empty();
    let mut content = message.content.clone();
    let mut thinking = message.thinking.clone();
    if joins && calls && !thinking.is_empty() && !content.is_empty() {
        thinking = format!("{thinking}\n{}", std::mem::take(&mut content));
    }
    if habits.thoughts_as_parts && !thinking.is_empty() {
        let thought = json!({"type": "thinking", "thinking": thinking});
        let text = json!({"type": "text", "text": content});
        set("content", json!([thought, text]));
        thinking.clear();
    } else if calls && content.is_empty() && habits.content_as_null {
        set("content", Value::Null);
    } else {
        set("content", json!(content));
    }
    if !thinking.is_empty() {
        set("reasoning_content", json!(thinking));
    }
    if calls {
        let calls = message.tool_calls.iter().map(|call| one_call(call, habits));
        set("tool_calls", calls.collect());
    }
    if message.role == Role::Tool {
        let (id, name) = reference(message, messages);
        if let Some(id) = id {
            set("tool_call_id", json!(fitting_id(&id, habits)));
        }
        if let Some(name) = name {
            set("name", json!(name));
        }
    }
    Value::Object(fields)
}

/// What a message says, as far as its content is a text.
pub(super) fn text(message: &Value) -> &str {
    let content = &message["content"];
    let part = content.as_array().and_then(|parts| parts.last()).map(|part| &part["text"]);
    part.unwrap_or(content).as_str().unwrap_or_default()
}

/// Puts a word behind what a message says.
pub(super) fn append(message: &mut Value, word: &str) {
    let text = Value::String(format!("{}{word}", text(message)));
    match message["content"].as_array_mut().and_then(|parts| parts.last_mut()) {
        Some(part) => part["text"] = text,
        None => message["content"] = text,
    }
}

fn one_call(call: &ToolCall, habits: &Habits) -> Value {
    let arguments = Value::Object(call.arguments.clone());
    let arguments =
        if habits.arguments_as_text { Value::String(arguments.to_string()) } else { arguments };
    json!({"id": fitting_id(&call.id, habits), "type": "function",
        "function": {"name": call.name, "arguments": arguments}})
}

/// The call that a result answers and the tool's name: each is found by the other where only one was given.
fn reference(message: &Message, messages: &[Message]) -> (Option<String>, Option<String>) {
    let calls = || messages.iter().flat_map(|other| &other.tool_calls);
    let (id, name) = (&message.tool_call_id, &message.tool_name);
    let named = id.as_ref().and_then(|id| calls().find(|call| call.id == *id));
    let identified = name.as_ref().and_then(|name| calls().rfind(|call| call.name == *name));
    (
        id.clone().or_else(|| identified.map(|call| call.id.clone())),
        name.clone().or_else(|| named.map(|call| call.name.clone())),
    )
}

/// An identifier that the template accepts: the same for the same call.
fn fitting_id(id: &str, habits: &Habits) -> String {
    let fits = id.len() == SHORT_ID && id.bytes().all(|byte| byte.is_ascii_alphanumeric());
    if !habits.short_ids || fits {
        return id.to_owned();
    }
    // FNV-1a, written with 36 digits.
    let mut hash = id.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    (0..SHORT_ID)
        .map(|_| {
            let digit = char::from_digit((hash % 36) as u32, 36).unwrap_or('0');
            hash /= 36;
            digit
        })
        .collect()
}
