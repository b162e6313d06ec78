//! `gemma2` and `gemma3`: norms before and after each part, windows in most blocks; Gemma 3 adds a
//! norm on every query and key.

use super::parts::Parts;
use super::{Architecture, ExpertSize};
use crate::inventory::{Role, TensorSpec};
use crate::shape::Shape;

/// Gemma 2: every other block has a window.
pub static GEMMA2: Architecture = Architecture {
    name: "gemma2",
    description: "Gemma 2",
    inventory: gemma2,
    window_period: Some(2),
    expert_size: ExpertSize::FeedForward,
};

/// Gemma 3: five of six blocks have a window.
pub static GEMMA3: Architecture = Architecture {
    name: "gemma3",
    description: "Gemma 3, its language part",
    inventory: gemma3,
    window_period: Some(6),
    expert_size: ExpertSize::FeedForward,
};

fn gemma2(shape: &Shape) -> Vec<TensorSpec> {
    Parts::model(shape, |parts, _| block(parts, false))
}

fn gemma3(shape: &Shape) -> Vec<TensorSpec> {
    Parts::model(shape, |parts, _| block(parts, true))
}

fn block(parts: &mut Parts<'_>, head_norms: bool) {
    parts.norm(Role::AttentionNorm);
    parts.attention();
    if head_norms {
        parts.head_norms();
    }
    parts.norm(Role::PostAttentionNorm);
    parts.norm(Role::FeedForwardNorm);
    parts.feed_forward();
    parts.norm(Role::PostFeedForwardNorm);
}
