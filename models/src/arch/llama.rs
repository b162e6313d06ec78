//! `llama`: Llama 1 to 3, Mistral and Mixtral. A file with experts is a mixture; everything else is
//! the same.

use super::parts::Parts;
use super::{Architecture, ExpertSize};
use crate::inventory::{Role, TensorSpec};
use crate::shape::Shape;

/// The architecture.
pub static LLAMA: Architecture = Architecture {
    name: "llama",
    description: "Llama 1, 2 and 3, Mistral, Mixtral",
    inventory,
    window_period: None,
    expert_size: ExpertSize::FeedForward,
};

/// Of models in Llama's build, dense or with experts in each block.
pub(super) fn inventory(shape: &Shape) -> Vec<TensorSpec> {
    Parts::model(shape, |parts, _| {
        parts.norm(Role::AttentionNorm);
        parts.attention();
        parts.norm(Role::FeedForwardNorm);
        if shape.experts > 0 {
            parts.experts();
            parts.shared_expert();
        } else {
            parts.feed_forward();
        }
    })
}
