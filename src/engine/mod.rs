//! The engine: llama.cpp behind a worker process.
//!
//! llama.cpp aborts its process on some inputs, so it runs in a child: [`process::Engine`] starts
//! it and speaks the protocol of [`frames`] with it over two pipes. [`llama`] is the wrapper that
//! the child uses; programs and tests that accept the risk may use it in their own process.

pub mod blocks;
pub mod embedding;
pub mod experts;
pub mod fake;
pub mod frames;
pub mod grammar;
mod inquiry;
pub mod llama;
pub mod options;
pub mod plan;
pub mod probe;
pub mod process;
pub mod reserve;
pub mod runner;
pub mod sampling;
pub mod scheduler;
pub mod speculate;
pub mod steering;
pub mod stop;
pub mod text;
pub mod worker;
