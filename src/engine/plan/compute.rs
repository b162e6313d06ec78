//! How large llama.cpp's buffer for intermediate results will be.
//!
//! The buffer holds the largest set of values that live at one time while a micro-batch passes
//! through the graph. Four moments compete for being that; which values live at each was read from
//! the sizes that llama.cpp 0.6 reserves for twenty shapes, contexts and micro-batches (a test
//! keeps the comparison). Without a device this is the best that can be told; with one,
//! [`measure`](crate::engine::llama::measure) asks llama.cpp itself.

use nfl_models::Shape;
use nfl_models::footprint::CONTEXT_STEP_TOKENS;

/// Bytes of logits of one call: what a [`Context`](crate::engine::llama::Context) asks for.
const LOGITS_BYTES_MAX: u64 = 64 << 20;

/// Bytes of one intermediate value.
const VALUE: u64 = 4;

/// Bytes of one entry of an attention mask.
const MASK: u64 = 2;

/// What the buffer's size depends on besides the shape.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Graph {
    /// Tokens of context.
    pub context_tokens: u64,
    /// Tokens that are computed at once.
    pub micro_batch_tokens: u64,
    /// Sequences that share the context.
    pub sequences: u64,
    /// Whether attention is computed in one fused pass, which needs no table of all scores.
    pub fused: bool,
}

/// Bytes of the buffer on a device that computes all parts of the model.
pub fn compute_bytes(shape: &Shape, graph: &Graph) -> u64 {
    let tokens = graph.micro_batch_tokens;
    let heads = u64::from(shape.heads);
    let embedding = shape.embedding;
    let experts_out = u64::from(shape.experts_used) * embedding;
    let dense = if shape.experts == 0 || shape.dense_blocks > 0 { shape.feed_forward } else { 0 };
    let inner = dense.max(u64::from(shape.experts_used) * shape.expert_feed_forward);
    // gate, up and their product, beside five values of the residual stream
    let feed_forward = 3 * inner + 5 * embedding;
    // what all experts give, before and after it is weighted
    let experts = if shape.experts > 0 { 2 * experts_out + 6 * embedding } else { 0 };
    let queries = heads * (shape.key_length + shape.value_length);
    let attention = queries * 3 / 2 + 4 * embedding;
    let scores = if graph.fused { 0 } else { heads * graph.context_tokens + 8 * embedding };
    let rows = (LOGITS_BYTES_MAX / (shape.vocabulary * VALUE).max(1)).clamp(1, tokens.max(1));
    let logits = rows * shape.vocabulary * VALUE + tokens * 5 * embedding * VALUE;
    let widest = feed_forward.max(experts).max(attention).max(scores);
    masks(shape, graph) + (widest * tokens * VALUE).max(logits) + inputs(shape, tokens)
}

/// One mask over the context, and one over the window where some blocks have one.
fn masks(shape: &Shape, graph: &Graph) -> u64 {
    let context = graph.context_tokens.next_multiple_of(CONTEXT_STEP_TOKENS);
    let window = shape.windowed.iter().any(|limited| *limited).then_some(shape.sliding_window);
    let window = window.flatten().map_or(0, |window| {
        let needed = window * graph.sequences + graph.micro_batch_tokens;
        needed.min(context).next_multiple_of(CONTEXT_STEP_TOKENS)
    });
    (context + window) * graph.micro_batch_tokens * MASK
}

/// Positions, numbers of tokens and places in the cache.
fn inputs(shape: &Shape, tokens: u64) -> u64 {
    (tokens + 64) * 64 + u64::from(shape.blocks) * 64
}
