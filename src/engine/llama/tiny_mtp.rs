//! Models of a few thousand weights with a prediction layer: GLM's build, and GLM's layer.
//!
//! One kind is random, so that its layer guesses wrong. The other counts: the code of each token is that of the token
//! before, rotated, so that one matrix leads from a token to its successor, and the layer can be set to be right.

use std::f32::consts::TAU;
use std::path::{Path, PathBuf};

use nfl_models::gguf::Metadata;

use super::tiny::{FEED_FORWARD, Noise, Tensor, VOCABULARY, vocabulary, write};

/// Length of a code, and of the hidden state.
const HIDDEN: usize = 64;
/// Blocks that compute the model; one more guesses.
const BLOCKS: usize = 2;
const EXPERTS: usize = 4;

/// What a model does, and from what its layer guesses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::engine) enum Kind {
    /// Random weights from a seed.
    Random(u64),
    /// Counts; guesses from the state of the token before alone.
    CountsByState,
    /// Counts; guesses from the token alone.
    CountsByToken,
}

/// The frequencies at which the pairs of a code turn from token to token, in turns of the vocabulary.
fn frequencies() -> impl Iterator<Item = u64> {
    let mut noise = Noise(7);
    (0..HIDDEN / 2).map(move |_| 1 + noise.next() % (VOCABULARY as u64 - 1))
}

/// The angle of a pair of the code of a token.
fn angle(frequency: u64, token: usize) -> f32 {
    let turned = frequency * token as u64 % VOCABULARY as u64;
    turned as f32 / VOCABULARY as f32 * TAU
}

fn code(token: usize) -> impl Iterator<Item = f32> {
    frequencies().flat_map(move |frequency| {
        let angle = angle(frequency, token);
        [angle.cos(), angle.sin()]
    })
}

/// The matrix from what the layer reads, token and state, to the code of the token.
fn projection(kind: Kind) -> Vec<f32> {
    let mut rows = vec![0.0; 2 * HIDDEN * HIDDEN];
    for (pair, frequency) in frequencies().enumerate() {
        let (sine, cosine) = angle(frequency, 1).sin_cos();
        for (row, [left, right]) in [[cosine, -sine], [sine, cosine]].into_iter().enumerate() {
            let place = 2 * pair + row;
            let row = &mut rows[place * 2 * HIDDEN..(place + 1) * 2 * HIDDEN];
            if kind == Kind::CountsByToken {
                row[place] = 1.0;
            } else {
                row[HIDDEN + 2 * pair] = left;
                row[HIDDEN + 2 * pair + 1] = right;
            }
        }
    }
    rows
}

fn metadata() -> Metadata {
    let mut metadata = Metadata::new();
    metadata.set("general.architecture", "glm4moe");
    for (key, value) in [
        ("context_length", 2048),
        ("embedding_length", HIDDEN),
        ("block_count", BLOCKS + 1),
        ("nextn_predict_layers", 1),
        ("feed_forward_length", FEED_FORWARD),
        ("expert_feed_forward_length", FEED_FORWARD / 2),
        ("expert_count", EXPERTS),
        ("expert_used_count", 2),
        ("expert_shared_count", 1),
        ("leading_dense_block_count", 1),
        ("attention.head_count", 4),
        ("attention.head_count_kv", 2),
        ("rope.dimension_count", HIDDEN / 4),
        ("vocab_size", VOCABULARY),
    ] {
        metadata.set(format!("glm4moe.{key}"), value as u32);
    }
    metadata.set("glm4moe.attention.layer_norm_rms_epsilon", 1e-5_f32);
    vocabulary(&mut metadata);
    metadata
}

fn tensors(kind: Kind) -> Vec<Tensor> {
    let Kind::Random(seed) = kind else { return counting(random(0), kind) };
    random(seed)
}

/// Nothing but the codes, the way from each to its successor, and what the layer guesses from.
fn counting(mut tensors: Vec<Tensor>, kind: Kind) -> Vec<Tensor> {
    for (name, _, values) in &mut tensors {
        match name.as_str() {
            "token_embd.weight" => *values = (0..VOCABULARY).flat_map(code).collect(),
            "output.weight" => {
                let before = |token| (token + VOCABULARY - 1) % VOCABULARY;
                *values = (0..VOCABULARY).flat_map(|token| code(before(token))).collect();
            }
            name if name.ends_with("eh_proj.weight") => *values = projection(kind),
            // What attention and feed-forward layers find is not added.
            name if ["attn_output.", "ffn_down"].iter().any(|part| name.contains(part)) => {
                values.fill(0.0);
            }
            _ => {}
        }
    }
    tensors
}

fn random(seed: u64) -> Vec<Tensor> {
    let mut noise = Noise(seed);
    let (hidden, half, words) = (HIDDEN as u64, HIDDEN as u64 / 2, VOCABULARY as u64);
    let (inner, expert, experts) = (FEED_FORWARD as u64, FEED_FORWARD as u64 / 2, EXPERTS as u64);
    let mut tensors: Vec<Tensor> = Vec::new();
    let mut add = |name: String, dimensions: &[u64], spread: f32| {
        let values = noise.values(dimensions.iter().product::<u64>() as usize, spread);
        tensors.push((name, dimensions.to_vec(), values));
    };
    add("token_embd.weight".to_owned(), &[hidden, words], 1.0);
    add("output.weight".to_owned(), &[hidden, words], 0.6);
    for block in 0..=BLOCKS {
        let mut add = |name: &str, dimensions: &[u64]| {
            add(format!("blk.{block}.{name}"), dimensions, 0.3);
        };
        add("attn_q.weight", &[hidden, hidden]);
        add("attn_k.weight", &[hidden, half]);
        add("attn_v.weight", &[hidden, half]);
        add("attn_output.weight", &[hidden, hidden]);
        if block == 0 {
            add("ffn_gate.weight", &[hidden, inner]);
            add("ffn_up.weight", &[hidden, inner]);
            add("ffn_down.weight", &[inner, hidden]);
        } else {
            add("ffn_gate_inp.weight", &[hidden, experts]);
            add("exp_probs_b.bias", &[experts]);
            add("ffn_gate_exps.weight", &[hidden, expert, experts]);
            add("ffn_up_exps.weight", &[hidden, expert, experts]);
            add("ffn_down_exps.weight", &[expert, hidden, experts]);
            add("ffn_gate_shexp.weight", &[hidden, expert]);
            add("ffn_up_shexp.weight", &[hidden, expert]);
            add("ffn_down_shexp.weight", &[expert, hidden]);
        }
        if block == BLOCKS {
            add("nextn.eh_proj.weight", &[2 * hidden, hidden]);
        }
    }
    let mut norm = |name: String| tensors.push((name, vec![hidden], vec![1.0; HIDDEN]));
    norm("output_norm.weight".to_owned());
    for block in 0..=BLOCKS {
        norm(format!("blk.{block}.attn_norm.weight"));
        norm(format!("blk.{block}.post_attention_norm.weight"));
    }
    for name in ["enorm", "hnorm", "shared_head_norm"] {
        norm(format!("blk.{BLOCKS}.nextn.{name}.weight"));
    }
    tensors
}

/// Tokens that it counts through.
pub(in crate::engine) const TOKENS: i32 = VOCABULARY as i32;

/// A model in a file of its own.
pub(in crate::engine) fn file(folder: &Path, kind: Kind) -> PathBuf {
    let path = folder.join(format!("{kind:?}.gguf"));
    write(&path, &metadata(), &tensors(kind));
    path
}
