//! Tests of the crate at its boundary: real files, hostile files, random files.

mod builder;
mod footprint;
mod gguf_rs;
mod hostile;
mod preflight;
mod properties;
mod real;
mod split;
