//! What reading experts has done so far, for whoever asks.

use std::fs;
use std::sync::atomic::{AtomicU64, Ordering};

use serde::{Deserialize, Serialize};

/// Counted since the model was loaded.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExpertCounts {
    /// Tokens computed, those of prompts included.
    pub tokens: u64,
    /// Experts that were chosen, counted once a layer and step.
    pub needed: u64,
    /// Of them, those that were in memory.
    pub present: u64,
    /// Of them, those that a guess had begun to read.
    pub guessed: u64,
    /// Experts that were read on a guess.
    pub guesses: u64,
    /// Bytes read.
    pub read_bytes: u64,
    /// Microseconds that the computation waited for bytes.
    pub waited_us: u64,
    /// Bytes of experts in memory now.
    pub held_bytes: u64,
    /// Bytes that they may take now.
    pub budget_bytes: u64,
    /// Reads that failed; the kernel's own mapping stands in.
    pub failures: u64,
}

/// The counters, shared between the computation and those who ask.
#[derive(Debug, Default)]
pub struct Counters {
    pub(super) tokens: AtomicU64,
    pub(super) needed: AtomicU64,
    pub(super) present: AtomicU64,
    pub(super) guessed: AtomicU64,
    pub(super) guesses: AtomicU64,
    pub(super) read_bytes: AtomicU64,
    pub(super) waited_us: AtomicU64,
    pub(super) held_bytes: AtomicU64,
    pub(super) budget_bytes: AtomicU64,
    pub(super) failures: AtomicU64,
}

impl Counters {
    /// The counts of this moment.
    pub fn counts(&self) -> ExpertCounts {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        ExpertCounts {
            tokens: get(&self.tokens),
            needed: get(&self.needed),
            present: get(&self.present),
            guessed: get(&self.guessed),
            guesses: get(&self.guesses),
            read_bytes: get(&self.read_bytes),
            waited_us: get(&self.waited_us),
            held_bytes: get(&self.held_bytes),
            budget_bytes: get(&self.budget_bytes),
            failures: get(&self.failures),
        }
    }

    pub(super) fn add(counter: &AtomicU64, count: u64) {
        counter.fetch_add(count, Ordering::Relaxed);
    }
}

/// Page faults of this process that had to read from a disk. None where the system does not say.
pub fn major_faults() -> Option<u64> {
    faults(&fs::read_to_string("/proc/self/stat").ok()?)
}

/// The twelfth field; the second, a name in parentheses, may contain spaces.
fn faults(stat: &str) -> Option<u64> {
    stat.rsplit_once(')')?.1.split_ascii_whitespace().nth(9)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_field_is_found_behind_any_name() {
        let stat = "42 (a (b) c) S 1 42 42 0 -1 4194304 500 0 17 0 3 1 0 0 20 0 4 0 100 0 0";
        assert_eq!(faults(stat), Some(17));
    }
}
