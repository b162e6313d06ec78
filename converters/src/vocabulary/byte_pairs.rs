//! A model of byte-pair encoding: base vocabulary and merges, from `tokenizer.json` or from `vocab.json` with
//! `merges.txt`; ids are used once, and merges lead somewhere.

use std::collections::HashMap;
use std::fmt;
use std::path::Path;

use serde::Deserialize;
use serde::de::{self, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};

use super::error::VocabularyError;
use super::files::Folder;
use super::json::malformed;
use super::limits::{MERGES_MAX, TOKENS_MAX, VOCABULARY_JSON_BYTES_MAX};

/// A model of byte-pair encoding: base vocabulary and merges.
#[derive(Clone, Default, Debug)]
pub(super) struct BytePairs {
    pub(super) vocabulary: Vec<(String, u32)>,
    pub(super) merges: Vec<(String, String)>,
    pub(super) byte_fallback: bool,
    pub(super) ignore_merges: bool,
    pub(super) fuse_unknown: bool,
    pub(super) unknown: Option<String>,
}

impl BytePairs {
    /// Reads a pair of `vocab.json` and `merges.txt` under the given names. Lines of merges that are no pair are
    /// reported in `warnings`.
    pub(super) fn read_pair(
        folder: Folder<'_>,
        names: (&str, &str),
        warnings: &mut Vec<String>,
    ) -> Result<Self, VocabularyError> {
        let missing = |name: &str| folder.malformed(name, "missing beside its companion");
        let text =
            folder.text(names.0, VOCABULARY_JSON_BYTES_MAX)?.ok_or_else(|| missing(names.0))?;
        let vocabulary = read_vocabulary(&folder.join(names.0), &text)?;
        let text =
            folder.text(names.1, VOCABULARY_JSON_BYTES_MAX)?.ok_or_else(|| missing(names.1))?;
        let merges = read_merges(&folder.join(names.1), &text, warnings)?;
        let model = Self { vocabulary, merges, ..Self::default() };
        model.check(&folder.join(names.1))?;
        Ok(model)
    }

    /// The ids by text.
    pub(super) fn ids(&self) -> HashMap<&str, u32> {
        self.vocabulary.iter().map(|(text, id)| (text.as_str(), *id)).collect()
    }

    /// Refuses ids used twice and merges of or to what is no token.
    pub(super) fn check(&self, path: &Path) -> Result<(), VocabularyError> {
        let mut texts = HashMap::with_capacity(self.vocabulary.len());
        for (text, id) in &self.vocabulary {
            if let Some(first) = texts.insert(*id, text) {
                return Err(VocabularyError::DuplicateId {
                    path: path.to_owned(),
                    id: u64::from(*id),
                    first: first.clone(),
                    second: text.clone(),
                });
            }
        }
        let ids = self.ids();
        if ids.len() < self.vocabulary.len() {
            let reason = "a token stands in the vocabulary twice".to_owned();
            return Err(VocabularyError::Malformed { path: path.to_owned(), reason });
        }
        let mut merged = String::new();
        for (index, (left, right)) in self.merges.iter().enumerate() {
            merged.clear();
            merged.push_str(left);
            merged.push_str(right);
            let pieces = [left.as_str(), right.as_str(), merged.as_str()];
            if let Some(missing) = pieces.into_iter().find(|piece| !ids.contains_key(piece)) {
                return Err(VocabularyError::MergeToNowhere {
                    path: path.to_owned(),
                    index,
                    merge: format!("{left} {right}"),
                    missing: missing.to_owned(),
                });
            }
        }
        Ok(())
    }
}

/// The pairs of a `merges.txt`: one a line, after a first line that may be a comment.
fn read_merges(
    path: &Path,
    text: &str,
    warnings: &mut Vec<String>,
) -> Result<Vec<(String, String)>, VocabularyError> {
    let mut merges = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let is_header = number == 0 && line.trim_start().starts_with('#');
        let parts: Vec<&str> = line.split_whitespace().take(3).collect();
        match parts[..] {
            _ if is_header => {}
            [] => {}
            [left, right] => merges.push((left.to_owned(), right.to_owned())),
            _ => warnings.push(format!("merges: line {} is no pair and was left out", number + 1)),
        }
        if merges.len() > MERGES_MAX {
            return Err(too_many(path, "merges", MERGES_MAX));
        }
    }
    Ok(merges)
}

fn too_many(path: &Path, what: &'static str, limit: usize) -> VocabularyError {
    let (found, limit) = (limit as u64 + 1, limit as u64);
    VocabularyError::TooLarge { path: path.to_owned(), what, found, limit }
}

/// Reads an object of tokens and ids.
pub(super) fn read_vocabulary(
    path: &Path,
    text: &str,
) -> Result<Vec<(String, u32)>, VocabularyError> {
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let vocabulary = Entries
        .deserialize(&mut deserializer)
        .and_then(|entries| deserializer.end().map(|()| entries))
        .map_err(|error| malformed(path, &error))?;
    if vocabulary.is_empty() {
        let reason = "an empty vocabulary".to_owned();
        return Err(VocabularyError::Malformed { path: path.to_owned(), reason });
    }
    Ok(vocabulary)
}

/// Reads an object of token → id, in its order, at most [`TOKENS_MAX`] entries.
struct Entries;

impl<'de> DeserializeSeed<'de> for Entries {
    type Value = Vec<(String, u32)>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Entries {
    type Value = Vec<(String, u32)>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an object of tokens and their ids")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = map.next_entry()? {
            if entries.len() == TOKENS_MAX {
                return Err(de::Error::custom(format!("more than {TOKENS_MAX} tokens")));
            }
            entries.push(entry);
        }
        Ok(entries)
    }
}

/// One merge: `"a b"`, or `["a", "b"]` since pieces may contain spaces.
pub(super) struct Merge(pub(super) (String, String));

impl<'de> Deserialize<'de> for Merge {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Pair;

        impl<'de> Visitor<'de> for Pair {
            type Value = Merge;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a merge: two pieces")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Merge, E> {
                match text.split_once(' ') {
                    Some((left, right)) if !right.contains(' ') => {
                        Ok(Merge((left.to_owned(), right.to_owned())))
                    }
                    _ => Err(E::invalid_value(de::Unexpected::Str(text), &self)),
                }
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<Merge, A::Error> {
                let mut next = |index| {
                    sequence
                        .next_element()?
                        .ok_or_else(|| de::Error::invalid_length(index, &"two pieces"))
                };
                let pair = (next(0)?, next(1)?);
                match sequence.next_element::<de::IgnoredAny>()? {
                    None => Ok(Merge(pair)),
                    Some(_) => Err(de::Error::invalid_length(3, &"two pieces")),
                }
            }
        }

        deserializer.deserialize_any(Pair)
    }
}
