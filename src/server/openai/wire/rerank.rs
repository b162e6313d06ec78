//! Documents in the order of their relevance, in the form of Jina and Cohere, and in that of Text Embeddings Inference.

use schemars::JsonSchema;
use serde::Serialize;

use super::Usage;

#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Ranking {
    pub(crate) object: &'static str,
    pub(crate) model: String,
    pub(crate) usage: Usage,
    pub(crate) results: Vec<Ranked>,
}

#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Ranked {
    pub(crate) index: usize,
    pub(crate) relevance_score: f32,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) document: Option<Document>,
}

#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Document {
    pub(crate) text: String,
}

/// What a ranking may be: in its own form, or in that of Text Embeddings Inference where `texts` were asked about.
#[derive(JsonSchema)]
#[schemars(untagged)]
#[expect(dead_code, reason = "it is described, and written as one of both")]
pub(crate) enum Rankings {
    Own(Ranking),
    Inference(Vec<Scored>),
}

/// The form of Text Embeddings Inference.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Scored {
    pub(crate) index: usize,
    pub(crate) score: f32,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) text: Option<String>,
}
