//! `nfl` runs and makes language models on a machine that a person owns.
//!
//! # Bird's eye
//!
//! Three packages, arrows one way: `nfl` (what you do with a model) → `nfl-converters` (how a checkpoint becomes GGUF) →
//! `nfl-models` (what a model is). llama.cpp is the inference engine; it runs in a worker process, one per loaded model,
//! because it aborts the process on some inputs and a crash must cost one reply, never the program around it.
//!
//! # Code map, in rank order
//!
//! A file may use only modules of lower rank (`tests/rules.rs` checks it).
//!
//! | rank | module | what it does |
//! |---|---|---|
//! | 6 | [`cli`] | what can be typed, one file a command |
//! | 5 | [`server`] | the dialects that clients speak, over HTTP |
//! | 5 | [`tui`] | what is drawn on a terminal |
//! | 4 | [`eval`] | how good a model is, and how fast: perplexity, speeds |
//! | 4 | [`learn`] | teaching a model: data, runs, outputs |
//! | 3 | [`chat`] | a conversation in, a stream of events out |
//! | 2 | [`engine`] | llama.cpp behind a worker process; the only `unsafe` besides mmap |
//! | 2 | [`training`] | gradients and optimisers for adapters on a frozen base |
//! | 1 | [`hardware`] | what this machine has |
//! | 1 | [`store`] | the models of this machine, by name |
//! | 0 | [`settings`], [`term`] | the environment; talking to the person |
//!
//! # Invariants
//!
//! - llama.cpp never sees a file that our own reader has not checked.
//! - Every reply has one source: [`engine`]; every word printed has one: [`term`].
//! - A file appears under its final name only when it is complete and has been read back.
//! - Nothing is silent: a fall-back, a limit or a cut is said.

pub mod chat;
pub mod cli;
pub mod engine;
pub mod eval;
pub mod hardware;
pub mod hub;
pub mod learn;
pub mod server;
pub mod settings;
pub mod store;
pub mod term;
pub mod training;
pub mod tui;
