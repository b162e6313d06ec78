//! Requests of Anthropic's dialect as they are written.
//!
//! What only says how Anthropic's servers account for a request (`cache_control`, `metadata`, `service_tier`) is read over.

use serde::Deserialize;
use serde::de::{Deserializer, Error};
use serde_json::{Map, Value};

/// POST `/v1/messages`, and without most of it `/v1/messages/count_tokens`.
#[derive(Debug, Deserialize)]
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
#[derive(Debug, Deserialize)]
pub(super) struct Message {
    pub(super) role: Role,
    pub(super) content: Content,
}

/// Who speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
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

/// A part of what is said.
#[derive(Debug, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
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
#[derive(Debug, Deserialize)]
pub(super) struct Tool {
    /// Tools of one's own have none, or `custom`.
    #[serde(rename = "type")]
    pub(super) kind: Option<String>,
    pub(super) name: String,
    pub(super) description: Option<String>,
    pub(super) input_schema: Option<Value>,
}

/// Which tool is to be called.
#[derive(Debug, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
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
#[derive(Debug, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(super) enum Thinking {
    Enabled { budget_tokens: u32 },
    Adaptive {},
    Disabled {},
}

/// The form of the reply, and how much is thought before it.
#[derive(Debug, Deserialize)]
pub(super) struct OutputConfig {
    pub(super) format: Option<Format>,
    pub(super) effort: Option<Effort>,
}

/// The form of the reply.
#[derive(Debug, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(super) enum Format {
    JsonSchema { schema: Value },
}

/// How much is thought.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Effort {
    Low,
    Medium,
    High,
    Xhigh,
    Max,
}
