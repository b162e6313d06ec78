//! The part of the check that concerns the numbers of the architecture.

use super::{Refusal, Warning};
use crate::gguf::{Array, Metadata, TensorInfo, Value};
use crate::shape::{BLOCKS_MAX, CONTEXT_TOKENS_MAX, EXPERTS_MAX, LENGTH_MAX};

/// Metadata with the architecture's prefix.
pub(super) struct Keys<'a> {
    pub(super) metadata: &'a Metadata,
    pub(super) architecture: &'a str,
}

impl Keys<'_> {
    fn name(&self, suffix: &str) -> String {
        format!("{}.{suffix}", self.architecture)
    }

    fn get(&self, suffix: &str) -> Option<&Value> {
        self.metadata.get(&self.name(suffix))
    }

    /// A number, within bounds where it is there.
    fn number(&self, suffix: &str, least: u64, most: u64) -> Result<Option<u64>, Refusal> {
        let Some(value) = self.get(suffix) else { return Ok(None) };
        let key = self.name(suffix);
        match value.as_u64() {
            None => Err(Refusal::Type { key, wanted: "unsigned number" }),
            Some(value) if !(least..=most).contains(&value) => {
                Err(Refusal::Range { key, value, least, most })
            }
            value => Ok(value),
        }
    }

    /// A number for each block; one number alone stands for all.
    fn numbers(&self, suffix: &str) -> Result<Vec<u64>, Refusal> {
        let wrong =
            || Refusal::Type { key: self.name(suffix), wanted: "unsigned number or list of them" };
        match self.get(suffix) {
            None => Ok(Vec::new()),
            Some(Value::Array(Array::String(_))) => Err(wrong()),
            Some(Value::Array(array)) => {
                array.values().map(|value| value.as_u64().ok_or_else(wrong)).collect()
            }
            Some(value) => Ok(vec![value.as_u64().ok_or_else(wrong)?]),
        }
    }

    fn rule(&self, suffix: &str, value: &impl ToString, rule: impl Into<String>) -> Refusal {
        Refusal::Rule { key: self.name(suffix), value: value.to_string(), rule: rule.into() }
    }
}

pub(super) fn sizes(keys: &Keys<'_>, warnings: &mut Vec<Warning>) -> Result<(), Refusal> {
    let blocks = keys.number("block_count", 1, BLOCKS_MAX)?;
    keys.number("embedding_length", 1, LENGTH_MAX)?;
    let context = keys.number("context_length", 0, CONTEXT_TOKENS_MAX)?;
    if matches!(context, None | Some(0)) {
        warnings.push(Warning::NoContextLength);
    }
    for feed_forward in keys.numbers("feed_forward_length")? {
        if feed_forward > LENGTH_MAX {
            let rule = format!("at most {LENGTH_MAX}");
            return Err(keys.rule("feed_forward_length", &feed_forward, rule));
        }
    }
    // Blocks of a part beside the model must not be more than the model's.
    for part in ["nextn_predict_layers", "posnet.block_count", "convnext.block_count"] {
        keys.number(part, 0, blocks.unwrap_or(BLOCKS_MAX))?;
    }
    Ok(())
}

pub(super) fn experts(keys: &Keys<'_>) -> Result<(), Refusal> {
    const USED: &str = "expert_used_count";
    let count = keys.number("expert_count", 0, EXPERTS_MAX)?.unwrap_or(0);
    let used = keys.numbers(USED)?;
    let groups = keys.number("expert_group_count", 0, EXPERTS_MAX)?.unwrap_or(0);
    if keys.architecture.starts_with("hunyuan") && count <= 1 {
        // llama.cpp takes one expert for none there.
        return Ok(());
    }
    let most = used.iter().copied().max().unwrap_or(0);
    if most > count {
        return Err(keys.rule(USED, &most, format!("there are {count} experts")));
    }
    let uneven = used.iter().any(|&each| each != most);
    if uneven && !keys.architecture.starts_with("nemotron_h") {
        // llama.cpp accepts the list and computes with its first number.
        return Err(keys.rule(USED, &"a list of different numbers", "must be one for all blocks"));
    }
    if count == 0 {
        return match groups {
            0 => Ok(()),
            groups => Err(keys.rule("expert_group_count", &groups, "there are no experts")),
        };
    }
    if most == 0 {
        return Err(keys.rule(USED, &0, format!("at least 1 of {count} experts")));
    }
    if groups >= count {
        let rule = format!("must be less than the {count} experts");
        return Err(keys.rule("expert_group_count", &groups, rule));
    }
    if groups > 1 {
        if !count.is_multiple_of(groups) {
            let rule = format!("must divide the {count} experts");
            return Err(keys.rule("expert_group_count", &groups, rule));
        }
        keys.number("expert_group_used_count", 1, groups - 1)?.ok_or_else(|| {
            keys.rule("expert_group_used_count", &"missing", "experts are in groups")
        })?;
    }
    Ok(())
}

pub(super) fn attention(keys: &Keys<'_>, tensors: &[TensorInfo]) -> Result<(), Refusal> {
    const HEADS: &str = "attention.head_count";
    const HEADS_KV: &str = "attention.head_count_kv";
    let heads = keys.numbers(HEADS)?;
    let heads_kv = keys.numbers(HEADS_KV)?;
    if let Some(large) = heads.iter().chain(&heads_kv).find(|each| **each > LENGTH_MAX) {
        return Err(keys.rule(HEADS, &large, format!("at most {LENGTH_MAX}")));
    }
    let attends = |tensor: &TensorInfo| {
        tensor.name.ends_with(".attn_q.weight") || tensor.name.ends_with(".attn_qkv.weight")
    };
    // Recurrent models have no heads, nor have some blocks of mixed ones.
    if tensors.iter().any(attends) {
        if heads.iter().all(|&each| each == 0) {
            return Err(keys.rule(HEADS, &0, "the blocks have attention"));
        }
        if !heads_kv.is_empty() && heads_kv.iter().all(|&each| each == 0) {
            return Err(keys.rule(HEADS_KV, &0, "the blocks have attention"));
        }
    }
    let blocks = heads.len().max(heads_kv.len());
    let of_block = |list: &[u64], block: usize| list.get(block).or(list.first()).copied();
    for block in 0..blocks {
        let (Some(heads), Some(kv)) = (of_block(&heads, block), of_block(&heads_kv, block)) else {
            continue;
        };
        if kv > 0 && !heads.is_multiple_of(kv) {
            return Err(keys.rule(HEADS_KV, &kv, format!("must divide the {heads} heads")));
        }
    }
    let key = keys.number("attention.key_length", 1, LENGTH_MAX)?;
    let value = keys.number("attention.value_length", 1, LENGTH_MAX)?;
    let default = match (keys.number("embedding_length", 1, LENGTH_MAX)?, heads.first()) {
        (Some(embedding), Some(heads)) => embedding.checked_div(*heads),
        _ => None,
    };
    if keys.architecture == "llama" && key.or(default) != value.or(default) {
        let value = value.or(default).unwrap_or(0);
        return Err(keys.rule("attention.value_length", &value, "must be that of the keys"));
    }
    Ok(())
}

pub(super) fn rotation_and_norms(keys: &Keys<'_>) -> Result<(), Refusal> {
    for suffix in ["rope.dimension_count", "rope.dimension_count_swa"] {
        let Some(dimensions) = keys.number(suffix, 0, LENGTH_MAX)? else { continue };
        if !dimensions.is_multiple_of(2) {
            return Err(keys.rule(
                suffix,
                &dimensions,
                "must be even: numbers are rotated in pairs",
            ));
        }
    }
    if let Some(scaling) = keys.get("rope.scaling.type") {
        let scaling = scaling.as_str().unwrap_or("not a text");
        if !["none", "linear", "yarn", "longrope"].contains(&scaling) {
            return Err(keys.rule("rope.scaling.type", &scaling, "none, linear, yarn or longrope"));
        }
    }
    for norm in ["layer_norm_epsilon", "layer_norm_rms_epsilon", "group_norm_epsilon"] {
        let suffix = format!("attention.{norm}");
        let Some(value) = keys.get(&suffix) else { continue };
        let wrong = || Refusal::Type { key: keys.name(&suffix), wanted: "float" };
        let epsilon = value.as_f32().ok_or_else(wrong)?;
        if !(epsilon.is_finite() && epsilon >= 0.0) {
            return Err(keys.rule(&suffix, &epsilon, "must be zero or more"));
        }
    }
    Ok(())
}
