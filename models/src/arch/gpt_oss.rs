//! `gpt-oss`: biases everywhere, a sink for each head, and a window in every other block.

use super::parts::Parts;
use super::{Architecture, ExpertSize};
use crate::inventory::{Role, TensorSpec};
use crate::shape::Shape;

/// The architecture.
pub static GPT_OSS: Architecture = Architecture {
    name: "gpt-oss",
    description: "gpt-oss 20b and 120b",
    inventory,
    window_period: Some(2),
    expert_size: ExpertSize::Own,
};

fn inventory(shape: &Shape) -> Vec<TensorSpec> {
    let count = u64::from(shape.experts.max(1));
    let inner = shape.expert_feed_forward;
    Parts::model(shape, |parts, _| {
        parts.norm(Role::AttentionNorm);
        parts.attention();
        parts.push(Role::AttentionSinks, &[u64::from(shape.heads)]);
        parts.norm(Role::PostAttentionNorm);
        if shape.experts > 0 {
            parts.experts();
            parts.push(Role::RouterBias, &[count]);
            parts.push(Role::ExpertsGateBias, &[inner, count]);
            parts.push(Role::ExpertsUpBias, &[inner, count]);
            parts.push(Role::ExpertsDownBias, &[shape.embedding, count]);
        }
    })
}
