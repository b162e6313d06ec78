//! The end of the pipe: bytes in order become a hash, a file and a journal.
//!
//! Whoever hands bytes on hashes them at once, while they are still in the processor's cache; a thread of its own writes
//! them and keeps the journal. Writing is most of the work, because the system copies each byte into memory of its own,
//! so receiving and hashing together take about as long, and the two sides share two processors evenly. A record is
//! written after its bytes, so the file is always at least as long as the journal says.

use std::fs::File;
use std::io::{self, Write};
use std::sync::Arc;
use std::thread::JoinHandle;

use bytes::Bytes;
use sha2::Digest as _;
use tokio::sync::mpsc;

use super::journal::{Hashed, Journal};
use super::meter::Meter;

/// How much is written in one go, and then recorded: enough that waking the thread costs nothing, little enough that it
/// is still in a cache.
const BATCH_BYTES: u64 = 1 << 20;

/// Batches that may wait to be written; a kill costs these and no more.
const QUEUE_BATCHES: usize = 8;

/// An allocation of this size, given back, tells the C library's allocator (glibc) that such amounts come and go, so that
/// it keeps the memory of pieces for the next ones: getting it from the system anew for each of them (a fault and a
/// page of zeros for every 4 KiB) costs a tenth of a download's time.
const KEPT_BYTES: usize = 24 << 20;

/// Takes bytes in order.
#[derive(Debug)]
pub(super) struct Sink {
    /// The hash of all bytes that were taken.
    hashed: Hashed,
    /// What is hashed and not yet handed to the thread.
    batch: Batch,
    /// Bytes that the thread has got.
    sent: u64,
    sender: mpsc::Sender<Batch>,
    thread: JoinHandle<io::Result<Scribe>>,
}

/// Pieces in order, each with the hash of everything up to its end.
type Batch = Vec<(Bytes, Hashed)>;

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
        drop(std::hint::black_box(Vec::<u8>::with_capacity(KEPT_BYTES)));
        let Work { file, journal, hashed, total, etag, meter } = work;
        let mut scribe = Scribe { file, journal, total, etag, meter };
        // A record before the first byte: what was kept of an earlier run may have been cut off.
        scribe.record(&hashed)?;
        let (sender, receiver) = mpsc::channel(QUEUE_BATCHES);
        let builder = std::thread::Builder::new().name("nfl-write".to_owned());
        let thread = builder.spawn(move || scribe.run(receiver))?;
        let sent = hashed.bytes;
        Ok(Self { hashed, batch: Vec::new(), sent, sender, thread })
    }

    /// Hashes the next bytes and hands them on; false when the thread has failed, which [`Sink::finish`] then explains.
    pub(super) async fn push(&mut self, bytes: Bytes) -> bool {
        self.hashed.hash.update(&bytes);
        self.hashed.bytes += bytes.len() as u64;
        self.batch.push((bytes, self.hashed.clone()));
        if self.hashed.bytes - self.sent < BATCH_BYTES {
            return true;
        }
        let batch = self.take();
        self.sender.send(batch).await.is_ok()
    }

    /// Hands on what is there, so that a slow line's bytes are recorded, too; does nothing while the thread is behind.
    pub(super) fn flush(&mut self) {
        if !self.batch.is_empty() && self.sender.capacity() > 0 {
            let batch = self.take();
            // Nobody else sends; a thread that has failed is noticed by the next push.
            let _ = self.sender.try_send(batch);
        }
    }

    fn take(&mut self) -> Batch {
        self.sent = self.hashed.bytes;
        std::mem::take(&mut self.batch)
    }

    /// Whether bytes come faster than they are written.
    pub(super) fn is_behind(&self) -> bool {
        self.sender.capacity() < QUEUE_BATCHES / 2
    }

    /// Waits until everything is written; returns the hash.
    ///
    /// # Errors
    /// When bytes could not be written; what came before them is kept.
    pub(super) fn finish(mut self) -> io::Result<Hashed> {
        let last = self.take();
        drop(self.sender);
        let died = |_| Err(io::Error::other("the writing thread died"));
        self.thread.join().unwrap_or_else(died)?.take(&last)?;
        Ok(self.hashed)
    }
}

/// What the thread works on.
#[derive(Debug)]
struct Scribe {
    /// Stands where the next byte belongs.
    file: File,
    journal: Journal,
    total: Option<u64>,
    etag: Option<String>,
    meter: Arc<Meter>,
}

impl Scribe {
    fn run(mut self, mut receiver: mpsc::Receiver<Batch>) -> io::Result<Self> {
        while let Some(batch) = receiver.blocking_recv() {
            self.take(&batch)?;
        }
        Ok(self)
    }

    fn take(&mut self, batch: &[(Bytes, Hashed)]) -> io::Result<()> {
        let mut written: Option<&Hashed> = None;
        let mut result = Ok(());
        for (bytes, hashed) in batch {
            result = self.file.write_all(bytes);
            if result.is_err() {
                break;
            }
            written = Some(hashed);
        }
        // Also when the disk is full now: what it took stays.
        let Some(hashed) = written else { return result };
        self.meter.set_done(hashed.bytes);
        self.record(hashed)?;
        result
    }

    fn record(&mut self, hashed: &Hashed) -> io::Result<()> {
        self.journal.write(hashed, self.total, self.etag.as_deref())
    }
}
