//! What a model is.

pub mod gguf;
mod hint;
mod level;
mod tensor;

pub use hint::Hint;
pub use level::{Level, UnknownLevel};
pub use tensor::{TensorType, UnknownTensorType};
