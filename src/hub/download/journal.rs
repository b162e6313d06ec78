//! What is known of an unfinished download, so that the next process goes on exactly where this one was killed.
//!
//! The file itself only ever grows, in order, and the hash follows it: a record is the number of bytes that are written
//! and hashed, and the state of the hash after them. Records are written into two slots in turn, each with a checksum;
//! a kill in the middle of a write costs that record and leaves the one before. What lies in the file behind the
//! recorded bytes is cut off.
//!
//! A record names the boot of the system it was written in. After a power cut the record may have reached the disk
//! before the bytes did, so a record of another boot is believed only after the file has been read and hashed again.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::Path;

use serde::{Deserialize, Serialize};
use sha2::digest::common::hazmat::SerializableState;
use sha2::{Digest as _, Sha256};

/// Bytes of a slot; a record is far smaller, because an ETag longer than [`ETAG_BYTES_MAX`] is not kept.
const SLOT_BYTES: usize = 1024;

/// The longest ETag that is kept.
pub(super) const ETAG_BYTES_MAX: usize = 256;

/// The form of a record that this program writes; others are not read.
const VERSION: u32 = 1;

/// One record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Record {
    version: u32,
    /// Grows with every record: the greater one is the later.
    sequence: u64,
    /// Bytes from the beginning that are written and hashed.
    pub(super) done: u64,
    /// The file's size, where the server said it.
    pub(super) total: Option<u64>,
    /// The file's version, where the server said it.
    pub(super) etag: Option<String>,
    /// The boot of the system in which this was written.
    boot: Option<String>,
    /// The state of SHA-256 after `done` bytes, in hexadecimal.
    state: String,
}

/// A hash and how far it has come.
#[derive(Clone)]
pub(super) struct Hashed {
    /// Bytes that went in.
    pub(super) bytes: u64,
    /// The hash of them.
    pub(super) hash: Sha256,
}

impl std::fmt::Debug for Hashed {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Hashed").field("bytes", &self.bytes).finish_non_exhaustive()
    }
}

impl Hashed {
    /// Nothing hashed yet.
    pub(super) fn new() -> Self {
        Self { bytes: 0, hash: Sha256::new() }
    }
}

/// The journal of one download.
#[derive(Debug)]
pub(super) struct Journal {
    file: File,
    sequence: u64,
    boot: Option<String>,
}

impl Journal {
    /// Opens or creates the journal, and reads its last record.
    pub(super) fn open(path: &Path) -> io::Result<(Self, Option<Record>)> {
        let mut options = OpenOptions::new();
        let mut file = options.read(true).write(true).create(true).truncate(false).open(path)?;
        let mut text = Vec::new();
        Read::by_ref(&mut file).take(2 * SLOT_BYTES as u64).read_to_end(&mut text)?;
        let last = text.chunks(SLOT_BYTES).filter_map(parse).max_by_key(|record| record.sequence);
        let sequence = last.as_ref().map_or(0, |record| record.sequence);
        Ok((Self { file, sequence, boot: boot() }, last))
    }

    /// Records how far the download is.
    pub(super) fn write(
        &mut self,
        hashed: &Hashed,
        total: Option<u64>,
        etag: Option<&str>,
    ) -> io::Result<()> {
        self.sequence += 1;
        let record = Record {
            version: VERSION,
            sequence: self.sequence,
            done: hashed.bytes,
            total,
            etag: etag.map(str::to_owned),
            boot: self.boot.clone(),
            state: hex(&hashed.hash.serialize()),
        };
        let body = serde_json::to_string(&record).expect("a record has only plain fields");
        let mut slot = format!("{} {body}", hex(&Sha256::digest(&body))).into_bytes();
        assert!(slot.len() < SLOT_BYTES, "an ETag is at most {ETAG_BYTES_MAX} bytes");
        slot.resize(SLOT_BYTES - 1, b' ');
        slot.push(b'\n');
        self.file.seek(SeekFrom::Start(self.sequence % 2 * SLOT_BYTES as u64))?;
        self.file.write_all(&slot)
    }
}

/// Goes back to what `record` says of `file`: cuts what lies behind, and gives the hash so far. None when the record does
/// not hold for this file, which then begins again.
pub(super) fn resume(file: &mut File, record: &Record) -> io::Result<Option<Hashed>> {
    let state = unhex(&record.state).and_then(|bytes| bytes.as_slice().try_into().ok());
    let Some(hash) = state.and_then(|state| Sha256::deserialize(&state).ok()) else {
        return Ok(None);
    };
    if file.metadata()?.len() < record.done {
        return Ok(None);
    }
    if record.boot.is_none() || record.boot != boot() {
        let mut again = Sha256::new();
        file.seek(SeekFrom::Start(0))?;
        let mut buffer = vec![0; 1 << 20];
        let mut reader = Read::by_ref(file).take(record.done);
        loop {
            let read = reader.read(&mut buffer)?;
            if read == 0 {
                break;
            }
            again.update(&buffer[..read]);
        }
        if again.serialize() != hash.serialize() {
            return Ok(None);
        }
    }
    file.set_len(record.done)?;
    file.seek(SeekFrom::Start(record.done))?;
    Ok(Some(Hashed { bytes: record.done, hash }))
}

fn parse(slot: &[u8]) -> Option<Record> {
    let text = std::str::from_utf8(slot).ok()?.trim_end();
    let (checksum, body) = text.split_once(' ')?;
    if checksum != hex(&Sha256::digest(body)) {
        return None;
    }
    let record: Record = serde_json::from_str(body).ok()?;
    (record.version == VERSION).then_some(record)
}

/// What names the time since the system was started; None where nothing does.
fn boot() -> Option<String> {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    Some(text.trim().to_owned())
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let digits = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
    text.len().is_multiple_of(2).then(|| text.as_bytes().chunks(2).map(digits).collect())?
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A download of 1000 bytes, of which the journal knows 700.
    fn scene() -> (tempfile::TempDir, File, Record) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("data");
        std::fs::write(&path, [7; 1000]).unwrap();
        let (mut journal, none) = Journal::open(&folder.path().join("journal")).unwrap();
        assert_eq!(none, None);
        let mut hashed = Hashed::new();
        for bytes in [300_u64, 700] {
            hashed.hash.update(vec![7; (bytes - hashed.bytes) as usize]);
            hashed.bytes = bytes;
            journal.write(&hashed, Some(5000), Some("\"v1\"")).unwrap();
        }
        let (_, record) = Journal::open(&folder.path().join("journal")).unwrap();
        let file = OpenOptions::new().read(true).write(true).open(path).unwrap();
        (folder, file, record.unwrap())
    }

    fn finish(mut hashed: Hashed) -> String {
        hashed.hash.update([8; 300]);
        hex(&hashed.hash.finalize())
    }

    #[test]
    fn a_download_goes_on_where_the_last_record_was() {
        let (_folder, mut file, record) = scene();
        assert_eq!(
            (record.done, record.total, record.etag.as_deref()),
            (700, Some(5000), Some("\"v1\""))
        );
        let hashed = resume(&mut file, &record).unwrap().unwrap();
        assert_eq!(file.metadata().unwrap().len(), 700);
        let whole: Vec<u8> = [vec![7; 700], vec![8; 300]].concat();
        assert_eq!(finish(hashed), hex(&Sha256::digest(whole)));
    }

    #[test]
    fn a_torn_record_leaves_the_one_before() {
        let (folder, ..) = scene();
        let path = folder.path().join("journal");
        let whole = std::fs::read(&path).unwrap();
        for place in (0..SLOT_BYTES).step_by(37) {
            // The second record went into the first slot: sequence 2.
            let mut torn = whole.clone();
            torn[place..SLOT_BYTES].fill(0);
            std::fs::write(&path, torn).unwrap();
            let done = Journal::open(&path).unwrap().1.unwrap().done;
            assert!(done == 300 || (done == 700 && place > 300), "{place}: {done}");
        }
        std::fs::write(&path, &whole[..SLOT_BYTES / 2]).unwrap();
        assert!(Journal::open(&path).unwrap().1.is_none_or(|record| record.done == 700));
        std::fs::write(&path, b"not a journal").unwrap();
        assert_eq!(Journal::open(&path).unwrap().1, None);
    }

    #[test]
    fn a_record_of_another_boot_is_checked_against_the_file() {
        let (_folder, mut file, record) = scene();
        let other = Record { boot: Some("another".to_owned()), ..record.clone() };
        assert_eq!(resume(&mut file, &other).unwrap().unwrap().bytes, 700);
        file.seek(SeekFrom::Start(20)).unwrap();
        file.write_all(b"lost").unwrap();
        assert!(resume(&mut file, &other).unwrap().is_none());
        file.set_len(699).unwrap();
        assert!(resume(&mut file, &record).unwrap().is_none());
    }
}
