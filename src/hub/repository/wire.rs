//! What the Hugging Face hub says in JSON (its OpenAPI description; `huggingface_hub` reads the same fields).

use serde::Deserialize;

/// A model repository: `/api/models/OWNER/NAME/revision/REVISION`.
#[derive(Debug, Deserialize)]
pub(super) struct Info {
    /// The commit.
    pub(super) sha: Option<String>,
}

/// One entry of a tree: `/api/models/OWNER/NAME/tree/REVISION`.
#[derive(Debug, Deserialize)]
pub(super) struct Entry {
    #[serde(rename = "type")]
    pub(super) kind: String,
    pub(super) path: String,
    #[serde(default)]
    pub(super) size: u64,
    pub(super) lfs: Option<Lfs>,
}

/// What stands for a large file in git.
#[derive(Debug, Deserialize)]
pub(super) struct Lfs {
    /// SHA-256 of the content, in hexadecimal.
    pub(super) oid: String,
    pub(super) size: u64,
}

/// One hit of a search: `/api/models?search=…`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Hit {
    pub(super) id: String,
    #[serde(default)]
    pub(super) downloads: u64,
    #[serde(default)]
    pub(super) likes: u64,
    pub(super) last_modified: Option<String>,
    /// `false`, `"auto"` or `"manual"`.
    #[serde(default)]
    pub(super) gated: serde_json::Value,
    pub(super) gguf: Option<Gguf>,
}

/// What the hub has read from a repository's GGUF file.
#[derive(Debug, Deserialize)]
pub(super) struct Gguf {
    /// Weights.
    pub(super) total: Option<u64>,
    pub(super) architecture: Option<String>,
    pub(super) context_length: Option<u64>,
}
