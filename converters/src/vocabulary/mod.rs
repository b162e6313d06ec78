//! From the tokenizer's files in a checkpoint folder to the `tokenizer.*` metadata of a GGUF file, key by key as
//! llama.cpp's `convert_hf_to_gguf.py` writes it.
//!
//! Where this differs from upstream, it does so on purpose:
//! - `tokenizer.json` with byte fallback gets the scores that its SentencePiece model had (upstream: -1000 for all,
//!   which llama.cpp cannot merge by), and unused ids up to the embedding's rows (upstream: none);
//! - Phi-3 is read from `tokenizer.json` where `tokenizer.model` is missing (upstream: an error);
//! - a SentencePiece model that puts no space before the text says so (upstream: only if the configuration does);
//! - what llama.cpp would abort on, or split in another way than the model was trained with, is an error.

mod bpe;
mod byte_pairs;
mod check;
mod error;
mod files;
mod hashes;
mod json;
pub mod limits;
mod pre_tokenizer;
mod reading;
mod sentencepiece;
mod special;
mod spm;
mod template;
mod tokens;

use std::path::Path;

use nfl_models::gguf::Metadata;

pub use error::VocabularyError;
use reading::Reading;

/// Files beside a checkpoint's weights and `config.json` that conversion reads, where they are there.
pub const FILES: [&str; 12] = [
    "tokenizer.model",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "encoder.json",
    "vocab.bpe",
    "chat_template.jinja",
    "chat_template.json",
    "generation_config.json",
];

/// The `tokenizer.*` entries of a GGUF file, and where they came from.
#[derive(Clone, Debug)]
pub struct Vocabulary {
    /// The entries in upstream's order, ready to append.
    pub metadata: Metadata,
    /// Number of tokens, unused ones included: the rows of the embedding.
    pub size: usize,
    /// The files that the tokens came from.
    pub source: VocabularySource,
    /// What the user should know, a sentence each, without a full stop.
    pub warnings: Vec<String>,
}

/// Which files a vocabulary was read from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum VocabularySource {
    /// `tokenizer.model`.
    SentencePiece,
    /// `tokenizer.json` that was made from a SentencePiece model.
    ByteFallback,
    /// `tokenizer.json` with byte-level byte-pair encoding.
    ByteLevel,
    /// `vocab.json` and `merges.txt`, or the same under OpenAI's names.
    VocabularyAndMerges,
}

impl VocabularySource {
    /// The files' names.
    pub fn files(self) -> &'static str {
        match self {
            Self::SentencePiece => "tokenizer.model",
            Self::ByteFallback | Self::ByteLevel => "tokenizer.json",
            Self::VocabularyAndMerges => "vocabulary and merges",
        }
    }
}

/// Reads the vocabulary of a checkpoint folder. `expected_size`: rows of the embedding; without it, `vocab_size` of
/// `config.json` counts, and without that the number of tokens.
///
/// # Errors
/// When there is no tokenizer, a file is damaged or larger than its limit, or llama.cpp could not use the result.
pub fn read(directory: &Path, expected_size: Option<u64>) -> Result<Vocabulary, VocabularyError> {
    Reading::open(directory, expected_size)?.read()
}
