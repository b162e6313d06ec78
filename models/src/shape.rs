//! The shape of a model: the numbers of its architecture, read from metadata and from the tensors
//! that are there.

use crate::arch::{ARCHITECTURES, Architecture, ExpertSize};
use crate::gguf::{Array, Gguf, Metadata, TensorInfo, Value};
use crate::hint::Hint;
use crate::inventory::Role;
use crate::prediction;

/// Blocks of a model (`LLAMA_MAX_LAYERS`).
pub const BLOCKS_MAX: u64 = 512;

/// Experts of a block (`LLAMA_MAX_EXPERTS`).
pub const EXPERTS_MAX: u64 = 1024;

/// Any other count of a shape: rows and lengths of the largest models are below a million.
pub const LENGTH_MAX: u64 = 1 << 24;

/// Tokens of context. The longest that is claimed is ten million; llama.cpp hangs on two thousand
/// million.
pub const CONTEXT_TOKENS_MAX: u64 = 1 << 28;

/// The numbers of one model.
#[expect(
    clippy::struct_excessive_bools,
    reason = "each says whether some tensors exist, independently"
)]
#[derive(Clone, PartialEq, Debug)]
pub struct Shape {
    /// What kind of model it is.
    pub architecture: &'static Architecture,
    /// Transformer blocks, those that guess further tokens among them.
    pub blocks: u32,
    /// The last blocks, which guess further tokens (MTP) beside the model.
    pub prediction_blocks: u32,
    /// Tokens of context that it was trained with.
    pub context_train: u64,
    /// Numbers that stand for one token between the blocks.
    pub embedding: u64,
    /// Neurons of the dense feed-forward layer.
    pub feed_forward: u64,
    /// Attention heads.
    pub heads: u32,
    /// Heads of keys and values; fewer than `heads` when they are shared.
    pub heads_kv: u32,
    /// Numbers of one key.
    pub key_length: u64,
    /// Numbers of one value.
    pub value_length: u64,
    /// Tokens that it knows.
    pub vocabulary: u64,
    /// Experts of a block; 0 for a dense model.
    pub experts: u32,
    /// Experts that each token uses.
    pub experts_used: u32,
    /// Neurons of one expert.
    pub expert_feed_forward: u64,
    /// Numbers of a key that are rotated by position.
    pub rope_dimensions: u64,
    /// Base of the rotation's frequencies.
    pub rope_theta: f32,
    /// Added to the variance before the root is taken.
    pub norm_epsilon: f32,
    /// Tokens that attention looks back, where that is limited.
    pub sliding_window: Option<u64>,
    /// Whether each block's attention is limited to the window; empty when none is.
    pub windowed: Vec<bool>,
    /// Neurons of the expert that every token uses; 0 without one.
    pub shared_feed_forward: u64,
    /// Blocks at the beginning that are dense in a model with experts.
    pub dense_blocks: u32,
    /// Attention by way of one latent vector a token.
    pub latent: Option<Latent>,
    /// Whether the token embedding serves as output matrix.
    pub tied_output: bool,
    /// Whether the file carries a factor for each frequency (`rope_freqs.weight`).
    pub rope_factors: bool,
    /// Whether the file carries factors for long and for short contexts.
    pub rope_long_factors: bool,
    /// Whether queries, keys and values are one matrix.
    pub fused_attention: bool,
    /// Whether the choice of experts has a bias for each.
    pub router_scores_bias: bool,
    /// Whether queries, keys and values have a bias.
    pub attention_bias: bool,
    /// Whether the output of attention has a bias.
    pub attention_output_bias: bool,
    /// Whether the feed-forward layers have a bias.
    pub mlp_bias: bool,
}

/// Attention by way of one latent vector a token (MLA), from which keys and values are made.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Latent {
    /// Numbers of the latent vector.
    pub rank: u64,
    /// Numbers that queries go through, where they do.
    pub query_rank: Option<u64>,
    /// Numbers of one key once it is made.
    pub key_length: u64,
    /// Numbers of one value once it is made.
    pub value_length: u64,
    /// Whether the matrices for keys and values are two, and the cache holds the latent vector. In
    /// files before 2025 they are one, and the cache holds whole keys and values.
    pub split: bool,
}

/// Why a file's shape cannot be told.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ShapeError {
    /// No `general.architecture`.
    #[error("no architecture: general.architecture is missing")]
    NoArchitecture,
    /// An architecture whose inventory is not known here.
    #[error("unknown architecture: {0}")]
    UnknownArchitecture(String),
    /// A number that the shape needs.
    #[error("missing metadata: {0}")]
    Missing(String),
    /// A number of another type than expected.
    #[error("metadata {key} is no {wanted}")]
    Type {
        /// The key.
        key: String,
        /// What it should be.
        wanted: &'static str,
    },
    /// A number that differs between blocks, where the architecture has one for all.
    #[error("metadata {0} differs between blocks")]
    PerBlock(String),
    /// A number out of its range.
    #[error("metadata {key}: {value} ({least} to {most} allowed)")]
    Range {
        /// The key.
        key: String,
        /// The number in the file.
        value: u64,
        /// The least allowed.
        least: u64,
        /// The most allowed.
        most: u64,
    },
}

impl Hint for ShapeError {
    fn hint(&self) -> Option<String> {
        Some(match self {
            Self::UnknownArchitecture(_) => {
                let names: Vec<&str> = ARCHITECTURES.iter().map(|each| each.name).collect();
                format!("known architectures: {}", names.join(", "))
            }
            _ => "the file is damaged or no language model: convert the original again".to_owned(),
        })
    }
}

impl Shape {
    /// Tokens that the attention of a block looks back, where that is limited.
    pub fn window(&self, block: u32) -> Option<u64> {
        let limited = self.windowed.get(block as usize).copied().unwrap_or(false);
        self.sliding_window.filter(|_| limited)
    }

    /// Whether a block guesses further tokens, beside those that compute the model.
    pub fn predicts(&self, block: u32) -> bool {
        block >= self.blocks - self.prediction_blocks.min(self.blocks)
    }

    /// The shape of an open model.
    pub fn of(gguf: &Gguf) -> Result<Self, ShapeError> {
        Self::from_header(gguf.metadata(), gguf.tensors())
    }

    /// The shape that metadata and tensors tell.
    pub fn from_header(metadata: &Metadata, tensors: &[TensorInfo]) -> Result<Self, ShapeError> {
        let name = metadata.architecture().ok_or(ShapeError::NoArchitecture)?;
        let architecture = Architecture::find(name)
            .ok_or_else(|| ShapeError::UnknownArchitecture(name.to_owned()))?;
        let keys = Keys { metadata, prefix: name };
        let embedding = keys.required("embedding_length", 1, LENGTH_MAX)?;
        let heads = keys.required("attention.head_count", 1, LENGTH_MAX)?;
        let heads_kv = keys.optional("attention.head_count_kv", 1, heads)?.unwrap_or(heads);
        let head_length = (embedding / heads).max(1);
        let key_length =
            keys.optional("attention.key_length", 1, LENGTH_MAX)?.unwrap_or(head_length);
        let value_length =
            keys.optional("attention.value_length", 1, LENGTH_MAX)?.unwrap_or(head_length);
        let rope = keys.optional("rope.dimension_count", 0, key_length)?;
        let experts = keys.optional("expert_count", 0, EXPERTS_MAX)?.unwrap_or(0);
        let feed_forward = keys.optional("feed_forward_length", 1, LENGTH_MAX)?;
        let expert_feed_forward = keys.optional("expert_feed_forward_length", 1, LENGTH_MAX)?;
        let missing = || ShapeError::Missing(keys.name("feed_forward_length"));
        let has = |role: Role| {
            let name = role.tensor_name(role.in_block().then_some(0));
            tensors.iter().any(|tensor| tensor.name == name)
        };
        let blocks = keys.required("block_count", 1, BLOCKS_MAX)? as u32;
        let sliding_window = keys.optional("attention.sliding_window", 0, CONTEXT_TOKENS_MAX)?;
        let dense_size = feed_forward.or(expert_feed_forward).ok_or_else(missing)?;
        let expert_size = match architecture.expert_size {
            ExpertSize::FeedForward => dense_size,
            ExpertSize::Own => expert_feed_forward.unwrap_or(dense_size),
        };
        let window = sliding_window.filter(|tokens| *tokens > 0);
        Ok(Self {
            architecture,
            blocks,
            prediction_blocks: keys.count(prediction::KEY, blocks.into())?,
            context_train: keys.required("context_length", 0, CONTEXT_TOKENS_MAX)?,
            embedding,
            feed_forward: dense_size,
            heads: heads as u32,
            heads_kv: heads_kv as u32,
            key_length,
            value_length,
            vocabulary: vocabulary(&keys, tensors)?,
            experts: experts as u32,
            experts_used: keys.count("expert_used_count", experts)?,
            expert_feed_forward: expert_size,
            shared_feed_forward: shared_size(&keys, expert_size)?,
            dense_blocks: keys.count("leading_dense_block_count", blocks.into())?,
            latent: latent(&keys, has(Role::AttentionLatentBoth))?,
            rope_dimensions: rope.unwrap_or(key_length),
            rope_theta: keys.float("rope.freq_base")?.unwrap_or(10_000.0),
            norm_epsilon: keys.float("attention.layer_norm_rms_epsilon")?.ok_or_else(|| {
                ShapeError::Missing(keys.name("attention.layer_norm_rms_epsilon"))
            })?,
            windowed: window.map_or(Ok(Vec::new()), |_| windowed(&keys, architecture, blocks))?,
            sliding_window,
            // A file without tensors (a vocabulary) says nothing about its output.
            tied_output: !tensors.is_empty() && !has(Role::Output),
            rope_factors: has(Role::RopeFactors),
            rope_long_factors: has(Role::RopeFactorsLong),
            fused_attention: has(Role::AttentionFused),
            router_scores_bias: tensors
                .iter()
                .any(|tensor| Role::of_name(&tensor.name).0 == Role::RouterScoresBias),
            attention_bias: has(Role::AttentionQueryBias)
                || has(Role::AttentionKeyBias)
                || has(Role::AttentionValueBias),
            attention_output_bias: has(Role::AttentionOutputBias),
            mlp_bias: has(Role::FeedForwardGateBias)
                || has(Role::FeedForwardUpBias)
                || has(Role::FeedForwardDownBias),
        })
    }
}

/// The size of the expert for every token: given as such, or as a number of experts.
fn shared_size(keys: &Keys<'_>, expert_size: u64) -> Result<u64, ShapeError> {
    if let Some(size) = keys.optional("expert_shared_feed_forward_length", 0, LENGTH_MAX)? {
        return Ok(size);
    }
    let count = keys.optional("expert_shared_count", 0, EXPERTS_MAX)?.unwrap_or(0);
    Ok(count * expert_size)
}

fn latent(keys: &Keys<'_>, joined: bool) -> Result<Option<Latent>, ShapeError> {
    let Some(rank) = keys.optional("attention.kv_lora_rank", 0, LENGTH_MAX)?.filter(|&n| n > 0)
    else {
        return Ok(None);
    };
    let length = |plain: &str| {
        let given = keys.optional(&format!("attention.{plain}_mla"), 1, LENGTH_MAX)?;
        match given {
            Some(length) => Ok(length),
            // Before the cache held the latent vector, these keys gave the whole lengths.
            None => keys.required(&format!("attention.{plain}"), 1, LENGTH_MAX),
        }
    };
    let split = keys.optional("attention.key_length_mla", 1, LENGTH_MAX)?.is_some();
    Ok(Some(Latent {
        rank,
        query_rank: keys.optional("attention.q_lora_rank", 0, LENGTH_MAX)?.filter(|&n| n > 0),
        key_length: length("key_length")?,
        value_length: length("value_length")?,
        split: split && !joined,
    }))
}

/// Which blocks attend to a window: as the file lists them, or by a period.
fn windowed(
    keys: &Keys<'_>,
    architecture: &Architecture,
    blocks: u32,
) -> Result<Vec<bool>, ShapeError> {
    const KEY: &str = "attention.sliding_window_pattern";
    let Some(usual) = architecture.window_period else { return Ok(Vec::new()) };
    let key = keys.name(KEY);
    let period = match keys.metadata.get(&key) {
        Some(Value::Array(array)) => {
            let wrong = || ShapeError::Type { key: key.clone(), wanted: "list of truths" };
            let truths: Option<Vec<bool>> = array
                .values()
                .map(|value| match value {
                    Value::Bool(truth) => Some(truth),
                    other => other.as_u64().map(|number| number != 0),
                })
                .collect();
            let truths = truths.filter(|list| list.len() == blocks as usize);
            return truths.ok_or_else(wrong);
        }
        _ => keys.optional(KEY, 0, BLOCKS_MAX)?.unwrap_or(usual.into()) as u32,
    };
    Ok((0..blocks).map(|block| period == 0 || block % period < period - 1).collect())
}

/// The tokenizer's list counts for llama.cpp; without one the `vocab_size`, and the embedding's
/// rows at last.
fn vocabulary(keys: &Keys<'_>, tensors: &[TensorInfo]) -> Result<u64, ShapeError> {
    if let Some(tokens) = keys.metadata.array("tokenizer.ggml.tokens") {
        return Ok(tokens.len() as u64);
    }
    if let Some(size) = keys.optional("vocab_size", 1, LENGTH_MAX)? {
        return Ok(size);
    }
    let name = Role::TokenEmbedding.tensor_name(None);
    let embedding = tensors.iter().find(|tensor| tensor.name == name);
    embedding.map(TensorInfo::rows).ok_or_else(|| ShapeError::Missing(keys.name("vocab_size")))
}

/// Metadata with the architecture's prefix.
struct Keys<'a> {
    metadata: &'a Metadata,
    prefix: &'a str,
}

impl Keys<'_> {
    fn name(&self, suffix: &str) -> String {
        format!("{}.{suffix}", self.prefix)
    }

    fn required(&self, suffix: &str, least: u64, most: u64) -> Result<u64, ShapeError> {
        self.optional(suffix, least, most)?.ok_or_else(|| ShapeError::Missing(self.name(suffix)))
    }

    fn optional(&self, suffix: &str, least: u64, most: u64) -> Result<Option<u64>, ShapeError> {
        let key = self.name(suffix);
        let Some(value) = self.metadata.get(&key) else { return Ok(None) };
        let value = match value {
            Value::Array(array) => {
                uniform(array).ok_or_else(|| ShapeError::PerBlock(key.clone()))?
            }
            value => value.clone(),
        };
        match value.as_u64() {
            None => Err(ShapeError::Type { key, wanted: "unsigned number" }),
            Some(value) if !(least..=most).contains(&value) => {
                Err(ShapeError::Range { key, value, least, most })
            }
            value => Ok(value),
        }
    }

    /// A count that is none where nothing is said.
    fn count(&self, suffix: &str, most: u64) -> Result<u32, ShapeError> {
        Ok(self.optional(suffix, 0, most)?.unwrap_or(0) as u32)
    }

    fn float(&self, suffix: &str) -> Result<Option<f32>, ShapeError> {
        let key = self.name(suffix);
        match self.metadata.get(&key) {
            None => Ok(None),
            Some(value) => match value.as_f32() {
                Some(value) => Ok(Some(value)),
                None => Err(ShapeError::Type { key, wanted: "float" }),
            },
        }
    }
}

/// The one value of an array with a value for each block.
fn uniform(array: &Array) -> Option<Value> {
    let first = array.value(0)?;
    array.values().all(|value| value == first).then_some(first)
}

#[cfg(test)]
impl Shape {
    /// A small dense llama, for tests.
    pub(crate) fn small() -> Self {
        Self {
            architecture: &crate::arch::llama::LLAMA,
            blocks: 2,
            prediction_blocks: 0,
            context_train: 512,
            embedding: 64,
            feed_forward: 172,
            heads: 8,
            heads_kv: 4,
            key_length: 8,
            value_length: 8,
            vocabulary: 512,
            experts: 0,
            experts_used: 0,
            expert_feed_forward: 172,
            rope_dimensions: 8,
            rope_theta: 10_000.0,
            norm_epsilon: 1e-5,
            sliding_window: None,
            windowed: Vec::new(),
            shared_feed_forward: 0,
            dense_blocks: 0,
            latent: None,
            tied_output: false,
            rope_factors: false,
            rope_long_factors: false,
            fused_attention: false,
            router_scores_bias: false,
            attention_bias: false,
            attention_output_bias: false,
            mlp_bias: false,
        }
    }
}
