//! `qwen2`: Qwen 2 and 2.5, dense: Llama's build with biases on queries, keys and values.

use super::{Architecture, ExpertSize, llama};

/// The architecture.
pub static QWEN2: Architecture = Architecture {
    name: "qwen2",
    description: "Qwen 2 and 2.5, dense",
    inventory: llama::inventory,
    window_period: None,
    expert_size: ExpertSize::FeedForward,
};
