//! Embeddings.

use schemars::JsonSchema;
use serde::Serialize;

use super::Usage;

#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Embeddings {
    pub(crate) object: &'static str,
    pub(crate) data: Vec<Embedding>,
    pub(crate) model: String,
    pub(crate) usage: Usage,
}

#[derive(Debug, Serialize, JsonSchema)]
#[expect(clippy::struct_field_names, reason = "the names are OpenAI's")]
pub(crate) struct Embedding {
    pub(crate) object: &'static str,
    pub(crate) index: usize,
    pub(crate) embedding: Vector,
}

/// Numbers, or the Base64 of 32-bit floats, the least byte first.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(untagged)]
pub(crate) enum Vector {
    Numbers(Vec<f32>),
    Base64(String),
}

/// llama-server's own form: a vector a token without pooling.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Legacy {
    pub(crate) index: usize,
    pub(crate) embedding: Vec<Vec<f32>>,
}
