//! Models as commands are given them: a path or a stored name becomes files here, for all commands alike.

use std::path::{Path, PathBuf};

use super::failure::Failure;
use crate::settings;
use crate::store::{Link, Resolved, Store};

/// The user's store.
pub(super) fn store() -> Result<Store, Failure> {
    let home = settings::home().ok_or_else(|| {
        Failure::new("there is no home folder", Some("set NFL_HOME to a folder of yours"))
    })?;
    Ok(Store::open(&home)?)
}

/// The files of a model, held until the store is dropped.
pub(super) fn resolve(file: &Path) -> Result<(Store, Resolved), Failure> {
    let store = store()?;
    let resolved = match file.to_str() {
        Some(text) => store.resolve(text)?,
        // No name has such letters.
        None => Resolved { model: file.to_owned(), ..Resolved::default() },
    };
    Ok((store, resolved))
}

/// Puts files in the place of names. They are held until the result is dropped.
pub(super) fn settle(files: Vec<&mut PathBuf>) -> Result<Vec<Store>, Failure> {
    let mut held = Vec::new();
    for file in files {
        let (store, resolved) = resolve(file)?;
        *file = resolved.model;
        held.push(store);
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
