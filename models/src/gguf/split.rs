//! Models in several files: `NAME-00001-of-00003.gguf`, opened as one.
//!
//! The names of the other files come from the name of the opened one, never from inside a file, so
//! no file can point outside its directory.

use std::path::{Path, PathBuf};

use super::header::Header;
use super::metadata::Metadata;
use super::value::Value;
use crate::hint::Hint;

/// The key of a shard's number, from 0.
pub const NUMBER_KEY: &str = "split.no";
/// The key of the number of shards.
pub const COUNT_KEY: &str = "split.count";
/// The key of the number of tensors in all shards together.
pub const TENSORS_KEY: &str = "split.tensors.count";

/// Why the files of a split do not make one model.
#[derive(Debug, thiserror::Error)]
pub enum SplitError {
    /// A split entry that is not of the type that llama.cpp reads (it aborts on others).
    #[error("type of {key}: {found} (must be {wanted})")]
    Type {
        /// The key.
        key: &'static str,
        /// The type in the file, or `missing`.
        found: &'static str,
        /// The type that it must have.
        wanted: &'static str,
    },
    /// The file says it is part of a split, its name does not.
    #[error("shard {number} of {count} under another name: {name}")]
    Name {
        /// The number in the file, from 1.
        number: u64,
        /// The count in the file.
        count: u64,
        /// The file's name.
        name: String,
    },
    /// More shards than the limit.
    #[error("number of shards: {value} (at most {limit})")]
    TooMany {
        /// The count in the file.
        value: u64,
        /// The limit.
        limit: u64,
    },
    /// A file of the split is not there.
    #[error("missing shard: {}", .0.display())]
    Missing(PathBuf),
    /// A shard with another number or count than its name says.
    #[error("{key} of {}: {found} ({expected} expected)", path.display())]
    Mismatch {
        /// The shard.
        path: PathBuf,
        /// The key.
        key: &'static str,
        /// What the file says.
        found: u64,
        /// What it should say.
        expected: u64,
    },
    /// The shards hold more or fewer tensors than they announce.
    #[error("tensors in all shards: {found} ({expected} expected)")]
    Tensors {
        /// Tensors found.
        found: u64,
        /// Tensors announced.
        expected: u64,
    },
    /// A tensor that two shards hold.
    #[error("tensor {name} is in two shards, again in {}", path.display())]
    Duplicate {
        /// The tensor.
        name: String,
        /// The second shard with it.
        path: PathBuf,
    },
    /// An entry that differs between shards.
    #[error("{} belongs to another model: it differs in {key}", path.display())]
    Foreign {
        /// The shard.
        path: PathBuf,
        /// The entry that differs.
        key: String,
    },
}

impl Hint for SplitError {
    fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Missing(path) => format!("put {} beside the other shards", path.display()),
            Self::Name { .. } => {
                "give the shards their names back: NAME-00001-of-0000N.gguf and so on".to_owned()
            }
            Self::Mismatch { .. }
            | Self::Tensors { .. }
            | Self::Duplicate { .. }
            | Self::Foreign { .. } => "download all shards again from one place".to_owned(),
            Self::Type { .. } | Self::TooMany { .. } => {
                "split the model again with llama-gguf-split".to_owned()
            }
        })
    }
}

/// What a file's metadata say about the split that it is part of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Part {
    pub(super) number: u64,
    pub(super) count: u64,
    pub(super) tensors: u64,
}

impl Part {
    /// `None` for a model in one file.
    pub(super) fn of(metadata: &Metadata) -> Result<Option<Self>, SplitError> {
        let Some(count) = metadata.get(COUNT_KEY) else {
            return Ok(None);
        };
        let &Value::U16(count) = count else {
            return Err(wrong_type(COUNT_KEY, Some(count), "u16"));
        };
        if count <= 1 {
            return Ok(None);
        }
        let number = match metadata.get(NUMBER_KEY) {
            Some(Value::U16(number)) => u64::from(*number),
            other => return Err(wrong_type(NUMBER_KEY, other, "u16")),
        };
        // gguf-split writes i32; any integer type is read the same way.
        let tensors = metadata.get(TENSORS_KEY);
        let Some(tensors) = tensors.and_then(Value::as_u64) else {
            return Err(wrong_type(TENSORS_KEY, tensors, "i32"));
        };
        Ok(Some(Self { number, count: count.into(), tensors }))
    }
}

fn wrong_type(key: &'static str, value: Option<&Value>, wanted: &'static str) -> SplitError {
    SplitError::Type { key, found: value.map_or("missing", Value::type_name), wanted }
}

/// The paths of all shards, derived from the path of one of them. `None` when its name is not that
/// of shard `number` (from 0) of `count`.
pub fn shard_paths(path: &Path, number: u64, count: u64) -> Option<Vec<PathBuf>> {
    let name = path.file_name()?.to_str()?;
    let suffix = |number: u64| format!("-{:05}-of-{count:05}.gguf", number + 1);
    let stem = name.strip_suffix(&suffix(number))?;
    Some((0..count).map(|each| path.with_file_name(format!("{stem}{}", suffix(each)))).collect())
}

/// Whether a further shard belongs to the first: same entries where both have them, right number
/// and count.
pub(super) fn check_shard(
    first: &Header,
    shard: &Header,
    path: &Path,
    number: u64,
) -> Result<(), SplitError> {
    let part = Part::of(&shard.metadata)?;
    let expected = Part::of(&first.metadata)?;
    let (Some(part), Some(expected)) = (part, expected) else {
        return Err(wrong_type(COUNT_KEY, shard.metadata.get(COUNT_KEY), "u16"));
    };
    let mismatch = |key, found, expected| {
        let path = path.to_path_buf();
        Err(SplitError::Mismatch { path, key, found, expected })
    };
    if part.number != number {
        return mismatch(NUMBER_KEY, part.number, number);
    }
    if part.count != expected.count {
        return mismatch(COUNT_KEY, part.count, expected.count);
    }
    if part.tensors != expected.tensors {
        return mismatch(TENSORS_KEY, part.tensors, expected.tensors);
    }
    for (key, value) in shard.metadata.iter().filter(|(key, _)| *key != NUMBER_KEY) {
        if first.metadata.get(key).is_some_and(|other| other != value) {
            return Err(SplitError::Foreign { path: path.to_path_buf(), key: key.to_owned() });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_shards_come_from_one_of_them() {
        let paths = shard_paths(Path::new("/models/a-00002-of-00003.gguf"), 1, 3).unwrap();
        let expected = [
            "/models/a-00001-of-00003.gguf",
            "/models/a-00002-of-00003.gguf",
            "/models/a-00003-of-00003.gguf",
        ];
        assert_eq!(paths, expected.map(PathBuf::from));
        assert_eq!(shard_paths(Path::new("/models/a-00002-of-00003.gguf"), 0, 3), None);
        assert_eq!(shard_paths(Path::new("/models/a.gguf"), 0, 3), None);
    }
}
