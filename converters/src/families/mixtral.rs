//! Mixtral: Mistral's attention, with a router and experts in place of each feed-forward network.

use super::hyperparameters::{Defaults, HeadDimension};
use super::tensors::{Rows, Rule};
use super::{Family, llama, mistral};

/// The family.
pub(super) const FAMILY: Family = Family {
    name: "Mixtral",
    classes: &["MixtralForCausalLM"],
    architecture: "llama",
    defaults: Defaults {
        context: 131_072,
        heads_kv: Some(8),
        head_dimension: HeadDimension::AsGiven,
        norm_epsilon: 1e-5,
        rope_theta: 1_000_000.0,
        experts: Some((8, 2)),
    },
    rules: &RULES,
    generated: llama::generated,
    losses: mistral::window_is_lost,
};

/// `w1` gates, `w3` raises, `w2` lowers; the stacks are written in the order of these rules.
const RULES: [Rule; 13] = [
    Rule::stored("model.embed_tokens", "token_embd"),
    Rule::stored("model.norm", "output_norm"),
    Rule::stored("lm_head", "output"),
    Rule::stored("model.layers.{block}.input_layernorm", "blk.{block}.attn_norm"),
    Rule::rotary("model.layers.{block}.self_attn.q_proj", "blk.{block}.attn_q", Rows::Query),
    Rule::rotary("model.layers.{block}.self_attn.k_proj", "blk.{block}.attn_k", Rows::Key),
    Rule::stored("model.layers.{block}.self_attn.v_proj", "blk.{block}.attn_v"),
    Rule::stored("model.layers.{block}.self_attn.o_proj", "blk.{block}.attn_output"),
    Rule::stored("model.layers.{block}.post_attention_layernorm", "blk.{block}.ffn_norm"),
    Rule::stored("model.layers.{block}.block_sparse_moe.gate", "blk.{block}.ffn_gate_inp"),
    Rule::stored(
        "model.layers.{block}.block_sparse_moe.experts.{expert}.w1",
        "blk.{block}.ffn_gate_exps",
    ),
    Rule::stored(
        "model.layers.{block}.block_sparse_moe.experts.{expert}.w2",
        "blk.{block}.ffn_down_exps",
    ),
    Rule::stored(
        "model.layers.{block}.block_sparse_moe.experts.{expert}.w3",
        "blk.{block}.ffn_up_exps",
    ),
];
