//! Training: adapters on a frozen base that is the same GGUF file which is used for inference.

pub mod ops;
pub mod weight;
