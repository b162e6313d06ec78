//! Reading files of a directory that nobody vouches for.
//!
//! A downloaded checkpoint may name `../../etc/passwd`, link to `/dev/zero` or hold a pipe.
//! Therefore: names are plain file names; links lead only within the directory, or into the `blobs`
//! folder of the Hugging Face cache that the directory belongs to
//! (`models--x--y/snapshots/<revision>/f -> ../../blobs/<hash>`); and nothing is opened before its
//! metadata says "regular file", because opening a pipe waits for a writer.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use super::CheckpointError;

/// The longest file name of common file systems, in bytes.
const FILE_NAME_BYTES_MAX: usize = 255;

/// A directory whose files are read by plain name, within the rules of this module.
#[derive(Debug, Clone)]
pub struct Folder {
    path: PathBuf,
    /// `blobs` beside `snapshots`, when the directory is a snapshot of a Hugging Face cache.
    blobs: Option<PathBuf>,
}

/// A regular file that was opened through a [`Folder`].
#[derive(Debug)]
pub(crate) struct OpenFile {
    pub(crate) file: File,
    pub(crate) path: PathBuf,
    pub(crate) bytes: u64,
}

impl Folder {
    /// The folder at `directory`, which may itself be reached through links: the user named it.
    ///
    /// # Errors
    /// When it is absent or no directory.
    pub fn open(directory: &Path) -> Result<Self, CheckpointError> {
        let path = match fs::canonicalize(directory) {
            Ok(path) => path,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(CheckpointError::NotFound { path: directory.to_path_buf() });
            }
            Err(error) => return Err(CheckpointError::io(directory, error)),
        };
        if !path.is_dir() {
            return Err(CheckpointError::NotADirectory { path: directory.to_path_buf() });
        }
        let blobs = hub_cache_root(&path).map(|root| root.join("blobs"));
        Ok(Self { path, blobs })
    }

    /// The directory without links.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The model's name in a Hugging Face cache (`models--org--name` gives `name`), whose own
    /// directory name is a hash.
    pub(crate) fn hub_name(&self) -> Option<String> {
        let root = hub_cache_root(&self.path)?.file_name()?.to_str()?;
        Some(root.strip_prefix("models--")?.rsplit("--").next()?.to_owned())
    }

    /// Where the regular file `name` really lies, or `None` when there is no such name.
    ///
    /// # Errors
    /// When the name is no plain file name, when it is a link that leaves the folder, and when it
    /// is no regular file.
    pub fn file(&self, name: &str) -> Result<Option<PathBuf>, CheckpointError> {
        if !is_plain(name) {
            return Err(CheckpointError::FileName { name: name.to_owned() });
        }
        let path = self.path.join(name);
        let metadata = match fs::symlink_metadata(&path) {
            Ok(metadata) => metadata,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(CheckpointError::io(&path, error)),
        };
        if metadata.is_file() {
            return Ok(Some(path));
        }
        if !metadata.is_symlink() {
            return Err(CheckpointError::NotRegular { path });
        }
        self.follow(path).map(Some)
    }

    fn follow(&self, link: PathBuf) -> Result<PathBuf, CheckpointError> {
        let target = match fs::canonicalize(&link) {
            Ok(target) => target,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(CheckpointError::LinkDangling { path: link });
            }
            Err(error) => return Err(CheckpointError::io(&link, error)),
        };
        // `target` is free of links, so a `blobs` that is itself a link elsewhere does not match
        // here.
        let in_blobs = self.blobs.as_deref().is_some_and(|blobs| target.parent() == Some(blobs));
        if !in_blobs && !target.starts_with(&self.path) {
            return Err(CheckpointError::LinkOutside { path: link, target });
        }
        match fs::metadata(&target) {
            Ok(metadata) if metadata.is_file() => Ok(target),
            Ok(_) => Err(CheckpointError::NotRegular { path: link }),
            Err(error) => Err(CheckpointError::io(&link, error)),
        }
    }

    pub(crate) fn open_file(&self, name: &str) -> Result<Option<OpenFile>, CheckpointError> {
        let Some(path) = self.file(name)? else { return Ok(None) };
        let file = File::open(&path).map_err(|error| CheckpointError::io(&path, error))?;
        // Asked again of the open file: the name may have been given to something else in between.
        let metadata = file.metadata().map_err(|error| CheckpointError::io(&path, error))?;
        if !metadata.is_file() {
            return Err(CheckpointError::NotRegular { path });
        }
        Ok(Some(OpenFile { bytes: metadata.len(), file, path }))
    }

    /// The bytes of the file `name`, or `None` when it is absent.
    ///
    /// # Errors
    /// As [`Folder::file`], and when the file is longer than `bytes_max`.
    pub fn read_bytes(
        &self,
        name: &str,
        bytes_max: u64,
    ) -> Result<Option<Vec<u8>>, CheckpointError> {
        let Some(OpenFile { file, path, bytes }) = self.open_file(name)? else { return Ok(None) };
        if bytes > bytes_max {
            return Err(CheckpointError::TooLarge { path, bytes, limit: bytes_max });
        }
        let mut content = Vec::with_capacity(bytes as usize);
        // One byte beyond, to notice a file that grows while it is read.
        let read = file.take(bytes_max + 1).read_to_end(&mut content);
        let read = read.map_err(|error| CheckpointError::io(&path, error))? as u64;
        if read > bytes_max {
            return Err(CheckpointError::TooLarge { path, bytes: read, limit: bytes_max });
        }
        Ok(Some(content))
    }

    /// The text of the file `name`, or `None` when it is absent. A byte order mark is dropped.
    ///
    /// # Errors
    /// As [`Folder::read_bytes`], and when the file is not UTF-8.
    pub fn read_text(&self, name: &str, bytes_max: u64) -> Result<Option<String>, CheckpointError> {
        let Some(bytes) = self.read_bytes(name, bytes_max)? else { return Ok(None) };
        match String::from_utf8(bytes) {
            Ok(text) => Ok(Some(match text.strip_prefix('\u{feff}') {
                Some(rest) => rest.to_owned(),
                None => text,
            })),
            Err(_) => Err(CheckpointError::NotText { path: self.path.join(name) }),
        }
    }

    /// The JSON of the file `name`, or `None` when it is absent. Nesting beyond 128 is refused by
    /// serde_json.
    ///
    /// # Errors
    /// As [`Folder::read_text`], and when the text is not JSON.
    pub fn read_json(
        &self,
        name: &str,
        bytes_max: u64,
    ) -> Result<Option<serde_json::Value>, CheckpointError> {
        let Some(text) = self.read_text(name, bytes_max)? else { return Ok(None) };
        serde_json::from_str(&text)
            .map(Some)
            .map_err(|source| CheckpointError::Json { path: self.path.join(name), source })
    }

    /// The plain names in the folder, sorted; at most `names_max` are looked at.
    pub(crate) fn names(&self, names_max: usize) -> Result<Vec<String>, CheckpointError> {
        let entries =
            fs::read_dir(&self.path).map_err(|error| CheckpointError::io(&self.path, error))?;
        let mut names: Vec<String> = entries
            .take(names_max)
            .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
            .filter(|name| is_plain(name))
            .collect();
        names.sort_unstable();
        Ok(names)
    }
}

/// `…/models--x--y` of `…/models--x--y/snapshots/<revision>`.
fn hub_cache_root(snapshot: &Path) -> Option<&Path> {
    let snapshots = snapshot.parent()?;
    (snapshots.file_name()? == "snapshots").then(|| snapshots.parent())?
}

/// Whether `name` is one component that means a file on every platform: no separator, no drive, no
/// control character.
pub(crate) fn is_plain(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= FILE_NAME_BYTES_MAX
        && name != "."
        && name != ".."
        && !name.contains(|c: char| matches!(c, '/' | '\\' | ':') || c.is_control())
}
