//! Content by its digest: `blobs/sha256-HEX`, complete, never changed.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use tempfile::{NamedTempFile, TempPath};

use super::Store;
use super::digest::Digest;
use super::error::StoreError;
use super::files;
use super::manifest::{Kind, Layer};

impl Store {
    /// Where the content of a digest is or would be.
    pub fn blob_path(&self, digest: &Digest) -> PathBuf {
        self.blobs_folder().join(digest.file_name())
    }

    /// Whether the content is here, in its full length. From then on it is held, see [`Store`].
    pub fn has(&self, digest: &Digest, bytes: u64) -> bool {
        matches!(self.hold(digest), Ok(Some(found)) if found == bytes)
    }

    /// Takes a complete file into the store by renaming it; the caller has made sure of its digest. When the content is
    /// here already, the file is removed. Returns the blob's path. The content is held, see [`Store`].
    ///
    /// # Errors
    /// When the file has another length than `bytes`, or the store cannot be written. The file is then where it was.
    pub fn adopt(&self, file: &Path, digest: &Digest, bytes: u64) -> Result<PathBuf, StoreError> {
        let synced = File::open(file).and_then(|handle| handle.sync_all());
        synced.map_err(StoreError::io("cannot write", file))?;
        self.adopt_grown(file, digest, bytes)
    }

    /// The same for a file that was written from its beginning to its end, which is not forced to the disk: after a power
    /// cut it is short, so [`has`](Self::has) misses it and whoever fetched it fetches it again. Waiting for the disk
    /// takes longer than many a download.
    pub fn adopt_grown(
        &self,
        file: &Path,
        digest: &Digest,
        bytes: u64,
    ) -> Result<PathBuf, StoreError> {
        let handle = File::open(file).map_err(StoreError::io("cannot read", file))?;
        let found = handle.metadata().map_err(StoreError::io("cannot read", file))?.len();
        if found != bytes {
            let message = format!("{found} bytes instead of {bytes}");
            let source = io::Error::new(io::ErrorKind::InvalidData, message);
            return Err(StoreError::Io { action: "cannot take", path: file.to_owned(), source });
        }
        make_read_only(&handle).map_err(StoreError::io("cannot write", file))?;
        let path = self.blob_path(digest);
        let folder = self.blobs_folder();
        files::make_folder(&folder)?;
        let lock = self.lock()?;
        if self.hold(digest)? == Some(bytes) {
            files::remove(file)?;
            return Ok(path);
        }
        match fs::rename(file, &path) {
            Err(error) if error.kind() == io::ErrorKind::CrossesDevices => {
                // Copying takes its time, and the others need not wait for it.
                drop(lock);
                let copy = self.copy_beside(file)?;
                self.adopt(&copy, digest, bytes)?;
                files::remove(file)?;
                return Ok(path);
            }
            renamed => renamed.map_err(StoreError::io("cannot write", &path))?,
        }
        files::sync_folder(&folder)?;
        self.hold(digest)?;
        Ok(path)
    }

    /// A file for content that comes from elsewhere, to be [adopted](Self::adopt) when it is complete. It goes when it is
    /// dropped.
    pub fn arriving(&self) -> Result<NamedTempFile, StoreError> {
        let partial = self.partial_folder();
        files::make_folder(&partial)?;
        files::temporary(&partial)
    }

    /// Stores a small text as a blob. The content is held, see [`Store`].
    pub fn put(&self, kind: Kind, content: &[u8]) -> Result<Layer, StoreError> {
        let digest = Digest::of(content);
        let bytes = content.len() as u64;
        if !self.has(&digest, bytes) {
            let file = self.arriving()?;
            io::Write::write_all(&mut file.as_file(), content)
                .map_err(StoreError::io("cannot write", file.path()))?;
            let path = file.into_temp_path();
            self.adopt(&path, &digest, bytes)?;
        }
        Ok(Layer::new(kind, digest, bytes))
    }

    /// The text of a layer.
    ///
    /// # Errors
    /// When it is not here, is longer than `bytes_max`, or is no UTF-8.
    pub fn text(&self, layer: &Layer, bytes_max: u64) -> Result<String, StoreError> {
        let path = self.layer_path(layer);
        let missing = || io::Error::from(io::ErrorKind::NotFound);
        let content = files::read(&path, bytes_max)?
            .ok_or_else(missing)
            .map_err(StoreError::io("cannot read", &path))?;
        String::from_utf8(content)
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
            .map_err(StoreError::io("cannot read", &path))
    }

    /// Where a layer's content is: in the store, or where it was imported from.
    pub fn layer_path(&self, layer: &Layer) -> PathBuf {
        match &layer.place {
            Some(place) => place.path.clone(),
            None => self.blob_path(&layer.digest),
        }
    }

    /// Keeps a blob from being collected as long as this store is open. Returns its length, `None` when it is not here.
    pub(super) fn hold(&self, digest: &Digest) -> Result<Option<u64>, StoreError> {
        let path = self.blob_path(digest);
        let failed = |source| StoreError::Io { action: "cannot read", path: path.clone(), source };
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(failed(error)),
        };
        match file.lock_shared() {
            // Where there are no locks nothing is collected either.
            Err(error) if error.kind() != io::ErrorKind::Unsupported => return Err(failed(error)),
            _ => {}
        }
        // Whoever had the exclusive lock has removed it.
        if !files::is_same(&file, &path).map_err(failed)? {
            return Ok(None);
        }
        let metadata = file.metadata().map_err(failed)?;
        if !metadata.is_file() {
            return Ok(None);
        }
        self.held().insert(*digest, file);
        Ok(Some(metadata.len()))
    }

    /// A copy in the folder of blobs: for partial downloads and blobs on two file systems.
    fn copy_beside(&self, file: &Path) -> Result<TempPath, StoreError> {
        let temporary = files::temporary(&self.blobs_folder())?;
        let copied =
            File::open(file).and_then(|mut source| io::copy(&mut source, &mut temporary.as_file()));
        copied.map_err(StoreError::io("cannot write", temporary.path()))?;
        Ok(temporary.into_temp_path())
    }
}

/// Blobs are shared by names: nobody should write to them by mistake.
pub(super) fn make_read_only(file: &File) -> io::Result<()> {
    let mut permissions = file.metadata()?.permissions();
    permissions.set_readonly(true);
    file.set_permissions(permissions)
}
