//! The messages of the protocol.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::engine::embedding::{EmbeddingRequest, Embeddings, Pooling};
use crate::engine::experts::counters::ExpertCounts;
use crate::engine::llama::Logprobs;
use crate::engine::options::{LoadRequest, Sampling, Speculation};
use crate::engine::steering::Steering;
use crate::engine::worker::cage::CageInfo;

/// What a program sends.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Call {
    /// Grows with every call; replies bear it.
    pub number: u64,
    /// What is wanted.
    pub request: Request,
}

/// What a program wants.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Request {
    /// Load a model: answered by Loaded.
    Load(Box<LoadRequest>),
    /// The tokens of a text: answered by Tokens.
    Tokenize {
        /// The text.
        text: String,
        /// Add the special tokens that the model wants around a text.
        add_special: bool,
        /// Read names of special tokens as these tokens.
        parse_special: bool,
    },
    /// The bytes of tokens: answered by Bytes.
    Detokenize {
        /// The tokens.
        tokens: Vec<i32>,
        /// Write special tokens out.
        special: bool,
    },
    /// Continue a text: answered by Token events and Done.
    Generate(Box<Generation>),
    /// How likely tokens are: answered by Scores.
    Score {
        /// The tokens.
        tokens: Vec<i32>,
        /// The first token that is scored, at least 1: the first of all has nothing before it.
        from: usize,
    },
    /// How likely tokens are, and which would have been likelier: answered by Logprobs.
    Logprobs {
        /// The tokens.
        tokens: Vec<i32>,
        /// The first token that is told of, at least 1.
        from: usize,
        /// How many of the likeliest tokens are told in each place.
        top: u32,
    },
    /// Logits after some positions: answered by Logits.
    Logits {
        /// The tokens.
        tokens: Vec<i32>,
        /// Positions, ascending.
        positions: Vec<usize>,
    },
    /// The vectors of texts, or the scores of documents: answered by Embeddings.
    Embed(Box<EmbeddingRequest>),
    /// Memory in use: answered by Memory.
    Memory,
    /// What runs and waits: answered by Status.
    Status,
    /// Save what is worth it and end: answered by Unloaded, the last of all events.
    Unload,
    /// Stop the call of this number; no reply of its own.
    Cancel,
}

/// What to continue.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Prompt {
    /// A text.
    Text {
        /// The text.
        text: String,
        /// Add the special tokens that the model wants around a text.
        add_special: bool,
        /// Read names of special tokens as these tokens.
        parse_special: bool,
    },
    /// Tokens.
    Tokens(Vec<i32>),
    /// A gap to fill, with the tokens that the model has for it.
    Infill {
        /// What stands before the gap.
        prefix: String,
        /// What stands behind it.
        suffix: String,
    },
}

/// How to continue it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Generation {
    /// What to continue. Its common beginning with what the context holds is not computed again.
    pub prompt: Prompt,
    /// How tokens are chosen.
    pub sampling: Sampling,
    /// Generation ends before any of these strings.
    pub stop: Vec<String>,
    /// Tokens to generate; None goes on until the model ends or the context is full.
    pub tokens_max: Option<u32>,
    /// Go on when the model wants to end: for measurements.
    pub ignore_end: bool,
    /// Write special tokens out as text.
    pub special: bool,
    /// Special tokens that are written out as text although others are not.
    pub shown: Vec<i32>,
    /// When the context is full, forget the older half of it and go on, instead of ending.
    pub shift: bool,
    /// Whether tokens are guessed ahead.
    pub speculation: Speculation,
    /// With each token, tell its probability and those of this many likeliest ones.
    pub logprobs: Option<u32>,
    /// Adapters and control vectors for this request.
    pub steering: Steering,
    /// Who asks: requests of one client wait for each other before they wait for those of another.
    pub client: u64,
}

impl Generation {
    /// The likeliest continuation of a prompt.
    pub fn greedy(prompt: Prompt, tokens_max: u32) -> Self {
        Self {
            prompt,
            sampling: Sampling::greedy(),
            stop: Vec::new(),
            tokens_max: Some(tokens_max),
            ignore_end: false,
            special: false,
            shown: Vec::new(),
            shift: false,
            speculation: Speculation::Off,
            logprobs: None,
            steering: Steering::default(),
            client: 0,
        }
    }
}

/// What a worker sends.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Reply {
    /// The call that it answers; 0 for Hello.
    pub number: u64,
    /// What happened.
    pub event: Event,
}

/// What happened in the worker.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Event {
    /// The worker is there.
    Hello {
        /// Its [`PROTOCOL`](super::PROTOCOL).
        protocol: u32,
    },
    /// The share of the work that is done, 0 to 1.
    Progress(f32),
    /// The model is loaded.
    Loaded(Box<LoadInfo>),
    /// The tokens of a text.
    Tokens(Vec<i32>),
    /// The bytes of tokens.
    Bytes(Vec<u8>),
    /// The prompt is read.
    PromptDone {
        /// Tokens of the prompt.
        tokens: u32,
        /// How many of them were in the context already.
        cached_tokens: u32,
        /// Milliseconds it took.
        ms: f64,
    },
    /// A token was generated.
    Token {
        /// Its number; None for text that was held back and comes out at the end.
        id: Option<i32>,
        /// The text that is certain now: whole characters, no part of a stop string, maybe empty.
        text: String,
        /// What the model itself thought of it, when that was asked.
        logprobs: Option<Box<Logprobs>>,
    },
    /// Generation ended.
    Done(Done),
    /// Natural logarithms of probabilities, one a scored token.
    Scores(Vec<f64>),
    /// What the model thought of each token.
    Logprobs(Vec<Logprobs>),
    /// Logits, one row a position.
    Logits {
        /// The length of a row.
        vocabulary_tokens: usize,
        /// The rows, one after the other.
        values: Vec<f32>,
    },
    /// The vectors of texts, or the scores of documents.
    Embeddings(Box<Embeddings>),
    /// Memory in use.
    Memory(MemoryUse),
    /// What runs and waits.
    Status(Status),
    /// The model is unloaded: how many states were saved.
    Unloaded {
        /// Their number.
        states: usize,
        /// Why there are not more, if something failed.
        error: Option<String>,
    },
    /// The call failed; the worker lives on.
    Failed(Failure),
}

/// Why generation ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reason {
    /// The model ended its text.
    EndOfText,
    /// A stop string came.
    Stop,
    /// As many tokens as were asked for.
    Length,
    /// It was cancelled.
    Cancelled,
    /// The context has no more room.
    ContextFull,
}

/// The account of a generation.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Done {
    /// Why it ended.
    pub reason: Reason,
    /// Which of the stop strings came, counted from 0.
    pub stop: Option<u32>,
    /// Tokens of the prompt.
    pub prompt_tokens: u32,
    /// How many of them were in the context already.
    pub cached_tokens: u32,
    /// How many of these came from a saved state.
    pub restored_tokens: u32,
    /// Tokens that were generated, without the one that ends a text.
    pub generated_tokens: u32,
    /// Tokens of the reply that were computed during `decode_ms`.
    pub decoded_tokens: u32,
    /// Steps that computed guesses.
    pub drafts: u32,
    /// Guesses that were computed with them.
    pub drafted_tokens: u32,
    /// Guesses that held: a part of `decoded_tokens`.
    pub accepted_tokens: u32,
    /// Milliseconds from the request's arrival until it was its turn.
    pub queue_ms: f64,
    /// Milliseconds for reading the prompt.
    pub prompt_ms: f64,
    /// Milliseconds from the first token to the end.
    pub decode_ms: f64,
    /// Milliseconds from the request's arrival to the first token; None when there was none.
    pub first_token_ms: Option<f64>,
    /// Where the random numbers started.
    pub seed: u32,
}

impl Done {
    /// The account of a reply that was cancelled before it began.
    pub fn cancelled() -> Self {
        Self {
            reason: Reason::Cancelled,
            stop: None,
            prompt_tokens: 0,
            cached_tokens: 0,
            restored_tokens: 0,
            generated_tokens: 0,
            decoded_tokens: 0,
            drafts: 0,
            drafted_tokens: 0,
            accepted_tokens: 0,
            queue_ms: 0.0,
            prompt_ms: 0.0,
            decode_ms: 0.0,
            first_token_ms: None,
            seed: 0,
        }
    }

    /// Tokens a second while generating; None when nothing was computed after the first token.
    pub fn decode_rate(&self) -> Option<f64> {
        rate(self.decoded_tokens, self.decode_ms)
    }

    /// Tokens a second while reading the prompt, without those in the context already.
    pub fn prompt_rate(&self) -> Option<f64> {
        rate(self.prompt_tokens - self.cached_tokens, self.prompt_ms)
    }
}

fn rate(tokens: u32, ms: f64) -> Option<f64> {
    (tokens > 0 && ms > 0.0).then(|| f64::from(tokens) * 1000.0 / ms)
}

/// A token with a meaning and its text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SpecialToken {
    /// Its number.
    pub id: i32,
    /// Its text, as chat templates write it.
    pub text: String,
}

/// A device that the worker can compute on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceInfo {
    /// ggml's name, such as "CUDA0".
    pub name: String,
    /// What it calls itself.
    pub description: String,
    /// Whether it is a graphics card.
    pub is_gpu: bool,
    /// All of its memory, in bytes.
    pub memory_bytes: u64,
    /// Its free memory, in bytes.
    pub memory_free_bytes: u64,
}

/// Memory of the worker.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemoryUse {
    /// Bytes of the model's files that are mapped; None where the system does not tell.
    pub mapped_bytes: Option<u64>,
    /// How many of them are in memory.
    pub mapped_resident_bytes: Option<u64>,
    /// Bytes of the whole worker in memory, mapped files included.
    pub resident_bytes: Option<u64>,
    /// Bytes in memory that belong to no file.
    pub anonymous_bytes: Option<u64>,
    /// Page faults that had to read from a disk.
    pub major_faults: Option<u64>,
    /// What reading experts has done, when they are read by our own rule.
    pub experts: Option<ExpertCounts>,
}

/// What a worker is doing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// Conversations that can be computed side by side.
    pub slots: u32,
    /// How many of them are being answered.
    pub busy: u32,
    /// Requests that wait for one.
    pub waiting: u32,
    /// Tokens in the cache, of all conversations.
    pub held_tokens: u64,
    /// Room of one conversation in tokens.
    pub context_tokens: u32,
    /// Batches computed since loading.
    pub steps: u64,
    /// Requests that came to an end since loading, whatever end.
    pub finished: u64,
}

/// What was loaded.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct LoadInfo {
    /// The architecture's name in the file, such as "llama".
    pub architecture: String,
    /// llama.cpp's line about the model.
    pub description: String,
    /// Weights, counted one by one.
    pub parameters: u64,
    /// Bytes of all tensors.
    pub weights_bytes: u64,
    /// Blocks (layers).
    pub blocks: u32,
    /// Room of the context in tokens; 0 when only the vocabulary was loaded.
    pub context_tokens: u32,
    /// The most tokens of a text that is embedded; 0 when only the vocabulary was loaded.
    pub embedding_tokens: u32,
    /// How its file says that tokens become an embedding.
    pub pooling: Option<Pooling>,
    /// Numbers of an embedding.
    pub embedding_length: u32,
    /// The context that the model was trained on; 0 when the file does not say.
    pub context_trained_tokens: u32,
    /// Tokens in the vocabulary.
    pub vocabulary_tokens: u32,
    /// The token that begins a sequence.
    pub begin: Option<SpecialToken>,
    /// The token that ends a sequence.
    pub end: Option<SpecialToken>,
    /// The token that ends a turn.
    pub end_of_turn: Option<SpecialToken>,
    /// Whether the model wants `begin` in front of a text.
    pub adds_begin: bool,
    /// Tokens that steer a model and are no text: what their texts name only where a text is read for special tokens.
    pub control: Vec<SpecialToken>,
    /// Threads that generate.
    pub threads: u32,
    /// Milliseconds from the call to the loaded model.
    pub load_ms: f64,
    /// Memory after loading.
    pub memory: MemoryUse,
    /// Devices.
    pub devices: Vec<DeviceInfo>,
    /// What the worker is kept from, and what not.
    pub cage: CageInfo,
    /// Where the weights went: llama.cpp's own lines.
    pub placement: Vec<String>,
    /// What the person should know.
    pub warnings: Vec<String>,
    /// The rest of what llama.cpp warns about, most of it harmless.
    pub notes: Vec<String>,
}

/// Why a call failed.
#[derive(Debug, Clone, PartialEq, Eq, Error, Serialize, Deserialize)]
pub enum Failure {
    /// The file did not pass our own check; llama.cpp never saw it.
    #[error("{message}")]
    Refused {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        message: String,
        /// What can be done about it.
        hint: Option<String>,
    },
    /// llama.cpp did not load the file.
    #[error("{0}")]
    Load(String),
    /// The prompt does not fit.
    #[error("prompt: {prompt_tokens} tokens, the context has room for {context_tokens}")]
    PromptTooLong {
        /// Tokens of the prompt.
        prompt_tokens: usize,
        /// Room of the context.
        context_tokens: usize,
    },
    /// A text to embed does not fit.
    #[error(
        "text {text}: {tokens} tokens, the most that this model reads at once here is {limit_tokens}"
    )]
    TextTooLong {
        /// Which of the texts, counted from 1.
        text: usize,
        /// Its tokens.
        tokens: usize,
        /// The most that fit.
        limit_tokens: usize,
    },
    /// A model without a classifier was asked for scores.
    #[error("the model has no classifier: it cannot rank documents")]
    NoClassifier,
    /// A model that gives scores was asked for embeddings.
    #[error("the model ranks documents: its file says nothing of embeddings")]
    OnlyRanks,
    /// The request cannot be carried out as it is.
    #[error("{0}")]
    Request(String),
    /// As many requests wait as may.
    #[error("{waiting} requests are waiting already")]
    Busy {
        /// Their number.
        waiting: usize,
    },
    /// No model is loaded.
    #[error("no model is loaded")]
    NotLoaded,
    /// Only the vocabulary is loaded.
    #[error("only the vocabulary is loaded")]
    VocabularyOnly,
    /// The model was loaded to embed.
    #[error("the model is loaded for embeddings only")]
    EmbeddingsOnly,
    /// The call was cancelled.
    #[error("cancelled")]
    Cancelled,
    /// The computation failed.
    #[error("{0}")]
    Compute(String),
    /// The computation gives no numbers.
    #[error("{0}")]
    NotFinite(String),
}
