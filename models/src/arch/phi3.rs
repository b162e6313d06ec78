//! `phi3`: Phi 3, 3.5 and 4: queries, keys and values in one matrix, gate and up in another.

use super::parts::Parts;
use super::{Architecture, ExpertSize};
use crate::inventory::{Role, TensorSpec};
use crate::shape::Shape;

/// The architecture. Its files name a sliding window that llama.cpp does not apply.
pub static PHI3: Architecture = Architecture {
    name: "phi3",
    description: "Phi 3, 3.5 and 4",
    inventory,
    window_period: None,
    expert_size: ExpertSize::FeedForward,
};

fn inventory(shape: &Shape) -> Vec<TensorSpec> {
    Parts::model(shape, |parts, _| {
        parts.norm(Role::AttentionNorm);
        parts.attention();
        parts.norm(Role::FeedForwardNorm);
        parts.push(Role::FeedForwardUp, &[shape.embedding, 2 * shape.feed_forward]);
        parts.push(Role::FeedForwardDown, &[shape.feed_forward, shape.embedding]);
    })
}
