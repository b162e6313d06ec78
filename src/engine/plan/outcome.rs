//! A plan: what was decided, why, what it takes and what it will cost.

use nfl_models::footprint::Cache;
use serde::{Deserialize, Serialize};

use super::candidates::Candidate;
use crate::engine::options::{
    CacheType, ContextOptions, FlashAttention, LoadMode, ModelOptions, TensorOverride,
};

/// One decision and its reason.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Decision {
    /// What was decided: "context".
    pub what: String,
    /// How.
    pub value: String,
    /// Why, in one sentence.
    pub why: String,
}

/// What lies on one device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DevicePlan {
    /// Its name: "CPU", "CUDA0".
    pub name: String,
    /// What it calls itself.
    pub description: String,
    /// Memory that could be taken before, in bytes.
    pub capacity_bytes: u64,
    /// What of it is left alone, in bytes.
    pub margin_bytes: u64,
    /// Weights, in bytes. Those that are read from the file each time are not counted here.
    pub weights_bytes: u64,
    /// Keys and values, in bytes.
    pub cache_bytes: u64,
    /// Intermediate results, in bytes.
    pub compute_bytes: u64,
    /// What lies here and why.
    pub why: String,
}

impl DevicePlan {
    /// What the model takes here, in bytes.
    pub fn used_bytes(&self) -> u64 {
        self.weights_bytes + self.cache_bytes + self.compute_bytes
    }

    /// What stays free here, the margin included, in bytes.
    pub fn free_bytes(&self) -> u64 {
        self.capacity_bytes.saturating_sub(self.used_bytes())
    }
}

/// Where the sizes of buffers for intermediate results come from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ComputeSource {
    /// From the shape of the model, because llama.cpp was not asked or did not answer.
    Formula {
        /// Why; empty when nobody wanted to ask.
        why: String,
    },
    /// From llama.cpp itself.
    Reserved {
        /// Milliseconds that it took.
        took_ms: u64,
    },
}

/// A plan for one model on one machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// Tokens of context.
    pub context_tokens: u32,
    /// Type of the cached keys.
    pub key_type: CacheType,
    /// Type of the cached values.
    pub value_type: CacheType,
    /// Tokens that are computed at once.
    pub micro_batch_tokens: u32,
    /// Layers on GPUs, counted from the last; the output counts as one.
    pub gpu_layers: u32,
    /// How many of these each GPU gets.
    pub split: Vec<u32>,
    /// Tensors that go elsewhere than their layer.
    pub overrides: Vec<TensorOverride>,
    /// How weights reach memory.
    pub load_mode: LoadMode,
    /// Whether weights are laid out anew for this CPU.
    pub repack: bool,
    /// Whether attention is computed in one fused pass, where the device can.
    pub fused_attention: bool,
    /// GPUs in their order, then main memory.
    pub devices: Vec<DevicePlan>,
    /// Where the devices' `compute_bytes` come from; weights and cache are added up exactly.
    pub compute_source: ComputeSource,
    /// Weights that main memory cannot keep, which are read from the file again and again, in bytes.
    pub streamed_bytes: u64,
    /// What each token reads from GPUs with a full cache, in bytes.
    pub fast_bytes_per_token: u64,
    /// What each token reads from main memory and from the file, in bytes.
    pub slow_bytes_per_token: u64,
    /// What of that comes from the file, in bytes.
    pub disk_bytes_per_token: u64,
    /// Every decision with its reason.
    pub decisions: Vec<Decision>,
    /// What the person should know before it starts.
    pub warnings: Vec<String>,
}

impl Plan {
    /// Writes the plan into what a worker is asked to load.
    pub fn apply(&self, model: &mut ModelOptions, context: &mut ContextOptions) {
        model.gpu_layers = Some(self.gpu_layers);
        model.split.clone_from(&self.split);
        model.overrides.clone_from(&self.overrides);
        model.load_mode = self.load_mode;
        model.repack = self.repack;
        model.cpu_experts = false;
        context.context_tokens = Some(self.context_tokens);
        context.key_type = self.key_type;
        context.value_type = self.value_type;
        context.micro_batch_tokens = self.micro_batch_tokens;
        context.batch_tokens = context.batch_tokens.max(self.micro_batch_tokens);
        context.flash_attention = match self.fused_attention {
            // llama.cpp computes with quantised values in one fused pass only.
            true if self.value_type.tensor_type().is_quantized() => FlashAttention::On,
            true => FlashAttention::Auto,
            false => FlashAttention::Off,
        };
    }

    /// The cache of so many sequences.
    pub(super) fn cache(&self, sequences: u32) -> Cache {
        let Self { context_tokens, key_type, value_type, .. } = *self;
        Candidate { context_tokens, key_type, value_type }.cache(self.micro_batch_tokens, sequences)
    }

    /// Whether both put the same things in the same places.
    pub(super) fn places_as(&self, other: &Self) -> bool {
        let parts = |plan: &Self| {
            let context = (plan.context_tokens, plan.key_type, plan.value_type);
            (context, plan.micro_batch_tokens, plan.gpu_layers)
        };
        parts(self) == parts(other)
            && self.split == other.split
            && self.overrides == other.overrides
    }

    /// Whether other sizes of buffers could lead to another plan: something must fit a GPU, or main
    /// memory is more than half taken.
    pub fn is_near_limits(&self) -> bool {
        let is_full = |device: &DevicePlan| {
            let usable = device.capacity_bytes.saturating_sub(device.margin_bytes);
            device.used_bytes() > usable / 2
        };
        self.devices.len() > 1 || self.devices.iter().any(is_full)
    }

    /// Whether anything lies on a GPU.
    pub fn uses_gpu(&self) -> bool {
        self.gpu_layers > 0
    }
}
