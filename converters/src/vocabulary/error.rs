//! What can be wrong with a tokenizer, and what to do about it.

use std::path::PathBuf;

use nfl_models::Hint;

/// Why a vocabulary could not be made.
#[derive(Debug, thiserror::Error)]
pub enum VocabularyError {
    /// A file could not be read.
    #[error("{}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A name that should be a file is a folder, a pipe or a device.
    #[error("{}: not a regular file", path.display())]
    NotAFile {
        /// The name.
        path: PathBuf,
    },
    /// A file or a part of it is longer than its limit.
    #[error("{}: {what} of {found}, the limit is {limit}", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// What is too large, with its unit.
        what: &'static str,
        /// How large it is.
        found: u64,
        /// How large it may be.
        limit: u64,
    },
    /// A file is not what its name says.
    #[error("{}: {reason}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The folder holds no tokenizer.
    #[error("{}: no tokenizer (tokenizer.model, tokenizer.json, or vocab.json with merges.txt)", directory.display())]
    Missing {
        /// The folder.
        directory: PathBuf,
        /// A tokenizer file of a kind that is not read, when there is one.
        other: Option<String>,
    },
    /// The tokenizer is sound, but of a kind that GGUF or llama.cpp has no place for.
    #[error("{}: {what}", path.display())]
    Unsupported {
        /// The file.
        path: PathBuf,
        /// What cannot be represented.
        what: String,
        /// What to do instead.
        hint: &'static str,
    },
    /// The pre-tokenizer is none that llama.cpp knows.
    #[error("{}: pre-tokenizer not recognised (check {hash})", path.display())]
    UnknownPreTokenizer {
        /// The file.
        path: PathBuf,
        /// The hash of the check text's token ids, by which llama.cpp's converter knows tokenizers.
        hash: String,
    },
    /// The tokenizer's class does not say how text is split before merging.
    #[error("{}: vocab.json and merges.txt do not say how text is split, nor does the class {class:?}", directory.display())]
    UnknownClass {
        /// The folder.
        directory: PathBuf,
        /// `tokenizer_class`, or else `model_type`.
        class: String,
    },
    /// Tokenizing the check text took too long or failed.
    #[error("{}: the check text could not be tokenized: {reason}", path.display())]
    Check {
        /// The file.
        path: PathBuf,
        /// What went wrong.
        reason: String,
    },
    /// A token has an id that the model has no embedding for.
    #[error("{}: token {token:?} has id {id}, the model has {rows} embedding rows", path.display())]
    BeyondRows {
        /// The file.
        path: PathBuf,
        /// The token.
        token: String,
        /// Its id.
        id: u64,
        /// Rows of the embedding.
        rows: u64,
    },
    /// Two tokens share an id.
    #[error("{}: id {id} belongs to both {first:?} and {second:?}", path.display())]
    DuplicateId {
        /// The file.
        path: PathBuf,
        /// The id.
        id: u64,
        /// One token.
        first: String,
        /// The other token.
        second: String,
    },
    /// Two ids share a text: llama.cpp would abort.
    #[error("{}: token {token:?} has both id {first} and id {second}", path.display())]
    DuplicateToken {
        /// The file.
        path: PathBuf,
        /// The token.
        token: String,
        /// One id.
        first: usize,
        /// The other id.
        second: usize,
    },
    /// A merge names or makes a token that is not in the vocabulary.
    #[error("{}: merge {index} ({merge:?}) leads nowhere: {missing:?} is no token", path.display())]
    MergeToNowhere {
        /// The file.
        path: PathBuf,
        /// The merge's place in the list.
        index: usize,
        /// The merge.
        merge: String,
        /// What is missing.
        missing: String,
    },
    /// A byte-level vocabulary without merges.
    #[error("{}: no merges", path.display())]
    NoMerges {
        /// The file.
        path: PathBuf,
    },
    /// A token's text cannot be stored.
    #[error("{}: token {id} {problem}", path.display())]
    Token {
        /// The file.
        path: PathBuf,
        /// The token's id.
        id: usize,
        /// What is wrong with it.
        problem: String,
    },
}

impl Hint for VocabularyError {
    fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::Read { .. } => return None,
            Self::NotAFile { .. } => "give a checkpoint folder as it was downloaded",
            Self::TooLarge { .. } => "no known tokenizer is this large; download the file again",
            Self::Malformed { .. } | Self::Token { .. } => {
                "download the file again; Git LFS pointers must be resolved (git lfs pull)"
            }
            Self::Missing { other: Some(other), .. } => {
                return Some(format!(
                    "{other} is in a format that is not read; get tokenizer.json or tokenizer.model of the same model"
                ));
            }
            Self::Missing { other: None, .. } => {
                "download the tokenizer's files of the same model into the folder"
            }
            Self::Unsupported { hint, .. } => hint,
            Self::UnknownPreTokenizer { .. } => {
                "llama.cpp would split text in another way than the model was trained with; use a newer version of \
                 this program, or the tokenizer.json of the model that this one was made from"
            }
            Self::UnknownClass { .. } => {
                "add tokenizer.json of the same model, or set tokenizer_class in tokenizer_config.json \
                 (GPT2Tokenizer, Qwen2Tokenizer, CodeGenTokenizer)"
            }
            Self::Check { .. } => {
                "the pre-tokenizer's regular expression may be damaged or hostile; use the original tokenizer.json"
            }
            Self::BeyondRows { .. } => {
                "the tokenizer is larger than the embedding: use the tokenizer that the weights were saved with, or \
                 resize the embedding (resize_token_embeddings)"
            }
            Self::DuplicateId { .. } | Self::DuplicateToken { .. } => {
                "each token needs one id and one text; repair the tokenizer or use the original one"
            }
            Self::MergeToNowhere { .. } => {
                "vocabulary and merges do not belong together; use both from the same model"
            }
            Self::NoMerges { .. } => "add merges.txt of the same model",
        };
        Some(hint.to_owned())
    }
}
