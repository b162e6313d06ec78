//! Models.

use schemars::JsonSchema;
use serde::Serialize;

#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Models {
    pub(crate) object: &'static str,
    pub(crate) data: Vec<Model>,
}

#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Model {
    pub(crate) id: String,
    pub(crate) object: &'static str,
    pub(crate) created: i64,
    pub(crate) owned_by: String,
    pub(crate) status: Status,
    pub(crate) meta: Meta,
}

/// `loaded` or `unloaded`, in the form of llama-server's router.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Status {
    pub(crate) value: &'static str,
}

/// What llama-server tells of a model, as far as its file says it.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Meta {
    pub(crate) architecture: Option<String>,
    pub(crate) n_ctx_train: Option<u64>,
    pub(crate) n_embd: Option<u64>,
    pub(crate) n_params: Option<u64>,
    /// Bytes of all files.
    pub(crate) size: u64,
    pub(crate) ftype: Option<String>,
    pub(crate) capabilities: Vec<&'static str>,
    /// Room of one conversation in tokens, while it is loaded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) n_ctx: Option<u32>,
}
