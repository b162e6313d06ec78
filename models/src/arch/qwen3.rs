//! `qwen3` and `qwen3moe`: a norm on every query and key; experts in each block, or none.

use super::parts::Parts;
use super::{Architecture, ExpertSize};
use crate::inventory::{Role, TensorSpec};
use crate::shape::Shape;

/// Dense.
pub static QWEN3: Architecture = Architecture {
    name: "qwen3",
    description: "Qwen 3, dense",
    inventory,
    window_period: None,
    expert_size: ExpertSize::FeedForward,
};

/// With experts.
pub static QWEN3_MOE: Architecture = Architecture {
    name: "qwen3moe",
    description: "Qwen 3 with experts",
    inventory,
    window_period: None,
    expert_size: ExpertSize::Own,
};

fn inventory(shape: &Shape) -> Vec<TensorSpec> {
    Parts::model(shape, |parts, _| {
        parts.norm(Role::AttentionNorm);
        parts.attention();
        parts.head_norms();
        parts.norm(Role::FeedForwardNorm);
        if shape.experts > 0 {
            parts.experts();
        } else {
            parts.feed_forward();
        }
    })
}
