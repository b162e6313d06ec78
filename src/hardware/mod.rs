//! What this machine has, as far as it decides how a model runs.

mod cores;
mod graphics;
pub mod listener;
mod memory;
mod processor;
mod storage;

pub use cores::default_threads;
pub use graphics::{GraphicsCard, Vendor, graphics_cards};
pub use memory::{Memory, memory, resident_bytes, transparent_huge_pages};
pub use processor::{Processor, processor};
pub use storage::{Storage, storage};
