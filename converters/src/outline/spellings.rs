//! How Hugging Face configurations spell the numbers of each architecture.

use super::Keys;
use crate::checkpoint::Config;
use crate::error::ConvertError;
use crate::families::hyperparameters::{Defaults, HeadDimension};
use nfl_models::shape::LENGTH_MAX;

/// How one kind of configuration is read.
#[derive(Debug)]
pub(super) struct Spelling {
    /// The names in `architectures`.
    pub(super) classes: &'static [&'static str],
    /// `general.architecture` of a file.
    pub(super) architecture: &'static str,
    /// What Hugging Face's classes assume where the file is silent.
    pub(super) defaults: Defaults,
    /// Whether the embedding is the output matrix where the file is silent.
    pub(super) tied_output: bool,
    /// Whether queries, keys and values have biases, whatever the file says.
    pub(super) attention_bias: bool,
    /// Whether queries, keys and values are one matrix.
    pub(super) fused_attention: bool,
    /// Sets what is special.
    pub(super) more: fn(&Config, &mut Keys<'_>) -> Result<(), ConvertError>,
}

const PLAIN: Spelling = Spelling {
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
    tied_output: false,
    attention_bias: false,
    fused_attention: false,
    more: |_, _| Ok(()),
};

/// Every spelling that is known.
pub(super) const SPELLINGS: &[&Spelling] = &[
    &PLAIN,
    &Spelling { classes: &["MistralForCausalLM"], ..PLAIN },
    &Spelling {
        classes: &["MixtralForCausalLM"],
        defaults: Defaults { heads_kv: Some(8), experts: Some((8, 2)), ..PLAIN.defaults },
        ..PLAIN
    },
    &Spelling {
        classes: &["Qwen2ForCausalLM"],
        architecture: "qwen2",
        defaults: Defaults { context: 32_768, ..PLAIN.defaults },
        attention_bias: true,
        ..PLAIN
    },
    &Spelling {
        classes: &["Qwen3ForCausalLM"],
        architecture: "qwen3",
        defaults: Defaults { context: 32_768, ..PLAIN.defaults },
        ..PLAIN
    },
    &Spelling {
        classes: &["Qwen3MoeForCausalLM"],
        architecture: "qwen3moe",
        defaults: Defaults { context: 32_768, ..PLAIN.defaults },
        more: |config, keys| keys.experts(config, "num_experts", "moe_intermediate_size"),
        ..PLAIN
    },
    &Spelling {
        classes: &["GptOssForCausalLM"],
        architecture: "gpt-oss",
        defaults: Defaults { context: 131_072, norm_epsilon: 1e-5, ..PLAIN.defaults },
        more: gpt_oss,
        ..PLAIN
    },
    &Spelling {
        classes: &["DeepseekV2ForCausalLM", "DeepseekV3ForCausalLM"],
        architecture: "deepseek2",
        more: deepseek,
        ..PLAIN
    },
    &Spelling { classes: &["GraniteForCausalLM"], architecture: "granite", more: granite, ..PLAIN },
    &Spelling {
        classes: &["GraniteMoeForCausalLM", "GraniteMoeSharedForCausalLM"],
        architecture: "granitemoe",
        defaults: Defaults { experts: Some((8, 2)), ..PLAIN.defaults },
        more: |config, keys| {
            let shared = "expert_shared_feed_forward_length";
            keys.copy_optional(config, "shared_intermediate_size", shared)?;
            granite(config, keys)
        },
        ..PLAIN
    },
    &Spelling {
        classes: &["Olmo2ForCausalLM"],
        architecture: "olmo2",
        defaults: Defaults { norm_epsilon: 1e-5, ..PLAIN.defaults },
        ..PLAIN
    },
    &Spelling {
        classes: &["Olmo3ForCausalLM"],
        architecture: "olmo2",
        defaults: Defaults { norm_epsilon: 1e-5, ..PLAIN.defaults },
        more: |config, keys| keys.window(config, 4096),
        ..PLAIN
    },
    &Spelling {
        classes: &["Gemma2ForCausalLM"],
        architecture: "gemma2",
        defaults: Defaults { context: 8192, ..PLAIN.defaults },
        tied_output: true,
        more: |config, keys| keys.window(config, 4096),
        ..PLAIN
    },
    &Spelling {
        classes: &["Gemma3ForCausalLM", "Gemma3ForConditionalGeneration"],
        architecture: "gemma3",
        defaults: Defaults { context: 131_072, rope_theta: 1_000_000.0, ..PLAIN.defaults },
        tied_output: true,
        more: |config, keys| keys.window(config, 1024),
        ..PLAIN
    },
    &Spelling {
        classes: &["Phi3ForCausalLM", "Phi3VForCausalLM"],
        architecture: "phi3",
        defaults: Defaults { context: 4096, norm_epsilon: 1e-5, ..PLAIN.defaults },
        fused_attention: true,
        ..PLAIN
    },
];

fn granite(config: &Config, keys: &mut Keys<'_>) -> Result<(), ConvertError> {
    keys.set_float("logit_scale", config.optional_f64("logits_scaling")?.unwrap_or(1.0));
    Ok(())
}

fn gpt_oss(config: &Config, keys: &mut Keys<'_>) -> Result<(), ConvertError> {
    keys.experts(config, "num_local_experts", "intermediate_size")?;
    keys.window(config, 128)
}

/// Latent attention: to llama.cpp it is one head of keys that every query shares, as long as the
/// latent vector and the rotated part.
fn deepseek(config: &Config, keys: &mut Keys<'_>) -> Result<(), ConvertError> {
    let number = |key: &str| config.within(key, 1..=LENGTH_MAX);
    let rank = keys.copy(config, "kv_lora_rank", "attention.kv_lora_rank")?;
    let rotated = keys.copy(config, "qk_rope_head_dim", "rope.dimension_count")?;
    keys.copy_optional(config, "q_lora_rank", "attention.q_lora_rank")?;
    keys.set("attention.head_count_kv", 1);
    keys.set("attention.key_length", rank + rotated);
    keys.set("attention.value_length", rank);
    keys.set("attention.key_length_mla", number("qk_nope_head_dim")? + rotated);
    keys.copy(config, "v_head_dim", "attention.value_length_mla")?;
    keys.experts(config, "n_routed_experts", "moe_intermediate_size")?;
    keys.copy(config, "n_shared_experts", "expert_shared_count")?;
    keys.copy_optional(config, "first_k_dense_replace", "leading_dense_block_count")
}
