//! `deepseek2`: DeepSeek V2, V3 and R1. Attention goes through one latent vector a token, which is
//! all that the cache holds; the first blocks are dense, the others have experts, of which some
//! serve every token.

use super::parts::Parts;
use super::{Architecture, ExpertSize};
use crate::inventory::{Role, TensorSpec};
use crate::shape::{Latent, Shape};

/// The architecture.
pub static DEEPSEEK2: Architecture = Architecture {
    name: "deepseek2",
    description: "DeepSeek V2, V3 and R1",
    inventory,
    window_period: None,
    expert_size: ExpertSize::Own,
};

fn inventory(shape: &Shape) -> Vec<TensorSpec> {
    Parts::model(shape, |parts, block| {
        parts.norm(Role::AttentionNorm);
        match &shape.latent {
            Some(latent) => attention(parts, shape, latent),
            None => parts.attention(),
        }
        parts.norm(Role::FeedForwardNorm);
        if block < shape.dense_blocks || shape.experts == 0 {
            parts.feed_forward();
        } else {
            parts.experts();
            if shape.router_scores_bias {
                parts.push(Role::RouterScoresBias, &[u64::from(shape.experts)]);
            }
            parts.shared_expert();
        }
    })
}

fn attention(parts: &mut Parts<'_>, shape: &Shape, latent: &Latent) {
    let heads = u64::from(shape.heads);
    let (rank, rotated) = (latent.rank, shape.rope_dimensions);
    let plain = latent.key_length.saturating_sub(rotated).max(1);
    match latent.query_rank {
        Some(query) => {
            parts.push(Role::AttentionQueryDown, &[shape.embedding, query]);
            parts.push(Role::AttentionQueryDownNorm, &[query]);
            parts.push(Role::AttentionQueryUp, &[query, heads * latent.key_length]);
        }
        None => parts.push(Role::AttentionQuery, &[shape.embedding, heads * latent.key_length]),
    }
    parts.push(Role::AttentionLatent, &[shape.embedding, rank + rotated]);
    parts.push(Role::AttentionLatentNorm, &[rank]);
    if latent.split {
        parts.push(Role::AttentionLatentKey, &[plain, rank, heads]);
        parts.push(Role::AttentionLatentValue, &[rank, latent.value_length, heads]);
    } else {
        parts.push(Role::AttentionLatentBoth, &[rank, heads * (plain + latent.value_length)]);
    }
    parts.push(Role::AttentionOutput, &[heads * latent.value_length, shape.embedding]);
}
