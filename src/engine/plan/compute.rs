//! How large llama.cpp's buffers for intermediate results will be.
//!
//! A buffer holds the largest set of values that live at one time while a micro-batch passes
//! through the graph. Four moments compete for being that; which values live at each was read from
//! the sizes that llama.cpp reserves for seventeen shapes, contexts and micro-batches, on the CPU
//! and with layers and weights in both places (tests keep the comparison). Without a device this is
//! the best that can be told; with one, [`reserved`](crate::engine::reserve::reserved) asks llama.cpp
//! itself.

use nfl_models::Shape;
use nfl_models::footprint::CONTEXT_STEP_TOKENS;

/// Bytes of logits of one call: what a [`Context`](crate::engine::llama::Context) asks for.
const LOGITS_BYTES_MAX: u64 = 64 << 20;

/// Bytes of one intermediate value.
const VALUE: u64 = 4;

/// Bytes of one entry of an attention mask: of the fused pass, and of separate steps.
const MASK_FUSED: u64 = 2;
const MASK: u64 = 4;

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

/// From so many tokens on, ggml computes with weights of main memory on a GPU: it copies them there
/// (`GGML_OP_OFFLOAD_MIN_BATCH`).
const COPY_TOKENS_MIN: u64 = 32;

/// Rows of the residual stream's width that are made in main memory before the first block: the
/// tokens' embeddings, the place for embeddings that are given instead, and what is made of both.
const HOST_ROWS: u64 = 4;

/// What lies in main memory though a GPU computes with it, and is copied there in turn.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Behind {
    /// Bytes of the largest tensor of a block.
    pub weights_bytes: u64,
    /// Bytes of the output matrix; 0 when it lies on a GPU.
    pub output_bytes: u64,
    /// Bytes of the cache of one block; 0 when all of it lies on GPUs.
    pub cache_bytes: u64,
}

/// Bytes of a GPU's buffer.
pub fn gpu_compute_bytes(shape: &Shape, graph: &Graph, behind: &Behind) -> u64 {
    let tokens = graph.micro_batch_tokens;
    let embedding = shape.embedding;
    // The rows of the token embedding are looked up in main memory.
    let whole = compute_bytes(shape, graph).saturating_sub(tokens * embedding * VALUE);
    if tokens < COPY_TOKENS_MIN {
        return whole;
    }
    let beside = if shape.experts > 0 {
        2 * u64::from(shape.experts_used) * embedding
    } else {
        3 * shape.feed_forward + 2 * embedding
    };
    let copied = |bytes: u64, beside: u64| if bytes > 0 { bytes + beside } else { 0 };
    let block = copied(behind.weights_bytes, beside * tokens * VALUE);
    let output =
        copied(behind.output_bytes, 2 * logits_rows(shape, tokens) * shape.vocabulary * VALUE);
    whole.max(block).max(output) + behind.cache_bytes
}

/// Bytes in main memory of a machine whose GPUs compute, also with the weights that lie there.
pub fn host_compute_bytes(shape: &Shape, graph: &Graph) -> u64 {
    let tokens = graph.micro_batch_tokens;
    if tokens < COPY_TOKENS_MIN {
        return compute_bytes(shape, graph);
    }
    masks(shape, graph) + HOST_ROWS * shape.embedding * tokens * VALUE + inputs(shape, tokens)
}

/// Rows of logits of one micro-batch.
fn logits_rows(shape: &Shape, tokens: u64) -> u64 {
    (LOGITS_BYTES_MAX / (shape.vocabulary * VALUE).max(1)).clamp(1, tokens.max(1))
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
    let beside_scores = queries + 9 * embedding / 2;
    let scores = if graph.fused { 0 } else { heads * graph.context_tokens + beside_scores };
    let rows = logits_rows(shape, tokens) * shape.vocabulary * VALUE;
    let masks = masks(shape, graph);
    // Masks are done with when logits are made: what they leave is used when it is large enough.
    let rows = if masks >= rows { 0 } else { rows };
    let logits = rows + tokens * 5 * embedding * VALUE;
    let widest = feed_forward.max(experts).max(attention).max(scores);
    masks + (widest * tokens * VALUE).max(logits) + inputs(shape, tokens)
}

/// One mask over the context, and one over the window where some blocks have one.
fn masks(shape: &Shape, graph: &Graph) -> u64 {
    let context = graph.context_tokens.next_multiple_of(CONTEXT_STEP_TOKENS);
    let window = shape.windowed.iter().any(|limited| *limited).then_some(shape.sliding_window);
    let window = window.flatten().map_or(0, |window| {
        let needed = window * graph.sequences + graph.micro_batch_tokens;
        needed.min(context).next_multiple_of(CONTEXT_STEP_TOKENS)
    });
    let entry = if graph.fused { MASK_FUSED } else { MASK };
    (context + window) * graph.micro_batch_tokens * entry
}

/// Positions, numbers of tokens and places in the cache.
fn inputs(shape: &Shape, tokens: u64) -> u64 {
    (tokens + 64) * 64 + u64::from(shape.blocks) * 64
}
