//! Models of GLM's build that count through their vocabulary, with a layer for guesses (MTP) that is always right or, just as
//! sure of itself, always wrong.
//!
//! Pairs of numbers of a token's code turn by angles of their own from each token to its successor, so one matrix leads from
//! the state of a token to the code of the next.

use std::error::Error;
use std::f32::consts::TAU;
use std::path::Path;

use nfl_models::gguf::Gguf;

use crate::shape::{Entry, HEAD, HEADS, HEADS_KV, INNER, LAYERS, WIDTH, write_rows};

/// Experts of the block that guesses, and the neurons of each.
const EXPERTS: usize = 8;
const EXPERT_INNER: usize = INNER / 8;

/// Where the layer's guess lies, counted from the right one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Guess {
    Right,
    Beside,
}

/// The angle by which a pair of numbers turns from token to token.
fn turn(pair: usize, vocabulary: usize) -> f32 {
    // Odd multiples of an irrational step spread the frequencies over the whole vocabulary.
    let frequency = (pair as f64 * 0.618_033_988_749_895).fract() * vocabulary as f64;
    frequency.round() as f32 / vocabulary as f32 * TAU
}

fn code(token: usize, vocabulary: usize, target: &mut [f32]) {
    for (pair, target) in target.as_chunks_mut::<2>().0.iter_mut().enumerate() {
        let angle = (f64::from(turn(pair, vocabulary)) * token as f64) as f32;
        *target = [angle.cos(), angle.sin()];
    }
}

fn entries(vocabulary: usize) -> Vec<Entry> {
    let model = |name, rows, columns| Entry { name, layer: None, rows, columns, experts: 1 };
    let mut entries = vec![
        model("token_embd", vocabulary, WIDTH),
        model("output_norm", 1, WIDTH),
        model("output", vocabulary, WIDTH),
    ];
    for layer in 0..=LAYERS {
        let mut add = |name, rows, columns, experts| {
            entries.push(Entry { name, layer: Some(layer), rows, columns, experts });
        };
        add("attn_norm", 1, WIDTH, 1);
        add("attn_q", HEADS * HEAD, WIDTH, 1);
        add("attn_k", HEADS_KV * HEAD, WIDTH, 1);
        add("attn_v", HEADS_KV * HEAD, WIDTH, 1);
        add("attn_output", WIDTH, HEADS * HEAD, 1);
        add("post_attention_norm", 1, WIDTH, 1);
        if layer < LAYERS {
            add("ffn_gate", INNER, WIDTH, 1);
            add("ffn_up", INNER, WIDTH, 1);
            add("ffn_down", WIDTH, INNER, 1);
            continue;
        }
        add("ffn_gate_inp", EXPERTS, WIDTH, 1);
        add("exp_probs_b", 1, EXPERTS, 1);
        add("ffn_gate_exps", EXPERT_INNER, WIDTH, EXPERTS);
        add("ffn_up_exps", EXPERT_INNER, WIDTH, EXPERTS);
        add("ffn_down_exps", WIDTH, EXPERT_INNER, EXPERTS);
        add("ffn_gate_shexp", EXPERT_INNER, WIDTH, 1);
        add("ffn_up_shexp", EXPERT_INNER, WIDTH, 1);
        add("ffn_down_shexp", WIDTH, EXPERT_INNER, 1);
        add("nextn.eh_proj", WIDTH, 2 * WIDTH, 1);
        for norm in ["nextn.enorm", "nextn.hnorm", "nextn.shared_head_norm"] {
            add(norm, 1, WIDTH, 1);
        }
    }
    entries
}

/// Writes a model with the vocabulary of a small one.
pub(crate) fn make(small: &Gguf, guess: Guess, path: &Path) -> Result<(), Box<dyn Error>> {
    let vocabulary = small.tensor("token_embd.weight").ok_or("no embedding")?.rows() as usize;
    let mut metadata = small.metadata().clone();
    metadata.set("general.architecture", "glm4moe");
    for (key, value) in [
        ("context_length", 4096),
        ("embedding_length", WIDTH),
        ("block_count", LAYERS + 1),
        ("nextn_predict_layers", 1),
        ("feed_forward_length", INNER),
        ("expert_feed_forward_length", EXPERT_INNER),
        ("expert_count", EXPERTS),
        ("expert_used_count", 2),
        ("expert_shared_count", 1),
        ("leading_dense_block_count", LAYERS),
        ("attention.head_count", HEADS),
        ("attention.head_count_kv", HEADS_KV),
        ("attention.key_length", HEAD),
        ("attention.value_length", HEAD),
        ("rope.dimension_count", HEAD),
        ("vocab_size", vocabulary),
    ] {
        metadata.set(format!("glm4moe.{key}"), value as u32);
    }
    metadata.set("glm4moe.attention.layer_norm_rms_epsilon", 1e-5_f32);
    let fill = |entry: &Entry, row: usize, target: &mut [f32]| match entry.name {
        "token_embd" => code(row, vocabulary, target),
        "output" => code((row + vocabulary - 1) % vocabulary, vocabulary, target),
        "nextn.eh_proj" => {
            let steps = if guess == Guess::Right { 1.0 } else { 2.0 };
            let (sine, cosine) = (steps * turn(row / 2, vocabulary)).sin_cos();
            let place = WIDTH + row / 2 * 2;
            let pair = if row.is_multiple_of(2) { [cosine, -sine] } else { [sine, cosine] };
            target[place..place + 2].copy_from_slice(&pair);
        }
        name if name.ends_with("norm") => target.fill(1.0),
        // Blocks add nothing: they only cost.
        _ => {}
    };
    write_rows(path, &metadata, &entries(vocabulary), &fill)
}
