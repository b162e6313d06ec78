//! Removing content that no model names any more.

use std::collections::HashSet;
use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::Store;
use super::digest::Digest;
use super::error::StoreError;
use super::files;
use super::manifest::{Kind, Manifest};

/// A temporary file that is younger may be one that its owner has not locked yet.
const TEMPORARY_AGE_MIN: Duration = Duration::from_mins(1);

/// Which content is looked at.
#[derive(Debug, Clone, Copy)]
pub enum Scope<'a> {
    /// All of it: also complete layers of a pull that was killed, which a second try would find.
    All,
    /// That of a model whose name was removed or replaced.
    Of(&'a Manifest),
}

/// What a collection did, or would do.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Collected {
    /// The content that was removed, with its bytes.
    pub blobs: Vec<(Digest, u64)>,
    /// Content that no model names, but that somebody uses or is about to name.
    pub in_use: Vec<Digest>,
    /// Remains of processes that were killed.
    pub remains: u64,
}

impl Collected {
    /// Bytes that were freed.
    pub fn bytes(&self) -> u64 {
        self.blobs.iter().map(|(_, bytes)| bytes).sum()
    }
}

impl Store {
    /// Removes content that no manifest names and nobody holds (see [`Store`]); `dry_run` only says what would go.
    ///
    /// # Errors
    /// When a manifest cannot be read: the content that it names would be lost. Nothing is removed then.
    pub fn collect(&self, scope: Scope<'_>, dry_run: bool) -> Result<Collected, StoreError> {
        let mut collected = Collected::default();
        let folder = self.blobs_folder();
        if !folder.is_dir() {
            return Ok(collected);
        }
        // From here on no manifest appears that names a blob which is being judged, and no blob under its path.
        let _lock = self.lock()?;
        let listing = self.list()?;
        if let Some(error) = listing.broken.into_iter().next() {
            return Err(error);
        }
        let layers = listing.manifests.iter().flat_map(|manifest| &manifest.layers);
        // What is used in place needs no blob.
        let named: HashSet<Digest> =
            layers.filter(|layer| layer.place.is_none()).map(|layer| layer.digest).collect();
        let wanted: Option<HashSet<Digest>> = match scope {
            Scope::All => None,
            Scope::Of(manifest) => Some(manifest.layers.iter().map(|layer| layer.digest).collect()),
        };
        for path in entries(&folder)? {
            let digest =
                path.file_name().and_then(|name| name.to_str()).and_then(Digest::from_file_name);
            let Some(digest) = digest else { continue };
            if named.contains(&digest) || wanted.as_ref().is_some_and(|set| !set.contains(&digest))
            {
                continue;
            }
            match take(&path, dry_run)? {
                Some(bytes) => collected.blobs.push((digest, bytes)),
                None => collected.in_use.push(digest),
            }
        }
        if matches!(scope, Scope::All) {
            collected.remains = self.sweep(dry_run)?;
        }
        if !dry_run {
            self.remove_views(&listing.manifests)?;
            files::sync_folder(&folder)?;
        }
        Ok(collected)
    }

    /// Removes what killed processes left half-written in the store's own folders; unfinished downloads are not among it.
    fn sweep(&self, dry_run: bool) -> Result<u64, StoreError> {
        let mut swept = 0;
        let mut folders = vec![self.blobs_folder(), self.partial_folder()];
        folders.extend(self.manifest_folders()?);
        for path in
            folders.iter().map(|folder| entries(folder)).collect::<Result<Vec<_>, _>>()?.concat()
        {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            let is_old = || {
                let modified = fs::metadata(&path).and_then(|metadata| metadata.modified());
                modified.is_ok_and(|time| time.elapsed().is_ok_and(|age| age > TEMPORARY_AGE_MIN))
            };
            if name.starts_with(files::TEMPORARY) && is_old() && take(&path, dry_run)?.is_some() {
                swept += 1;
            }
        }
        Ok(swept)
    }

    /// Removes the links of split models that are gone.
    fn remove_views(&self, manifests: &[Manifest]) -> Result<(), StoreError> {
        let needed: HashSet<PathBuf> =
            manifests.iter().filter_map(|manifest| self.view_folder(manifest)).collect();
        for path in entries(&self.views_folder())? {
            if !needed.contains(&path) {
                fs::remove_dir_all(&path).map_err(StoreError::io("cannot remove", &path))?;
            }
        }
        Ok(())
    }

    /// The folder of a split model's links; `None` for a model in one file.
    pub(super) fn view_folder(&self, manifest: &Manifest) -> Option<PathBuf> {
        let layers: Vec<_> = manifest.layers_of(Kind::Model).collect();
        if layers.len() < 2 {
            return None;
        }
        let digests: String = layers.iter().map(|layer| layer.digest.hex()).collect();
        Some(self.views_folder().join(Digest::of(digests.as_bytes()).hex()))
    }
}

/// Removes a file that nobody has locked; returns its bytes, `None` when somebody has.
fn take(path: &Path, dry_run: bool) -> Result<Option<u64>, StoreError> {
    let failed = |source| StoreError::Io { action: "cannot remove", path: path.to_owned(), source };
    let file = File::open(path).map_err(failed)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Ok(None),
        Err(TryLockError::Error(error)) => return Err(failed(error)),
    }
    let bytes = file.metadata().map_err(failed)?.len();
    if !dry_run {
        files::remove(path)?;
    }
    Ok(Some(bytes))
}

fn entries(folder: &Path) -> Result<Vec<PathBuf>, StoreError> {
    match fs::read_dir(folder) {
        Ok(entries) => Ok(entries.filter_map(|entry| Some(entry.ok()?.path())).collect()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(StoreError::io("cannot read", folder)(error)),
    }
}
