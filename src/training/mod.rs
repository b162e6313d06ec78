//! Training: adapters on a frozen base that is the same GGUF file which is used for inference.
//!
//! No autograd and no graph: every step of a decoder has a way back of its own ([`ops`]), blocks put them together
//! ([`block`]), and what is kept between the two ways is decided block by block ([`block::Keep`]). candle-core supplies
//! tensors, matrix products and GGUF's blocks; its autograd, which drops gradients at quantised and fused operations
//! without a word, is not used.

pub mod base;
pub mod block;
pub mod decoder;
pub mod eight_bits;
pub mod files;
pub mod linear;
pub mod lora;
pub mod nf4;
pub mod noise;
pub mod ops;
pub mod optimizer;
pub mod random;
pub mod samples;
pub mod targets;
pub mod trainer;
pub mod weight;
