//! The Responses API: an answer is a list of items.

use schemars::JsonSchema;
use serde::Serialize;
use serde_json::{Map, Value};

/// An answer and what was asked.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub(crate) struct Response {
    pub(crate) id: String,
    pub(crate) object: &'static str,
    pub(crate) created_at: u64,
    pub(crate) status: &'static str,
    pub(crate) background: bool,
    pub(crate) completed_at: Option<u64>,
    pub(crate) error: Option<ResponseError>,
    pub(crate) incomplete_details: Option<Incomplete>,
    pub(crate) model: String,
    pub(crate) output: Vec<Item>,
    pub(crate) usage: Option<ResponseUsage>,
    /// What was asked, as it was asked, with the defaults of what was left out.
    #[serde(flatten)]
    pub(crate) asked: Map<String, Value>,
}

#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub(crate) struct ResponseError {
    pub(crate) code: &'static str,
    pub(crate) message: String,
}

#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub(crate) struct Incomplete {
    pub(crate) reason: &'static str,
}

#[derive(Debug, Clone, Copy, PartialEq, Serialize, JsonSchema)]
pub(crate) struct ResponseUsage {
    pub(crate) input_tokens: u32,
    pub(crate) input_tokens_details: super::CachedTokens,
    pub(crate) output_tokens: u32,
    pub(crate) output_tokens_details: ReasoningTokens,
    pub(crate) total_tokens: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Serialize, JsonSchema)]
pub(crate) struct ReasoningTokens {
    pub(crate) reasoning_tokens: u32,
}

/// One item of an answer.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(crate) enum Item {
    Reasoning {
        id: String,
        status: &'static str,
        summary: [(); 0],
        content: Vec<Content>,
        encrypted_content: Option<()>,
    },
    Message {
        id: String,
        status: &'static str,
        role: &'static str,
        content: Vec<Content>,
    },
    FunctionCall {
        id: String,
        status: &'static str,
        call_id: String,
        name: String,
        arguments: String,
    },
}

impl Item {
    pub(crate) fn id(&self) -> &str {
        match self {
            Self::Reasoning { id, .. }
            | Self::Message { id, .. }
            | Self::FunctionCall { id, .. } => id,
        }
    }

    pub(crate) fn set_status(&mut self, to: &'static str) {
        match self {
            Self::Reasoning { status, .. }
            | Self::Message { status, .. }
            | Self::FunctionCall { status, .. } => *status = to,
        }
    }

    /// Its parts, as far as it has any.
    pub(crate) fn parts(&mut self) -> &mut [Content] {
        match self {
            Self::Reasoning { content, .. } | Self::Message { content, .. } => content,
            Self::FunctionCall { .. } => &mut [],
        }
    }

    pub(crate) fn add(&mut self, part: Content) {
        if let Self::Reasoning { content, .. } | Self::Message { content, .. } = self {
            content.push(part);
        }
    }
}

/// A part of an item.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(crate) enum Content {
    ReasoningText { text: String },
    OutputText { text: String, annotations: [(); 0], logprobs: Vec<super::Logprob> },
}

/// What a stored answer was asked.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Items {
    pub(crate) object: &'static str,
    pub(crate) data: Vec<Value>,
    pub(crate) first_id: Option<String>,
    pub(crate) last_id: Option<String>,
    pub(crate) has_more: bool,
}

#[derive(Debug, Serialize, JsonSchema)]
#[expect(clippy::struct_field_names, reason = "the names are OpenAI's")]
pub(crate) struct Deleted {
    pub(crate) id: String,
    pub(crate) object: &'static str,
    pub(crate) deleted: bool,
}

/// How long a prompt is.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct InputTokens {
    pub(crate) object: &'static str,
    pub(crate) input_tokens: usize,
}
