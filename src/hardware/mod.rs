//! What this machine has, as far as it decides how a model runs.

mod cores;
mod memory;

pub use cores::default_threads;
pub use memory::{Memory, memory, transparent_huge_pages};
