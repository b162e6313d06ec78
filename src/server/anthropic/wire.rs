//! Requests of Anthropic's dialect as they are written.
//!
//! What only says how Anthropic's servers account for a request (`cache_control`, `metadata`, `service_tier`) is read over.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Deserialize;
use serde::de::{Deserializer, Error};
use serde_json::{Map, Value};

/// POST `/v1/messages`, and without most of it `/v1/messages/count_tokens`.
#[derive(Debug, Deserialize, JsonSchema)]
#[schemars(rename = "AnthropicRequest")]
pub(super) struct Request {
    pub(super) model: String,
    pub(super) messages: Vec<Message>,
    pub(super) max_tokens: Option<u32>,
    pub(super) system: Option<Content>,
    #[serde(default)]
    pub(super) stream: bool,
    #[serde(default)]
    pub(super) stop_sequences: Vec<String>,
    pub(super) temperature: Option<f32>,
    pub(super) top_p: Option<f32>,
    pub(super) top_k: Option<u32>,
    #[serde(default)]
    pub(super) tools: Vec<Tool>,
    pub(super) tool_choice: Option<ToolChoice>,
    pub(super) thinking: Option<Thinking>,
    pub(super) output_config: Option<OutputConfig>,
}

/// A turn.
#[derive(Debug, Deserialize, JsonSchema)]
#[schemars(rename = "AnthropicMessage")]
pub(super) struct Message {
    pub(super) role: Role,
    pub(super) content: Content,
}

/// Who speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(rename = "AnthropicRole")]
pub(super) enum Role {
    User,
    Assistant,
}

/// What is said: a text, which is one block of text, or blocks.
#[derive(Debug)]
pub(super) struct Content(pub(super) Vec<Block>);

impl<'de> Deserialize<'de> for Content {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match Value::deserialize(deserializer)? {
            Value::String(text) => Ok(Self(vec![Block::Text { text }])),
            Value::Array(blocks) => {
                let blocks = blocks.into_iter().enumerate().map(|(index, block)| {
                    serde_json::from_value(block)
                        .map_err(|error| D::Error::custom(format!("content.{index}: {error}")))
                });
                Ok(Self(blocks.collect::<Result<_, _>>()?))
            }
            _ => Err(D::Error::custom("content: neither a text nor a list of blocks")),
        }
    }
}

impl JsonSchema for Content {
    fn schema_name() -> Cow<'static, str> {
        "AnthropicContent".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let blocks = generator.subschema_for::<Vec<Block>>();
        json_schema!({"anyOf": [{"type": "string"}, blocks]})
    }
}

/// A part of what is said.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
#[schemars(rename = "AnthropicBlock")]
pub(super) enum Block {
    Text {
        text: String,
    },
    Thinking {
        thinking: String,
    },
    /// Thoughts that only Anthropic's servers can read.
    RedactedThinking {},
    ToolUse {
        id: String,
        name: String,
        #[serde(default)]
        input: Map<String, Value>,
    },
    ToolResult {
        tool_use_id: String,
        content: Option<Content>,
        #[serde(default)]
        is_error: bool,
    },
    Image {},
    Document {},
}

/// A tool on offer.
#[derive(Debug, Deserialize, JsonSchema)]
#[schemars(rename = "AnthropicTool")]
pub(super) struct Tool {
    /// Tools of one's own have none, or `custom`.
    #[serde(rename = "type")]
    pub(super) kind: Option<String>,
    pub(super) name: String,
    pub(super) description: Option<String>,
    pub(super) input_schema: Option<Value>,
}

/// Which tool is to be called.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
#[schemars(rename = "AnthropicToolChoice")]
pub(super) enum ToolChoice {
    Auto {
        #[serde(default)]
        disable_parallel_tool_use: bool,
    },
    Any {
        #[serde(default)]
        disable_parallel_tool_use: bool,
    },
    Tool {
        name: String,
        #[serde(default)]
        disable_parallel_tool_use: bool,
    },
    None {},
}

/// Whether the model thinks.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
#[schemars(rename = "AnthropicThinking")]
pub(super) enum Thinking {
    Enabled { budget_tokens: u32 },
    Adaptive {},
    Disabled {},
}

/// The form of the reply, and how much is thought before it.
#[derive(Debug, Deserialize, JsonSchema)]
#[schemars(rename = "AnthropicOutputConfig")]
pub(super) struct OutputConfig {
    pub(super) format: Option<Format>,
    pub(super) effort: Option<Effort>,
}

/// The form of the reply.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
#[schemars(rename = "AnthropicFormat")]
pub(super) enum Format {
    JsonSchema { schema: Value },
}

/// How much is thought.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(rename = "AnthropicEffort")]
pub(super) enum Effort {
    Low,
    Medium,
    High,
    Xhigh,
    Max,
}

/// The answer, as it is described: it is written piece by piece.
#[derive(JsonSchema)]
#[schemars(rename = "AnthropicAnswer")]
#[expect(dead_code, reason = "it is described, and written field by field")]
pub(super) struct Given {
    id: String,
    #[schemars(rename = "type")]
    kind: MessageKind,
    role: Role,
    model: String,
    content: Vec<Map<String, Value>>,
    stop_reason: Option<String>,
    stop_sequence: Option<String>,
    usage: Usage,
}

#[derive(JsonSchema)]
#[schemars(rename = "AnthropicAnswerKind", rename_all = "snake_case")]
#[expect(dead_code, reason = "it is described, and written as text")]
enum MessageKind {
    Message,
}

#[derive(JsonSchema)]
#[schemars(rename = "AnthropicUsage")]
#[expect(dead_code, reason = "it is described, and written field by field")]
#[expect(clippy::struct_field_names, reason = "the names are Anthropic's")]
struct Usage {
    input_tokens: u32,
    cache_creation_input_tokens: u32,
    cache_read_input_tokens: u32,
    output_tokens: u32,
}

/// How many tokens a conversation has.
#[derive(JsonSchema)]
#[schemars(rename = "AnthropicTokens")]
#[expect(dead_code, reason = "it is described, and written field by field")]
pub(super) struct Counted {
    input_tokens: usize,
}
