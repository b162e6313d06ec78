//! The one integration test binary of `nfl`: boundaries, rules and comparisons with independent judges.
//!
//! One executable, because each links llama.cpp.

mod convert;
mod fixture;
mod judge;
mod perplexity;
mod router;
mod rules;
mod run;
mod tokenizers;
