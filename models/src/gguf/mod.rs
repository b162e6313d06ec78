//! GGUF: the file format of a model.

mod cursor;
mod error;
mod header;
pub mod limits;
mod metadata;
mod reader;
pub mod split;
mod value;
mod writer;

pub use error::{GgufError, OffsetFault};
pub use header::{ALIGNMENT_DEFAULT, ALIGNMENT_KEY, Header, MAGIC, TensorInfo, tensor_bytes};
pub use metadata::Metadata;
pub use reader::Gguf;
pub use value::{Array, Text, Value};
pub use writer::{Options, TensorPlan, WriteError, Writer};
