//! `granite` and `granitemoe`: Llama's build with scales of its own, which are no tensors; with
//! experts, some models have one more that every token uses.

use super::{Architecture, ExpertSize, llama};

/// Dense.
pub static GRANITE: Architecture = Architecture {
    name: "granite",
    description: "Granite 3, dense",
    inventory: llama::inventory,
    window_period: None,
    expert_size: ExpertSize::FeedForward,
};

/// With experts.
pub static GRANITE_MOE: Architecture = Architecture {
    name: "granitemoe",
    description: "Granite 3 with experts",
    inventory: llama::inventory,
    window_period: None,
    expert_size: ExpertSize::FeedForward,
};
