//! What this machine has, as far as it decides how a model runs.

mod cores;

pub use cores::default_threads;
