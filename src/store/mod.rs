//! The models of this machine: readable manifests by name, content by digest.
//!
//! ```text
//! HOME/models/HOST/OWNER…/NAME/TAG.json   a model: which layers, from where, what it can do
//!                           TAG.used      changed when the model was last used
//! HOME/blobs/sha256-HEX                   the content of layers; complete, read-only, shared by models
//! HOME/views/HEX/                         split models: links to their blobs under names with numbers
//! HOME/partial/                           what is not complete yet
//! HOME/locks/store                        held while names of blobs and manifests change
//! ```
//!
//! Nothing here needs the network, and nothing that is read here is believed: digests, names and lengths are checked
//! before they become paths or memory.

mod blobs;
mod catalogue;
mod collect;
mod derive;
mod digest;
mod error;
mod facts;
mod files;
mod foreign;
mod import;
mod manifest;
mod manifests;
mod modelfile;
mod parameters;
mod reference;
mod resolve;

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

#[cfg(test)]
mod tests;

pub use catalogue::{Catalogue, Entry};
pub use collect::{Collected, Scope};
pub use digest::Digest;
pub use error::StoreError;
pub use facts::{Capability, Facts};
pub use foreign::Finds;
pub use import::{Found, Link, Piece};
pub use manifest::{
    Kind, LAYERS_MAX, Layer, MANIFEST_BYTES_MAX, Manifest, Origin, Place, Source, VERSION,
};
pub use manifests::Listing;
pub use modelfile::{Modelfile, ModelfileError};
pub use parameters::Parameters;
pub use reference::{Host, Reference};
pub use resolve::{Resolved, TEXT_BYTES_MAX, Wanted, is_for_go};

/// The models below one home folder; cheap to open.
///
/// # Several processes at once
///
/// A blob that this value has seen ([`has`](Self::has)), taken in ([`adopt`](Self::adopt), [`put`](Self::put)) or
/// resolved is held by a shared lock on its file until this value is dropped, and a collection takes only blobs that it
/// can lock for itself. So a pull need not fear for what it has found or brought until its manifest is written, nor a
/// running model for its weights; and a process that dies lets go of everything, because the system drops its locks.
/// Changes of names (blobs that appear, manifests, collections) exclude each other by a lock on `locks/store`, which is
/// held for moments only.
#[derive(Debug)]
pub struct Store {
    home: PathBuf,
    held: Mutex<HashMap<Digest, File>>,
}

impl Store {
    /// The store below `home`, which need not exist yet; folders are made when they are written to.
    pub fn open(home: &Path) -> Result<Self, StoreError> {
        let home = std::path::absolute(home).map_err(StoreError::io("cannot find", home))?;
        Ok(Self { home, held: Mutex::default() })
    }

    /// The folder that everything is below.
    pub fn home(&self) -> &Path {
        &self.home
    }

    /// The folder of unfinished downloads.
    pub fn partial_folder(&self) -> PathBuf {
        self.home.join("partial")
    }

    /// The folder of what keeps processes apart.
    pub fn locks_folder(&self) -> PathBuf {
        self.home.join("locks")
    }

    fn blobs_folder(&self) -> PathBuf {
        self.home.join("blobs")
    }

    fn views_folder(&self) -> PathBuf {
        self.home.join("views")
    }

    fn models_folder(&self) -> PathBuf {
        self.home.join("models")
    }

    fn held(&self) -> MutexGuard<'_, HashMap<Digest, File>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for the right to change names, until the result is dropped.
    fn lock(&self) -> Result<File, StoreError> {
        files::make_folder(&self.locks_folder())?;
        let path = self.locks_folder().join("store");
        let open = || {
            let file = OpenOptions::new()
                .read(true)
                .write(true)
                .create(true)
                .truncate(false)
                .open(&path)?;
            file.lock()?;
            Ok(file)
        };
        open().map_err(StoreError::io("cannot lock", &path))
    }
}
