//! Mixtral in plain f64 loops, straight from the safetensors checkpoint as its authors define it.
//!
//! Nothing is shared with the converter or the engine: weights are read with the `safetensors` crate under their
//! Hugging Face names, positions are rotated by halves (no permuted rows), every expert is its own matrices.
//! Source: Jiang et al., "Mixtral of Experts" (arXiv 2401.04088) §2, and the published `MixtralForCausalLM`.

use std::collections::HashMap;
use std::path::Path;

use safetensors::{Dtype, SafeTensors};

/// A matrix of `rows` × `columns`, row-major.
struct Matrix {
    columns: usize,
    values: Vec<f64>,
}

impl Matrix {
    fn row(&self, row: usize) -> &[f64] {
        &self.values[row * self.columns..(row + 1) * self.columns]
    }

    /// y = W x
    fn times(&self, x: &[f64]) -> Vec<f64> {
        assert_eq!(self.columns, x.len());
        self.values.chunks_exact(self.columns).map(|row| dot(row, x)).collect()
    }
}

/// The model: hyper-parameters and every tensor as f64.
pub(crate) struct Mixtral {
    layers: usize,
    heads: usize,
    heads_kv: usize,
    head_length: usize,
    experts_used: usize,
    rope_theta: f64,
    norm_epsilon: f64,
    tensors: HashMap<String, Matrix>,
}

/// What the model says of a text.
pub(crate) struct Verdict {
    /// Logits of every position: `tokens` × `vocabulary`.
    pub(crate) logits: Vec<Vec<f64>>,
    /// The chosen experts of `[layer][position]`, most probable first.
    pub(crate) experts: Vec<Vec<Vec<usize>>>,
    /// The smallest gap between the router's logits of the last chosen and the first refused expert.
    pub(crate) margin_min: f64,
}

impl Mixtral {
    /// Reads `config.json` and `model.safetensors` of a checkpoint directory with F32 weights.
    pub(crate) fn open(directory: &Path) -> Self {
        let config: serde_json::Value =
            serde_json::from_slice(&std::fs::read(directory.join("config.json")).unwrap()).unwrap();
        let number = |key: &str| {
            config[key].as_u64().unwrap_or_else(|| panic!("config.json: {key}")) as usize
        };
        let bytes = std::fs::read(directory.join("model.safetensors")).unwrap();
        let file = SafeTensors::deserialize(&bytes).unwrap();
        let tensors =
            file.tensors().into_iter().map(|(name, view)| (name, matrix(&view))).collect();
        Self {
            layers: number("num_hidden_layers"),
            heads: number("num_attention_heads"),
            heads_kv: number("num_key_value_heads"),
            head_length: number("hidden_size") / number("num_attention_heads"),
            experts_used: number("num_experts_per_tok"),
            rope_theta: config["rope_theta"].as_f64().unwrap(),
            norm_epsilon: config["rms_norm_eps"].as_f64().unwrap(),
            tensors,
        }
    }

    fn tensor(&self, name: &str) -> &Matrix {
        self.tensors.get(name).unwrap_or_else(|| panic!("the checkpoint lacks {name}"))
    }

    /// Runs the whole text at once, position by position, layer by layer.
    pub(crate) fn judge(&self, tokens: &[usize]) -> Verdict {
        let embedding = self.tensor("model.embed_tokens.weight");
        let mut states: Vec<Vec<f64>> =
            tokens.iter().map(|&token| embedding.row(token).to_vec()).collect();
        let mut verdict =
            Verdict { logits: Vec::new(), experts: Vec::new(), margin_min: f64::INFINITY };
        for layer in 0..self.layers {
            self.attend(layer, &mut states);
            let mut chosen_by_position = Vec::new();
            for state in &mut states {
                let (update, chosen, margin) = self.mixture(layer, state);
                add(state, &update);
                chosen_by_position.push(chosen);
                verdict.margin_min = verdict.margin_min.min(margin);
            }
            verdict.experts.push(chosen_by_position);
        }
        let norm = self.tensor("model.norm.weight");
        let head = self.tensor("lm_head.weight");
        verdict.logits =
            states.iter().map(|state| head.times(&self.normalise(state, norm))).collect();
        verdict
    }

    /// Grouped-query causal self-attention with rotary positions, added to the states.
    fn attend(&self, layer: usize, states: &mut [Vec<f64>]) {
        let name = |part: &str| format!("model.layers.{layer}.{part}.weight");
        let norm = self.tensor(&name("input_layernorm"));
        let (mut queries, mut keys, mut values) = (Vec::new(), Vec::new(), Vec::new());
        for (position, state) in states.iter().enumerate() {
            let x = self.normalise(state, norm);
            let mut query = self.tensor(&name("self_attn.q_proj")).times(&x);
            let mut key = self.tensor(&name("self_attn.k_proj")).times(&x);
            self.rotate(&mut query, position);
            self.rotate(&mut key, position);
            queries.push(query);
            keys.push(key);
            values.push(self.tensor(&name("self_attn.v_proj")).times(&x));
        }
        let output = self.tensor(&name("self_attn.o_proj"));
        let length = self.head_length;
        for (position, state) in states.iter_mut().enumerate() {
            let mut heads = vec![0.0; self.heads * length];
            for head in 0..self.heads {
                let own = head * length..(head + 1) * length;
                let shared_head = head / (self.heads / self.heads_kv);
                let shared = shared_head * length..(shared_head + 1) * length;
                let scale = 1.0 / (length as f64).sqrt();
                let scores: Vec<f64> = (0..=position)
                    .map(|past| {
                        scale * dot(&queries[position][own.clone()], &keys[past][shared.clone()])
                    })
                    .collect();
                for (past, weight) in softmax(&scores).into_iter().enumerate() {
                    for (sum, value) in
                        heads[own.clone()].iter_mut().zip(&values[past][shared.clone()])
                    {
                        *sum += weight * value;
                    }
                }
            }
            add(state, &output.times(&heads));
        }
    }

    /// Σ over the chosen experts of gate · W2(silu(W1 x) ⊙ W3 x); returns also the choice and its margin.
    fn mixture(&self, layer: usize, state: &[f64]) -> (Vec<f64>, Vec<usize>, f64) {
        let name = |part: &str| format!("model.layers.{layer}.{part}.weight");
        let x = self.normalise(state, self.tensor(&name("post_attention_layernorm")));
        let scores = self.tensor(&name("block_sparse_moe.gate")).times(&x);
        let probabilities = softmax(&scores);
        let mut order: Vec<usize> = (0..scores.len()).collect();
        order.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]));
        let chosen = order[..self.experts_used].to_vec();
        let last_chosen = scores[chosen[self.experts_used - 1]];
        let margin =
            order.get(self.experts_used).map_or(f64::INFINITY, |&next| last_chosen - scores[next]);
        let total: f64 = chosen.iter().map(|&expert| probabilities[expert]).sum();
        let mut update = vec![0.0; state.len()];
        for &expert in &chosen {
            let matrix = |part: &str| {
                self.tensor(&name(&format!("block_sparse_moe.experts.{expert}.{part}")))
            };
            let gate = matrix("w1").times(&x);
            let up = matrix("w3").times(&x);
            let hidden: Vec<f64> =
                gate.iter().zip(&up).map(|(g, u)| g / (1.0 + (-g).exp()) * u).collect();
            let weight = probabilities[expert] / total;
            for (sum, value) in update.iter_mut().zip(matrix("w2").times(&hidden)) {
                *sum += weight * value;
            }
        }
        (update, chosen, margin)
    }

    /// Rotates each head by its position: dimension i pairs with i + half.
    fn rotate(&self, heads: &mut [f64], position: usize) {
        let half = self.head_length / 2;
        for head in heads.chunks_exact_mut(self.head_length) {
            for i in 0..half {
                let frequency = self.rope_theta.powf(-2.0 * i as f64 / self.head_length as f64);
                let (sin, cos) = (position as f64 * frequency).sin_cos();
                let (a, b) = (head[i], head[i + half]);
                head[i] = a * cos - b * sin;
                head[i + half] = b * cos + a * sin;
            }
        }
    }

    /// Root mean square normalisation.
    fn normalise(&self, x: &[f64], weight: &Matrix) -> Vec<f64> {
        let mean = dot(x, x) / x.len() as f64;
        let scale = 1.0 / (mean + self.norm_epsilon).sqrt();
        x.iter().zip(&weight.values).map(|(value, weight)| value * scale * weight).collect()
    }
}

fn matrix(view: &safetensors::tensor::TensorView<'_>) -> Matrix {
    assert_eq!(view.dtype(), Dtype::F32, "the judge reads F32 checkpoints");
    let values = view
        .data()
        .chunks_exact(4)
        .map(|bytes| f64::from(f32::from_le_bytes(bytes.try_into().unwrap())))
        .collect();
    Matrix { columns: *view.shape().last().unwrap(), values }
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

fn add(state: &mut [f64], update: &[f64]) {
    for (state, update) in state.iter_mut().zip(update) {
        *state += update;
    }
}

fn softmax(scores: &[f64]) -> Vec<f64> {
    let max = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let powers: Vec<f64> = scores.iter().map(|score| (score - max).exp()).collect();
    let total: f64 = powers.iter().sum();
    powers.into_iter().map(|power| power / total).collect()
}
