//! What a template expects of messages, found by rendering a call that is known.

use nfl_models::template::{ChatTemplate, Clock, Conversation};
use serde_json::{Map, Value, json};

/// A text that no template has of its own.
const NAME: &str = "probe_name";
const VALUE: &str = "probe_value";
const THOUGHT: &str = "probe_thought";

/// What a template expects.
#[expect(clippy::struct_excessive_bools, reason = "each is a habit of its own")]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Habits {
    /// Whether it shows tools to the model.
    pub(super) shows_tools: bool,
    /// Whether it shows the calls of earlier turns.
    pub(super) shows_calls: bool,
    /// Whether it shows what tools gave.
    pub(super) shows_results: bool,
    /// Whether it shows what the system says.
    pub(super) shows_system: bool,
    /// Whether arguments are a text of JSON; else an object.
    pub(super) arguments_as_text: bool,
    /// Whether a message that only calls has no content; else an empty one.
    pub(super) content_as_null: bool,
    /// Whether one message may have one call only.
    pub(super) one_call: bool,
    /// Whether thoughts are parts of the content; else a field.
    pub(super) thoughts_as_parts: bool,
    /// Whether identifiers of calls have nine letters and digits.
    pub(super) short_ids: bool,
}

impl Habits {
    pub(super) fn of(template: &ChatTemplate) -> Self {
        let source = template.source();
        let mut habits = Self {
            shows_tools: shows_tools(template),
            shows_calls: false,
            shows_results: false,
            shows_system: shown(template, &[json!({"role": "system", "content": VALUE}), user()]),
            arguments_as_text: false,
            content_as_null: false,
            one_call: false,
            thoughts_as_parts: false,
            short_ids: source.contains("length != 9") || source.contains("length == 9"),
        };
        for (as_text, as_null) in [(false, false), (false, true), (true, false), (true, true)] {
            if shows_call(template, as_text, as_null, 1) {
                habits.shows_calls = true;
                habits.arguments_as_text = as_text;
                habits.content_as_null = as_null;
                habits.one_call = !shows_call(template, as_text, as_null, 2);
                break;
            }
        }
        habits.shows_results = shows_result(template, &habits);
        habits.thoughts_as_parts = source.contains("thinking")
            && !shows_thought(template, &json!({"content": "x", "reasoning_content": THOUGHT}))
            && shows_thought(
                template,
                &json!({"content": [{"type": "thinking", "thinking": THOUGHT}, {"type": "text", "text": "x"}]}),
            );
        habits
    }
}

pub(super) fn render(
    template: &ChatTemplate,
    messages: &[Value],
    tools: Option<Value>,
    extra: Map<String, Value>,
    add_generation_prompt: bool,
) -> Option<String> {
    let conversation = Conversation {
        messages,
        tools,
        bos_token: "",
        eos_token: "",
        add_generation_prompt,
        extra,
        now: Clock { unix_seconds: 0, offset_seconds: 0 },
    };
    template.render(&conversation).ok()
}

pub(super) fn user() -> Value {
    json!({"role": "user", "content": "Hello"})
}

fn tool(name: &str) -> Value {
    json!({"type": "function", "function": {"name": name, "description": "Says so.", "parameters":
        {"type": "object", "properties": {"key": {"type": "string", "description": "What."}}, "required": ["key"]}}})
}

/// Variables that stand in for what other templates get by `tools`.
fn functions() -> Map<String, Value> {
    let mut extra = Map::new();
    extra.insert("functions".to_owned(), Value::String(NAME.to_owned()));
    extra.insert("datetime".to_owned(), Value::String(String::new()));
    extra
}

fn shows_tools(template: &ChatTemplate) -> bool {
    let shown = |messages: &[Value]| {
        render(template, messages, Some(json!([tool(NAME)])), functions(), true)
            .is_some_and(|text| text.contains(NAME))
    };
    shown(&[user()]) || shown(&[json!({"role": "system", "content": "Help."}), user()])
}

/// Whether a conversation without tools shows what it says.
fn shown(template: &ChatTemplate, messages: &[Value]) -> bool {
    render(template, messages, None, functions(), true).is_some_and(|text| text.contains(VALUE))
}

fn shows_result(template: &ChatTemplate, habits: &Habits) -> bool {
    let result =
        json!({"role": "tool", "content": VALUE, "name": NAME, "tool_call_id": "000000000"});
    let (as_text, as_null) = (habits.arguments_as_text, habits.content_as_null);
    let call = called(as_text, as_null, usize::from(habits.shows_calls));
    let tools = Some(json!([tool(NAME)]));
    let messages = [user(), call, result, user()];
    // The call has a number behind the same text.
    let is_shown = |text: String| text.replace(&format!("{VALUE}0"), "").contains(VALUE);
    render(template, &messages, tools, functions(), true).is_some_and(is_shown)
        || render(template, &messages[..3], None, functions(), true).is_some_and(is_shown)
}

fn shows_call(template: &ChatTemplate, as_text: bool, as_null: bool, calls: usize) -> bool {
    let last = format!("{VALUE}{}", calls - 1);
    let call = called(as_text, as_null, calls);
    let written = |tools| render(template, &[user(), call.clone()], tools, functions(), false);
    let Some(text) = written(Some(json!([tool(NAME)]))).or_else(|| written(None)) else {
        return false;
    };
    // A text that is written as JSON once more is one that should have been an object.
    text.contains(&last) && !text.contains("\\\"key\\\"")
}

/// A message with so many calls.
fn called(as_text: bool, as_null: bool, calls: usize) -> Value {
    let calls: Vec<Value> = (0..calls)
        .map(|index| {
            let arguments = json!({"key": format!("{VALUE}{index}")});
            let arguments = if as_text { Value::String(arguments.to_string()) } else { arguments };
            json!({"id": format!("00000000{index}"), "type": "function",
                "function": {"name": NAME, "arguments": arguments}})
        })
        .collect();
    let content = if as_null { Value::Null } else { Value::String(String::new()) };
    if calls.is_empty() {
        return json!({"role": "assistant", "content": "Well."});
    }
    json!({"role": "assistant", "content": content, "tool_calls": calls})
}

fn shows_thought(template: &ChatTemplate, message: &Value) -> bool {
    let mut message = message.clone();
    message["role"] = json!("assistant");
    render(template, &[user(), message], None, Map::new(), false)
        // Printed as a list, the parts show the names of their fields.
        .is_some_and(|text| {
            text.contains(THOUGHT) && !text.contains("'thinking'") && !text.contains("\"thinking\"")
        })
}
