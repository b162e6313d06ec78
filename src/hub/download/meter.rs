//! How far a download is: written by its threads, read by whoever shows it, and the way to stop it.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

/// The gauge of one file. Bytes count from the beginning of the file.
#[derive(Debug, Default)]
pub struct Meter {
    done: AtomicU64,
    total: AtomicU64,
    kept: AtomicU64,
    lanes: AtomicU64,
    stop: AtomicBool,
    note: Mutex<Option<String>>,
}

impl Meter {
    /// Bytes that are written and hashed.
    pub fn done(&self) -> u64 {
        self.done.load(Relaxed)
    }

    /// The size of the file; 0 while it is unknown.
    pub fn total(&self) -> u64 {
        self.total.load(Relaxed)
    }

    /// Bytes that an earlier run had brought already.
    pub fn kept(&self) -> u64 {
        self.kept.load(Relaxed)
    }

    /// Connections at work.
    pub fn lanes(&self) -> u64 {
        self.lanes.load(Relaxed)
    }

    /// What the download waits for, when it waits.
    pub fn note(&self) -> Option<String> {
        self.note.lock().map_or(None, |note| note.clone())
    }

    /// Asks the download to stop; what it has is kept for the next time.
    pub fn stop(&self) {
        self.stop.store(true, Relaxed);
    }

    pub(crate) fn stopped(&self) -> bool {
        self.stop.load(Relaxed)
    }

    pub(crate) fn set_done(&self, bytes: u64) {
        self.done.store(bytes, Relaxed);
    }

    pub(crate) fn set_total(&self, bytes: u64) {
        self.total.store(bytes, Relaxed);
    }

    pub(crate) fn set_kept(&self, bytes: u64) {
        self.kept.store(bytes, Relaxed);
        self.set_done(bytes);
    }

    pub(crate) fn set_lanes(&self, lanes: usize) {
        self.lanes.store(lanes as u64, Relaxed);
    }

    pub(crate) fn set_note(&self, note: Option<String>) {
        if let Ok(mut current) = self.note.lock() {
            *current = note;
        }
    }
}
