//! Llama 1, 2, 3 and 3.x, and the many models of the same build (TinyLlama, SmolLM, CodeLlama …).

use super::Family;
use super::hyperparameters::{Defaults, HeadDimension, Hyperparameters};
use super::tensors::{Content, Recipe, Rows, Rule};

/// The family.
pub(super) const FAMILY: Family = Family {
    name: "Llama",
    classes: &["LlamaForCausalLM", "LLaMAForCausalLM"],
    architecture: "llama",
    defaults: Defaults {
        context: 2048,
        heads_kv: None,
        head_dimension: HeadDimension::Derived,
        norm_epsilon: 1e-6,
        rope_theta: 10_000.0,
        experts: None,
    },
    rules: &RULES,
    generated,
    losses: |_| Vec::new(),
};

/// The tensors of a dense decoder in Llama's build; Mistral names them alike.
pub(super) const RULES: [Rule; 12] = [
    Rule::stored("model.embed_tokens", "token_embd"),
    Rule::stored("model.norm", "output_norm"),
    Rule::stored("lm_head", "output"),
    Rule::stored("model.layers.{block}.input_layernorm", "blk.{block}.attn_norm"),
    Rule::rotary("model.layers.{block}.self_attn.q_proj", "blk.{block}.attn_q", Rows::Query),
    Rule::rotary("model.layers.{block}.self_attn.k_proj", "blk.{block}.attn_k", Rows::Key),
    Rule::stored("model.layers.{block}.self_attn.v_proj", "blk.{block}.attn_v"),
    Rule::stored("model.layers.{block}.self_attn.o_proj", "blk.{block}.attn_output"),
    Rule::stored("model.layers.{block}.post_attention_layernorm", "blk.{block}.ffn_norm"),
    Rule::stored("model.layers.{block}.mlp.gate_proj", "blk.{block}.ffn_gate"),
    Rule::stored("model.layers.{block}.mlp.up_proj", "blk.{block}.ffn_up"),
    Rule::stored("model.layers.{block}.mlp.down_proj", "blk.{block}.ffn_down"),
];

/// `rope_freqs.weight`, when the rotary embedding is scaled as Llama 3.1 does.
pub(super) fn generated(hyperparameters: &Hyperparameters) -> Vec<Recipe> {
    let factors = hyperparameters.rope_factors();
    let recipe = factors.map(|factors| Recipe {
        name: "rope_freqs.weight".to_owned(),
        dimensions: vec![factors.len() as u64],
        content: Content::Values(factors),
    });
    recipe.into_iter().collect()
}
