//! `llama`: Llama 1 to 3, Mistral and Mixtral. A file with experts is a mixture; everything else is
//! the same.

use super::Architecture;
use crate::inventory::{Role, TensorSpec};
use crate::shape::Shape;

/// The architecture.
pub static LLAMA: Architecture =
    Architecture { name: "llama", description: "Llama 1, 2 and 3, Mistral, Mixtral", inventory };

fn inventory(shape: &Shape) -> Vec<TensorSpec> {
    let mut specs =
        vec![TensorSpec::new(Role::TokenEmbedding, None, [shape.embedding, shape.vocabulary])];
    if shape.rope_factors {
        specs.push(TensorSpec::new(Role::RopeFactors, None, [shape.rope_dimensions / 2]));
    }
    for block in 0..shape.blocks {
        attention(shape, block, &mut specs);
        if shape.experts > 0 {
            experts(shape, block, &mut specs);
        } else {
            feed_forward(shape, block, &mut specs);
        }
    }
    specs.push(TensorSpec::new(Role::OutputNorm, None, [shape.embedding]));
    if !shape.tied_output {
        specs.push(TensorSpec::new(Role::Output, None, [shape.embedding, shape.vocabulary]));
    }
    specs
}

fn attention(shape: &Shape, block: u32, specs: &mut Vec<TensorSpec>) {
    let query = u64::from(shape.heads) * shape.key_length;
    let key = u64::from(shape.heads_kv) * shape.key_length;
    let value = u64::from(shape.heads_kv) * shape.value_length;
    // What the heads give: one value vector each.
    let output = u64::from(shape.heads) * shape.value_length;
    let mut push = |role, dimensions: &[u64]| {
        specs.push(TensorSpec::new(role, Some(block), dimensions));
    };
    push(Role::AttentionNorm, &[shape.embedding]);
    push(Role::AttentionQuery, &[shape.embedding, query]);
    push(Role::AttentionKey, &[shape.embedding, key]);
    push(Role::AttentionValue, &[shape.embedding, value]);
    push(Role::AttentionOutput, &[output, shape.embedding]);
    if shape.attention_bias {
        push(Role::AttentionQueryBias, &[query]);
        push(Role::AttentionKeyBias, &[key]);
        push(Role::AttentionValueBias, &[value]);
    }
    if shape.attention_output_bias {
        push(Role::AttentionOutputBias, &[shape.embedding]);
    }
    push(Role::FeedForwardNorm, &[shape.embedding]);
}

fn feed_forward(shape: &Shape, block: u32, specs: &mut Vec<TensorSpec>) {
    let mut push = |role, dimensions: &[u64]| {
        specs.push(TensorSpec::new(role, Some(block), dimensions));
    };
    push(Role::FeedForwardGate, &[shape.embedding, shape.feed_forward]);
    push(Role::FeedForwardUp, &[shape.embedding, shape.feed_forward]);
    push(Role::FeedForwardDown, &[shape.feed_forward, shape.embedding]);
    if shape.mlp_bias {
        push(Role::FeedForwardGateBias, &[shape.feed_forward]);
        push(Role::FeedForwardUpBias, &[shape.feed_forward]);
        push(Role::FeedForwardDownBias, &[shape.embedding]);
    }
}

fn experts(shape: &Shape, block: u32, specs: &mut Vec<TensorSpec>) {
    let (embedding, inner) = (shape.embedding, shape.expert_feed_forward);
    let count = u64::from(shape.experts);
    let mut push = |role, dimensions: &[u64]| {
        specs.push(TensorSpec::new(role, Some(block), dimensions));
    };
    push(Role::Router, &[embedding, count]);
    push(Role::ExpertsGate, &[embedding, inner, count]);
    push(Role::ExpertsUp, &[embedding, inner, count]);
    push(Role::ExpertsDown, &[inner, embedding, count]);
}
