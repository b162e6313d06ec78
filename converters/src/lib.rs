//! How a checkpoint becomes GGUF.

pub mod checkpoint;
pub mod seeded;
