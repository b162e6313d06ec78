//! `olmo2`: OLMo 2 and 3: norms after attention and feed-forward in place of those before, and over
//! all queries and keys at once.

use super::parts::Parts;
use super::{Architecture, ExpertSize};
use crate::inventory::{Role, TensorSpec};
use crate::shape::Shape;

/// The architecture.
pub static OLMO2: Architecture = Architecture {
    name: "olmo2",
    description: "OLMo 2 and 3",
    inventory,
    window_period: Some(4),
    expert_size: ExpertSize::FeedForward,
};

fn inventory(shape: &Shape) -> Vec<TensorSpec> {
    Parts::model(shape, |parts, _| {
        parts.attention();
        parts.norm(Role::AttentionQueryNorm);
        parts.push(Role::AttentionKeyNorm, &[u64::from(shape.heads_kv) * shape.key_length]);
        parts.norm(Role::PostAttentionNorm);
        parts.feed_forward();
        parts.norm(Role::PostFeedForwardNorm);
    })
}
