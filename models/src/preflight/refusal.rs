//! What the check finds: reasons to refuse a model, and warnings.

use std::fmt;

use crate::hint::Hint;
use crate::tensor::TensorType;

/// Why a model is not given to llama.cpp.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum Refusal {
    /// An adapter, an image projector, or something else that runs only beside a model.
    #[error("not a model of its own: {0}")]
    NotAModel(String),
    /// No `general.architecture`.
    #[error("no architecture: general.architecture is missing")]
    NoArchitecture,
    /// An entry of another type than its meaning asks for.
    #[error("metadata {key} is no {wanted}")]
    Type {
        /// The key.
        key: String,
        /// What it should be.
        wanted: &'static str,
    },
    /// A number out of its range.
    #[error("metadata {key}: {value} ({least} to {most} allowed)")]
    Range {
        /// The key.
        key: String,
        /// The number in the file.
        value: u64,
        /// The least allowed.
        least: u64,
        /// The most allowed.
        most: u64,
    },
    /// Two numbers that do not fit together, or one that breaks a rule.
    #[error("metadata {key}: {value} ({rule})")]
    Rule {
        /// The key.
        key: String,
        /// What the file says.
        value: String,
        /// The rule that it breaks.
        rule: String,
    },
    /// More after the last tensor than padding.
    #[error("the file goes on for {bytes} bytes after the last tensor")]
    Trailing {
        /// Bytes that belong to no tensor.
        bytes: u64,
    },
    /// A tensor without elements.
    #[error("tensor without elements: {0}")]
    EmptyTensor(String),
    /// A tensor of a type that the operation it is used in does not have.
    #[error("tensor {name} is {tensor_type} ({rule})")]
    TensorType {
        /// The tensor.
        name: String,
        /// Its type.
        tensor_type: TensorType,
        /// What the type must be.
        rule: &'static str,
    },
    /// One tensor for each expert: a layout that llama.cpp has given up.
    #[error("one tensor for each expert: {0}")]
    SingleExperts(String),
    /// A list beside the tokens that is shorter than they are.
    #[error("{key}: {found} entries for {tokens} tokens")]
    ShortList {
        /// The key.
        key: &'static str,
        /// Entries in it.
        found: usize,
        /// Tokens.
        tokens: usize,
    },
    /// Two tokens with the same text.
    #[error("tokens {first} and {second} are the same: {text:?}")]
    DuplicateToken {
        /// The first of them.
        first: usize,
        /// The second.
        second: usize,
        /// Their text.
        text: String,
    },
    /// A merge that is not of two parts, or gives no token.
    #[error("merge {index} gives no token: {text:?}")]
    Merge {
        /// Its place, from 0.
        index: usize,
        /// Its text.
        text: String,
    },
    /// The tokenizer adds a special token that it does not have.
    #[error("{key} asks for a token that the vocabulary lacks")]
    NoSuchToken {
        /// The key that asks for it.
        key: &'static str,
    },
    /// Tokens and rows of the embedding differ.
    #[error("vocabulary: {tokens} tokens, {rows} rows of {tensor}")]
    VocabularySize {
        /// Tokens in the metadata.
        tokens: u64,
        /// Rows of the tensor.
        rows: u64,
        /// The tensor.
        tensor: String,
    },
}

impl Hint for Refusal {
    fn hint(&self) -> Option<String> {
        Some(match self {
            Self::NotAModel(_) => "give the model that it belongs to".to_owned(),
            Self::SingleExperts(_) => {
                "the file is from before April 2024: convert the original checkpoint again"
                    .to_owned()
            }
            Self::Rule { key, .. } if key.ends_with("expert_used_count") => {
                "each block must use the same number of experts, no more than there are".to_owned()
            }
            _ => {
                "the file is damaged or made to do harm: get it again from where it came".to_owned()
            }
        })
    }
}

/// What llama.cpp copes with but a user should know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Warning {
    /// The id of a special token is beyond the vocabulary; llama.cpp uses its default instead.
    SpecialToken {
        /// The key.
        key: &'static str,
        /// The id in the file.
        id: u64,
        /// Tokens in the vocabulary.
        tokens: usize,
    },
    /// A SentencePiece vocabulary without all 256 byte tokens.
    NoByteTokens {
        /// How many are missing.
        missing: usize,
    },
    /// Tokens with a zero byte, where llama.cpp cuts them.
    ZeroBytes {
        /// The first of them.
        first: usize,
        /// How many there are.
        count: usize,
    },
    /// The file does not say how long its context was in training.
    NoContextLength,
}

impl fmt::Display for Warning {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SpecialToken { key, id, tokens } => {
                write!(
                    formatter,
                    "{key}: {id}, but there are only {tokens} tokens; a default is used"
                )
            }
            Self::NoByteTokens { missing } => write!(
                formatter,
                "the vocabulary lacks {missing} of the 256 byte tokens: text with characters \
                 that it does not know ends the engine"
            ),
            Self::ZeroBytes { first, count } => write!(
                formatter,
                "{count} tokens hold a zero byte and are cut there, the first of them token {first}"
            ),
            Self::NoContextLength => {
                formatter.write_str("the file does not say how long its context may be")
            }
        }
    }
}
