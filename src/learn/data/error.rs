//! Why examples cannot be used, with the places where that shows.

use std::fmt::{self, Write as _};
use std::io;
use std::path::PathBuf;

use nfl_models::Hint;
use thiserror::Error;

/// Bytes of a file of examples.
pub const DATA_BYTES_MAX: u64 = 4 << 30;

/// Bad examples whose places are kept.
const SHOWN_MAX: usize = 5;

/// Examples that make no sense: how many, and where the first ones are.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Bad {
    /// How many.
    pub count: usize,
    /// Place and reason of the first ones.
    pub first: Vec<(String, String)>,
}

impl Bad {
    /// One more.
    pub fn add(&mut self, place: impl FnOnce() -> String, reason: String) {
        self.count += 1;
        if self.first.len() < SHOWN_MAX {
            self.first.push((place(), reason));
        }
    }
}

impl fmt::Display for Bad {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut lines = String::new();
        for (place, reason) in &self.first {
            let _ = write!(lines, "\n  {place}: {reason}");
        }
        if self.count > self.first.len() {
            let _ = write!(lines, "\n  and {} more", self.count - self.first.len());
        }
        formatter.write_str(&lines)
    }
}

/// Why data cannot be used.
#[derive(Debug, Error)]
pub enum DataError {
    /// The file cannot be read.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// It is larger than is read.
    #[error("{}: {bytes} bytes, {DATA_BYTES_MAX} are the most", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Its length.
        bytes: u64,
    },
    /// A file that is not what its name or its first letters say.
    #[error("{}: {reason}", path.display())]
    Form {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// Examples that make no sense.
    #[error("{}: {} of {total} examples make no sense{bad}", path.display(), bad.count)]
    Bad {
        /// The file.
        path: PathBuf,
        /// Which.
        bad: Bad,
        /// Of how many.
        total: usize,
    },
    /// Nothing in it.
    #[error("{}: there is no example in it", path.display())]
    Empty {
        /// The file.
        path: PathBuf,
    },
    /// So few examples that none is left to learn from.
    #[error(
        "--eval-split {share}: of {examples} different examples none would be left to learn from"
    )]
    Split {
        /// The share that was asked for.
        share: f64,
        /// Examples.
        examples: usize,
    },
}

impl Hint for DataError {
    fn hint(&self) -> Option<String> {
        const FIELDS: &str = "each has text, messages, conversations, prompt and completion, instruction and output, or \
                              prompt, chosen and rejected";
        let hint = match self {
            Self::Io { .. } => return None,
            Self::TooLarge { .. } => "split the file, and train on one part after the other",
            Self::Form { .. } => {
                "give JSONL, a JSON array, CSV with a head line, Parquet, or text in a .txt file"
            }
            Self::Bad { .. } => {
                return Some(format!("mend them, or leave them out with --skip-bad; {FIELDS}"));
            }
            Self::Empty { .. } => FIELDS,
            Self::Split { .. } => "give more examples, or a file of its own to --eval",
        };
        Some(hint.to_owned())
    }
}
