//! Tests of the crate at its boundary: real files, hostile files, random files.
#![expect(clippy::unwrap_used, reason = "helpers of tests may panic as tests do")]

mod builder;
mod footprint;
mod gguf_rs;
mod hostile;
mod preflight;
mod properties;
mod real;
mod split;
mod writer;
