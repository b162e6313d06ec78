//! OpenAI's dialect as JSON: what goes out, field by field. What comes in is taken field by field by
//! [`fields`](super::fields).

mod chat;
mod completion;
mod embedding;
mod model;
mod rerank;
mod response;

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Serialize, Serializer};

pub(super) use chat::{
    Call, Chat, Choice, Chunk, ChunkChoice, Delta, DeltaCall, DeltaFunction, Function, Logprob,
    Logprobs, Message, Prompt, TopLogprob,
};
pub(super) use completion::{Completion, CompletionChoice, CompletionLogprobs};
pub(super) use embedding::{Embedding, Embeddings, Legacy, Vector};
pub(super) use model::{Meta, Model, Models, Status};
pub(super) use rerank::{Document, Ranked, Ranking, Rankings, Scored};
pub(super) use response::{
    Content, Deleted, Incomplete, InputTokens, Item, Items, ReasoningTokens, Response,
    ResponseError, ResponseUsage,
};

/// What wrote an answer: the build, in llama-server's form.
pub(super) const FINGERPRINT: &str = concat!("b", env!("CARGO_PKG_VERSION"), "-nfl");

/// A field that is missing, null, or there.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) enum Field<T> {
    #[default]
    Missing,
    Null,
    Value(T),
}

impl<T> Field<T> {
    fn is_missing(&self) -> bool {
        matches!(self, Self::Missing)
    }
}

impl<T: JsonSchema> JsonSchema for Field<T> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        <Option<T>>::schema_name()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        <Option<T>>::json_schema(generator)
    }
}

impl<T: Serialize> Serialize for Field<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Missing | Self::Null => serializer.serialize_none(),
            Self::Value(value) => value.serialize(serializer),
        }
    }
}

/// An answer that is an error.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Failure {
    pub(super) error: Error,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Error {
    pub(super) message: String,
    #[serde(rename = "type")]
    pub(super) kind: &'static str,
    pub(super) param: Option<String>,
    pub(super) code: Option<&'static str>,
    /// llama-server's: tokens of a prompt that is too long.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) n_prompt_tokens: Option<usize>,
    /// llama-server's: room of the context in tokens.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) n_ctx: Option<usize>,
}

/// The account of a chat or a completion.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, JsonSchema)]
pub(super) struct Usage {
    pub(super) prompt_tokens: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) completion_tokens: Option<u32>,
    pub(super) total_tokens: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) prompt_tokens_details: Option<CachedTokens>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, JsonSchema)]
pub(super) struct CachedTokens {
    pub(super) cached_tokens: u32,
}

/// llama-server's account of the time.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, JsonSchema)]
pub(super) struct Timings {
    pub(super) cache_n: u32,
    pub(super) prompt_n: u32,
    pub(super) prompt_ms: f64,
    pub(super) prompt_per_token_ms: f64,
    pub(super) prompt_per_second: f64,
    pub(super) predicted_n: u32,
    pub(super) predicted_ms: f64,
    pub(super) predicted_per_token_ms: f64,
    pub(super) predicted_per_second: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) draft_n: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) draft_n_accepted: Option<u32>,
}

/// llama-server's word on how much of a prompt is read.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, JsonSchema)]
pub(super) struct Progress {
    pub(super) total: u32,
    pub(super) cache: u32,
    pub(super) processed: u32,
    pub(super) time_ms: f64,
}
