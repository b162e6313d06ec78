//! What is asked of a conversion, and the steps it reports on its way.

use crate::error::ConvertError;
use nfl_models::{Level, TensorType};
use std::num::NonZero;
use std::path::{Component, Path, PathBuf};

/// What to write, where, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "independent switches of a command")]
pub struct Order {
    /// The levels, each a file; all are made in one pass over the source.
    pub levels: Vec<Level>,
    /// The directory to write to; made when it is absent.
    pub output: PathBuf,
    /// The first part of the files' names: `NAME-LEVEL.gguf`.
    pub name: String,
    /// The one file to write, in place of `NAME-LEVEL.gguf` in `output`.
    pub file: Option<PathBuf>,
    /// Threads that encode; 0: as many as the machine runs at once.
    pub threads: usize,
    /// Whether files of these names may be replaced.
    pub overwrite: bool,
    /// Write one file `NAME-vocab.gguf` of metadata and vocabulary, without tensors.
    pub vocab_only: bool,
    /// Whether receipts carry the SHA-256 of each tensor.
    pub checksums: bool,
    /// Whether tensors that are quantised already may be quantised again, with loss on top of loss.
    pub allow_requantize: bool,
}

impl Order {
    /// An order for `NAME-LEVEL.gguf` in `output`, with nothing out of the ordinary.
    pub fn new(levels: Vec<Level>, output: impl Into<PathBuf>, name: impl Into<String>) -> Self {
        Self {
            levels,
            output: output.into(),
            name: name.into(),
            file: None,
            threads: 0,
            overwrite: false,
            vocab_only: false,
            checksums: false,
            allow_requantize: false,
        }
    }

    /// The levels, each once, in the order given.
    pub(crate) fn distinct_levels(&self) -> Result<Vec<Level>, ConvertError> {
        let mut levels = Vec::new();
        for level in &self.levels {
            if !levels.contains(level) {
                levels.push(*level);
            }
        }
        if levels.is_empty() { Err(ConvertError::NoLevels) } else { Ok(levels) }
    }

    /// Where the file of a level goes.
    pub fn path(&self, level: Level) -> PathBuf {
        let of_level = || self.output.join(format!("{}-{level}.gguf", self.name));
        self.file.clone().unwrap_or_else(of_level)
    }

    /// Where the file without tensors goes.
    pub fn vocabulary_path(&self) -> PathBuf {
        self.output.join(format!("{}-vocab.gguf", self.name))
    }

    pub(crate) fn thread_count(&self) -> usize {
        match self.threads {
            0 => std::thread::available_parallelism().map_or(1, NonZero::get),
            threads => threads,
        }
    }

    /// Checks the name and that no output stands in the way, and makes the directory.
    pub(crate) fn prepare<'a>(
        &self,
        outputs: &[PathBuf],
        inputs: impl Iterator<Item = &'a Path>,
    ) -> Result<(), ConvertError> {
        let mut parts = Path::new(&self.name).components();
        let is_name = matches!((parts.next(), parts.next()), (Some(Component::Normal(_)), None));
        if !is_name || self.name.contains(['/', '\\', '\0']) {
            return Err(ConvertError::Name { name: self.name.clone() });
        }
        std::fs::create_dir_all(&self.output)
            .map_err(|source| ConvertError::Write { path: self.output.clone(), source })?;
        let inputs: Vec<PathBuf> = inputs.filter_map(|path| path.canonicalize().ok()).collect();
        for path in outputs {
            if path.canonicalize().is_ok_and(|path| inputs.contains(&path)) {
                return Err(ConvertError::IsInput { path: path.clone() });
            }
            if !self.overwrite && path.symlink_metadata().is_ok() {
                return Err(ConvertError::Exists { path: path.clone() });
            }
        }
        Ok(())
    }
}

/// What a conversion does at the moment. Answering `Break` stops it, and nothing is left behind but
/// the files that were told as [`Step::Written`] before.
#[derive(Debug, Clone, Copy)]
pub enum Step<'a> {
    /// The plan stands; reading begins.
    Started {
        /// Tensors of the output.
        tensors: usize,
        /// Values in them.
        elements: u64,
        /// The files that are being written.
        levels: &'a [Level],
    },
    /// Something the user should know.
    Warning {
        /// In words.
        text: &'a str,
    },
    /// A tensor cannot have the type that the level's mixture gives it.
    Fallback {
        /// The level.
        level: Level,
        /// The tensor.
        tensor: &'a str,
        /// The type of the mixture.
        wanted: TensorType,
        /// The type it gets.
        used: TensorType,
        /// The row length that the block of `wanted` does not divide.
        row: u64,
    },
    /// More values were written to every file.
    Progress {
        /// Values so far.
        done: u64,
        /// Values in all.
        total: u64,
    },
    /// A tensor is complete; they come in the order of the source.
    Tensor {
        /// Its number, from 0.
        index: usize,
        /// GGUF name.
        name: &'a str,
        /// ggml order.
        dimensions: &'a [u64],
        /// Its type in each level's file.
        types: &'a [TensorType],
    },
    /// A file is complete, checked, and has its name.
    Written {
        /// Its level.
        level: Level,
        /// Where it is.
        path: &'a Path,
        /// Its size.
        bytes: u64,
    },
}
