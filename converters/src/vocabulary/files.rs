//! Reading the small files of a checkpoint folder: regular files only, each below its limit.

use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use super::error::VocabularyError;

/// A JSON object in the file's order.
pub(super) type Object = Map<String, Value>;

/// A checkpoint folder.
#[derive(Clone, Copy)]
pub(super) struct Folder<'a> {
    path: &'a Path,
}

impl<'a> Folder<'a> {
    pub(super) fn new(path: &'a Path) -> Self {
        Self { path }
    }

    pub(super) fn path(&self) -> &'a Path {
        self.path
    }

    pub(super) fn join(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Whether a name exists, whatever it is: what is not a regular file is refused on reading.
    pub(super) fn has(&self, name: &str) -> bool {
        self.join(name).exists()
    }

    /// The bytes of a file; `None` when there is none.
    pub(super) fn bytes(&self, name: &str, limit: u64) -> Result<Option<Vec<u8>>, VocabularyError> {
        let path = self.join(name);
        // The kind is asked before opening: opening a pipe would wait for its writer.
        let metadata = match fs::metadata(&path) {
            Ok(metadata) => metadata,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(VocabularyError::Read { path, source }),
        };
        if !metadata.is_file() {
            return Err(VocabularyError::NotAFile { path });
        }
        let too_large =
            |path, found| VocabularyError::TooLarge { path, what: "a file in bytes", found, limit };
        if metadata.len() > limit {
            return Err(too_large(path, metadata.len()));
        }
        let mut bytes = Vec::with_capacity(metadata.len() as usize);
        let read = File::open(&path).and_then(|file| file.take(limit + 1).read_to_end(&mut bytes));
        match read {
            Ok(read) if read as u64 > limit => Err(too_large(path, read as u64)),
            Ok(_) => Ok(Some(bytes)),
            Err(source) => Err(VocabularyError::Read { path, source }),
        }
    }

    /// The text of a file; `None` when there is none.
    pub(super) fn text(&self, name: &str, limit: u64) -> Result<Option<String>, VocabularyError> {
        let Some(bytes) = self.bytes(name, limit)? else { return Ok(None) };
        String::from_utf8(bytes)
            .map(Some)
            .map_err(|error| self.malformed(name, format!("not UTF-8: {error}")))
    }

    /// The JSON object in a file; `None` when there is none.
    pub(super) fn object(&self, name: &str, limit: u64) -> Result<Option<Object>, VocabularyError> {
        let Some(bytes) = self.bytes(name, limit)? else { return Ok(None) };
        serde_json::from_slice(&bytes)
            .map(Some)
            .map_err(|error| self.malformed(name, format!("not a JSON object: {error}")))
    }

    pub(super) fn malformed(&self, name: &str, reason: impl Into<String>) -> VocabularyError {
        VocabularyError::Malformed { path: self.join(name), reason: reason.into() }
    }
}
