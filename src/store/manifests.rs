//! Models by name: reading, writing, listing, copying and removing manifests.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::Store;
use super::catalogue::Catalogue;
use super::error::StoreError;
use super::files;
use super::manifest::{LAYERS_MAX, MANIFEST_BYTES_MAX, Manifest, VERSION};
use super::reference::Reference;

/// Folders below that of manifests: a host, owners, a name.
const DEPTH_MAX: usize = nfl_models::name::OWNERS_MAX + 2;

/// What is in the store.
#[derive(Debug, Default)]
pub struct Listing {
    /// The models, by name.
    pub manifests: Vec<Manifest>,
    /// Manifests that cannot be read, and why; the others are none the worse for them.
    pub broken: Vec<StoreError>,
}

impl Store {
    /// Writes a model's manifest, durably and in one step; one of that name is replaced. Its blobs must be here.
    pub fn write(&self, manifest: &Manifest) -> Result<(), StoreError> {
        let name = manifest.name.to_string();
        if manifest.layers.len() > LAYERS_MAX {
            return Err(StoreError::Layers { name, count: manifest.layers.len() });
        }
        for layer in manifest.layers.iter().filter(|layer| layer.place.is_none()) {
            if !self.has(&layer.digest, layer.bytes) {
                return Err(StoreError::Blob { name, path: self.blob_path(&layer.digest) });
            }
        }
        let path = self.manifest_path(&manifest.name);
        let mut text = serde_json::to_vec_pretty(manifest).map_err(|error| {
            StoreError::Manifest { path: path.clone(), reason: error.to_string() }
        })?;
        text.push(b'\n');
        let _lock = self.lock()?;
        files::write(&path, &text)
    }

    /// A model's manifest; `None` when there is none of that name.
    pub fn read(&self, name: &Reference) -> Result<Option<Manifest>, StoreError> {
        read_manifest(&self.manifest_path(name), name)
    }

    /// Whether there is a model of that name, readable or not.
    pub fn is_named(&self, name: &Reference) -> bool {
        self.manifest_path(name).is_file()
    }

    /// All models, by name. Folders that do not exist are empty.
    pub fn list(&self) -> Result<Listing, StoreError> {
        let root = self.models_folder();
        let mut found = Found::default();
        walk(&root, DEPTH_MAX, &mut found)?;
        let mut listing = Listing::default();
        for path in found.files {
            let name = path.strip_prefix(&root).ok().and_then(Reference::from_path);
            let Some(name) = name else {
                let reason = "no model is called so".to_owned();
                listing.broken.push(StoreError::Manifest { path, reason });
                continue;
            };
            match read_manifest(&path, &name) {
                Ok(Some(manifest)) => listing.manifests.push(manifest),
                // Removed since the folder was read.
                Ok(None) => {}
                Err(error) => listing.broken.push(error),
            }
        }
        listing.manifests.sort_by(|left, right| left.name.cmp(&right.name));
        Ok(listing)
    }

    /// Removes a model's name and returns what it was, `None` when its manifest cannot be read; its content goes with the
    /// next [`collect`](Self::collect), unless another model has it too.
    ///
    /// # Errors
    /// When there is none of that name, or the store cannot be written.
    pub fn remove(&self, name: &Reference) -> Result<Option<Manifest>, StoreError> {
        let _lock = self.lock()?;
        let manifest = match self.read(name) {
            Ok(None) => return Err(self.missing(name)),
            Ok(manifest) => manifest,
            Err(_) => None,
        };
        let path = self.manifest_path(name);
        files::remove(&self.used_path(name))?;
        files::remove(&path)?;
        // The folders that it leaves empty go too; the first that is not empty ends it.
        let root = self.models_folder();
        let mut folder = path.parent();
        while let Some(each) = folder.filter(|each| *each != root) {
            if fs::remove_dir(each).is_err() {
                break;
            }
            folder = each.parent();
        }
        Ok(manifest)
    }

    /// Gives a model a second name; the content is shared.
    ///
    /// # Errors
    /// When there is no model `source`, or there is one called `target` and it is not to be replaced.
    pub fn copy(
        &self,
        source: &Reference,
        target: &Reference,
        replace: bool,
    ) -> Result<Manifest, StoreError> {
        let manifest = self.read(source)?.ok_or_else(|| self.missing(source))?;
        if !replace && self.read(target)?.is_some() {
            return Err(StoreError::Exists(target.to_string()));
        }
        let copy = Manifest { name: target.clone(), ..manifest };
        self.write(&copy)?;
        Ok(copy)
    }

    /// When a model was last used; `None` when it never was.
    pub fn last_used(&self, name: &Reference) -> Option<SystemTime> {
        fs::metadata(self.used_path(name)).and_then(|metadata| metadata.modified()).ok()
    }

    /// Notes that a model is being used. A store that cannot be written keeps no such notes.
    pub fn note_use(&self, name: &Reference) {
        let noted = File::create(self.used_path(name))
            .and_then(|file| file.set_modified(SystemTime::now()));
        drop(noted);
    }

    /// All folders that may hold manifests.
    pub(super) fn manifest_folders(&self) -> Result<Vec<PathBuf>, StoreError> {
        let mut found = Found::default();
        walk(&self.models_folder(), DEPTH_MAX, &mut found)?;
        Ok(found.folders)
    }

    /// The error for a name that is not here, with the one that was probably meant or the way to get it.
    pub fn missing(&self, name: &Reference) -> StoreError {
        StoreError::Missing { name: name.to_string(), advice: self.advice(name) }
    }

    fn advice(&self, name: &Reference) -> String {
        let typed = name.to_string();
        let stored = self.list().unwrap_or_default().manifests;
        let names: Vec<String> = stored.iter().map(|each| each.name.to_string()).collect();
        if let Some(nearest) = nfl_models::nearest(&typed, names.iter().map(String::as_str)) {
            return format!("there is {nearest}");
        }
        let catalogue = Catalogue::read(self.home()).ok();
        if name.host().is_some() || catalogue.as_ref().is_some_and(|each| each.find(name).is_some())
        {
            return format!("get it: nfl pull {typed}");
        }
        let is_sibling = |each: &&Manifest| {
            each.name.host() == name.host() && each.name.repository() == name.repository()
        };
        if let Some(sibling) = stored.iter().find(is_sibling) {
            return format!("there is {}", sibling.name);
        }
        match catalogue.and_then(|catalogue| catalogue.nearest(name)) {
            Some(nearest) => format!("there is {nearest}: nfl pull {nearest}"),
            None => "`nfl list` shows what is there, `nfl pull NAME` gets a model".to_owned(),
        }
    }

    pub(super) fn manifest_path(&self, name: &Reference) -> PathBuf {
        self.models_folder().join(name.path())
    }

    fn used_path(&self, name: &Reference) -> PathBuf {
        self.manifest_path(name).with_extension("used")
    }
}

/// What is below the folder of manifests.
#[derive(Debug, Default)]
struct Found {
    files: Vec<PathBuf>,
    folders: Vec<PathBuf>,
}

/// All manifests' files and their folders below a folder. Links to folders are followed: a store may be spread over disks.
fn walk(folder: &Path, depth: usize, found: &mut Found) -> Result<(), StoreError> {
    let failed = |source| StoreError::Io { action: "cannot read", path: folder.to_owned(), source };
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed(error)),
    };
    found.folders.push(folder.to_owned());
    for entry in entries {
        let path = entry.map_err(failed)?.path();
        if path.extension().is_some_and(|extension| extension == "json") && path.is_file() {
            found.files.push(path);
        } else if depth > 0 && path.is_dir() {
            walk(&path, depth - 1, found)?;
        }
    }
    Ok(())
}

/// The manifest at `path`, if it is that of `name`.
fn read_manifest(path: &Path, name: &Reference) -> Result<Option<Manifest>, StoreError> {
    let broken = |reason: String| StoreError::Manifest { path: path.to_owned(), reason };
    let Some(text) = files::read(path, MANIFEST_BYTES_MAX)? else { return Ok(None) };
    let value: serde_json::Value =
        serde_json::from_slice(&text).map_err(|error| broken(error.to_string()))?;
    let later = value["version"].as_u64().filter(|version| *version > u64::from(VERSION));
    if let Some(version) = later {
        let version = u32::try_from(version).unwrap_or(u32::MAX);
        return Err(StoreError::Version { path: path.to_owned(), version });
    }
    let manifest: Manifest =
        serde_json::from_value(value).map_err(|error| broken(error.to_string()))?;
    if manifest.name != *name {
        return Err(broken(format!("it is that of {}", manifest.name)));
    }
    if manifest.layers.len() > LAYERS_MAX {
        let count = manifest.layers.len();
        return Err(StoreError::Layers { name: name.to_string(), count });
    }
    Ok(Some(manifest))
}
