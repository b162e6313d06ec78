//! Why the store could not do what was asked, and what to do about it.

use std::io;
use std::path::{Path, PathBuf};

use nfl_models::gguf::GgufError;
use nfl_models::{Hint, NameError};
use thiserror::Error;

use super::manifest::LAYERS_MAX;

/// Why the store could not do what was asked.
#[derive(Debug, Error)]
pub enum StoreError {
    /// A text that is no digest.
    #[error("digest: {0:?}")]
    Digest(String),
    /// A text that is no model's name.
    #[error(transparent)]
    Name(#[from] NameError),
    /// A text that is no host.
    #[error("host of a model name: {0:?}")]
    Host(String),
    /// A part of a name that ends like a file of the store.
    #[error("part of a model name that is reserved: {0:?}")]
    Ending(String),
    /// A file or folder of the store that cannot be read or written.
    #[error("{action} {}: {source}", path.display())]
    Io {
        /// What was tried: `cannot read`.
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// A manifest that is no manifest.
    #[error("manifest {}: {reason}", path.display())]
    Manifest {
        /// Its file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A line of the user's catalogue of short names.
    #[error("{}, line {line}: {reason}", path.display())]
    Catalogue {
        /// Its file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What is wrong with it.
        reason: String,
    },
    /// A manifest with more layers than [`LAYERS_MAX`].
    #[error("layers of {name}: {count} (at most {LAYERS_MAX})")]
    Layers {
        /// The model.
        name: String,
        /// Its layers.
        count: usize,
    },
    /// A manifest of a later version of the format.
    #[error("manifest {} has version {version}", path.display())]
    Version {
        /// Its file.
        path: PathBuf,
        /// Its version.
        version: u32,
    },
    /// Nothing of that name.
    #[error("there is no model {name}")]
    Missing {
        /// What was typed.
        name: String,
        /// What to do: the name that was probably meant, or how to get the model.
        advice: String,
    },
    /// A name that is taken.
    #[error("there is a model {0} already")]
    Exists(String),
    /// A blob that a manifest names is not there, or has another length.
    #[error("{name}: {} is missing or incomplete", path.display())]
    Blob {
        /// The model.
        name: String,
        /// The blob's file.
        path: PathBuf,
    },
    /// A file that is used where it lies is not what it was.
    #[error("{name}: {} {how} since it was imported", path.display())]
    Changed {
        /// The model.
        name: String,
        /// The file.
        path: PathBuf,
        /// `was changed` or `is gone`.
        how: &'static str,
    },
    /// A file that is no model.
    #[error(transparent)]
    Gguf(#[from] GgufError),
    /// The person stopped the work.
    #[error("interrupted")]
    Interrupted,
}

impl StoreError {
    /// An error of the system about a path.
    pub(super) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { action, path: path.to_owned(), source }
    }
}

impl Hint for StoreError {
    fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Name(error) => return error.hint(),
            Self::Gguf(error) => return error.hint(),
            Self::Interrupted => return None,
            Self::Digest(_) => "a digest is sha256: and 64 digits of 0-9 and a-f".to_owned(),
            Self::Host(_) => "write names as HOST:PORT/OWNER/NAME:TAG".to_owned(),
            Self::Ending(_) => "names do not end with .json or .used".to_owned(),
            Self::Io { source, path, .. } => match source.kind() {
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                    "make room: `nfl prune` removes what no model needs, `nfl list` shows sizes"
                        .to_owned()
                }
                io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
                    format!(
                        "make {} writable, or set NFL_HOME to a folder of yours",
                        path.display()
                    )
                }
                _ => return None,
            },
            Self::Manifest { path, .. } => {
                format!("remove {} and get the model again", path.display())
            }
            Self::Catalogue { .. } => {
                "a line is a short name and a full one with its host".to_owned()
            }
            Self::Layers { .. } => "get the model from a place that is not broken".to_owned(),
            Self::Version { .. } => {
                "use the version of nfl that wrote it, or a later one".to_owned()
            }
            Self::Missing { advice, .. } => advice.clone(),
            Self::Exists(name) => format!("remove it first: nfl rm {name}"),
            Self::Blob { name, .. } => format!("get it again: nfl pull {name}"),
            Self::Changed { path, name, .. } => {
                format!("import it again: nfl import {} --name {name} --overwrite", path.display())
            }
        })
    }
}
