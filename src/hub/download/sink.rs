//! The end of the pipe: bytes in order become a file, a hash and a journal, in a thread of their own.

use std::fs::File;
use std::io::{self, Write};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bytes::Bytes;
use sha2::Digest as _;
use tokio::sync::mpsc;

use super::journal::{Hashed, Journal};
use super::meter::Meter;

/// Pieces that may wait to be hashed and written.
const QUEUE_PIECES: usize = 48;

/// How much may be written between two records; a kill costs at most this.
const RECORD_BYTES: u64 = 4 << 20;

/// How long may pass between two records.
const RECORD_TIME: Duration = Duration::from_millis(200);

/// Takes bytes in order.
#[derive(Debug)]
pub(super) struct Sink {
    sender: mpsc::Sender<Bytes>,
    thread: JoinHandle<io::Result<Hashed>>,
}

/// What the thread works on.
#[derive(Debug)]
pub(super) struct Work {
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
        let (sender, receiver) = mpsc::channel(QUEUE_PIECES);
        let builder = std::thread::Builder::new().name("nfl-hash".to_owned());
        let thread = builder.spawn(move || work.run(receiver))?;
        Ok(Self { sender, thread })
    }

    /// Hands on the next bytes; false when the thread has failed, which [`Sink::finish`] then explains.
    pub(super) async fn push(&self, bytes: Bytes) -> bool {
        self.sender.send(bytes).await.is_ok()
    }

    /// Whether bytes come faster than they are hashed and written.
    pub(super) fn is_behind(&self) -> bool {
        self.sender.capacity() < QUEUE_PIECES / 2
    }

    /// Waits until everything is written; returns the hash.
    pub(super) fn finish(self) -> io::Result<Hashed> {
        drop(self.sender);
        self.thread.join().unwrap_or_else(|_| Err(io::Error::other("the writing thread died")))
    }
}

impl Work {
    fn run(mut self, mut receiver: mpsc::Receiver<Bytes>) -> io::Result<Hashed> {
        let mut recorded = (self.hashed.bytes, Instant::now());
        // A record before the first byte: what was kept of an earlier run may have been cut off.
        self.record()?;
        while let Some(bytes) = receiver.blocking_recv() {
            self.hashed.hash.update(&bytes);
            self.file.write_all(&bytes)?;
            self.hashed.bytes += bytes.len() as u64;
            self.meter.set_done(self.hashed.bytes);
            let since = self.hashed.bytes - recorded.0;
            if since >= RECORD_BYTES || recorded.1.elapsed() >= RECORD_TIME {
                self.record()?;
                recorded = (self.hashed.bytes, Instant::now());
            }
        }
        self.record()?;
        Ok(self.hashed)
    }

    fn record(&mut self) -> io::Result<()> {
        self.journal.write(&self.hashed, self.total, self.etag.as_deref())
    }
}
