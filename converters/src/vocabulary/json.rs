//! The reader of `tokenizer.json` and of `vocab.json` with `merges.txt`: typed, counted, and checked before anything
//! else sees it.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde::de::{self, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::Value;
use serde_json::value::RawValue;

use super::error::VocabularyError;
use super::files::{Folder, Object};
use super::limits::{
    ADDED_TOKENS_MAX, MERGES_MAX, PART_BYTES_MAX, TOKENS_MAX, VOCABULARY_JSON_BYTES_MAX,
};

/// A token beside the base vocabulary, or one of it with a special role.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
pub(super) struct AddedToken {
    #[serde(default)]
    pub(super) id: u64,
    pub(super) content: String,
    #[serde(default)]
    pub(super) single_word: bool,
    #[serde(default)]
    pub(super) lstrip: bool,
    #[serde(default)]
    pub(super) rstrip: bool,
    #[serde(default)]
    pub(super) normalized: bool,
    #[serde(default)]
    pub(super) special: bool,
}

impl AddedToken {
    /// A special token, matched before normalising.
    pub(super) fn special(id: u64, content: String) -> Self {
        let (single_word, lstrip, rstrip, normalized) = (false, false, false, false);
        Self { id, content, single_word, lstrip, rstrip, normalized, special: true }
    }
}

/// `tokenizer.json` without its model, which is read apart since it is large and not always needed.
#[derive(Debug)]
pub(super) struct TokenizerJson {
    pub(super) path: PathBuf,
    text: String,
    pub(super) added: Vec<AddedToken>,
    pub(super) normalizer: Value,
    pub(super) pre_tokenizer: Value,
    pub(super) post_processor: Value,
    pub(super) decoder: Value,
}

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

#[derive(Deserialize)]
struct RawTokenizer<'a> {
    #[serde(borrow)]
    model: &'a RawValue,
    #[serde(borrow, default)]
    added_tokens: Option<&'a RawValue>,
    #[serde(borrow, default)]
    normalizer: Option<&'a RawValue>,
    #[serde(borrow, default)]
    pre_tokenizer: Option<&'a RawValue>,
    #[serde(borrow, default)]
    post_processor: Option<&'a RawValue>,
    #[serde(borrow, default)]
    decoder: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct RawModel<'a> {
    #[serde(rename = "type", borrow, default)]
    kind: Option<Cow<'a, str>>,
    #[serde(default)]
    byte_fallback: Option<bool>,
    #[serde(default)]
    ignore_merges: Option<bool>,
    #[serde(default)]
    fuse_unk: Option<bool>,
    #[serde(default)]
    unk_token: Option<String>,
    #[serde(default)]
    continuing_subword_prefix: Option<String>,
    #[serde(default)]
    end_of_word_suffix: Option<String>,
    #[serde(borrow)]
    vocab: &'a RawValue,
    #[serde(borrow, default)]
    merges: Option<&'a RawValue>,
}

impl TokenizerJson {
    /// Reads the file's outline; `None` when there is no such file.
    pub(super) fn read(folder: Folder<'_>) -> Result<Option<Self>, VocabularyError> {
        let name = "tokenizer.json";
        let Some(text) = folder.text(name, VOCABULARY_JSON_BYTES_MAX)? else { return Ok(None) };
        let path = folder.join(name);
        let raw: RawTokenizer<'_> = parse(&path, &text)?;
        let part = |value: Option<&RawValue>| part(&path, value);
        let json = Self {
            added: match raw.added_tokens {
                Some(value) => {
                    Capped::<AddedToken>::new(ADDED_TOKENS_MAX).read(&path, value.get())?
                }
                None => Vec::new(),
            },
            normalizer: part(raw.normalizer)?,
            pre_tokenizer: part(raw.pre_tokenizer)?,
            post_processor: part(raw.post_processor)?,
            decoder: part(raw.decoder)?,
            text: String::new(),
            path: path.clone(),
        };
        Ok(Some(Self { text, ..json }))
    }

    /// Reads the model, when it is byte-pair encoding.
    pub(super) fn model(&self) -> Result<BytePairs, VocabularyError> {
        let outline: RawTokenizer<'_> = parse(&self.path, &self.text)?;
        let raw: RawModel<'_> = parse(&self.path, outline.model.get())?;
        let affixes = [&raw.continuing_subword_prefix, &raw.end_of_word_suffix];
        let unsupported = match raw.kind.as_deref() {
            None if raw.merges.is_none() => Some("a model without a type".to_owned()),
            Some("BPE") | None => affixes
                .into_iter()
                .flatten()
                .find(|affix| !affix.is_empty())
                .map(|affix| format!("pieces marked with {affix:?} inside words")),
            Some(other) => Some(format!("a model of type {other}")),
        };
        if let Some(what) = unsupported {
            return Err(VocabularyError::Unsupported {
                path: self.path.clone(),
                what,
                hint: "only byte-pair encoding is read from tokenizer.json; for SentencePiece models \
                       add tokenizer.model",
            });
        }
        let merges = raw
            .merges
            .map(|merges| Capped::<Merge>::new(MERGES_MAX).read(&self.path, merges.get()));
        let model = BytePairs {
            vocabulary: read_vocabulary(&self.path, raw.vocab.get())?,
            merges: merges
                .transpose()?
                .unwrap_or_default()
                .into_iter()
                .map(|merge| merge.0)
                .collect(),
            byte_fallback: raw.byte_fallback.unwrap_or(false),
            ignore_merges: raw.ignore_merges.unwrap_or(false),
            fuse_unknown: raw.fuse_unk.unwrap_or(false),
            unknown: raw.unk_token,
        };
        model.check(&self.path)?;
        Ok(model)
    }
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
    fn check(&self, path: &Path) -> Result<(), VocabularyError> {
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

fn parse<'a, T: Deserialize<'a>>(path: &Path, text: &'a str) -> Result<T, VocabularyError> {
    serde_json::from_str(text).map_err(|error| malformed(path, &error))
}

fn malformed(path: &Path, error: &serde_json::Error) -> VocabularyError {
    VocabularyError::Malformed {
        path: path.to_owned(),
        reason: format!("not as expected: {error}"),
    }
}

/// A small part of the file as a value.
fn part(path: &Path, value: Option<&RawValue>) -> Result<Value, VocabularyError> {
    let Some(value) = value else { return Ok(Value::Null) };
    let found = value.get().len() as u64;
    if found > PART_BYTES_MAX as u64 {
        return Err(VocabularyError::TooLarge {
            path: path.to_owned(),
            what: "normalizer, pre-tokenizer, post-processor or decoder in bytes",
            found,
            limit: PART_BYTES_MAX as u64,
        });
    }
    parse(path, value.get())
}

fn read_vocabulary(path: &Path, text: &str) -> Result<Vec<(String, u32)>, VocabularyError> {
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

/// Reads an array of at most so many elements.
struct Capped<T> {
    limit: usize,
    element: std::marker::PhantomData<T>,
}

impl<T: for<'de> Deserialize<'de>> Capped<T> {
    fn new(limit: usize) -> Self {
        Self { limit, element: std::marker::PhantomData }
    }

    fn read(self, path: &Path, text: &str) -> Result<Vec<T>, VocabularyError> {
        let mut deserializer = serde_json::Deserializer::from_str(text);
        deserializer.deserialize_any(self).map_err(|error| malformed(path, &error))
    }
}

impl<'de, T: Deserialize<'de>> Visitor<'de> for Capped<T> {
    type Value = Vec<T>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "an array of at most {} elements", self.limit)
    }

    fn visit_unit<E: de::Error>(self) -> Result<Self::Value, E> {
        Ok(Vec::new())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<Self::Value, A::Error> {
        let mut elements = Vec::new();
        while let Some(element) = sequence.next_element()? {
            if elements.len() == self.limit {
                return Err(de::Error::invalid_length(self.limit + 1, &self));
            }
            elements.push(element);
        }
        Ok(elements)
    }
}

/// One merge: `"a b"`, or `["a", "b"]` since pieces may contain spaces.
struct Merge((String, String));

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

/// The added tokens that `tokenizer_config.json` lists by id, in its order.
pub(super) fn added_tokens_decoder(
    folder: Folder<'_>,
    config: Option<&Object>,
) -> Result<Vec<AddedToken>, VocabularyError> {
    let Some(listed) = config.and_then(|config| config.get("added_tokens_decoder")) else {
        return Ok(Vec::new());
    };
    let name = "tokenizer_config.json";
    let Some(listed) = listed.as_object() else {
        return Err(folder.malformed(name, "added_tokens_decoder is no object"));
    };
    let tokens = listed.iter().map(|(id, token)| {
        let id = id.trim().parse::<u64>().map_err(|_| {
            folder.malformed(name, format!("added_tokens_decoder: {id:?} is no id"))
        })?;
        let token: AddedToken = AddedToken::deserialize(token).map_err(|error| {
            folder.malformed(name, format!("added_tokens_decoder: token {id}: {error}"))
        })?;
        Ok(AddedToken { id, ..token })
    });
    tokens.collect()
}
