//! The end of the pipe: bytes in order become a file, a hash and a journal.
//!
//! Whoever hands bytes on writes them at once, while they are still in the processor's cache; a thread of its own hashes
//! the same memory and keeps the journal. So the file is always at least as long as the journal says.

use std::fs::File;
use std::io::{self, Write};
use std::sync::Arc;
use std::thread::JoinHandle;

use bytes::Bytes;
use sha2::Digest as _;
use tokio::sync::mpsc;

use super::journal::{Hashed, Journal};
use super::meter::Meter;

/// How much is hashed in one go, and then recorded: enough that waking the thread costs nothing, and that the system
/// finds both threads at work long enough to give each a processor of its own.
const BATCH_BYTES: usize = 4 << 20;

/// Batches that may wait to be hashed; a kill costs these and no more.
const QUEUE_BATCHES: usize = 4;

/// Takes bytes in order.
#[derive(Debug)]
pub(super) struct Sink {
    /// Stands where the next byte belongs.
    file: File,
    /// What is written and not yet handed to the thread.
    batch: Vec<Bytes>,
    batch_bytes: usize,
    sender: mpsc::Sender<Vec<Bytes>>,
    thread: JoinHandle<io::Result<Hasher>>,
}

/// What a download works on.
#[derive(Debug)]
pub(super) struct Work {
    /// Stands behind the bytes that are hashed, and ends there.
    pub(super) file: File,
    pub(super) journal: Journal,
    pub(super) hashed: Hashed,
    pub(super) total: Option<u64>,
    pub(super) etag: Option<String>,
    pub(super) meter: Arc<Meter>,
}

impl Sink {
    /// Starts the thread.
    pub(super) fn start(work: Work) -> io::Result<Self> {
        let Work { file, journal, hashed, total, etag, meter } = work;
        let mut hasher = Hasher { journal, hashed, total, etag, meter };
        // A record before the first byte: what was kept of an earlier run may have been cut off.
        hasher.record()?;
        let (sender, receiver) = mpsc::channel(QUEUE_BATCHES);
        let builder = std::thread::Builder::new().name("nfl-hash".to_owned());
        let thread = builder.spawn(move || hasher.run(receiver))?;
        Ok(Self { file, batch: Vec::new(), batch_bytes: 0, sender, thread })
    }

    /// Writes the next bytes and hands them on; false when the thread has failed, which [`Sink::finish`] then explains.
    ///
    /// # Errors
    /// When the bytes cannot be written; what came before them is kept.
    pub(super) async fn push(&mut self, bytes: Bytes) -> io::Result<bool> {
        self.file.write_all(&bytes)?;
        self.batch_bytes += bytes.len();
        self.batch.push(bytes);
        if self.batch_bytes < BATCH_BYTES {
            return Ok(true);
        }
        self.batch_bytes = 0;
        let batch = std::mem::take(&mut self.batch);
        Ok(self.sender.send(batch).await.is_ok())
    }

    /// Hands on what is there, so that a slow line's bytes are recorded, too; does nothing while the thread is behind.
    pub(super) fn flush(&mut self) {
        if self.batch_bytes > 0
            && let Ok(place) = self.sender.try_reserve()
        {
            self.batch_bytes = 0;
            place.send(std::mem::take(&mut self.batch));
        }
    }

    /// Whether bytes come faster than they are hashed.
    pub(super) fn is_behind(&self) -> bool {
        self.sender.capacity() < QUEUE_BATCHES / 2
    }

    /// Waits until everything is hashed; returns the hash.
    pub(super) fn finish(self) -> io::Result<Hashed> {
        drop(self.sender);
        let died = |_| Err(io::Error::other("the hashing thread died"));
        let mut hasher = self.thread.join().unwrap_or_else(died)?;
        hasher.take(&self.batch)?;
        Ok(hasher.hashed)
    }
}

/// What the thread works on: the bytes that it gets are written already.
#[derive(Debug)]
struct Hasher {
    journal: Journal,
    hashed: Hashed,
    total: Option<u64>,
    etag: Option<String>,
    meter: Arc<Meter>,
}

impl Hasher {
    fn run(mut self, mut receiver: mpsc::Receiver<Vec<Bytes>>) -> io::Result<Self> {
        while let Some(batch) = receiver.blocking_recv() {
            self.take(&batch)?;
        }
        Ok(self)
    }

    fn take(&mut self, batch: &[Bytes]) -> io::Result<()> {
        for bytes in batch {
            self.hashed.hash.update(bytes);
            self.hashed.bytes += bytes.len() as u64;
            self.meter.set_done(self.hashed.bytes);
        }
        self.record()
    }

    fn record(&mut self) -> io::Result<()> {
        self.journal.write(&self.hashed, self.total, self.etag.as_deref())
    }
}
