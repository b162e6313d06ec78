//! How a checkpoint becomes GGUF.
//!
//! ```text
//! checkpoint ──► families ──► quantize::mixture ──► stream ──► output
//! what it is      what the     which type each       values     beside its name,
//! (mapped)        output holds tensor gets           and bytes  checked, renamed
//! ```
//!
//! - [`checkpoint`] opens a Hugging Face directory: `config.json` and safetensors, memory-mapped.
//! - [`families`] knows how each family spells its tensors, and plans the output: a
//!   [`families::Plan`] of recipes and metadata.
//! - [`vocabulary`] reads the tokenizer in whatever form it comes.
//! - [`quantize`] chooses types by level and encodes rows; block encoders come from outside
//!   ([`quantize::BlockEncoder`]).
//! - [`convert`] and [`requantize`] stream a source into one file for each level, in one pass, with
//!   bounded memory.
//! - [`outline`] tells shape, types and sizes from a `config.json` alone, before any weight is there.
//! - [`seeded`] makes checkpoints of random weights for tests and benchmarks.
//!
//! What holds: tensor bytes equal those of upstream's tools for the same level; memory is bounded
//! by the number of threads, not by the model; nothing is ever found under an output's name that
//! was not complete, read back and checked.

pub mod checkpoint;
mod error;
pub mod families;
mod order;
pub mod outline;
mod output;
mod pipeline;
pub mod quantize;
mod receipt;
mod requantize;
mod reshape;
pub mod seeded;
mod stream;
pub mod vocabulary;

pub use error::ConvertError;
pub use order::{Order, Step};
pub use outline::Outline;
pub use pipeline::convert;
pub use receipt::{Receipt, ReceiptTensor};
pub use requantize::{Change, requantize, rewrite};
