//! Every tensor of the checkpoint to generate, in the order of the layers.

use super::dimensions::{Dimensions, Family};

/// Standard deviation of biases: small beside activations of about 1.
const BIAS_DEVIATION: f32 = 0.02;

/// A tensor to generate.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Spec {
    pub(super) name: String,
    /// In PyTorch's order, the slowest first.
    pub(super) shape: Vec<u64>,
    /// Standard deviation of its values; `None` fills it with 1.
    pub(super) deviation: Option<f32>,
}

impl Spec {
    pub(super) fn elements(&self) -> u64 {
        self.shape.iter().product()
    }
}

/// The tensors of a model, named as Hugging Face's classes name them.
pub(super) fn list(dimensions: &Dimensions, router_sharpness: f32) -> Vec<Spec> {
    let hidden = dimensions.hidden;
    let mut specs = Specs(Vec::new());
    specs.matrix("model.embed_tokens", dimensions.vocabulary, hidden);
    for layer in 0..dimensions.layers {
        let prefix = format!("model.layers.{layer}");
        specs.norm(&format!("{prefix}.input_layernorm"), hidden);
        attention(&mut specs, &format!("{prefix}.self_attn"), dimensions);
        specs.norm(&format!("{prefix}.post_attention_layernorm"), hidden);
        if dimensions.family == Family::Mixtral {
            let prefix = format!("{prefix}.block_sparse_moe");
            experts(&mut specs, &prefix, dimensions, router_sharpness);
        } else {
            feed_forward(&mut specs, &format!("{prefix}.mlp"), dimensions);
        }
    }
    specs.norm("model.norm", hidden);
    if !dimensions.is_tied {
        specs.matrix("lm_head", dimensions.vocabulary, hidden);
    }
    specs.0
}

fn attention(specs: &mut Specs, prefix: &str, dimensions: &Dimensions) {
    let queries = dimensions.heads * dimensions.head_length;
    let keys = dimensions.kv_heads * dimensions.head_length;
    let hidden = dimensions.hidden;
    for (name, rows, columns) in [
        ("q_proj", queries, hidden),
        ("k_proj", keys, hidden),
        ("v_proj", keys, hidden),
        ("o_proj", hidden, queries),
    ] {
        specs.linear(&format!("{prefix}.{name}"), (rows, columns), dimensions.attention_bias);
    }
}

fn feed_forward(specs: &mut Specs, prefix: &str, dimensions: &Dimensions) {
    let (hidden, inner, bias) = (dimensions.hidden, dimensions.intermediate, dimensions.mlp_bias);
    specs.linear(&format!("{prefix}.gate_proj"), (inner, hidden), bias);
    specs.linear(&format!("{prefix}.up_proj"), (inner, hidden), bias);
    specs.linear(&format!("{prefix}.down_proj"), (hidden, inner), bias);
}

fn experts(specs: &mut Specs, prefix: &str, dimensions: &Dimensions, sharpness: f32) {
    let (hidden, inner) = (dimensions.hidden, dimensions.intermediate);
    specs.matrix(&format!("{prefix}.gate"), dimensions.experts, hidden);
    if sharpness > 0.0
        && let Some(deviation) = specs.0.last_mut().and_then(|router| router.deviation.as_mut())
    {
        // A normalised input has squares that sum to `hidden`: logits of deviation `sharpness`.
        *deviation *= sharpness;
    }
    for expert in 0..dimensions.experts {
        let prefix = format!("{prefix}.experts.{expert}");
        specs.matrix(&format!("{prefix}.w1"), inner, hidden);
        specs.matrix(&format!("{prefix}.w2"), hidden, inner);
        specs.matrix(&format!("{prefix}.w3"), inner, hidden);
    }
}

struct Specs(Vec<Spec>);

impl Specs {
    /// A matrix that keeps the size of what it is applied to: deviation 1 / sqrt(columns).
    fn matrix(&mut self, name: &str, rows: u64, columns: u64) {
        let deviation = Some((columns as f32).sqrt().recip());
        self.0.push(Spec { name: format!("{name}.weight"), shape: vec![rows, columns], deviation });
    }

    fn linear(&mut self, name: &str, (rows, columns): (u64, u64), bias: bool) {
        self.matrix(name, rows, columns);
        if bias {
            let deviation = Some(BIAS_DEVIATION);
            self.0.push(Spec { name: format!("{name}.bias"), shape: vec![rows], deviation });
        }
    }

    fn norm(&mut self, name: &str, elements: u64) {
        let name = format!("{name}.weight");
        self.0.push(Spec { name, shape: vec![elements], deviation: None });
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    use super::super::Overrides;
    use super::*;
    use crate::checkpoint::{Config, Folder};

    #[test]
    fn names_and_bytes_are_those_of_the_real_mixtral() {
        let material = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/material");
        let Ok(folder) = Folder::open(&material.join("checkpoints/mixtral-8x7b-instruct")) else {
            eprintln!("skipped: {} is absent", material.display());
            return;
        };
        let config = Config::read(&folder).unwrap();
        let dimensions = Dimensions::new(&config, &Overrides::default()).unwrap();
        let specs = list(&dimensions, 0.0);
        let index = folder.read_json("model.safetensors.index.json", 1 << 20).unwrap().unwrap();
        let real: BTreeSet<&str> =
            index["weight_map"].as_object().unwrap().keys().map(String::as_str).collect();
        let ours: BTreeSet<&str> = specs.iter().map(|spec| spec.name.as_str()).collect();
        assert_eq!(ours, real);
        let bytes: u64 = specs.iter().map(|spec| spec.elements() * 2).sum();
        assert_eq!(index["metadata"]["total_size"].as_u64(), Some(bytes));
    }
}
