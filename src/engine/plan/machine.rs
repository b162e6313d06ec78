//! The memory that a plan may use, and what the person wants of it.

use serde::{Deserialize, Serialize};

use crate::engine::options::{CacheType, LoadMode, TensorOverride};

/// Memory of a GPU that is left alone for what is not in any account, in bytes: the driver's own
/// buffers, and programs that are started later. A display's use is in "not free" already.
pub const GPU_MARGIN_BYTES: u64 = 512 << 20;

/// The least main memory that is left alone, in bytes.
const RAM_MARGIN_BYTES_MIN: u64 = 512 << 20;

/// A graphics card.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gpu {
    /// ggml's name, such as "CUDA0".
    pub name: String,
    /// What it calls itself.
    pub description: String,
    /// Free memory in bytes.
    pub free_bytes: u64,
    /// What of it is left alone, in bytes.
    pub margin_bytes: u64,
    /// Whether its memory is main memory.
    pub shares_memory: bool,
}

/// Main memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct MainMemory {
    /// What programs may take, in bytes.
    pub available_bytes: u64,
    /// What of it is left alone, in bytes.
    pub margin_bytes: u64,
}

/// A machine, as far as a plan depends on it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Machine {
    /// The GPUs in ggml's order.
    pub gpus: Vec<Gpu>,
    /// Main memory.
    pub memory: MainMemory,
}

impl Gpu {
    /// A card with so much free memory.
    pub fn with_free(name: String, description: String, free_bytes: u64) -> Self {
        let margin_bytes = GPU_MARGIN_BYTES.min(free_bytes);
        Self { name, description, free_bytes, margin_bytes, shares_memory: false }
    }

    /// What a plan may take.
    pub fn usable_bytes(&self) -> u64 {
        self.free_bytes.saturating_sub(self.margin_bytes)
    }
}

impl MainMemory {
    /// Of a running system that says how much is available: one part in twenty stays free.
    pub fn available(bytes: u64) -> Self {
        let margin_bytes = (bytes / 20).max(RAM_MARGIN_BYTES_MIN).min(bytes);
        Self { available_bytes: bytes, margin_bytes }
    }

    /// Of a machine that is described by the memory it has: the system and other programs need one
    /// part in ten, and at least a gigabyte.
    pub fn installed(bytes: u64) -> Self {
        Self { available_bytes: bytes, margin_bytes: (bytes / 10).max(1 << 30).min(bytes) }
    }

    /// What a plan may take.
    pub fn usable_bytes(&self) -> u64 {
        self.available_bytes.saturating_sub(self.margin_bytes)
    }
}

/// What the person wants. What is set is a constraint, what is not is planned.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wishes {
    /// Tokens of context.
    pub context_tokens: Option<u32>,
    /// Type of the cached keys.
    pub key_type: Option<CacheType>,
    /// Type of the cached values.
    pub value_type: Option<CacheType>,
    /// Tokens that are computed at once.
    pub micro_batch_tokens: Option<u32>,
    /// Conversations side by side, each with the whole context; none counts as one.
    pub sequences: u32,
    /// Layers on GPUs, counted from the last; the output counts as one.
    pub gpu_layers: Option<u32>,
    /// Experts of so many blocks, from the first, stay on the CPU.
    pub cpu_expert_blocks: Option<u32>,
    /// Tensors with a place of their own.
    pub overrides: Vec<TensorOverride>,
    /// How weights reach memory.
    pub load_mode: Option<LoadMode>,
    /// Weights are pinned in memory.
    pub lock_memory: bool,
    /// Whether weights are laid out anew for this CPU.
    pub repack: Option<bool>,
    /// Attention is not computed in one fused pass.
    pub no_fused_attention: bool,
}
