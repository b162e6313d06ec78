//! Mistral 7B and its dense kin: Llama's build with grouped heads, and a sliding window in its
//! first version.

use super::Family;
use super::hyperparameters::{Defaults, HeadDimension, Hyperparameters};
use super::llama;

/// The family.
pub(super) const FAMILY: Family = Family {
    name: "Mistral",
    classes: &["MistralForCausalLM"],
    architecture: "llama",
    defaults: Defaults {
        context: 131_072,
        heads_kv: Some(8),
        head_dimension: HeadDimension::Derived,
        norm_epsilon: 1e-6,
        rope_theta: 10_000.0,
        experts: None,
    },
    rules: &llama::RULES,
    generated: llama::generated,
    losses: window_is_lost,
};

/// GGUF's `llama` architecture attends to the whole context: upstream's converter drops the window,
/// and so does this one.
pub(super) fn window_is_lost(hyperparameters: &Hyperparameters) -> Vec<String> {
    let window = hyperparameters.sliding_window;
    let narrower = window.filter(|window| *window < hyperparameters.context);
    let warning = narrower.map(|window| {
        format!(
            "sliding window of {window} tokens: the output attends to the whole context instead \
             (the llama architecture of GGUF has no window)"
        )
    });
    warning.into_iter().collect()
}
