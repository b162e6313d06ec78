//! The values of Ollama's protocol, in the order of fields that its clients have seen.

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};

/// Nothing is as good as the default, as Go reads it.
fn nullable<'de, T, D>(deserializer: D) -> Result<T, D::Error>
where
    T: Default + Deserialize<'de>,
    D: Deserializer<'de>,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

/// What is wrong.
#[derive(Debug, Serialize)]
pub(super) struct Error {
    pub(super) error: String,
}

/// What `/api/generate` is asked.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default)]
pub(super) struct Generate {
    pub(super) model: String,
    pub(super) prompt: Option<String>,
    pub(super) suffix: Option<String>,
    pub(super) system: Option<String>,
    pub(super) template: Option<String>,
    pub(super) context: Option<Vec<i32>>,
    pub(super) raw: Option<bool>,
    pub(super) images: Option<Vec<String>>,
    #[serde(flatten)]
    pub(super) terms: Terms,
}

/// What `/api/chat` is asked.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default)]
pub(super) struct Chat {
    pub(super) model: String,
    pub(super) messages: Option<Vec<Message>>,
    pub(super) tools: Option<Vec<Tool>>,
    #[serde(flatten)]
    pub(super) terms: Terms,
}

/// What both ways of talking have in common.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default)]
pub(super) struct Terms {
    pub(super) stream: Option<bool>,
    pub(super) format: Option<Value>,
    pub(super) keep_alive: Option<Value>,
    pub(super) options: Option<Map<String, Value>>,
    pub(super) think: Option<Value>,
    pub(super) truncate: Option<bool>,
    pub(super) shift: Option<bool>,
    pub(super) logprobs: Option<bool>,
    pub(super) top_logprobs: Option<i64>,
    #[serde(rename = "_debug_render_only")]
    pub(super) render_only: Option<bool>,
}

/// A turn of a conversation.
#[derive(Debug, Default, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub(super) struct Message {
    pub(super) role: String,
    #[serde(deserialize_with = "nullable")]
    pub(super) content: String,
    #[serde(deserialize_with = "nullable", skip_serializing_if = "String::is_empty")]
    pub(super) thinking: String,
    #[serde(skip_serializing)]
    pub(super) images: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) tool_calls: Option<Vec<ToolCall>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) tool_name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) tool_call_id: Option<String>,
}

/// A call of a tool; its arguments are an object, in the order in which they were written.
#[derive(Debug, Default, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub(super) struct ToolCall {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) id: Option<String>,
    pub(super) function: Called,
}

/// The function that is called.
#[derive(Debug, Default, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub(super) struct Called {
    pub(super) index: u32,
    pub(super) name: String,
    #[serde(deserialize_with = "nullable")]
    pub(super) arguments: Map<String, Value>,
}

/// A tool on offer.
#[derive(Debug, Deserialize, JsonSchema)]
pub(super) struct Tool {
    pub(super) function: Function,
}

/// A function on offer.
#[derive(Debug, Deserialize, JsonSchema)]
pub(super) struct Function {
    pub(super) name: String,
    pub(super) description: Option<String>,
    pub(super) parameters: Option<Value>,
}

/// A piece of a reply, or its end.
#[derive(Debug, Default, Serialize, JsonSchema)]
pub(super) struct Chunk {
    pub(super) model: String,
    pub(super) created_at: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) message: Option<Message>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) response: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) thinking: Option<String>,
    pub(super) done: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) done_reason: Option<&'static str>,
    #[serde(rename = "_debug_info", skip_serializing_if = "Option::is_none")]
    pub(super) debug_info: Option<DebugInfo>,
    #[serde(flatten)]
    pub(super) metrics: Metrics,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) tool_calls: Option<Vec<ToolCall>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) logprobs: Vec<Logprob>,
}

/// What a model would read.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct DebugInfo {
    pub(super) rendered_template: String,
}

/// The account of a reply; what is 0 is left out.
#[derive(Debug, Default, Clone, Serialize, JsonSchema)]
pub(super) struct Metrics {
    #[serde(skip_serializing_if = "is_zero")]
    pub(super) total_duration: u64,
    #[serde(skip_serializing_if = "is_zero")]
    pub(super) load_duration: u64,
    #[serde(skip_serializing_if = "is_zero")]
    pub(super) prompt_eval_count: u64,
    #[serde(skip_serializing_if = "is_zero")]
    pub(super) prompt_eval_duration: u64,
    #[serde(skip_serializing_if = "is_zero")]
    pub(super) eval_count: u64,
    #[serde(skip_serializing_if = "is_zero")]
    pub(super) eval_duration: u64,
    /// Not Ollama's: tokens of the oldest messages that were left out, because that was asked for.
    #[serde(skip_serializing_if = "is_zero")]
    pub(super) truncated_tokens: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// A token and what the model thought of it.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Logprob {
    #[serde(flatten)]
    pub(super) chosen: Chance,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) top_logprobs: Vec<Chance>,
}

/// A token and the natural logarithm of its probability.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Chance {
    pub(super) token: String,
    pub(super) logprob: f32,
    /// As numbers, since a token may be a part of a character.
    pub(super) bytes: Vec<u8>,
}

/// What `/api/embed` is asked.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default)]
pub(super) struct Embed {
    pub(super) model: String,
    pub(super) input: Option<Value>,
    pub(super) truncate: Option<bool>,
    pub(super) dimensions: Option<i64>,
    pub(super) keep_alive: Option<Value>,
    pub(super) options: Option<Map<String, Value>>,
}

/// What `/api/embed` answers.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Embedded {
    pub(super) model: String,
    pub(super) embeddings: Vec<Vec<f32>>,
    #[serde(flatten)]
    pub(super) metrics: Metrics,
}

/// What the old `/api/embeddings` is asked.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default)]
pub(super) struct OldEmbed {
    pub(super) model: String,
    pub(super) prompt: Option<String>,
    pub(super) keep_alive: Option<Value>,
    pub(super) options: Option<Map<String, Value>>,
}

/// What it answers.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct OldEmbedded {
    pub(super) embedding: Vec<f32>,
}

/// What is told of every model.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Details {
    pub(super) parent_model: String,
    pub(super) format: &'static str,
    pub(super) family: String,
    pub(super) families: Vec<String>,
    pub(super) parameter_size: String,
    pub(super) quantization_level: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) context_length: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) embedding_length: Option<u64>,
}

/// A list of models.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Models<T> {
    pub(super) models: Vec<T>,
}

/// A stored model.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Stored {
    pub(super) name: String,
    pub(super) model: String,
    pub(super) modified_at: String,
    pub(super) size: u64,
    pub(super) digest: String,
    pub(super) details: Details,
    pub(super) capabilities: Vec<&'static str>,
}

/// A loaded model.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Running {
    pub(super) name: String,
    pub(super) model: String,
    pub(super) size: u64,
    pub(super) digest: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) details: Option<Details>,
    pub(super) expires_at: String,
    pub(super) size_vram: u64,
    pub(super) context_length: u32,
}

/// A request about one model: show, delete, pull, push.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default)]
pub(super) struct Named {
    pub(super) model: Option<String>,
    /// What `model` was once called.
    pub(super) name: Option<String>,
    pub(super) verbose: Option<bool>,
    pub(super) system: Option<String>,
    pub(super) options: Option<Map<String, Value>>,
    pub(super) insecure: Option<bool>,
    pub(super) stream: Option<bool>,
}

/// Everything about a stored model.
#[derive(Debug, Default, Serialize, JsonSchema)]
pub(super) struct Shown {
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) license: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) modelfile: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) parameters: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) template: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) system: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) renderer: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) parser: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) details: Option<Details>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) messages: Vec<Message>,
    pub(super) model_info: Map<String, Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) projector_info: Option<Map<String, Value>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) tensors: Vec<Tensor>,
    pub(super) capabilities: Vec<&'static str>,
    pub(super) modified_at: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) requires: Option<String>,
}

/// A tensor of a model's file.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Tensor {
    pub(super) name: String,
    #[serde(rename = "type")]
    pub(super) kind: &'static str,
    pub(super) shape: Vec<u64>,
}

/// What `/api/copy` is asked.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default)]
pub(super) struct Copy {
    pub(super) source: String,
    pub(super) destination: String,
}

/// What `/api/create` is asked.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default)]
pub(super) struct Create {
    pub(super) model: Option<String>,
    pub(super) name: Option<String>,
    pub(super) from: Option<String>,
    /// Digests by file name.
    pub(super) files: Option<Map<String, Value>>,
    pub(super) adapters: Option<Map<String, Value>>,
    pub(super) draft_files: Option<Map<String, Value>>,
    pub(super) template: Option<String>,
    /// A text or several.
    pub(super) license: Option<Value>,
    pub(super) system: Option<String>,
    pub(super) parameters: Option<Map<String, Value>>,
    pub(super) messages: Option<Vec<Message>>,
    pub(super) quantize: Option<String>,
    /// What `quantize` was once called.
    pub(super) quantization: Option<String>,
    pub(super) draft_quantize: Option<String>,
    pub(super) renderer: Option<String>,
    pub(super) parser: Option<String>,
    pub(super) requires: Option<String>,
    pub(super) remote_host: Option<String>,
    pub(super) info: Option<Map<String, Value>>,
    pub(super) stream: Option<bool>,
}

/// How far something long has come.
#[derive(Debug, Default, Clone, PartialEq, Serialize, JsonSchema)]
pub(super) struct Status {
    #[serde(rename = "status")]
    pub(super) words: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) digest: Option<String>,
    #[serde(skip_serializing_if = "is_zero")]
    pub(super) total: u64,
    #[serde(skip_serializing_if = "is_zero")]
    pub(super) completed: u64,
}
