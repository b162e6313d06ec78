//! From Anthropic's messages, tools and wishes to ours.

use std::collections::HashMap;

use super::billing;
use super::wire::{self, Block, Content};
use crate::chat::pool::Lease;
use crate::chat::{
    Choice, Effort, Format, Input, Message, Request, Role, Think, Tool, ToolCall, Tools, Turn,
    carried,
};
use crate::engine::options::Sampling;
use crate::server::problem::{Kind, Problem};

/// A request that is right as far as one can tell without its model.
#[derive(Debug)]
pub(super) struct Asked {
    messages: Vec<Message>,
    system: Option<String>,
    tools: Tools,
    think: Think,
    format: Format,
    temperature: Option<f32>,
    top_p: Option<f32>,
    top_k: Option<u32>,
    pub(super) stop: Vec<String>,
    tokens_max: Option<u32>,
}

impl Asked {
    pub(super) fn new(wire: wire::Request) -> Result<Self, Problem> {
        if wire.messages.is_empty() {
            return Err(Problem::invalid("messages: at least one message is required"));
        }
        if let (Some(max), Some(wire::Thinking::Enabled { budget_tokens })) =
            (wire.max_tokens, &wire.thinking)
            && *budget_tokens >= max
        {
            return Err(Problem::invalid(
                "`max_tokens` must be greater than `thinking.budget_tokens`",
            ));
        }
        let effort = wire.output_config.as_ref().and_then(|config| config.effort);
        Ok(Self {
            system: wire.system.map(system).transpose()?.filter(|text| !text.is_empty()),
            messages: messages(wire.messages)?,
            tools: tools(wire.tools, wire.tool_choice)?,
            think: think(wire.thinking.as_ref(), effort),
            format: match wire.output_config.and_then(|config| config.format) {
                Some(wire::Format::JsonSchema { schema }) => Format::Schema(schema.to_string()),
                None => Format::Text,
            },
            temperature: wire.temperature,
            top_p: wire.top_p,
            top_k: wire.top_k,
            stop: wire.stop_sequences,
            tokens_max: wire.max_tokens,
        })
    }

    /// The request to a model.
    pub(super) fn request(&self, lease: &Lease) -> Result<Request, Problem> {
        let base = lease.sampling();
        let sampling = Sampling {
            temperature: self.temperature.unwrap_or(base.temperature),
            top_p: self.top_p.unwrap_or(base.top_p),
            top_k: self.top_k.unwrap_or(base.top_k),
            ..base
        };
        let mut conversation = carried::opening(lease.resolved(), self.system.as_deref());
        conversation.extend(self.messages.iter().cloned());
        // The request's own come first, so that a place among them is a place among all.
        let stop = self.stop.iter().cloned().chain(lease.stop()).collect();
        let goes_on = conversation.last().is_some_and(|last| last.role == Role::Assistant);
        let input = Input::Conversation(conversation);
        Ok(Request::new(input, sampling, stop, self.tokens_max)?
            .turn(if goes_on { Turn::Same } else { Turn::Next })?
            .tools(self.tools.clone())?
            .format(self.format.clone())?
            .think(self.think_of(lease)))
    }

    /// How much the model thinks. For Anthropic's clients thinking is leave to think, not a demand: a model that cannot
    /// speaks at once, and its message shows that.
    fn think_of(&self, lease: &Lease) -> Think {
        let able = lease.capabilities();
        match self.think {
            _ if !able.is_some_and(|able| able.thinking) => Think::Default,
            Think::Effort(_) if !able.is_some_and(|able| able.thinking_effort) => Think::On,
            think => think,
        }
    }
}

/// The instructions: blocks of text.
fn system(content: Content) -> Result<String, Problem> {
    let mut text = String::new();
    for block in content.0 {
        match block {
            Block::Text { text: more } => join(&mut text, billing::without(&more)),
            _ => return Err(Problem::invalid("system: only blocks of text")),
        }
    }
    Ok(text)
}

fn messages(list: Vec<wire::Message>) -> Result<Vec<Message>, Problem> {
    let mut names = HashMap::new();
    let mut messages = Vec::new();
    for (index, message) in list.into_iter().enumerate() {
        let at = |problem: Problem| Problem {
            message: format!("messages.{index}: {}", problem.message),
            ..problem
        };
        match message.role {
            wire::Role::User => user(message.content, &names, &mut messages).map_err(at)?,
            wire::Role::Assistant => {
                messages.push(assistant(message.content, &mut names).map_err(at)?);
            }
        }
    }
    let ends_in_space = |last: &Message| {
        last.role == Role::Assistant && last.content.ends_with(char::is_whitespace)
    };
    if messages.last().is_some_and(ends_in_space) {
        let text = "messages: final assistant content cannot end with trailing whitespace";
        return Err(Problem::invalid(text));
    }
    Ok(messages)
}

/// A turn of the user: what is said, and results of tools in between, in the order in which they stand.
fn user(
    content: Content,
    names: &HashMap<String, String>,
    messages: &mut Vec<Message>,
) -> Result<(), Problem> {
    let mut said = None;
    let end = |said: &mut Option<String>, messages: &mut Vec<Message>| {
        messages.extend(said.take().map(|text| Message::new(Role::User, text)));
    };
    for block in content.0 {
        match block {
            Block::Text { text } => join(said.get_or_insert_default(), &text),
            Block::ToolResult { tool_use_id, content, is_error } => {
                end(&mut said, messages);
                let mut text = String::new();
                for block in content.map(|content| content.0).unwrap_or_default() {
                    match block {
                        Block::Text { text: more } => join(&mut text, &more),
                        other => return Err(unseen(&other)),
                    }
                }
                if is_error {
                    text = format!("Error: {text}");
                }
                messages.push(Message {
                    tool_name: names.get(&tool_use_id).cloned(),
                    tool_call_id: Some(tool_use_id),
                    ..Message::new(Role::Tool, text)
                });
            }
            other => return Err(unseen(&other)),
        }
    }
    end(&mut said, messages);
    Ok(())
}

/// A turn of the model; remembers the names of the tools that it called.
fn assistant(content: Content, names: &mut HashMap<String, String>) -> Result<Message, Problem> {
    let mut message = Message::new(Role::Assistant, "");
    for block in content.0 {
        match block {
            Block::Text { text } => join(&mut message.content, &text),
            Block::Thinking { thinking } => join(&mut message.thinking, &thinking),
            // Nobody but their maker can read them.
            Block::RedactedThinking {} => {}
            Block::ToolUse { id, name, input } => {
                names.insert(id.clone(), name.clone());
                message.tool_calls.push(ToolCall { id, name, arguments: input });
            }
            other => return Err(unseen(&other)),
        }
    }
    Ok(message)
}

fn unseen(block: &Block) -> Problem {
    match block {
        Block::Image {} => Problem::new(Kind::Unsupported, "image input is not supported"),
        Block::Document {} => Problem::new(Kind::Unsupported, "document input is not supported"),
        Block::ToolUse { .. } => Problem::invalid("tool_use: only the assistant calls tools"),
        Block::ToolResult { .. } => Problem::invalid("tool_result: only the user brings results"),
        _ => Problem::invalid("a block of that type has no place here"),
    }
}

/// Adds a block of text to those before it: with a line end between them where nothing else keeps words apart.
fn join(text: &mut String, more: &str) {
    let is_apart = text.ends_with(char::is_whitespace) || more.starts_with(char::is_whitespace);
    if !text.is_empty() && !more.is_empty() && !is_apart {
        text.push('\n');
    }
    text.push_str(more);
}

fn tools(list: Vec<wire::Tool>, choice: Option<wire::ToolChoice>) -> Result<Tools, Problem> {
    let tool = |(index, tool): (usize, wire::Tool)| {
        if let Some(kind) = tool.kind.as_deref().filter(|kind| *kind != "custom") {
            let text = format!("tools.{index}: the tool {kind} belongs to Anthropic's servers");
            return Err(Problem::new(Kind::Unsupported, text));
        }
        let missing = || Problem::invalid(format!("tools.{index}.input_schema: it is required"));
        let parameters = tool.input_schema.filter(serde_json::Value::is_object);
        Ok(Tool {
            name: tool.name,
            description: tool.description,
            parameters: parameters.ok_or_else(missing)?,
        })
    };
    let list = list.into_iter().enumerate().map(tool).collect::<Result<_, _>>()?;
    let (choice, one_call) = match choice {
        None => (Choice::Auto, false),
        Some(wire::ToolChoice::Auto { disable_parallel_tool_use }) => {
            (Choice::Auto, disable_parallel_tool_use)
        }
        Some(wire::ToolChoice::Any { disable_parallel_tool_use }) => {
            (Choice::Required, disable_parallel_tool_use)
        }
        Some(wire::ToolChoice::Tool { name, disable_parallel_tool_use }) => {
            (Choice::Named(name), disable_parallel_tool_use)
        }
        Some(wire::ToolChoice::None {}) => (Choice::None, false),
    };
    Ok(Tools { list, choice, one_call })
}

/// Anthropic's models do not think unless they are asked to; here a model that always thinks goes on doing so, because
/// clients that know nothing of thinking leave the field out.
fn think(thinking: Option<&wire::Thinking>, effort: Option<wire::Effort>) -> Think {
    let effort = effort.map(|effort| match effort {
        wire::Effort::Low => Effort::Low,
        wire::Effort::Medium => Effort::Medium,
        wire::Effort::High | wire::Effort::Xhigh | wire::Effort::Max => Effort::High,
    });
    match (thinking, effort) {
        (Some(wire::Thinking::Disabled {}), _) => Think::Off,
        (_, Some(effort)) => Think::Effort(effort),
        // The budget is a wish of how much to think at the most; what binds is max_tokens.
        (Some(wire::Thinking::Enabled { .. }), None) => Think::On,
        (Some(wire::Thinking::Adaptive {}) | None, None) => Think::Default,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn read(value: Value) -> Result<Asked, String> {
        let wire = serde_json::from_value(value).map_err(|error| error.to_string())?;
        Asked::new(wire).map_err(|problem| problem.message)
    }

    #[test]
    fn blocks_become_turns() {
        let asked = read(json!({
            "model": "m",
            "system": [{"type": "text", "text": "x-anthropic-billing-header: cch=1;"}, {"type": "text", "text": "Be brief.",
                "cache_control": {"type": "ephemeral"}}],
            "messages": [
                {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
                {"role": "assistant", "content": [
                    {"type": "thinking", "thinking": "hm", "signature": "s"},
                    {"type": "redacted_thinking", "data": "d"},
                    {"type": "text", "text": "I look"},
                    {"type": "tool_use", "id": "t1", "name": "look", "input": {"at": "it"}},
                ]},
                {"role": "user", "content": [
                    {"type": "tool_result", "tool_use_id": "t1", "is_error": true, "content": [{"type": "text", "text": "gone"}]},
                    {"type": "tool_result", "tool_use_id": "t2"},
                    {"type": "text", "text": "and?"},
                ]},
            ],
        }))
        .unwrap();
        assert_eq!(asked.system.as_deref(), Some("Be brief."));
        let arguments = json!({"at": "it"}).as_object().unwrap().clone();
        let result = |id: &str, name: Option<&str>, text: &str| Message {
            tool_name: name.map(str::to_owned),
            tool_call_id: Some(id.to_owned()),
            ..Message::new(Role::Tool, text)
        };
        let expected = [
            Message::new(Role::User, "a\nb"),
            Message {
                thinking: "hm".to_owned(),
                tool_calls: vec![ToolCall { id: "t1".into(), name: "look".into(), arguments }],
                ..Message::new(Role::Assistant, "I look")
            },
            result("t1", Some("look"), "Error: gone"),
            result("t2", None, ""),
            Message::new(Role::User, "and?"),
        ];
        assert_eq!(asked.messages, expected);
    }

    #[test]
    fn what_cannot_be_done_is_refused() {
        let said = json!([{"role": "user", "content": "a"}]);
        let with = |extra: Value| {
            let mut value = json!({"model": "m", "messages": said});
            value.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
            read(value).unwrap_err()
        };
        let image = json!([{"role": "user", "content": [{"type": "image", "source": {}}]}]);
        assert_eq!(with(json!({"messages": image})), "messages.0: image input is not supported");
        assert!(with(json!({"messages": []})).contains("at least one message"));
        let audio = json!([{"role": "user", "content": [{"type": "audio"}]}]);
        assert!(with(json!({"messages": audio})).contains("content.0: unknown variant `audio`"));
        let begun = json!([{"role": "assistant", "content": "So "}]);
        assert!(with(json!({"messages": begun})).contains("trailing whitespace"));
        let thinking = json!({"type": "enabled", "budget_tokens": 50});
        assert!(with(json!({"thinking": thinking, "max_tokens": 50})).contains("greater than"));
        let search = json!([{"type": "web_search_20250305", "name": "web_search"}]);
        assert!(with(json!({"tools": search})).contains("tools.0: the tool web_search_20250305"));
        assert!(with(json!({"tools": [{"name": "x"}]})).contains("tools.0.input_schema"));
        assert!(with(json!({"system": [{"type": "image"}]})).contains("system: only"));
    }
}
