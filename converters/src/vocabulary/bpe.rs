//! A byte-level vocabulary (`tokenizer.ggml.model` "gpt2"): base tokens, added tokens in the form in which the
//! tokenizer hands them out, and merges.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

use nfl_models::gguf::Text;
use serde_json::{Value, json};

use super::byte_pairs::BytePairs;
use super::check::{self, Checked, Parts};
use super::error::VocabularyError;
use super::json::{AddedToken, TokenizerJson};
use super::limits::ADDED_BYTES_MAX;
use super::pre_tokenizer::{self, Profile};
use super::spm::{beyond, size_of};
use super::tokens::{TokenTable, TokenType, looks_special};

/// Where the rules of a byte-level tokenizer come from.
pub(super) struct ByteLevel<'a> {
    pub(super) path: PathBuf,
    pub(super) model: &'a BytePairs,
    pub(super) added: Vec<AddedToken>,
    normalizer: Value,
    pre_tokenizer: Value,
    post_processor: Value,
    decoder: Value,
}

/// What a byte-level tokenizer becomes.
pub(super) struct Encoded {
    pub(super) table: TokenTable,
    pub(super) pre: &'static str,
    pub(super) merges: Vec<Text>,
}

impl<'a> ByteLevel<'a> {
    /// The tokenizer of a `tokenizer.json`.
    pub(super) fn from_json(json: &TokenizerJson, model: &'a BytePairs) -> Self {
        Self {
            path: json.path.clone(),
            model,
            added: json.added.clone(),
            normalizer: json.normalizer.clone(),
            pre_tokenizer: json.pre_tokenizer.clone(),
            post_processor: json.post_processor.clone(),
            decoder: json.decoder.clone(),
        }
    }

    /// The tokenizer of a class, from its vocabulary and merges.
    pub(super) fn from_profile(path: &Path, profile: Profile, model: &'a BytePairs) -> Self {
        Self {
            path: path.to_owned(),
            model,
            added: Vec::new(),
            normalizer: profile.normalizer,
            pre_tokenizer: profile.pre_tokenizer,
            post_processor: Value::Null,
            decoder: json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": false, "use_regex": false}),
        }
    }

    /// Adds what the configuration knows of added tokens: its flags count where `tokenizer.json` has the token too.
    pub(super) fn add_configured(&mut self, tokens: Vec<AddedToken>, warnings: &mut Vec<String>) {
        let ids = self.model.ids();
        let mut places = self.places();
        let base = self.model.vocabulary.iter().map(|(_, id)| u64::from(*id));
        let mut taken: HashSet<u64> = base.chain(self.added.iter().map(|token| token.id)).collect();
        for token in tokens {
            if let Some(&place) = places.get(&token.content) {
                let id = self.added[place].id;
                self.added[place] = AddedToken { id, ..token };
                continue;
            }
            let id = match ids.get(token.content.as_str()) {
                Some(&id) => u64::from(id),
                None if taken.insert(token.id) => token.id,
                None => {
                    warnings.push(format!(
                        "added token {:?}: id {} belongs to another token; left out",
                        token.content, token.id
                    ));
                    continue;
                }
            };
            places.insert(token.content.clone(), self.added.len());
            self.added.push(AddedToken { id, ..token });
        }
    }

    /// Marks base tokens that are named as special; names that are no tokens are reported.
    pub(super) fn add_special_names(&mut self, names: &[String], warnings: &mut Vec<String>) {
        let ids = self.model.ids();
        let places = self.places();
        for name in names.iter().filter(|name| !places.contains_key(*name)) {
            match ids.get(name.as_str()) {
                Some(&id) => self.added.push(AddedToken::special(u64::from(id), name.clone())),
                None => warnings.push(format!("special token {name:?} is not in the vocabulary")),
            }
        }
    }

    fn places(&self) -> HashMap<String, usize> {
        let places = self.added.iter().enumerate();
        places.map(|(place, token)| (token.content.clone(), place)).collect()
    }

    /// The vocabulary as GGUF holds it. `size`: rows of the embedding.
    pub(super) fn encode(
        mut self,
        size: Option<usize>,
        warnings: &mut Vec<String>,
    ) -> Result<Encoded, VocabularyError> {
        if self.model.merges.is_empty() {
            return Err(VocabularyError::NoMerges { path: self.path });
        }
        self.settle_ids(warnings)?;
        let base = self.model.vocabulary.iter().map(|(text, id)| (text.as_str(), u64::from(*id)));
        let added = self.added.iter().map(|token| (token.content.as_str(), token.id));
        let entries = base.chain(added);
        let size = match size {
            Some(size) => size,
            None => size_of(&self.path, entries.clone().map(|(_, id)| id))?,
        };
        let outside =
            entries.clone().filter(|(_, id)| *id >= size as u64).max_by_key(|(_, id)| *id);
        if let Some((text, id)) = outside {
            return Err(beyond(&self.path, text, id, size));
        }
        let Checked { hash, returned } = self.check()?;
        let ignores = self.model.ignore_merges;
        let pre = pre_tokenizer::recognise(&hash, &self.pre_tokenizer, &self.normalizer, ignores);
        let Some(pre) = pre else {
            return Err(VocabularyError::UnknownPreTokenizer { path: self.path, hash });
        };
        let table = self.table(size, &returned);
        let missing = missing_bytes(&table);
        if missing > 0 {
            warnings.push(format!(
                "bytes without a token: {missing}; text with them cannot be encoded"
            ));
        }
        Ok(Encoded { table, pre, merges: self.merges(warnings) })
    }

    /// Runs the tokenizer over the check text.
    fn check(&self) -> Result<Checked, VocabularyError> {
        let found: usize = self.added.iter().map(|token| token.content.len()).sum();
        if found > ADDED_BYTES_MAX {
            return Err(VocabularyError::TooLarge {
                path: self.path.clone(),
                what: "added tokens in bytes",
                found: found as u64,
                limit: ADDED_BYTES_MAX as u64,
            });
        }
        let parts = Parts {
            model: self.model,
            added: &self.added,
            normalizer: &self.normalizer,
            pre_tokenizer: &self.pre_tokenizer,
            post_processor: &self.post_processor,
            decoder: &self.decoder,
        };
        check::run(&parts)
            .map_err(|reason| VocabularyError::Check { path: self.path.clone(), reason })
    }

    /// Gives each added token the id of the base token with its text, orders them by id, and refuses ids used twice.
    fn settle_ids(&mut self, warnings: &mut Vec<String>) -> Result<(), VocabularyError> {
        let ids = self.model.ids();
        let texts: HashMap<u64, &str> = self
            .model
            .vocabulary
            .iter()
            .map(|(text, id)| (u64::from(*id), text.as_str()))
            .collect();
        for token in &mut self.added {
            let base = ids.get(token.content.as_str()).map(|&id| u64::from(id));
            if let Some(id) = base.filter(|&id| id != token.id) {
                warnings.push(format!(
                    "added token {:?}: id {} was taken as {id}, its id in the vocabulary",
                    token.content, token.id
                ));
                token.id = id;
            }
        }
        self.added
            .sort_by(|first, second| (first.id, &first.content).cmp(&(second.id, &second.content)));
        self.added
            .dedup_by(|second, first| first.id == second.id && first.content == second.content);
        let doubled = self
            .added
            .windows(2)
            .find(|pair| pair[0].id == pair[1].id)
            .map(|pair| (pair[0].id, pair[0].content.clone(), pair[1].content.clone()));
        let shadowed = self.added.iter().find_map(|token| {
            let base = texts.get(&token.id).filter(|text| **text != token.content)?;
            Some((token.id, (*base).to_owned(), token.content.clone()))
        });
        match doubled.or(shadowed) {
            Some((id, first, second)) => {
                Err(VocabularyError::DuplicateId { path: self.path.clone(), id, first, second })
            }
            None => Ok(()),
        }
    }

    fn table(&self, size: usize, returned: &[(u64, String)]) -> TokenTable {
        let mut table = TokenTable::padded(size, false);
        for (text, id) in &self.model.vocabulary {
            table.set(*id as usize, text.clone(), TokenType::Normal, 0.0);
        }
        let returned: HashMap<u64, &str> =
            returned.iter().map(|(id, text)| (*id, text.as_str())).collect();
        for token in &self.added {
            // llama.cpp takes these tokens as they come out of the tokenizer.
            let text = returned.get(&token.id).copied().unwrap_or(&token.content);
            let special = token.special || looks_special(text);
            let token_type = if special { TokenType::Control } else { TokenType::UserDefined };
            let text = if special { text.to_owned() } else { text.replace('▁', " ") };
            table.set(token.id as usize, text, token_type, 0.0);
        }
        table
    }

    /// Merges as `a b`; a space inside a piece is written as the byte alphabet has it.
    fn merges(&self, warnings: &mut Vec<String>) -> Vec<Text> {
        let piece = |piece: &str| piece.replace(' ', "Ġ");
        let merges = &self.model.merges;
        if merges.iter().any(|(left, right)| left.contains(' ') || right.contains(' ')) {
            warnings.push("merges: spaces inside pieces were written as Ġ".to_owned());
        }
        merges
            .iter()
            .map(|(left, right)| format!("{} {}", piece(left), piece(right)).into())
            .collect()
    }
}

/// How many bytes that occur in UTF-8 have no token in GPT-2's alphabet of bytes.
fn missing_bytes(table: &TokenTable) -> usize {
    let known: HashSet<&str> = (0..table.len()).map(|id| table.text(id)).collect();
    let mut shifted = 0;
    let mut missing = 0;
    for byte in 0..=u8::MAX {
        let printable = matches!(byte, b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff);
        let character = if printable {
            Some(char::from(byte))
        } else {
            shifted += 1;
            char::from_u32(0xff + shifted)
        };
        let occurs = !matches!(byte, 0xc0 | 0xc1 | 0xf5..);
        let text = character.map(String::from).unwrap_or_default();
        if occurs && !known.contains(text.as_str()) {
            missing += 1;
        }
    }
    missing
}
