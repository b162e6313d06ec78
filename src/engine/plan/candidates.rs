//! Contexts and cache types in the order in which a plan may take them.

use nfl_models::footprint::{Cache, Footprint};

use super::machine::Wishes;
use super::refusal::PlanError;
use crate::engine::options::{CONTEXT_TOKENS_DEFAULT, CacheType};

/// A context and the types of its cache.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Candidate {
    pub(super) context_tokens: u32,
    pub(super) key_type: CacheType,
    pub(super) value_type: CacheType,
}

impl Candidate {
    /// The cache of so many sequences: each has its own context, all lie in one pool of cells.
    pub(super) fn cache(&self, micro_batch_tokens: u32, sequences: u32) -> Cache {
        let sequences = u64::from(sequences.max(1));
        Cache {
            context_tokens: u64::from(self.context_tokens) * sequences,
            // llama.cpp computes no more at once than the context holds.
            micro_batch_tokens: micro_batch_tokens.min(self.context_tokens).into(),
            sequences,
            key: self.key_type.tensor_type(),
            value: self.value_type.tensor_type(),
        }
    }
}

/// Below this context the cache is made smaller rather than the context.
const CONTEXT_TOKENS_ENOUGH: u32 = 16_384;

/// The longest context that nobody asked for, in tokens.
const CONTEXT_TOKENS_UNASKED_MAX: u32 = 32_768;

/// The shortest that is offered where memory is short, in tokens.
const CONTEXT_TOKENS_MIN: u32 = 512;

/// A cache of this many bytes is small on any machine that runs a model.
const CACHE_BYTES_SMALL: u64 = 256 << 20;

/// A cache that nobody asked for is no larger, in bytes: it is cleared while loading (a second for
/// four gigabytes) and kept while the model stays.
const CACHE_BYTES_UNASKED_MAX: u64 = 2 << 30;

/// The context when nobody asks for one: 4096 tokens, and doubled up to 32768 while the model was
/// trained on as many and the cache stays small beside the weights (a quarter of them, at least
/// 256 MiB, at most 2 GiB). Conversations are longer than 4096 tokens now, and models differ a
/// hundredfold in what a token costs: the same rule gives 32k to one with windows or few key
/// heads, and 4k to one whose cache would soon be as large as itself.
pub fn default_context(footprint: &Footprint, sequences: u32) -> u32 {
    let trained = match u32::try_from(footprint.shape().context_train).unwrap_or(u32::MAX) {
        0 => CONTEXT_TOKENS_DEFAULT,
        trained => trained,
    };
    let budget = (footprint.weights_bytes() / 4).clamp(CACHE_BYTES_SMALL, CACHE_BYTES_UNASKED_MAX);
    let cache = |context_tokens: u32| {
        let (key, value) = (CacheType::F16.tensor_type(), CacheType::F16.tensor_type());
        let sequences = u64::from(sequences.max(1));
        let context_tokens = u64::from(context_tokens) * sequences;
        footprint.kv_bytes(&Cache {
            context_tokens,
            micro_batch_tokens: 512,
            sequences,
            key,
            value,
        })
    };
    let mut chosen = trained.min(CONTEXT_TOKENS_DEFAULT);
    while chosen < trained.min(CONTEXT_TOKENS_UNASKED_MAX) {
        let next = (chosen * 2).min(trained);
        if cache(next).is_none_or(|bytes| bytes > budget) {
            break;
        }
        chosen = next;
    }
    chosen
}

/// All candidates, the most wanted first. The cache goes to 8 bits before the context goes below
/// 16k, and never further by itself.
pub(super) fn candidates(
    footprint: &Footprint,
    wishes: &Wishes,
) -> Result<Vec<Candidate>, PlanError> {
    let wanted = default_context(footprint, wishes.sequences);
    let mut contexts = vec![wishes.context_tokens.unwrap_or(wanted)];
    if wishes.context_tokens.is_none() {
        let shorter = std::iter::successors(Some(CONTEXT_TOKENS_UNASKED_MAX), |n| Some(n / 2));
        let shorter = shorter.take_while(|tokens| *tokens >= CONTEXT_TOKENS_MIN);
        contexts.extend(shorter.filter(|tokens| *tokens < wanted));
    }
    let types = types(footprint, wishes)?;
    let exact = types[0];
    let mut found = Vec::new();
    for (index, context_tokens) in contexts.iter().copied().enumerate() {
        let next = contexts.get(index + 1).copied().unwrap_or(0);
        for &(key_type, value_type) in &types {
            let is_exact = (key_type, value_type) == exact;
            if is_exact || next < CONTEXT_TOKENS_ENOUGH {
                found.push(Candidate { context_tokens, key_type, value_type });
            }
        }
    }
    Ok(found)
}

/// Types of keys and values: as asked, else 16 bits, then 8.
fn types(footprint: &Footprint, wishes: &Wishes) -> Result<Vec<(CacheType, CacheType)>, PlanError> {
    let shape = footprint.shape();
    let suits = |(key, value): (CacheType, CacheType)| {
        let (key, value) = (key.tensor_type(), value.tensor_type());
        footprint.kv_bytes_per_token(key, value).is_some()
    };
    let of = |unasked: CacheType| {
        let value = if wishes.no_fused_attention { CacheType::F16 } else { unasked };
        (wishes.key_type.unwrap_or(unasked), wishes.value_type.unwrap_or(value))
    };
    let exact = of(CacheType::F16);
    if !suits(exact) {
        let quantized = |kind: &CacheType| kind.tensor_type().is_quantized();
        return Err(PlanError::CacheType {
            cache_type: [exact.0, exact.1].into_iter().find(quantized).unwrap_or(exact.0),
            key_length: shape.key_length,
            value_length: shape.value_length,
        });
    }
    let mut types = vec![exact];
    let small = of(CacheType::Q8_0);
    if small != exact && suits(small) {
        types.push(small);
    }
    Ok(types)
}
