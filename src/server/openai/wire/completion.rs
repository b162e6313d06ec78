//! Completions of texts; the pieces of a stream have the same form.

use schemars::JsonSchema;
use serde::Serialize;
use serde_json::{Map, Value};

use super::{Field, Progress, Timings, Usage};

#[derive(Debug, Clone, Serialize, JsonSchema)]
pub(crate) struct Completion {
    pub(crate) id: String,
    pub(crate) object: &'static str,
    pub(crate) created: u64,
    pub(crate) model: String,
    pub(crate) system_fingerprint: &'static str,
    pub(crate) choices: Vec<CompletionChoice>,
    /// Missing in a stream unless it was asked for; then null but in the last piece.
    #[serde(skip_serializing_if = "Field::is_missing")]
    pub(crate) usage: Field<Usage>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) timings: Option<Timings>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) prompt_progress: Option<Progress>,
}

#[derive(Debug, Clone, Serialize, JsonSchema)]
pub(crate) struct CompletionChoice {
    pub(crate) index: usize,
    pub(crate) text: String,
    pub(crate) logprobs: Option<CompletionLogprobs>,
    pub(crate) finish_reason: Option<&'static str>,
}

/// One entry a token in each list.
#[derive(Debug, Clone, Default, PartialEq, Serialize, JsonSchema)]
pub(crate) struct CompletionLogprobs {
    pub(crate) tokens: Vec<String>,
    /// Null for a token with nothing before it. As exact as those of `top_logprobs`: clients compare the numbers to see
    /// whether a token was the likeliest.
    pub(crate) token_logprobs: Vec<Option<f64>>,
    /// Token by text; null for a token with nothing before it.
    pub(crate) top_logprobs: Vec<Option<Map<String, Value>>>,
    /// Where each token begins, in characters.
    pub(crate) text_offset: Vec<usize>,
}
