//! What a caller may ask of a model, a context and a sampler; the values travel to the worker as
//! they are.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use nfl_models::TensorType;
use serde::{Deserialize, Serialize};
use thiserror::Error;

pub use super::sampling::{
    Constraint, Mirostat, SamplerKind, Sampling, TRIGGER_BYTES_MAX, Trigger, TriggerPlace,
    TriggerWhat,
};

/// The largest context that may be asked for, in tokens: llama.cpp hangs for minutes on much larger
/// numbers.
pub const CONTEXT_TOKENS_MAX: u32 = 1 << 24;

/// The context of a model when nobody asks for another, in tokens (less when the model was trained
/// on less).
pub const CONTEXT_TOKENS_DEFAULT: u32 = 4096;

/// How many times the trained context may be asked for; beyond it the number is a slip of the
/// keyboard.
pub const CONTEXT_STRETCH_MAX: u32 = 64;

/// Stop strings of one request.
pub const STOP_STRINGS_MAX: usize = 64;

/// Bytes of one stop string.
pub const STOP_BYTES_MAX: usize = 4096;

/// How weights reach memory.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum LoadMode {
    /// Mapped, unless a device prefers to read.
    #[default]
    Auto,
    /// Memory-mapped from the file.
    Map,
    /// Read into anonymous memory.
    Read,
}

/// Where tensors of certain names go, whatever else is decided.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TensorOverride {
    /// A regular expression that matches anywhere in the name.
    pub pattern: String,
    /// The device: [`CPU`], or a name that ggml gives one, such as "Vulkan0".
    pub device: String,
}

/// The processor's name as a device.
pub const CPU: &str = "CPU";

/// Whether the experts of a model that memory does not hold are read by our own rule.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum ExpertReading {
    /// When they do not fit the memory that is there.
    #[default]
    Auto,
    /// Always, where the system can.
    On,
    /// Never: the system's page cache decides.
    Off,
}

/// How a model is loaded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[expect(clippy::struct_excessive_bools, reason = "independent switches of the command line")]
pub struct ModelOptions {
    /// How weights reach memory.
    pub load_mode: LoadMode,
    /// Pin the weights in memory (mlock).
    pub lock_memory: bool,
    /// Layers on the GPU; all that fit its backend when None.
    pub gpu_layers: Option<u32>,
    /// Keep the weights of all experts on the CPU.
    pub cpu_experts: bool,
    /// Keep tensors on the CPU whose names match one of these regular expressions.
    pub cpu_tensors: Vec<String>,
    /// Tensors that go elsewhere than their layer; of several that match, the first counts. They
    /// come before the two above.
    pub overrides: Vec<TensorOverride>,
    /// How many of the layers on GPUs each GPU gets, in the order of the devices; in proportion to
    /// their free memory when empty.
    pub split: Vec<u32>,
    /// Let ggml repack weights into buffers laid out for this CPU: faster, but that copy is not
    /// mapped.
    pub repack: bool,
    /// Whether experts beyond memory are read by our own rule.
    pub expert_reading: ExpertReading,
    /// Load the vocabulary and nothing else.
    pub vocabulary_only: bool,
    /// Look for NaN and infinities in every block while loading.
    pub check_tensors: bool,
    /// Load the layer that guesses further tokens (MTP), where the file has one that can be used.
    pub prediction: bool,
}

impl Default for ModelOptions {
    fn default() -> Self {
        Self {
            load_mode: LoadMode::Auto,
            lock_memory: false,
            gpu_layers: None,
            cpu_experts: false,
            cpu_tensors: Vec::new(),
            overrides: Vec::new(),
            split: Vec::new(),
            repack: true,
            expert_reading: ExpertReading::Auto,
            vocabulary_only: false,
            check_tensors: false,
            prediction: false,
        }
    }
}

/// Whether attention is computed in one fused pass.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum FlashAttention {
    /// As the backend supports it.
    #[default]
    Auto,
    /// Always.
    On,
    /// Never.
    Off,
}

/// The type of the numbers in the key-value cache.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum CacheType {
    /// 32-bit floats.
    F32,
    /// 16-bit floats.
    #[default]
    F16,
    /// Brain floats.
    BF16,
    /// Blocks of 32 at 8 bits.
    Q8_0,
    /// Blocks of 32 at 5 bits, with offsets.
    Q5_1,
    /// Blocks of 32 at 5 bits.
    Q5_0,
    /// Blocks of 32 at 4 bits, with offsets.
    Q4_1,
    /// Blocks of 32 at 4 bits.
    Q4_0,
}

impl CacheType {
    /// Every type, the most exact first.
    pub const ALL: [Self; 8] = [
        Self::F32,
        Self::F16,
        Self::BF16,
        Self::Q8_0,
        Self::Q5_1,
        Self::Q5_0,
        Self::Q4_1,
        Self::Q4_0,
    ];

    /// The type as of any tensor, whose table knows its size.
    pub fn tensor_type(self) -> TensorType {
        match self {
            Self::F32 => TensorType::F32,
            Self::F16 => TensorType::F16,
            Self::BF16 => TensorType::BF16,
            Self::Q8_0 => TensorType::Q8_0,
            Self::Q5_1 => TensorType::Q5_1,
            Self::Q5_0 => TensorType::Q5_0,
            Self::Q4_1 => TensorType::Q4_1,
            Self::Q4_0 => TensorType::Q4_0,
        }
    }
}

impl fmt::Display for CacheType {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(&self.tensor_type().name().to_lowercase())
    }
}

impl FromStr for CacheType {
    type Err = OptionError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let found = Self::ALL.into_iter().find(|each| each.to_string().eq_ignore_ascii_case(text));
        found.ok_or_else(|| OptionError::CacheType(text.to_owned()))
    }
}

/// How a context is created.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContextOptions {
    /// Tokens of context of one conversation; see [`ContextOptions::context_for`] for what None
    /// means.
    pub context_tokens: Option<u32>,
    /// Conversations that are computed side by side, each with its own context.
    pub sequences: u32,
    /// Requests that may wait for one of them; more are refused.
    pub queue_max: u32,
    /// Tokens handed over in one call, at the most.
    pub batch_tokens: u32,
    /// Tokens computed at once, at the most.
    pub micro_batch_tokens: u32,
    /// Threads that generate.
    pub threads: u32,
    /// Threads that read a prompt.
    pub prompt_threads: u32,
    /// Whether attention is computed in one fused pass.
    pub flash_attention: FlashAttention,
    /// Type of the cached keys.
    pub key_type: CacheType,
    /// Type of the cached values.
    pub value_type: CacheType,
    /// Every reply gets the bits it would get alone, whoever else is answered. Costs up to a third of
    /// the speed of many replies and most of that of prompts; only the CPU can do it.
    pub batch_invariant: bool,
}

impl ContextOptions {
    /// The defaults of llama.cpp with this many threads.
    pub fn with_threads(threads: u32) -> Self {
        Self {
            context_tokens: None,
            sequences: 1,
            queue_max: QUEUE_DEFAULT,
            batch_tokens: 2048,
            micro_batch_tokens: 512,
            threads,
            prompt_threads: threads,
            flash_attention: FlashAttention::Auto,
            key_type: CacheType::F16,
            value_type: CacheType::F16,
            batch_invariant: false,
        }
    }

    /// The context for a model that was trained on `trained_tokens`: what was asked, else the
    /// smaller of the trained context and [`CONTEXT_TOKENS_DEFAULT`].
    pub fn context_for(&self, trained_tokens: u32) -> Result<u32, OptionError> {
        let Some(asked) = self.context_tokens else {
            return Ok(match trained_tokens {
                0 => CONTEXT_TOKENS_DEFAULT,
                trained => trained.min(CONTEXT_TOKENS_DEFAULT),
            });
        };
        if asked == 0 {
            return Err(OptionError::NoContext);
        }
        let limit = match trained_tokens {
            0 => CONTEXT_TOKENS_MAX,
            trained => trained.saturating_mul(CONTEXT_STRETCH_MAX).min(CONTEXT_TOKENS_MAX),
        };
        if asked > limit {
            return Err(OptionError::ContextTooLarge { asked, limit, trained_tokens });
        }
        Ok(asked)
    }

    /// Whether the numbers can be handed to llama.cpp at all.
    pub fn check(&self) -> Result<(), OptionError> {
        for (what, value, limit) in [
            ("batch", self.batch_tokens, BATCH_TOKENS_MAX),
            ("micro-batch", self.micro_batch_tokens, BATCH_TOKENS_MAX),
            ("threads", self.threads, THREADS_MAX),
            ("prompt threads", self.prompt_threads, THREADS_MAX),
            ("sequences", self.sequences, SEQUENCES_MAX),
            ("waiting requests", self.queue_max, QUEUE_MAX),
        ] {
            if value == 0 || value > limit {
                return Err(OptionError::OutOfRange {
                    what,
                    value: value.to_string(),
                    range: format!("1 to {limit}"),
                });
            }
        }
        Ok(())
    }
}

/// The most sequences of one context that llama.cpp takes.
pub const SEQUENCES_MAX: u32 = 256;

/// Requests that wait when nobody asks for another number.
pub const QUEUE_DEFAULT: u32 = 256;

/// The most requests that may wait.
pub const QUEUE_MAX: u32 = 1 << 16;

/// The most threads that ggml takes.
pub const THREADS_MAX: u32 = 512;

/// The most tokens of one batch.
pub const BATCH_TOKENS_MAX: u32 = 1 << 16;

/// Where the worker keeps what its cache held, so that a prompt it knows need not be read again
/// after a restart.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StateOptions {
    /// The folder, which belongs to nobody else.
    pub directory: PathBuf,
    /// Bytes of all files in it, at the most; the ones unused for longest go first.
    pub bytes_max: u64,
}

/// Whether tokens are guessed ahead, and from what. The reply is the same in any case.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Speculation {
    /// One token after the other.
    #[default]
    Off,
    /// From everything that is at hand, as long as it pays and changes nothing.
    Auto,
    /// From prompt and reply alone.
    Ngram,
    /// From the draft model alone.
    Draft,
    /// From the model's own prediction layer (MTP) alone.
    Mtp,
}

/// A draft model and how to load it; its context is as long as the other model's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DraftRequest {
    /// The GGUF file, or the first of its shards.
    pub path: PathBuf,
    /// How the model is loaded.
    pub model: ModelOptions,
    /// How its context is created.
    pub context: ContextOptions,
}

/// A model and how to load it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LoadRequest {
    /// The GGUF file, or the first of its shards.
    pub path: PathBuf,
    /// How the model is loaded.
    pub model: ModelOptions,
    /// How its context is created.
    pub context: ContextOptions,
    /// Files and folders besides the model that the worker may read.
    pub readable: Vec<PathBuf>,
    /// Where states are saved; nowhere when None.
    pub states: Option<StateOptions>,
    /// A small model of the same vocabulary that guesses for this one.
    pub draft: Option<DraftRequest>,
    /// Embed texts and nothing else: no context for generating is made.
    pub embeddings_only: bool,
}

impl LoadRequest {
    /// A model alone, in a context as described.
    pub fn new(path: impl Into<PathBuf>, model: ModelOptions, context: ContextOptions) -> Self {
        Self {
            path: path.into(),
            model,
            context,
            readable: Vec::new(),
            states: None,
            draft: None,
            embeddings_only: false,
        }
    }
}

/// Why options were refused.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum OptionError {
    /// A number outside its range.
    #[error("{what}: {value} is outside {range}")]
    OutOfRange {
        /// The option.
        what: &'static str,
        /// What was given.
        value: String,
        /// What is allowed.
        range: String,
    },
    /// A context of no tokens.
    #[error("context: 0 tokens")]
    NoContext,
    /// A context beyond reason.
    #[error(
        "context: {asked} tokens asked, {limit} is the most for a model trained on {trained_tokens}"
    )]
    ContextTooLarge {
        /// Tokens asked for.
        asked: u32,
        /// The most that is allowed.
        limit: u32,
        /// The context that the model was trained on.
        trained_tokens: u32,
    },
    /// A word that names no type of the cache.
    #[error("cache type: {0} is none of f32, f16, bf16, q8_0, q5_1, q5_0, q4_1, q4_0")]
    CacheType(String),
    /// Samplers, biases or triggers that do not go together or are too many.
    #[error("{0}")]
    Sampling(String),
    /// Too many or too long stop strings.
    #[error("stop: {0}")]
    Stop(String),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn context_defaults_to_the_trained_one_within_a_bound() {
        let options = ContextOptions::with_threads(2);
        assert_eq!(options.context_for(512), Ok(512));
        assert_eq!(options.context_for(131_072), Ok(CONTEXT_TOKENS_DEFAULT));
        assert_eq!(options.context_for(0), Ok(CONTEXT_TOKENS_DEFAULT));
    }

    #[test]
    fn an_absurd_context_is_refused_with_numbers() {
        let options = ContextOptions {
            context_tokens: Some(2_000_000_000),
            ..ContextOptions::with_threads(2)
        };
        let error = options.context_for(4096).unwrap_err();
        assert_eq!(
            error.to_string(),
            "context: 2000000000 tokens asked, 262144 is the most for a model trained on 4096"
        );
        assert!(options.context_for(u32::MAX).unwrap_err().to_string().contains("16777216"));
    }
}
