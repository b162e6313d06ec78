//! The reader of `tokenizer.json`: typed, counted, and checked before anything else sees it.

use std::borrow::Cow;
use std::fmt;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde::de::{self, Deserializer, SeqAccess, Visitor};
use serde_json::Value;
use serde_json::value::RawValue;

use super::byte_pairs::{BytePairs, Merge, read_vocabulary};
use super::error::VocabularyError;
use super::files::{Folder, Object};
use super::limits::{ADDED_TOKENS_MAX, MERGES_MAX, PART_BYTES_MAX, VOCABULARY_JSON_BYTES_MAX};

/// A token beside the base vocabulary, or one of it with a special role.
#[expect(clippy::struct_excessive_bools, reason = "the flags of the file")]
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
            Some(other) => Some(format!("a model of type {other:?}")),
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
                .map(|Merge(pair)| pair)
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

fn parse<'a, T: Deserialize<'a>>(path: &Path, text: &'a str) -> Result<T, VocabularyError> {
    serde_json::from_str(text).map_err(|error| malformed(path, &error))
}

pub(super) fn malformed(path: &Path, error: &serde_json::Error) -> VocabularyError {
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
