//! What a tensor is to the quantiser, by its name alone: which rule of the mixture applies, and
//! whether it is quantised.
//!
//! The same names and the same order of questions as `tensor_get_category` and
//! `tensor_allows_quantization` in llama.cpp's llama-quant.cpp: a converted file must choose the
//! types that `llama-quantize` would.

use nfl_models::TensorType;

/// A name, its dimensions, and the type it has now: all that the choice of a type may depend on.
#[derive(Debug, Clone, Copy)]
pub struct Candidate<'a> {
    /// GGUF name (`blk.0.attn_v.weight`).
    pub name: &'a str,
    /// ggml order: the row length first.
    pub dimensions: &'a [u64],
    /// The type in the source, which a tensor keeps when it is not quantised.
    pub source_type: TensorType,
}

/// Which rule of the mixture a tensor falls under.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Category {
    /// `token_embd.weight`
    TokenEmbedding,
    /// `attn_q.weight`
    AttentionQuery,
    /// `attn_k.weight`
    AttentionKey,
    /// `attn_v.weight`, and the fused `attn_qkv` and `attn_kv_b`, which hold the values as well
    AttentionValue,
    /// `attn_output.weight`
    AttentionOutput,
    /// `ffn_up…`, experts included
    FeedForwardUp,
    /// `ffn_gate…`, experts included
    FeedForwardGate,
    /// `ffn_down…`, experts included
    FeedForwardDown,
    /// `output.weight`
    Output,
    /// anything else
    Other,
}

/// First match wins, so the order matters (`attn_qkv` before `attn_q` would not: the names differ
/// by the dot).
const BY_PART: [(&str, Category); 9] = [
    ("attn_qkv.weight", Category::AttentionValue),
    ("attn_kv_b.weight", Category::AttentionValue),
    ("attn_v.weight", Category::AttentionValue),
    ("attn_k.weight", Category::AttentionKey),
    ("attn_q.weight", Category::AttentionQuery),
    ("attn_output.weight", Category::AttentionOutput),
    ("ffn_up", Category::FeedForwardUp),
    ("ffn_gate", Category::FeedForwardGate),
    ("ffn_down", Category::FeedForwardDown),
];

impl Category {
    /// The category of a GGUF tensor name.
    pub fn of(name: &str) -> Self {
        match name {
            "output.weight" => return Self::Output,
            "token_embd.weight" | "per_layer_token_embd.weight" => return Self::TokenEmbedding,
            _ => {}
        }
        let found = BY_PART.iter().find(|(part, _)| name.contains(part));
        found.map_or(Self::Other, |(_, category)| *category)
    }
}

/// Parts of names that are never quantised: routers, small or sensitive matrices, of any
/// architecture.
const KEPT_PARTS: [&str; 34] = [
    "_norm.weight",
    "ffn_gate_inp.weight",
    "ffn_gate_tid2eid.weight",
    "altup",
    "laurel",
    "per_layer_model_proj",
    "ssm_conv1d",
    "shortconv.conv.weight",
    "indexer.k_proj.weight",
    "indexer.q_proj.weight",
    "time_mix_first.weight",
    "time_mix_w0.weight",
    "time_mix_w1.weight",
    "time_mix_w2.weight",
    "time_mix_v0.weight",
    "time_mix_v1.weight",
    "time_mix_v2.weight",
    "time_mix_a0.weight",
    "time_mix_a1.weight",
    "time_mix_a2.weight",
    "time_mix_g1.weight",
    "time_mix_g2.weight",
    "time_mix_decay_w1.weight",
    "time_mix_decay_w2.weight",
    "time_mix_lerp_fused.weight",
    "attn_rel_b.weight",
    ".position_embd",
    "sam.pos_embd",
    "sam.neck.",
    "sam.net_",
    ".rel_pos",
    ".patch_embd",
    ".patch_merger",
    "a.rvq.codebook",
];

/// Whole names, and one more part, that are never quantised.
const KEPT_NAMES: [&str; 2] = ["position_embd.weight", "token_types.weight"];

/// Whether the tensor may change its type: matrices and stacks of matrices whose name ends in
/// `weight`, with exceptions.
pub fn allows_quantization(candidate: &Candidate<'_>) -> bool {
    let name = candidate.name;
    let is_matrix = candidate.dimensions.iter().skip(1).any(|dimension| *dimension > 1);
    is_matrix
        && name.ends_with("weight")
        && !KEPT_PARTS.iter().any(|part| name.contains(part))
        && !KEPT_NAMES.contains(&name)
        && !name.contains("mm.a.code_embd")
}

/// The key by which llama.cpp's loader, and so `llama-quantize`'s output, orders tensors: the block
/// (none first), then the bytes of the name.
pub fn file_order(name: &str) -> (i64, &str) {
    (block_number(name).unwrap_or(-1), name)
}

/// The number in `blk.N.`.
pub fn block_number(name: &str) -> Option<i64> {
    let (number, _) = name.strip_prefix("blk.")?.split_once('.')?;
    number.parse::<u32>().ok().map(i64::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allowed(name: &str, dimensions: &[u64]) -> bool {
        allows_quantization(&Candidate { name, dimensions, source_type: TensorType::F32 })
    }

    #[test]
    fn names_fall_into_their_categories() {
        assert_eq!(Category::of("output.weight"), Category::Output);
        assert_eq!(Category::of("output_norm.weight"), Category::Other);
        assert_eq!(Category::of("token_embd.weight"), Category::TokenEmbedding);
        assert_eq!(Category::of("blk.3.attn_v.weight"), Category::AttentionValue);
        assert_eq!(Category::of("blk.3.attn_v.bias"), Category::Other);
        assert_eq!(Category::of("blk.3.ffn_down_exps.weight"), Category::FeedForwardDown);
        assert_eq!(Category::of("blk.3.ffn_gate_inp.weight"), Category::FeedForwardGate);
    }

    #[test]
    fn vectors_norms_and_routers_are_kept() {
        assert!(allowed("blk.0.attn_q.weight", &[64, 64]));
        assert!(allowed("blk.0.ffn_up_exps.weight", &[64, 192, 4]));
        assert!(!allowed("blk.0.attn_norm.weight", &[64]));
        assert!(!allowed("blk.0.attn_q.bias", &[64, 64]));
        assert!(!allowed("blk.0.ffn_gate_inp.weight", &[64, 4]));
        assert!(!allowed("blk.0.attn_q.weight", &[64, 1]));
    }

    #[test]
    fn file_order_is_by_block_number_then_name() {
        let mut names = ["blk.10.a", "token_embd.weight", "blk.2.b", "blk.2.a", "output.weight"];
        names.sort_by_key(|name| file_order(name));
        assert_eq!(names, ["output.weight", "token_embd.weight", "blk.2.a", "blk.2.b", "blk.10.a"]);
    }
}
