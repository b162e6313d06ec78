//! Experts beyond memory: a Mixture of Experts that is larger than memory, read by our own rule.
//!
//! Under a plain mapping the kernel decides: it reads around every page that is touched (up to
//! megabytes of experts that nobody chose) and drops what was touched longest ago. Here the router
//! decides. An observer of the computation sees which experts a layer chose, reads exactly their
//! slices, past the page cache and in parallel, and drops what has been chosen least ([`cache`]).
//! The next layer's experts are guessed from this layer's state and read meanwhile ([`predict`]),
//! as long as a running trial says that it pays ([`trial`]). The weights that every token needs are
//! locked in memory.
//!
//! What is read is laid over the mapping at the same addresses, and what is not is the mapping: a
//! miss, a failed read or a graph that is unknown here costs time, never a wrong number. When all
//! experts are in memory the observer asks for nothing and the computation runs as without it.

pub mod cache;
pub mod counters;
mod layer;
pub mod layout;
pub mod memory;
mod pool;
pub mod predict;
mod reader;
pub mod trial;

use super::options::{ExpertReading, LoadMode, ModelOptions};
use layout::Layout;

pub use reader::ExpertReader;

/// Bytes beside the weights that a model takes at the least: cache, intermediate results, programs.
const BESIDE_BYTES: u64 = 256 << 20;

/// Whether a model's experts are to be read by our own rule, when this much memory is left; 0 is
/// taken for "unknown".
pub fn decide(options: &ModelOptions, layout: Option<&Layout>, available_bytes: u64) -> bool {
    let Some(layout) = layout else { return false };
    let is_mapped = options.load_mode != LoadMode::Read && !options.lock_memory;
    if !is_mapped || options.vocabulary_only || !cfg!(target_os = "linux") {
        return false;
    }
    match options.expert_reading {
        ExpertReading::Off => false,
        ExpertReading::On => true,
        ExpertReading::Auto => {
            let wanted = layout.experts_bytes() + layout.fixed_bytes() + BESIDE_BYTES;
            available_bytes > 0 && wanted > available_bytes
        }
    }
}

#[cfg(test)]
mod tests {
    use super::layout::{Extent, LayerLayout, Part};
    use super::*;

    fn layout() -> Layout {
        let extent = Extent { file: 0, offset: 0, bytes: 1 << 30 };
        let part = Part { extent, slice_bytes: 1 << 20 };
        let layer = LayerLayout { block: 0, experts: 1024, parts: vec![part] };
        Layout { layers: vec![layer], experts_used: 8, fixed: vec![extent], embedding: None }
    }

    #[test]
    fn auto_means_when_memory_does_not_hold_it() {
        let layout = layout();
        let auto = ModelOptions::default();
        assert!(decide(&auto, Some(&layout), 2 << 30));
        assert!(!decide(&auto, Some(&layout), 3 << 30));
        assert!(!decide(&auto, Some(&layout), 0));
        assert!(!decide(&auto, None, 1));
        let on = ModelOptions { expert_reading: ExpertReading::On, ..auto.clone() };
        assert!(decide(&on, Some(&layout), 0));
        let read = ModelOptions { load_mode: LoadMode::Read, ..on.clone() };
        assert!(!decide(&read, Some(&layout), 0));
        let off = ModelOptions { expert_reading: ExpertReading::Off, ..auto };
        assert!(!decide(&off, Some(&layout), 1));
    }
}
