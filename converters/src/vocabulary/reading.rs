//! The reading of a checkpoint folder: which files count, by which of upstream's rules, and the order of the entries.

use std::path::{Path, PathBuf};

use nfl_models::gguf::Metadata;
use serde_json::Value;

use super::bpe::{ByteLevel, Encoded};
use super::byte_pairs::BytePairs;
use super::error::VocabularyError;
use super::files::{Folder, Object};
use super::json::{self, AddedToken, TokenizerJson};
use super::limits::{CONFIG_BYTES_MAX, SENTENCEPIECE_BYTES_MAX, TOKENS_MAX};
use super::sentencepiece::SentencePiece;
use super::special::{self, SpecialTokens};
use super::spm::{self, AddedStyle};
use super::tokens::TokenTable;
use super::{Vocabulary, VocabularySource, pre_tokenizer, template};

/// Names under which vocabulary and merges come as a pair.
const PAIRS: [(&str, &str); 2] = [("vocab.json", "merges.txt"), ("encoder.json", "vocab.bpe")];

/// How upstream treats a model's tokenizer, by its architecture.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Rule {
    /// Llama, Mistral, Mixtral, Granite.
    Llama,
    Phi3,
    Other,
}

/// What was chosen, with what is known of it by then.
enum Source {
    SentencePiece(SentencePiece),
    ByteFallback(BytePairs),
    ByteLevel(BytePairs),
    Pair((&'static str, &'static str)),
}

/// A reading under way.
pub(super) struct Reading<'a> {
    folder: Folder<'a>,
    config: Option<Object>,
    tokenizer_config: Option<Object>,
    tokenizer: Option<TokenizerJson>,
    rule: Rule,
    size: Option<usize>,
    metadata: Metadata,
    source: VocabularySource,
    warnings: Vec<String>,
}

impl<'a> Reading<'a> {
    pub(super) fn open(
        directory: &'a Path,
        expected_size: Option<u64>,
    ) -> Result<Self, VocabularyError> {
        let folder = Folder::new(directory);
        let config = folder.object("config.json", CONFIG_BYTES_MAX)?;
        let size = expected_size.or_else(|| vocab_size(config.as_ref()));
        if let Some(found) = size.filter(|&size| size > TOKENS_MAX as u64) {
            return Err(VocabularyError::TooLarge {
                path: folder.join("config.json"),
                what: "a vocabulary in tokens",
                found,
                limit: TOKENS_MAX as u64,
            });
        }
        Ok(Self {
            folder,
            rule: rule(config.as_ref()),
            tokenizer_config: folder.object("tokenizer_config.json", CONFIG_BYTES_MAX)?,
            tokenizer: TokenizerJson::read(folder)?,
            config,
            size: size.map(|size| size as usize),
            metadata: Metadata::new(),
            source: VocabularySource::SentencePiece,
            warnings: Vec::new(),
        })
    }

    pub(super) fn read(mut self) -> Result<Vocabulary, VocabularyError> {
        let source = self.choose()?;
        self.write_space_prefix();
        let size = match source {
            Source::SentencePiece(model) => self.write_sentencepiece(model)?,
            Source::ByteFallback(model) => self.write_byte_fallback(&model)?,
            Source::ByteLevel(model) => self.write_byte_level(&model)?,
            Source::Pair(names) => self.write_pair(names)?,
        };
        self.write_exceptions();
        let Self { metadata, source, warnings, .. } = self;
        Ok(Vocabulary { metadata, size, source, warnings })
    }

    /// Chooses the files: `tokenizer.model` first, then `tokenizer.json`, then a vocabulary with merges.
    fn choose(&mut self) -> Result<Source, VocabularyError> {
        let model = self.tokenizer.as_ref().map(TokenizerJson::model).transpose();
        let byte_level = matches!(&model, Ok(Some(model)) if !model.byte_fallback);
        let class = text(self.tokenizer_config.as_ref(), "tokenizer_class");
        let skips_model = match self.rule {
            Rule::Llama => false,
            Rule::Phi3 => class == Some("GPT2Tokenizer"),
            Rule::Other => byte_level,
        };
        if !skips_model
            && self.folder.has("tokenizer.model")
            && let Some(model) = self.read_sentencepiece()?
        {
            self.source = VocabularySource::SentencePiece;
            return Ok(Source::SentencePiece(model));
        }
        if let Some(model) = model? {
            return Ok(if model.byte_fallback {
                self.source = VocabularySource::ByteFallback;
                Source::ByteFallback(model)
            } else {
                self.source = VocabularySource::ByteLevel;
                Source::ByteLevel(model)
            });
        }
        if let Some(names) = PAIRS.into_iter().find(|names| self.folder.has(names.0)) {
            self.source = VocabularySource::VocabularyAndMerges;
            return Ok(Source::Pair(names));
        }
        let others = ["tekken.json", "tokenizer.model.v3", "tokenizer.model.v7", "qwen.tiktoken"];
        let other = others.into_iter().find(|name| self.folder.has(name)).map(str::to_owned);
        Err(VocabularyError::Missing { directory: self.folder.path().to_owned(), other })
    }

    /// `tokenizer.model`; `None` when it is in fact tiktoken's list of ranks and `tokenizer.json` is there too.
    fn read_sentencepiece(&mut self) -> Result<Option<SentencePiece>, VocabularyError> {
        let name = "tokenizer.model";
        let bytes = self.folder.bytes(name, SENTENCEPIECE_BYTES_MAX)?.unwrap_or_default();
        if is_tiktoken(&bytes) {
            if self.tokenizer.is_none() {
                return Err(VocabularyError::Unsupported {
                    path: self.folder.join(name),
                    what: "a list of tiktoken's ranks, no SentencePiece model".to_owned(),
                    hint: "add tokenizer.json of the same model",
                });
            }
            self.warnings
                .push("tokenizer.model is tiktoken's; tokenizer.json was taken".to_owned());
            return Ok(None);
        }
        SentencePiece::parse(&bytes).map(Some).map_err(|reason| {
            self.folder.malformed(name, format!("no SentencePiece model: {reason}"))
        })
    }

    /// Llama's conversion writes this flag before everything else.
    fn write_space_prefix(&mut self) {
        let flag = self.tokenizer_config.as_ref().and_then(|config| config.get("add_prefix_space"));
        if let (Rule::Llama, Some(Value::Bool(flag))) = (self.rule, flag) {
            self.metadata.set("tokenizer.ggml.add_space_prefix", *flag);
        }
    }

    /// Says that no space is put before the text, unless the configuration has spoken.
    fn write_no_space_prefix(&mut self) {
        if self.metadata.is_empty() {
            self.metadata.set("tokenizer.ggml.add_space_prefix", false);
        }
    }

    fn write_sentencepiece(&mut self, model: SentencePiece) -> Result<usize, VocabularyError> {
        let path = self.folder.join("tokenizer.model");
        if !model.add_dummy_prefix {
            self.write_no_space_prefix();
        }
        let size = self.size.unwrap_or(model.pieces.len());
        let mut table = spm::from_model(&path, model, size, &mut self.warnings)?;
        self.lay_over_configured(&mut table)?;
        if self.rule == Rule::Phi3 {
            let added = self.tokenizer.as_ref().map_or(&[][..], |tokenizer| &tokenizer.added);
            spm::lay_over(&mut table, added, AddedStyle::Phi3, &mut self.warnings);
        }
        self.finish_scored(&path, table)
    }

    fn write_byte_fallback(&mut self, model: &BytePairs) -> Result<usize, VocabularyError> {
        let Some(tokenizer) = self.tokenizer.take() else { unreachable!("the model came from it") };
        let path = tokenizer.path.clone();
        if !spm::prepends_space(&tokenizer) {
            self.write_no_space_prefix();
        }
        let base = model.vocabulary.iter().map(|(_, id)| u64::from(*id));
        let size = match self.size {
            Some(size) => size,
            None => spm::size_of(&path, base.chain(tokenizer.added.iter().map(|token| token.id)))?,
        };
        let mut table = spm::from_byte_pairs(&tokenizer, model, size, &mut self.warnings)?;
        spm::lay_over(&mut table, &tokenizer.added, self.added_style(), &mut self.warnings);
        self.tokenizer = Some(tokenizer);
        self.lay_over_configured(&mut table)?;
        self.finish_scored(&path, table)
    }

    fn added_style(&self) -> AddedStyle {
        if self.rule == Rule::Phi3 { AddedStyle::Phi3 } else { AddedStyle::General }
    }

    /// Lays over a SentencePiece vocabulary what the smaller files add to it.
    fn lay_over_configured(&mut self, table: &mut TokenTable) -> Result<(), VocabularyError> {
        spm::lay_over_plain(table, &self.added_tokens()?, &mut self.warnings);
        let configured = json::added_tokens_decoder(self.folder, self.tokenizer_config.as_ref())?;
        spm::lay_over(table, &configured, self.added_style(), &mut self.warnings);
        Ok(())
    }

    /// `added_tokens.json`: texts and ids.
    fn added_tokens(&self) -> Result<Vec<(String, u64)>, VocabularyError> {
        let name = "added_tokens.json";
        let added = self.folder.object(name, CONFIG_BYTES_MAX)?.unwrap_or_default();
        let entries = added.into_iter().map(|(text, id)| match id.as_u64() {
            Some(id) => Ok((text, id)),
            None => Err(self.folder.malformed(name, format!("{text:?} has no id"))),
        });
        entries.collect()
    }

    fn finish_scored(&mut self, path: &Path, table: TokenTable) -> Result<usize, VocabularyError> {
        let missing = spm::missing_bytes(&table);
        if missing > 0 {
            self.warnings.push(format!(
                "bytes without a token: {missing}; llama.cpp stops on text that needs them"
            ));
        }
        self.finish(path, "llama", Encoded { table, pre: "default", merges: Vec::new() })
    }

    fn write_byte_level(&mut self, model: &BytePairs) -> Result<usize, VocabularyError> {
        let Some(tokenizer) = &self.tokenizer else { unreachable!("the model came from it") };
        let byte_level = ByteLevel::from_json(tokenizer, model);
        self.write_encoded(byte_level, &[])
    }

    fn write_pair(
        &mut self,
        names: (&'static str, &'static str),
    ) -> Result<usize, VocabularyError> {
        let class = text(self.tokenizer_config.as_ref(), "tokenizer_class");
        let model_type = text(self.config.as_ref(), "model_type");
        let profile = [class, model_type].into_iter().flatten().find_map(pre_tokenizer::profile);
        let Some(profile) = profile else {
            return Err(VocabularyError::UnknownClass {
                directory: self.folder.path().to_owned(),
                class: class.or(model_type).unwrap_or_default().to_owned(),
            });
        };
        let model = BytePairs::read_pair(self.folder, names, &mut self.warnings)?;
        let specials = profile.specials;
        let mut byte_level = ByteLevel::from_profile(&self.folder.join(names.0), profile, &model);
        let named = self.special_names(specials)?;
        byte_level.added = self
            .added_tokens()?
            .into_iter()
            .map(|(content, id)| {
                let special = named.contains(&content);
                AddedToken { special, normalized: !special, ..AddedToken::special(id, content) }
            })
            .collect();
        self.write_encoded(byte_level, specials)
    }

    fn write_encoded(
        &mut self,
        mut byte_level: ByteLevel<'_>,
        assumed: &[&str],
    ) -> Result<usize, VocabularyError> {
        let configured = json::added_tokens_decoder(self.folder, self.tokenizer_config.as_ref())?;
        byte_level.add_configured(configured, &mut self.warnings);
        let names = self.special_names(assumed)?;
        byte_level.add_special_names(&names, &mut self.warnings);
        let path: PathBuf = byte_level.path.clone();
        let encoded = byte_level.encode(self.size, &mut self.warnings)?;
        self.finish(&path, "gpt2", encoded)
    }

    /// The texts of the tokens that the smaller files name as special, and those that the class assumes, if they
    /// are tokens.
    fn special_names(&self, assumed: &[&str]) -> Result<Vec<String>, VocabularyError> {
        let map = self.folder.object("special_tokens_map.json", CONFIG_BYTES_MAX)?;
        let mut names: Vec<String> = Vec::new();
        for object in [self.tokenizer_config.as_ref(), map.as_ref()].into_iter().flatten() {
            let roles = special::ROLES.iter().map(|role| object.get(&format!("{role}_token")));
            let more = object.get("additional_special_tokens").and_then(Value::as_array);
            let tokens = roles.chain(more.into_iter().flatten().map(Some));
            names.extend(tokens.filter_map(special::content_of).map(str::to_owned));
        }
        if names.is_empty() {
            names.extend(assumed.iter().map(|&name| name.to_owned()));
        }
        names.sort();
        names.dedup();
        names.retain(|name| !name.is_empty());
        Ok(names)
    }

    /// Appends everything from `tokenizer.ggml.model` to the chat template.
    fn finish(
        &mut self,
        path: &Path,
        model: &str,
        encoded: Encoded,
    ) -> Result<usize, VocabularyError> {
        let Encoded { table, pre, merges } = encoded;
        table.check(path)?;
        let size = table.len();
        let mut special = SpecialTokens::new(&special::ROLES, Some(size));
        special.read(
            self.tokenizer.as_ref(),
            self.tokenizer_config.as_ref(),
            self.config.as_ref(),
            &mut self.warnings,
        );
        self.find_ends(&mut special, &table)?;
        self.metadata.set("tokenizer.ggml.model", model);
        self.metadata.set("tokenizer.ggml.pre", pre);
        table.write(&mut self.metadata);
        if !merges.is_empty() {
            self.metadata.set("tokenizer.ggml.merges", merges);
        }
        special.write(&mut self.metadata);
        let templates =
            template::read(self.folder, self.tokenizer_config.as_ref(), &mut self.warnings)?;
        template::write(templates, &mut self.metadata);
        special.write_normalizer(&mut self.metadata);
        Ok(size)
    }

    /// Looks up beginning and end of text where upstream's sources are silent: without them llama.cpp would assume
    /// ids of its own.
    fn find_ends(
        &mut self,
        special: &mut SpecialTokens,
        table: &TokenTable,
    ) -> Result<(), VocabularyError> {
        let map = self.folder.object("special_tokens_map.json", CONFIG_BYTES_MAX)?;
        let generation = self.folder.object("generation_config.json", CONFIG_BYTES_MAX)?;
        for role in ["bos", "eos"] {
            if special.has(role) {
                continue;
            }
            let mapped = [self.tokenizer_config.as_ref(), map.as_ref()].into_iter().flatten();
            let named = mapped
                .filter_map(|object| special::content_of(object.get(&format!("{role}_token"))))
                .find_map(|content| table.find(content));
            let listed =
                generation.as_ref().and_then(|object| object.get(&format!("{role}_token_id")));
            let listed = listed.and_then(|id| id.get(0).unwrap_or(id).as_u64());
            if let Some(id) = named.map(|id| id as u64).or(listed) {
                special.set(role, id, &mut self.warnings);
            }
        }
        Ok(())
    }

    /// What upstream knows of single checkpoints by the size of their vocabulary.
    fn write_exceptions(&mut self) {
        if self.rule != Rule::Llama {
            return;
        }
        match vocab_size(self.config.as_ref()) {
            // Code Llama: the end of an infilled middle.
            Some(32_016) => {
                let mut special = SpecialTokens::new(&["eot"], None);
                special.set("eot", 32_010, &mut self.warnings);
                special.write(&mut self.metadata);
            }
            // The small Granite models.
            Some(49_152) => self.metadata.set("tokenizer.ggml.add_bos_token", false),
            _ => {}
        }
    }
}

/// `vocab_size`, of the text part of a multimodal model first.
fn vocab_size(config: Option<&Object>) -> Option<u64> {
    let config = config?;
    let part = config.get("text_config").and_then(|part| part.get("vocab_size"));
    part.or_else(|| config.get("vocab_size")).and_then(Value::as_u64)
}

fn rule(config: Option<&Object>) -> Rule {
    let first = config.and_then(|config| config.get("architectures")?.get(0)?.as_str());
    match first {
        None => Rule::Llama,
        Some("Phi3ForCausalLM" | "PhiMoEForCausalLM" | "Phi4ForCausalLMV") => Rule::Phi3,
        Some(name) => {
            let llama = ["LLaMA", "Llama", "Mistral", "Mixtral", "Granite"];
            if llama.into_iter().any(|family| name.starts_with(family)) {
                Rule::Llama
            } else {
                Rule::Other
            }
        }
    }
}

fn text<'o>(object: Option<&'o Object>, name: &str) -> Option<&'o str> {
    object?.get(name)?.as_str()
}

/// Whether the bytes are lines of "token in base64, space, rank", as Llama 3's original `tokenizer.model` has them.
fn is_tiktoken(bytes: &[u8]) -> bool {
    let line = bytes.split(|&byte| byte == b'\n').next().unwrap_or_default();
    let Some((token, rank)) = str::from_utf8(line).ok().and_then(|line| line.split_once(' '))
    else {
        return false;
    };
    let base64 = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'=');
    !token.is_empty() && token.bytes().all(base64) && rank.trim_end().parse::<u64>().is_ok()
}
