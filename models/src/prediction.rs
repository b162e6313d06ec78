//! The layer with which some models guess the token after the next (multi-token prediction, MTP): whether a file has
//! one that can be used.
//!
//! It is the last block, beside those that compute the model. llama.cpp asserts what such a block must have when it builds
//! the layer's graph, so the same is asked here before (llama-cpp-sys-2 0.1.161).

use crate::gguf::{Gguf, Metadata, TensorInfo};
use crate::inventory::Role;
use crate::shape::BLOCKS_MAX;

/// The number of blocks that guess, under the architecture's name.
pub const KEY: &str = "nextn_predict_layers";

/// What every such block of an architecture must have.
const SHARED: &[Role] = &[
    Role::PredictionProjection,
    Role::PredictionEmbeddingNorm,
    Role::PredictionStateNorm,
    Role::AttentionNorm,
    Role::AttentionOutput,
    Role::Router,
    Role::ExpertsDown,
    Role::SharedGate,
    Role::SharedUp,
    Role::SharedDown,
];

/// Architectures whose layer can be used, and what it must have besides. Of the others that llama.cpp computes, models
/// with a sliding window or a recurrent state cannot take a wrong guess back.
const ARCHITECTURES: &[(&str, &[Role])] = &[
    (
        "deepseek2",
        &[
            Role::FeedForwardNorm,
            Role::AttentionQueryDown,
            Role::AttentionQueryDownNorm,
            Role::AttentionQueryUp,
            Role::AttentionLatent,
            Role::AttentionLatentNorm,
            Role::AttentionLatentKey,
            Role::AttentionLatentValue,
        ],
    ),
    ("glm4moe", &[Role::PostAttentionNorm, Role::RouterScoresBias]),
];

/// Why a file's own guesses cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoPrediction {
    /// There is no such layer.
    #[error("the file has no layer that guesses further tokens ({0})")]
    None(String),
    /// The numbers speak of a layer, the tensors do not.
    #[error("the layer that guesses further tokens is incomplete: {0} is missing")]
    Missing(String),
    /// An architecture whose layer is not used.
    #[error("the layer that guesses further tokens is not used for the architecture {0}")]
    Architecture(String),
    /// More than one layer.
    #[error("the file has {0} layers that guess further tokens, and only one alone is used")]
    Several(u64),
    /// A number that llama.cpp asserts something about.
    #[error("metadata {0} does not go together with the layer that guesses further tokens")]
    Metadata(String),
}

/// The block that guesses further tokens; an error says why there is none or why it cannot be used.
pub fn find(gguf: &Gguf) -> Result<u32, NoPrediction> {
    find_in(gguf.metadata(), gguf.tensors())
}

/// The same for metadata and tensors by themselves.
pub fn find_in(metadata: &Metadata, tensors: &[TensorInfo]) -> Result<u32, NoPrediction> {
    let architecture = metadata.architecture().unwrap_or_default();
    let key = |suffix: &str| format!("{architecture}.{suffix}");
    let number = |suffix: &str| metadata.u64(&key(suffix));
    let count = number(KEY).unwrap_or(0);
    if count == 0 {
        return Err(NoPrediction::None(key(KEY)));
    }
    let (_, besides) = ARCHITECTURES
        .iter()
        .find(|(name, _)| *name == architecture)
        .ok_or_else(|| NoPrediction::Architecture(architecture.to_owned()))?;
    if count > 1 {
        return Err(NoPrediction::Several(count));
    }
    let wrong = |suffix: &str| NoPrediction::Metadata(key(suffix));
    let blocks = number("block_count").filter(|blocks| (2..=BLOCKS_MAX).contains(blocks));
    let block = (blocks.ok_or_else(|| wrong("block_count"))? - 1) as u32;
    if number("leading_dense_block_count").unwrap_or(0) > u64::from(block) {
        return Err(wrong("leading_dense_block_count"));
    }
    if number("attention.key_length") != number("attention.value_length")
        && architecture == "glm4moe"
    {
        return Err(wrong("attention.value_length"));
    }
    if metadata.get(&key("attention.temperature_scale")).is_some() {
        return Err(wrong("attention.temperature_scale"));
    }
    let has = |name: &str| tensors.iter().any(|tensor| tensor.name == name);
    for role in SHARED.iter().chain(*besides) {
        let name = role.tensor_name(Some(block));
        if !has(&name) {
            return Err(NoPrediction::Missing(name));
        }
    }
    let gated = [Role::ExpertsGate, Role::ExpertsGateUp];
    if !gated.iter().any(|role| has(&role.tensor_name(Some(block)))) {
        return Err(NoPrediction::Missing(Role::ExpertsGate.tensor_name(Some(block))));
    }
    Ok(block)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inventory::inventory;
    use crate::shape::Shape;
    use crate::tensor::TensorType;

    /// A small GLM whose last block guesses.
    fn glm() -> (Metadata, Vec<TensorInfo>) {
        let mut metadata = Metadata::new();
        metadata.set("general.architecture", "glm4moe");
        for (key, value) in [
            ("block_count", 3),
            (KEY, 1),
            ("context_length", 512),
            ("embedding_length", 32),
            ("feed_forward_length", 64),
            ("expert_feed_forward_length", 32),
            ("expert_count", 4),
            ("expert_used_count", 2),
            ("expert_shared_count", 1),
            ("leading_dense_block_count", 1),
            ("attention.head_count", 4),
            ("vocab_size", 300),
        ] {
            metadata.set(format!("glm4moe.{key}"), value as u32);
        }
        metadata.set("glm4moe.attention.layer_norm_rms_epsilon", 1e-5_f32);
        let shape = Shape::from_header(&metadata, &[]).unwrap();
        let tensor = |spec: crate::TensorSpec| TensorInfo {
            name: spec.name,
            dimensions: spec.dimensions,
            tensor_type: TensorType::F32,
            offset: 0,
            shard: 0,
        };
        let tensors = inventory(&shape).into_iter().filter(|spec| spec.required).map(tensor);
        (metadata, tensors.collect())
    }

    #[test]
    fn what_is_incomplete_or_unknown_is_not_used() {
        let (metadata, tensors) = glm();
        assert_eq!(find_in(&metadata, &tensors), Ok(2));
        for gone in tensors.iter().filter(|tensor| tensor.name.starts_with("blk.2.nextn")) {
            let rest: Vec<_> = tensors.iter().filter(|each| *each != gone).cloned().collect();
            let missing = NoPrediction::Missing(gone.name.clone());
            assert_eq!(find_in(&metadata, &rest), Err(missing));
        }
        let changed = |key: &str, value: u32| {
            let mut metadata = metadata.clone();
            metadata.set(format!("glm4moe.{key}"), value);
            find_in(&metadata, &tensors).unwrap_err()
        };
        assert!(matches!(changed(KEY, 0), NoPrediction::None(_)));
        assert_eq!(changed(KEY, 2), NoPrediction::Several(2));
        assert!(matches!(changed("block_count", 1), NoPrediction::Metadata(_)));
        assert!(matches!(changed("leading_dense_block_count", 3), NoPrediction::Metadata(_)));
        let mut other = metadata.clone();
        other.set("general.architecture", "step35");
        other.set("step35.nextn_predict_layers", 1_u32);
        assert_eq!(find_in(&other, &tensors), Err(NoPrediction::Architecture("step35".to_owned())));
    }

    #[test]
    fn the_footprint_counts_the_layer_only_when_it_is_loaded() {
        let (metadata, tensors) = glm();
        let shape = Shape::from_header(&metadata, &tensors).unwrap();
        crate::check_inventory(&shape, &tensors).unwrap();
        let whole = crate::Footprint::new(shape, &tensors);
        let without = whole.clone().without_prediction();
        assert!(whole.has_prediction() && !without.has_prediction());
        let layer = whole.block_bytes(2);
        assert!(layer > 0);
        assert_eq!(whole.weights_bytes() - layer, without.weights_bytes());
        assert_eq!(whole.bytes_per_token(), without.bytes_per_token());
        let cache = |footprint: &crate::Footprint, sequences| {
            let (key, value) = (TensorType::F16, TensorType::F16);
            let context_tokens = 512 * sequences;
            let micro_batch_tokens = 512;
            let cache = crate::footprint::Cache {
                context_tokens,
                micro_batch_tokens,
                sequences,
                key,
                value,
            };
            footprint.kv_bytes(&cache).unwrap()
        };
        for sequences in [1, 4] {
            // Two blocks with all sequences, the third with one.
            let block = cache(&without, 1) / 2;
            assert_eq!(cache(&without, sequences), 2 * block * sequences);
            assert_eq!(cache(&whole, sequences), (2 * sequences + 1) * block);
        }
    }
}
