//! Checkpoints of random weights in the shape of real models, for tests and benchmarks.
//!
//! From any `config.json` of the Llama, Mistral and Mixtral families comes a Hugging Face directory
//! of that shape, at full or reduced size, in seconds. The same seed gives the same bytes on every
//! machine and with any number of threads; a tensor's values depend on the seed and its name only,
//! so a checkpoint reduced in layers shares its tensors with the full one.

mod dimensions;
mod random;
mod tensors;
mod vocabulary;
mod write;

use std::fs;
use std::io;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use nfl_models::Hint;
use thiserror::Error;

use self::dimensions::Dimensions;
use crate::checkpoint::{CheckpointError, Config};

/// Bytes of one weight file, as Hugging Face's own tools cut them.
pub const SHARD_BYTES_MAX: u64 = 5_000_000_000;

/// What to generate.
#[derive(Debug, Clone)]
pub struct Seed {
    /// The number that all values follow from.
    pub seed: u64,
    /// The type of all tensors.
    pub dtype: WeightType,
    /// A further file is begun when one would become larger than this, in bytes.
    pub shard_bytes_max: u64,
    /// Numbers to use in place of those of `config.json`.
    pub overrides: Overrides,
    /// Standard deviation of the router's logits over a normalised input: from about 4 the chosen
    /// experts stand clear of the others. 0 leaves the router as random as all other matrices (1).
    pub router_sharpness: f32,
    /// A directory to copy the tokenizer's files from. Without one a vocabulary is made up: three
    /// control tokens, all bytes, and letters in growing combinations up to the vocabulary's size.
    pub tokenizer: Option<PathBuf>,
}

impl Default for Seed {
    fn default() -> Self {
        Self {
            seed: 0,
            dtype: WeightType::BF16,
            shard_bytes_max: SHARD_BYTES_MAX,
            overrides: Overrides::default(),
            router_sharpness: 0.0,
            tokenizer: None,
        }
    }
}

/// Numbers that replace those of `config.json`. What is left open follows in proportion: another
/// hidden size changes the heads (not their length) and the feed-forward size with it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Overrides {
    /// `num_hidden_layers`.
    pub layers: Option<u64>,
    /// `hidden_size`.
    pub hidden: Option<u64>,
    /// `intermediate_size`.
    pub intermediate: Option<u64>,
    /// `num_attention_heads`.
    pub heads: Option<u64>,
    /// `num_key_value_heads`.
    pub kv_heads: Option<u64>,
    /// `num_local_experts`.
    pub experts: Option<u64>,
    /// `num_experts_per_tok`.
    pub experts_used: Option<u64>,
    /// `vocab_size`.
    pub vocabulary: Option<u64>,
}

/// The element type of a generated checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WeightType {
    /// IEEE 754 single precision.
    F32,
    /// IEEE 754 half precision.
    F16,
    /// The upper half of single precision.
    BF16,
}

impl WeightType {
    /// Bytes of one element.
    pub fn bytes(self) -> u64 {
        match self {
            Self::F32 => 4,
            Self::F16 | Self::BF16 => 2,
        }
    }

    /// PyTorch's name, as `config.json` spells it.
    fn torch_name(self) -> &'static str {
        match self {
            Self::F32 => "float32",
            Self::F16 => "float16",
            Self::BF16 => "bfloat16",
        }
    }
}

impl FromStr for WeightType {
    type Err = SeededError;

    fn from_str(text: &str) -> Result<Self, SeededError> {
        match text.to_ascii_lowercase().as_str() {
            "f32" => Ok(Self::F32),
            "f16" => Ok(Self::F16),
            "bf16" => Ok(Self::BF16),
            _ => Err(SeededError::WeightType { found: text.to_owned() }),
        }
    }
}

/// What was generated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GeneratedCheckpoint {
    /// Where it lies.
    pub directory: PathBuf,
    /// How many weight files it has.
    pub shards: usize,
    /// How many tensors.
    pub tensors: usize,
    /// How many weights.
    pub parameters: u64,
    /// Bytes of the tensors' data.
    pub bytes: u64,
}

/// Why no checkpoint was generated.
#[derive(Debug, Error)]
pub enum SeededError {
    /// The configuration cannot be read, or a number in it is wrong.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// The configuration is of another family.
    #[error("architecture: {found:?}, which the generator does not know")]
    Family {
        /// What stands in `architectures`.
        found: String,
    },
    /// The numbers do not go together.
    #[error("{what}: {found}, expected {expected}")]
    Number {
        /// Which number.
        what: &'static str,
        /// Its value.
        found: u64,
        /// What it should be.
        expected: String,
    },
    /// No such element type.
    #[error("weight type: {found:?}, expected f32, f16 or bf16")]
    WeightType {
        /// What was given.
        found: String,
    },
    /// Something already has the target's name.
    #[error("already there: {}", .path.display())]
    Exists {
        /// The target.
        path: PathBuf,
    },
    /// The directory to copy a tokenizer from has none.
    #[error("no tokenizer: {}", .path.display())]
    NoTokenizer {
        /// The directory.
        path: PathBuf,
    },
    /// The operating system's answer.
    #[error("{}: {source}", .path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// The caller asked to stop; nothing is left behind.
    #[error("stopped")]
    Stopped,
}

impl SeededError {
    fn io(path: &Path, source: io::Error) -> Self {
        Self::Io { path: path.to_path_buf(), source }
    }
}

impl Hint for SeededError {
    fn hint(&self) -> Option<String> {
        let text = match self {
            Self::Checkpoint(error) => return error.hint(),
            Self::Family { .. } => {
                "give a config.json of LlamaForCausalLM, MistralForCausalLM or MixtralForCausalLM"
            }
            Self::Exists { .. } => "choose another name or remove what is there",
            Self::NoTokenizer { .. } => {
                "give a directory with tokenizer.model, tokenizer.json or vocab.json, or none at \
                 all for a made-up vocabulary"
            }
            Self::Io { source, .. } if source.kind() == io::ErrorKind::StorageFull => {
                "free some space, or reduce the layers"
            }
            Self::Number { .. } | Self::WeightType { .. } | Self::Io { .. } | Self::Stopped => {
                return None;
            }
        };
        Some(text.to_owned())
    }
}

/// Hears of the bytes written so far and in all, and says whether to go on.
pub type Progress<'a> = dyn FnMut(u64, u64) -> ControlFlow<()> + 'a;

/// Generates a checkpoint in the shape of `config` (a `config.json`, or a directory that holds
/// one) as the directory `target`, which must not exist. It appears under that name when complete.
///
/// # Errors
/// When the configuration is of another family or its numbers do not go together, when the target
/// exists, when writing fails, and when `on_progress` breaks. Nothing is left behind then.
pub fn generate(
    config: &Path,
    target: &Path,
    seed: &Seed,
    on_progress: &mut Progress<'_>,
) -> Result<GeneratedCheckpoint, SeededError> {
    let config = Config::open(config)?;
    let dimensions = Dimensions::new(&config, &seed.overrides)?;
    let specs = tensors::list(&dimensions, seed.router_sharpness);
    if fs::symlink_metadata(target).is_ok() {
        return Err(SeededError::Exists { path: target.to_path_buf() });
    }
    let parent = match target.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    fs::create_dir_all(parent).map_err(|error| SeededError::io(parent, error))?;
    // A directory within the temporary one, because that one is for this user's eyes only.
    let workshop = tempfile::Builder::new()
        .prefix(".nfl-seeded-")
        .tempdir_in(parent)
        .map_err(|error| SeededError::io(parent, error))?;
    let unfinished = workshop.path().join("checkpoint");
    fs::create_dir(&unfinished).map_err(|error| SeededError::io(&unfinished, error))?;

    let is_made_up = seed.tokenizer.is_none();
    match &seed.tokenizer {
        Some(source) => vocabulary::copy(source, &unfinished)?,
        None => vocabulary::make_up(dimensions.vocabulary, &unfinished)?,
    }
    let settings = dimensions.settings(&config, seed.dtype, is_made_up);
    write_json(&unfinished.join("config.json"), &settings)?;
    let shards = write::weights(&unfinished, &specs, seed, on_progress)?;

    fs::rename(&unfinished, target).map_err(|error| SeededError::io(target, error))?;
    let parameters = specs.iter().map(tensors::Spec::elements).sum();
    Ok(GeneratedCheckpoint {
        directory: target.to_path_buf(),
        shards,
        tensors: specs.len(),
        parameters,
        bytes: parameters * seed.dtype.bytes(),
    })
}

fn write_json(path: &Path, value: &serde_json::Value) -> Result<(), SeededError> {
    fs::write(path, format!("{value:#}\n")).map_err(|error| SeededError::io(path, error))
}
