//! Who is downloading: one process at a time for each file, and the next one goes on where the last one stopped.

use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::meter::Meter;

/// How often a waiting process looks again.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// The sole right to a download, until it is dropped. The lock dies with its process.
#[derive(Debug)]
pub(crate) struct Claim {
    /// The download's files begin with this path.
    stem: PathBuf,
    _lock: File,
}

impl Claim {
    /// Waits for the right to the download `key` (a name that is safe as a file name) in `folder`. None when the meter
    /// says stop.
    pub(crate) async fn take(folder: &Path, key: &str, meter: &Meter) -> io::Result<Option<Self>> {
        std::fs::create_dir_all(folder)?;
        let stem = folder.join(key);
        let path = stem.with_extension("lock");
        loop {
            let mut options = OpenOptions::new();
            let lock = options.read(true).write(true).create(true).truncate(false).open(&path)?;
            match lock.try_lock() {
                // Whoever had it may have removed it since it was opened: then it is no longer the lock of this name.
                Ok(()) if is_at(&lock, &path) => {
                    meter.set_note(None);
                    return Ok(Some(Self { stem, _lock: lock }));
                }
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => {
                    meter.set_note(Some("another nfl is fetching it".to_owned()));
                    tokio::time::sleep(LOOK_AGAIN).await;
                }
                Err(TryLockError::Error(error)) => return Err(error),
            }
            if meter.stopped() {
                return Ok(None);
            }
        }
    }

    /// Where the content is gathered.
    pub(crate) fn content(&self) -> PathBuf {
        self.stem.with_extension("part")
    }

    /// Where the journal is.
    pub(super) fn journal(&self) -> PathBuf {
        self.stem.with_extension("journal")
    }

    /// Forgets what has been downloaded.
    pub(super) fn clear(&self) -> io::Result<()> {
        for path in [self.journal(), self.content()] {
            match std::fs::remove_file(path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }

    /// Ends the claim when the content has been moved away or is not wanted any more.
    pub(crate) fn finish(self) -> io::Result<()> {
        self.clear()?;
        // Removed while it is held: see `take`.
        std::fs::remove_file(self.stem.with_extension("lock"))
    }
}

/// Whether the open file is the one that the path leads to.
#[cfg(unix)]
fn is_at(file: &File, path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    let (Ok(open), Ok(named)) = (file.metadata(), std::fs::metadata(path)) else { return false };
    (open.dev(), open.ino()) == (named.dev(), named.ino())
}

/// Elsewhere an open file cannot be removed.
#[cfg(not(unix))]
fn is_at(_file: &File, _path: &Path) -> bool {
    true
}
