//! What a model is: its file, its shape, its tensors, its levels, its name.
//!
//! The crate is pure: no async, no network, no runtime of a language model. It reads files that
//! nobody vouches for, so every length meets a named limit and the bytes that remain before memory
//! is taken for it, and integer overflow is checked in every profile.
//!
//! # Glossary
//!
//! One word for each idea, in code, commands, JSON and documents:
//!
//! - **architecture**: the kind of a model, as GGUF names it (`llama`): which tensors it owns and
//!   how they are computed with. [`Architecture`], one file each in [`arch`].
//! - **family**: how a Hugging Face checkpoint spells an architecture (`MixtralForCausalLM`).
//!   Several families may become one architecture. The converters know them, this crate does not.
//! - **shape**: the numbers of one model of an architecture: blocks, heads, lengths, experts.
//!   [`Shape`].
//! - **inventory**: every tensor that a shape owns, with role and dimensions. [`inventory()`].
//! - **role**: what a tensor does (`AttentionQuery`, `ExpertsDown`). [`Role`].
//! - **type**: how the numbers of one tensor are stored (`Q4_K`). [`TensorType`].
//! - **level**: what a whole model is quantised to (`Q4_K_M`): a recipe that gives each tensor its
//!   type. [`Level`].
//! - **footprint**: the bytes of a model: weights by role, cache by token. [`Footprint`].
//! - **metadata**: the typed entries at the head of a GGUF file. [`gguf::Metadata`].
//! - **shard**: one file of a model that is split over several. [`gguf::split`].
//! - **checkpoint**: a trained model as it is published: a directory with safetensors and
//!   `config.json`.
//! - **engine**: what answers: llama.cpp in a process of its own, around one loaded model.
//! - **session**: one conversation with an engine, and the cache that it keeps.
//! - **adapter**: a small set of weights (LoRA) that changes a model without touching its file.
//! - **preflight**: the check of a model before the engine sees it. [`preflight`](mod@preflight).
//! - **hint**: what a user can do about an error. [`Hint`].
//!
//! # Where things are
//!
//! A new architecture is one file in [`arch`] and one line in [`ARCHITECTURES`]. The format and its
//! limits are in [`gguf`]; what the check refuses and why is in [`mod@preflight`].

pub mod arch;
pub mod footprint;
pub mod gguf;
mod hint;
pub mod inventory;
mod level;
pub mod name;
pub mod prediction;
pub mod preflight;
mod role;
pub mod shape;
pub mod template;
mod tensor;

pub use arch::{ARCHITECTURES, Architecture};
pub use footprint::Footprint;
pub use hint::Hint;
pub use inventory::{InventoryError, Role, TensorSpec, check_inventory, inventory};
pub use level::{Level, UnknownLevel, file_name_parts};
pub use name::{ModelName, NameError, nearest};
pub use preflight::{Refusal, Warning, preflight};
pub use shape::{Shape, ShapeError};
pub use tensor::{TensorType, UnknownTensorType};
