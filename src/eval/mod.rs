//! How good a model is, and how fast.

pub mod bench;
pub mod divergence;
pub mod perplexity;
