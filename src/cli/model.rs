//! Models as commands are given them: a path or a stored name becomes files here, for all commands alike.

use std::path::{Path, PathBuf};

use super::failure::Failure;
use crate::settings;
use crate::store::{Link, Resolved, Store, Wanted};

/// The user's store.
pub(super) fn store() -> Result<Store, Failure> {
    let home = settings::home().ok_or_else(|| {
        Failure::new("there is no home folder", Some("set NFL_HOME to a folder of yours"))
    })?;
    Ok(Store::open(&home)?)
}

/// The files of a model, held until the store is dropped; for a file that is named by its path there is no store, and
/// none is needed.
pub(super) fn resolve(file: &Path) -> Result<(Option<Store>, Resolved), Failure> {
    let of_path = |model: PathBuf| (None, Resolved { model, ..Resolved::default() });
    // No name has letters that are not Unicode.
    let Some(text) = file.to_str() else { return Ok(of_path(file.to_owned())) };
    if let Wanted::Path(path) = Wanted::of(text)? {
        return Ok(of_path(path));
    }
    let store = match store() {
        Err(_) if file.exists() => return Ok(of_path(file.to_owned())),
        store => store?,
    };
    let resolved = store.resolve(text)?;
    Ok((Some(store), resolved))
}

/// Puts files in the place of names. They are held until the result is dropped.
pub(super) fn settle(files: Vec<&mut PathBuf>) -> Result<Vec<Store>, Failure> {
    let mut held = Vec::new();
    for file in files {
        let (store, resolved) = resolve(file)?;
        *file = resolved.model;
        held.extend(store);
    }
    Ok(held)
}

/// How imported files get into the store, as people ask for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum LinkChoice {
    /// The first of the others that works without a copy.
    Auto,
    /// Share the file's blocks until one side is written to (Btrfs, XFS, APFS).
    Reflink,
    /// A second name for the file.
    Hard,
    /// Leave it where it is, and notice when it changes.
    InPlace,
    /// A copy.
    Copy,
}

impl LinkChoice {
    pub(super) fn links(self) -> &'static [Link] {
        match self {
            Self::Auto => Link::USUAL,
            Self::Reflink => &[Link::Reflink],
            Self::Hard => &[Link::Hard],
            Self::InPlace => &[Link::InPlace],
            Self::Copy => &[Link::Copy],
        }
    }
}
