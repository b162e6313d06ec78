//! Chat completions, whole and in chunks.

use schemars::JsonSchema;
use serde::Serialize;

use super::{Field, Progress, Timings, Usage};

/// A chat completion.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Chat {
    pub(crate) id: String,
    pub(crate) object: &'static str,
    pub(crate) created: u64,
    pub(crate) model: String,
    pub(crate) choices: Vec<Choice>,
    pub(crate) usage: Usage,
    pub(crate) system_fingerprint: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) timings: Option<Timings>,
    /// llama-server's, for those who ask what the model read.
    #[serde(rename = "__verbose", skip_serializing_if = "Option::is_none")]
    pub(crate) verbose: Option<Prompt>,
}

/// What a model reads.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub(crate) struct Prompt {
    pub(crate) prompt: String,
}

#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Choice {
    pub(crate) index: usize,
    pub(crate) message: Message,
    pub(crate) logprobs: Option<Logprobs>,
    pub(crate) finish_reason: &'static str,
}

/// What the model said. Its thinking has two names, because clients of vLLM and llama-server read one and those of Ollama
/// and OpenRouter the other.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Message {
    pub(crate) role: &'static str,
    pub(crate) content: Option<String>,
    pub(crate) refusal: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) reasoning_content: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) reasoning: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) tool_calls: Vec<Call>,
}

#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Call {
    pub(crate) id: String,
    #[serde(rename = "type")]
    pub(crate) kind: &'static str,
    pub(crate) function: Function,
}

#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Function {
    pub(crate) name: String,
    /// JSON as text.
    pub(crate) arguments: String,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, JsonSchema)]
pub(crate) struct Logprobs {
    pub(crate) content: Vec<Logprob>,
    pub(crate) refusal: Option<()>,
}

#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
#[expect(clippy::struct_field_names, reason = "the names are OpenAI's")]
pub(crate) struct Logprob {
    /// llama-server's: the token's number.
    pub(crate) id: i32,
    pub(crate) token: String,
    pub(crate) logprob: f32,
    pub(crate) bytes: Vec<u8>,
    pub(crate) top_logprobs: Vec<TopLogprob>,
}

#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub(crate) struct TopLogprob {
    pub(crate) id: i32,
    pub(crate) token: String,
    pub(crate) logprob: f32,
    pub(crate) bytes: Vec<u8>,
}

/// A piece of a streamed chat completion.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Chunk {
    pub(crate) id: String,
    pub(crate) object: &'static str,
    pub(crate) created: u64,
    pub(crate) model: String,
    pub(crate) system_fingerprint: &'static str,
    pub(crate) choices: Vec<ChunkChoice>,
    /// There when it was asked for, and null but in the last chunk.
    #[serde(skip_serializing_if = "Field::is_missing")]
    pub(crate) usage: Field<Usage>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) timings: Option<Timings>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) prompt_progress: Option<Progress>,
    /// Beside the first choice's first piece.
    #[serde(rename = "__verbose", skip_serializing_if = "Option::is_none")]
    pub(crate) verbose: Option<Prompt>,
}

#[derive(Debug, Clone, Serialize)]
pub(crate) struct ChunkChoice {
    pub(crate) index: usize,
    pub(crate) delta: Delta,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) logprobs: Option<Logprobs>,
    pub(crate) finish_reason: Option<&'static str>,
}

/// What is new in a chunk.
#[derive(Debug, Clone, Default, Serialize)]
pub(crate) struct Delta {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) role: Option<&'static str>,
    /// Null in the first chunk, as with llama-server.
    #[serde(skip_serializing_if = "Field::is_missing")]
    pub(crate) content: Field<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) reasoning_content: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) reasoning: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) tool_calls: Option<[DeltaCall; 1]>,
}

#[derive(Debug, Clone, Serialize)]
pub(crate) struct DeltaCall {
    pub(crate) index: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) id: Option<String>,
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    pub(crate) kind: Option<&'static str>,
    pub(crate) function: DeltaFunction,
}

#[derive(Debug, Clone, Serialize)]
pub(crate) struct DeltaFunction {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) name: Option<String>,
    pub(crate) arguments: String,
}
