//! Downloading one file: in parallel, in order, verified while it is written, and always able to go on.
//!
//! | file | role |
//! |---|---|
//! | `claim` | one process at a time for each file |
//! | `journal` | what a killed process leaves to the next |
//! | `flow` | which bytes are asked for when, and how they come together |
//! | `part`, `answer` | one request, and what its answer is worth |
//! | `lanes` | how many connections |
//! | `sink` | bytes in order to file, hash and journal |
//!
//! The finished file is not forced to the disk: it was written from its beginning to its end, so after a power cut it
//! is short, which whoever opens it by size notices, and a journal of another boot is not believed unchecked.

mod answer;
mod claim;
mod flow;
mod journal;
mod lanes;
mod meter;
mod part;
mod sink;

use std::fs::{File, OpenOptions};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use nfl_models::Hint;
use sha2::Digest as _;
use tokio::sync::mpsc;

use super::error::HubError;
use super::network::{Network, Route};
use super::registry::Access;
use crate::store::Digest;
use crate::term::units;
pub(crate) use claim::Claim;
use flow::{Flow, Outcome};
use journal::{Hashed, Journal};
pub use meter::Meter;
use part::Line;
use sink::Work;

/// How often a file may turn out to have changed on the server while it is fetched.
const CHANGES_MAX: u32 = 3;

/// Reports that may wait for the flow: few, so that bytes are written while they are still in the processor's cache.
const REPORTS_MAX: usize = 2;

/// What is wanted, and what it must be.
#[derive(Debug, Clone)]
pub(crate) struct Wanted {
    pub(crate) route: Route,
    /// The right to it, where that can run out.
    pub(crate) access: Option<Arc<Access>>,
    pub(crate) bytes: Option<u64>,
    pub(crate) digest: Option<Digest>,
}

/// What a download may use and how patient it is.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Connections at the same time.
    pub connections_max: usize,
    /// Bytes in memory in front of the first one that is missing.
    pub window_bytes: u64,
    /// How long a connection may bring nothing.
    pub stall: Duration,
    /// Troubles in a row without progress.
    pub attempts: u32,
    /// The pause after the second trouble in a row; it doubles from there.
    pub pause_first: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections_max: 16,
            window_bytes: 128 << 20,
            stall: Duration::from_secs(10),
            attempts: 8,
            pause_first: Duration::from_millis(500),
        }
    }
}

/// Fails when the disk has no room for `bytes` more; says nothing where that cannot be asked.
#[cfg(unix)]
fn check_room(file: &File, bytes: u64) -> Result<(), DownloadError> {
    let Ok(disk) = rustix::fs::fstatvfs(file) else { return Ok(()) };
    let free = disk.f_bavail.saturating_mul(disk.f_frsize);
    if free < bytes { Err(DownloadError::NoRoom { needed: bytes, free }) } else { Ok(()) }
}

#[cfg(not(unix))]
fn check_room(_file: &File, _bytes: u64) -> Result<(), DownloadError> {
    Ok(())
}

/// A complete and verified file.
#[derive(Debug)]
pub(crate) struct Fetched {
    /// Where it lies; whoever takes it moves it away and ends the claim.
    pub(crate) path: PathBuf,
    pub(crate) digest: Digest,
    pub(crate) bytes: u64,
}

/// Why a file did not come.
#[derive(Debug, thiserror::Error)]
pub enum DownloadError {
    /// The network or the server.
    #[error(transparent)]
    Hub(#[from] HubError),
    /// The disk.
    #[error("cannot write the download: {0}")]
    Write(#[source] std::io::Error),
    /// Not enough disk.
    #[error("the disk has {} free, and {} are still to come", units::bytes(*.free), units::bytes(*.needed))]
    NoRoom {
        /// Bytes that are still to be written.
        needed: u64,
        /// Bytes that are free.
        free: u64,
    },
    /// The content is not what its name says.
    #[error("wrong content from {place}: {found}, expected {expected}; it was deleted")]
    Wrong {
        /// Where it came from.
        place: String,
        /// What came.
        found: Digest,
        /// What should have come.
        expected: Digest,
    },
    /// The file on the server changes faster than it can be fetched.
    #[error("{place} keeps changing while it is fetched: {how}")]
    Unsteady {
        /// Where the file is.
        place: String,
        /// What was seen last.
        how: String,
    },
    /// The person asked to stop.
    #[error("stopped; what has been downloaded is kept, and the same command goes on from there")]
    Stopped,
}

impl Hint for DownloadError {
    fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::Hub(error) => return error.hint(),
            Self::Write(error) if error.kind() == std::io::ErrorKind::StorageFull => {
                "make room and pull again: what has been downloaded is kept (NFL_HOME names another place)"
            }
            Self::Write(_) => "check the folder that NFL_HOME names, its permissions and its disk",
            Self::NoRoom { .. } => {
                "make room, choose a smaller level, or name another disk with NFL_HOME"
            }
            Self::Wrong { .. } => {
                "pull again; when it stays wrong, the server's file is damaged or not the announced one"
            }
            Self::Unsteady { .. } => "pull again later, or name a fixed revision",
            Self::Stopped => return None,
        };
        Some(hint.to_owned())
    }
}

/// Fetches a file under a claim: goes on where an earlier process stopped, and verifies it.
pub(crate) async fn fetch(
    network: &Network,
    wanted: &Wanted,
    claim: &Claim,
    limits: &Limits,
    meter: &Arc<Meter>,
) -> Result<Fetched, DownloadError> {
    let mut changes = 0;
    let mut is_second_try = false;
    loop {
        let work = begin(wanted, claim, meter).map_err(DownloadError::Write)?;
        let was_resumed = work.hashed.bytes > 0;
        let (sender, reports) = mpsc::channel(REPORTS_MAX);
        let line = Arc::new(Line {
            network: network.clone(),
            route: Mutex::new(wanted.route.clone()),
            access: wanted.access.clone(),
            facts: Mutex::new((work.total, work.etag.clone())),
            stall: limits.stall,
            reports: sender,
        });
        let known = wanted.digest.is_some();
        let hashed = match Flow::new(line, reports, work, limits.clone(), known).run().await? {
            Outcome::Complete(hashed) => hashed,
            Outcome::Stopped => return Err(DownloadError::Stopped),
            Outcome::Changed(how) => {
                changes += 1;
                claim.clear().map_err(DownloadError::Write)?;
                if changes >= CHANGES_MAX {
                    let place = super::network::place(&wanted.route.url);
                    return Err(DownloadError::Unsteady { place, how });
                }
                continue;
            }
        };
        let found = Digest::from_bytes(hashed.hash.finalize().into());
        match wanted.digest {
            Some(expected) if expected != found => {
                claim.clear().map_err(DownloadError::Write)?;
                // What an earlier run had left may be to blame; what came in one piece is simply wrong.
                if was_resumed && !is_second_try {
                    is_second_try = true;
                    continue;
                }
                let place = super::network::place(&wanted.route.url);
                return Err(DownloadError::Wrong { place, found, expected });
            }
            _ => {
                let bytes = hashed.bytes;
                return Ok(Fetched { path: claim.content(), digest: found, bytes });
            }
        }
    }
}

/// Opens what an earlier run left, as far as it can be used.
fn begin(wanted: &Wanted, claim: &Claim, meter: &Arc<Meter>) -> std::io::Result<Work> {
    let mut options = OpenOptions::new();
    let options = options.read(true).write(true).create(true).truncate(false);
    let mut file = options.open(claim.content())?;
    let (journal, record) = Journal::open(&claim.journal())?;
    // Without digest and version nothing says that the rest on the server belongs to what is here.
    let usable = record.filter(|record| {
        let fits = |total: u64| wanted.bytes.is_none_or(|bytes| bytes == total);
        (wanted.digest.is_some() || record.etag.is_some()) && record.total.is_none_or(fits)
    });
    let resumed = match &usable {
        Some(record) => journal::resume(&mut file, record)?,
        None => None,
    };
    let (hashed, total, etag) = if let (Some(hashed), Some(record)) = (resumed, usable) {
        (hashed, record.total, record.etag)
    } else {
        file.set_len(0)?;
        (Hashed::new(), None, None)
    };
    let total = total.or(wanted.bytes);
    meter.set_total(total.unwrap_or(0));
    meter.set_kept(hashed.bytes);
    Ok(Work { file, journal, hashed, total, etag, meter: meter.clone() })
}
