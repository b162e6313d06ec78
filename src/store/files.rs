//! Files that are there completely or not at all.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::Path;

use tempfile::NamedTempFile;

use super::error::StoreError;

const CANNOT_WRITE: &str = "cannot write";

/// All of a small file; `None` when there is none.
pub(super) fn read(path: &Path, bytes_max: u64) -> Result<Option<Vec<u8>>, StoreError> {
    let failed = |source| StoreError::Io { action: "cannot read", path: path.to_owned(), source };
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(error)),
    };
    let mut content = Vec::new();
    file.take(bytes_max + 1).read_to_end(&mut content).map_err(failed)?;
    if content.len() as u64 > bytes_max {
        let reason = format!("it has more than {bytes_max} bytes");
        return Err(StoreError::Manifest { path: path.to_owned(), reason });
    }
    Ok(Some(content))
}

/// Puts a file in its place, durably: whoever looks meanwhile, or after the power failed, finds what was there before or
/// what is there now.
pub(super) fn write(path: &Path, content: &[u8]) -> Result<(), StoreError> {
    let folder = path.parent().expect("files of the store are in a folder");
    make_folder(folder)?;
    let file = temporary(folder)?;
    let failed = |source| StoreError::Io { action: CANNOT_WRITE, path: path.to_owned(), source };
    file.as_file().write_all(content).map_err(failed)?;
    file.as_file().sync_all().map_err(failed)?;
    file.persist(path).map_err(|error| failed(error.error))?;
    sync_folder(folder)
}

/// A file without a lasting name in a folder; it goes when it is dropped, and with the next collection when the process
/// was killed.
pub(super) fn temporary(folder: &Path) -> Result<NamedTempFile, StoreError> {
    let mut builder = tempfile::Builder::new();
    builder.prefix(TEMPORARY);
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o644));
    let file = builder.tempfile_in(folder).map_err(StoreError::io(CANNOT_WRITE, folder))?;
    // A collection takes only what nobody has locked; where there are no locks it takes nothing.
    let _ = file.as_file().lock_shared();
    Ok(file)
}

/// How names of temporary files begin.
pub(super) const TEMPORARY: &str = ".arriving-";

pub(super) fn make_folder(folder: &Path) -> Result<(), StoreError> {
    fs::create_dir_all(folder).map_err(StoreError::io("cannot create", folder))
}

/// Makes what happened to the names in a folder durable.
pub(super) fn sync_folder(folder: &Path) -> Result<(), StoreError> {
    if cfg!(unix) {
        let synced = File::open(folder).and_then(|folder| folder.sync_all());
        synced.map_err(StoreError::io(CANNOT_WRITE, folder))?;
    }
    Ok(())
}

/// Removes a file; none is as good.
pub(super) fn remove(path: &Path) -> Result<(), StoreError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(StoreError::io("cannot remove", path)(error))
        }
        _ => Ok(()),
    }
}

/// Whether two handles or a handle and a path are one file.
pub(super) fn is_same(file: &File, path: &Path) -> io::Result<bool> {
    let there = match fs::metadata(path) {
        Ok(there) => there,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error),
    };
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt;
        let here = file.metadata()?;
        Ok((here.dev(), here.ino()) == (there.dev(), there.ino()))
    }
    #[cfg(not(unix))]
    Ok(file.metadata()?.len() == there.len())
}
