//! Model names as people type them: `qwen3:8b-q4_k_m`, `someone/qwen3`, with the nearest name for a
//! mistyped one.

use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::str::FromStr;

use crate::hint::Hint;

/// The tag of a name that gives none.
pub const TAG_DEFAULT: &str = "latest";

/// Bytes of each part of a name. Hugging Face's repositories go up to 96, Ollama's names up to 80.
pub const PART_BYTES_MAX: usize = 96;

/// Owners before a name.
pub const OWNERS_MAX: usize = 8;

/// Names that Windows gives to devices, in every folder and whatever follows a dot.
const DEVICES: [&str; 4] = ["con", "prn", "aux", "nul"];

/// A model's name: an optional path of owners, the name itself, and a tag.
///
/// Letters are kept as they were typed and compared without case. Parts hold only letters, digits,
/// `.`, `_` and `-`, do not begin with `.` or `-` nor end with `.`, and are no device of Windows, so
/// that a name is always safe as a file name, on every system.
#[derive(Clone, Debug)]
pub struct ModelName {
    owners: Vec<String>,
    name: String,
    tag: String,
}

/// Why a text is no model name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// A part without letters: `:8b`, `a//b`.
    #[error("model name has an empty part: {0:?}")]
    Empty(String),
    /// A part beyond [`PART_BYTES_MAX`].
    #[error("part of a model name: {0} bytes (at most {PART_BYTES_MAX})")]
    TooLong(usize),
    /// More than [`OWNERS_MAX`] owners.
    #[error("parts of the model name {0:?} before the last `/` (at most {OWNERS_MAX})")]
    TooDeep(String),
    /// A part that means something else to the file system of some machine: `nul`, `a.`.
    #[error("part of a model name that is reserved: {0:?}")]
    Reserved(String),
    /// A character that names do not hold, or hold only further on.
    #[error("character in model name {name:?}: {character:?}")]
    Character {
        /// The name.
        name: String,
        /// The first character that does not belong.
        character: char,
    },
}

impl Hint for NameError {
    fn hint(&self) -> Option<String> {
        Some("write names as NAME or NAME:TAG, of letters, digits, `.`, `_` and `-`".to_owned())
    }
}

impl ModelName {
    /// The whole name in lower case, with its tag always: equal for names that are the same.
    pub fn key(&self) -> String {
        let mut parts = self.owners.clone();
        parts.push(format!("{}:{}", self.name, self.tag));
        parts.join("/").to_ascii_lowercase()
    }

    /// The same name with another tag.
    pub fn with_tag(&self, tag: &str) -> Result<Self, NameError> {
        Ok(Self { tag: part(tag, tag)?, ..self.clone() })
    }

    /// The owners before the name: `["someone"]` of `someone/qwen3`.
    pub fn owners(&self) -> &[String] {
        &self.owners
    }

    /// The name itself: `qwen3`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The tag: `8b-q4_k_m`, or `latest`.
    pub fn tag(&self) -> &str {
        &self.tag
    }

    /// The candidate that was probably meant.
    pub fn nearest<'a>(&self, candidates: impl IntoIterator<Item = &'a Self>) -> Option<&'a Self> {
        let lower = |name: &Self| name.to_string().to_ascii_lowercase();
        let wanted = lower(self);
        let ranked = candidates.into_iter().map(|each| (distance(&wanted, &lower(each)), each));
        let (distance, nearest) = ranked.min_by_key(|(distance, _)| *distance)?;
        is_near(distance, &wanted).then_some(nearest)
    }
}

impl PartialEq for ModelName {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}

impl Eq for ModelName {}

impl PartialOrd for ModelName {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for ModelName {
    fn cmp(&self, other: &Self) -> Ordering {
        self.key().cmp(&other.key())
    }
}

impl Hash for ModelName {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.key().hash(state);
    }
}

fn part(text: &str, whole: &str) -> Result<String, NameError> {
    if text.is_empty() {
        return Err(NameError::Empty(whole.to_owned()));
    }
    if text.len() > PART_BYTES_MAX {
        return Err(NameError::TooLong(text.len()));
    }
    let allowed = |(place, character): &(usize, char)| {
        character.is_ascii_alphanumeric()
            || *character == '_'
            || (*place > 0 && ".-".contains(*character))
    };
    if let Some((_, character)) = text.char_indices().find(|each| !allowed(each)) {
        return Err(NameError::Character { name: whole.to_owned(), character });
    }
    if text.ends_with('.') || is_device(text) {
        return Err(NameError::Reserved(text.to_owned()));
    }
    Ok(text.to_owned())
}

/// Whether Windows takes this file name for a device: `nul`, `NUL.json`, `com1`.
fn is_device(text: &str) -> bool {
    let stem = text.split('.').next().unwrap_or(text).to_ascii_lowercase();
    let numbered = |prefix| {
        stem.strip_prefix(prefix).is_some_and(|rest: &str| {
            rest.len() == 1 && rest.bytes().all(|byte| byte.is_ascii_digit())
        })
    };
    DEVICES.contains(&stem.as_str()) || numbered("com") || numbered("lpt")
}

impl FromStr for ModelName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (path, tag) = text.split_once(':').unwrap_or((text, TAG_DEFAULT));
        let mut parts =
            path.split('/').map(|each| part(each, text)).collect::<Result<Vec<_>, _>>()?;
        let name = parts.pop().ok_or_else(|| NameError::Empty(text.to_owned()))?;
        if parts.len() > OWNERS_MAX {
            return Err(NameError::TooDeep(text.to_owned()));
        }
        Ok(Self { owners: parts, name, tag: part(tag, text)? })
    }
}

impl fmt::Display for ModelName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for owner in &self.owners {
            write!(formatter, "{owner}/")?;
        }
        formatter.write_str(&self.name)?;
        if self.tag != TAG_DEFAULT {
            write!(formatter, ":{}", self.tag)?;
        }
        Ok(())
    }
}

/// The candidate that was probably meant by a word; `None` when none is near.
pub fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let word = word.to_lowercase();
    let ranked = candidates.into_iter().map(|each| (distance(&word, &each.to_lowercase()), each));
    let (distance, nearest) = ranked.min_by_key(|(distance, _)| *distance)?;
    is_near(distance, &word).then_some(nearest)
}

/// A third of the letters may be wrong, and at least one.
fn is_near(distance: usize, word: &str) -> bool {
    distance <= (word.chars().count() / 3).max(1)
}

/// Edits between two words: insert, delete, replace, or swap two neighbours.
fn distance(left: &str, right: &str) -> usize {
    let (left, right): (Vec<char>, Vec<char>) = (left.chars().collect(), right.chars().collect());
    let mut before: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=right.len()).collect();
    for row in 1..=left.len() {
        let mut current = vec![row];
        for column in 1..=right.len() {
            let same = left[row - 1] == right[column - 1];
            let replaced = last[column - 1] + usize::from(!same);
            let mut best = replaced.min(last[column] + 1).min(current[column - 1] + 1);
            let swapped = row > 1
                && column > 1
                && left[row - 1] == right[column - 2]
                && left[row - 2] == right[column - 1];
            if swapped {
                best = best.min(before[column - 2] + 1);
            }
            current.push(best);
        }
        before = std::mem::replace(&mut last, current);
    }
    last[right.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_printed_as_they_were_typed() {
        for text in ["qwen3:8b-q4_k_m", "qwen3", "someone/qwen3:4b", "hf.co/someone/qwen3-gguf"] {
            let name: ModelName = text.parse().unwrap();
            assert_eq!(name.to_string(), text);
        }
        let name: ModelName = "Someone/QWEN3:latest".parse().unwrap();
        assert_eq!(name.to_string(), "Someone/QWEN3");
        assert_eq!(
            (name.owners(), name.name(), name.tag()),
            (&["Someone".to_owned()][..], "QWEN3", "latest")
        );
        let lower: ModelName = "someone/qwen3".parse().unwrap();
        assert_eq!((&name, name.key()), (&lower, "someone/qwen3:latest".to_owned()));
        assert_ne!(name, lower.with_tag("8b").unwrap());
    }

    #[test]
    fn unsafe_names_are_refused() {
        for text in [
            "",
            ":8b",
            "a:",
            "a//b",
            "../a",
            "a/../b",
            ".a",
            "-a",
            "a b",
            "a:b:c",
            "a\\b",
            "a\0",
            "ä",
            "a.",
            "a/..",
            "nul",
            "a/NUL.json",
            "a:com1",
            "C:\\x",
            "a\u{202e}b",
        ] {
            assert!(text.parse::<ModelName>().is_err(), "{text:?}");
        }
        for text in ["null", "com", "com10", "auxiliary", "_a"] {
            assert!(text.parse::<ModelName>().is_ok(), "{text:?}");
        }
        assert_eq!("x".repeat(97).parse::<ModelName>(), Err(NameError::TooLong(97)));
        assert!(matches!("a/".repeat(10).parse::<ModelName>(), Err(NameError::Empty(_))));
        let deep = "a/".repeat(9) + "b";
        assert!(matches!(deep.parse::<ModelName>(), Err(NameError::TooDeep(_))));
    }

    #[test]
    fn the_nearest_name_is_found() {
        let names =
            ["qwen3:8b", "llama3.2", "mixtral"].map(|text| text.parse::<ModelName>().unwrap());
        let find = |text: &str| {
            text.parse::<ModelName>().unwrap().nearest(&names).map(ToString::to_string)
        };
        assert_eq!(find("qewn3:8b").as_deref(), Some("qwen3:8b"));
        assert_eq!(find("mixtrall").as_deref(), Some("mixtral"));
        assert_eq!(find("gemma"), None);
        assert_eq!(nearest("q4_k_n", ["Q4_K_M", "Q8_0"]), Some("Q4_K_M"));
        assert_eq!(distance("abcd", "acbd"), 1);
        assert_eq!(distance("", "abc"), 3);
    }
}
