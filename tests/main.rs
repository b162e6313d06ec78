//! The one integration test binary of `nfl`: boundaries, rules and comparisons with independent judges.
//!
//! One executable, because each links llama.cpp.

#![expect(clippy::unwrap_used, reason = "a test may panic, and so may its helpers")]
#![expect(clippy::print_stderr, reason = "a test that is skipped says so")]

mod bench;
mod bitsandbytes;
mod cage;
mod chat;
mod convert;
mod doctor;
mod embed;
mod engine;
mod experts;
mod finetune;
mod fit;
mod fixture;
mod hostile;
mod judge;
mod perplexity;
mod pool;
mod preference;
mod readme;
mod router;
mod rules;
mod run;
mod serve;
mod store;
mod tokenizers;
mod training;
mod vulkan;
mod web;
mod wire;
