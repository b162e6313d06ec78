//! `glm4moe`: GLM 4.5 and its like. The first blocks are dense, the others have experts, of which some serve every token;
//! the last block guesses further tokens.

use super::parts::Parts;
use super::{Architecture, ExpertSize};
use crate::inventory::{Role, TensorSpec};
use crate::shape::Shape;

/// The architecture.
pub static GLM4_MOE: Architecture = Architecture {
    name: "glm4moe",
    description: "GLM 4.5 and 4.6",
    inventory,
    window_period: None,
    expert_size: ExpertSize::Own,
};

fn inventory(shape: &Shape) -> Vec<TensorSpec> {
    Parts::model(shape, |parts, block| {
        parts.norm(Role::AttentionNorm);
        parts.attention();
        parts.optional(Role::AttentionQueryNorm, &[shape.key_length]);
        parts.optional(Role::AttentionKeyNorm, &[shape.key_length]);
        parts.norm(Role::PostAttentionNorm);
        if block < shape.dense_blocks || shape.experts == 0 {
            parts.feed_forward();
        } else {
            parts.experts();
            parts.push(Role::RouterScoresBias, &[u64::from(shape.experts)]);
            parts.shared_expert();
        }
    })
}
