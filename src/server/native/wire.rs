//! Requests of llama-server's dialect as they are written.

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;

/// POST `/tokenize`.
#[derive(Debug, Deserialize, JsonSchema)]
pub(super) struct Tokenize {
    pub(super) model: Option<String>,
    pub(super) content: Value,
    #[serde(default)]
    pub(super) add_special: bool,
    pub(super) parse_special: Option<bool>,
    #[serde(default)]
    pub(super) with_pieces: bool,
}

/// POST `/detokenize`.
#[derive(Debug, Deserialize, JsonSchema)]
pub(super) struct Detokenize {
    pub(super) model: Option<String>,
    pub(super) tokens: Vec<i32>,
}

/// Stop strings: one or several.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
pub(super) enum Stop {
    One(String),
    Several(Vec<String>),
}

impl Stop {
    pub(super) fn strings(&self) -> Vec<String> {
        match self {
            Self::One(text) => vec![text.clone()],
            Self::Several(texts) => texts.clone(),
        }
    }
}

/// POST `/completion`.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default)]
pub(super) struct Completion {
    pub(super) model: Option<String>,
    pub(super) prompt: Value,
    #[serde(alias = "max_tokens")]
    pub(super) n_predict: Option<i64>,
    #[serde(alias = "n")]
    pub(super) n_cmpl: Option<u32>,
    pub(super) stream: Option<bool>,
    pub(super) stop: Option<Stop>,
    pub(super) ignore_eos: Option<bool>,
    #[serde(alias = "logprobs")]
    pub(super) n_probs: Option<u32>,
    pub(super) post_sampling_probs: Option<bool>,
    pub(super) return_tokens: Option<bool>,
    pub(super) return_progress: Option<bool>,
    pub(super) timings_per_token: Option<bool>,
    pub(super) response_fields: Option<Vec<String>>,
    pub(super) t_max_predict_ms: Option<i64>,
    /// Nothing that is made here.
    pub(super) n_indent: Option<i64>,
    /// Nothing that is made here.
    pub(super) lora: Option<Vec<Value>>,
    #[serde(flatten)]
    pub(super) sampling: Sampling,
}

/// How tokens are chosen.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default)]
pub(super) struct Sampling {
    pub(super) temperature: Option<f32>,
    pub(super) dynatemp_range: Option<f32>,
    pub(super) dynatemp_exponent: Option<f32>,
    pub(super) top_k: Option<i64>,
    pub(super) top_p: Option<f32>,
    pub(super) min_p: Option<f32>,
    pub(super) typical_p: Option<f32>,
    pub(super) top_n_sigma: Option<f32>,
    pub(super) xtc_probability: Option<f32>,
    pub(super) xtc_threshold: Option<f32>,
    pub(super) min_keep: Option<u32>,
    pub(super) repeat_last_n: Option<i64>,
    pub(super) repeat_penalty: Option<f32>,
    pub(super) presence_penalty: Option<f32>,
    pub(super) frequency_penalty: Option<f32>,
    pub(super) dry_multiplier: Option<f32>,
    pub(super) dry_base: Option<f32>,
    pub(super) dry_allowed_length: Option<u32>,
    pub(super) dry_penalty_last_n: Option<i64>,
    pub(super) dry_sequence_breakers: Option<Vec<String>>,
    pub(super) mirostat: Option<u8>,
    pub(super) mirostat_tau: Option<f32>,
    pub(super) mirostat_eta: Option<f32>,
    pub(super) adaptive_target: Option<f32>,
    pub(super) adaptive_decay: Option<f32>,
    pub(super) samplers: Option<Vec<String>>,
    pub(super) logit_bias: Option<Value>,
    pub(super) grammar: Option<String>,
    pub(super) grammar_lazy: Option<bool>,
    pub(super) json_schema: Option<Value>,
    pub(super) seed: Option<i64>,
}

/// POST `/infill`, besides what a completion has.
#[derive(Debug, Deserialize, JsonSchema)]
pub(super) struct Infill {
    #[serde(default)]
    pub(super) input_prefix: String,
    #[serde(default)]
    pub(super) input_suffix: String,
    #[serde(default)]
    pub(super) input_extra: Vec<Extra>,
    #[serde(default)]
    pub(super) prompt: String,
}

/// A file that stands beside the one with the gap.
#[derive(Debug, Deserialize, JsonSchema)]
pub(super) struct Extra {
    pub(super) filename: Option<String>,
    pub(super) text: String,
}

/// POST `/generate`.
#[derive(Debug, Deserialize, JsonSchema)]
pub(super) struct Generate {
    pub(super) model: Option<String>,
    pub(super) prompt: String,
    pub(super) max_tokens: Option<u32>,
    pub(super) temperature: Option<f32>,
    pub(super) top_p: Option<f32>,
    pub(super) seed: Option<u32>,
    pub(super) alternatives: Option<u32>,
    #[serde(default)]
    pub(super) stream: bool,
}
