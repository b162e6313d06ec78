//! A thin owning wrapper over `llama-cpp-sys-2`: the only `unsafe` code of the engine.
//!
//! The safe crate `llama-cpp-2` keeps its pointers private, so that nothing loaded with it can
//! reach what only the sys crate offers (evaluation callbacks, abort flags, `use_extra_bufts`, load
//! modes). Model and context are therefore owned here; the safe crate serves where no pointer is
//! shared (the list of devices).
//!
//! Every number that ggml would assert on is checked before the call: a failed assertion aborts the
//! process.

#![expect(unsafe_code, reason = "calls into llama.cpp; each block says why it is sound")]

mod adapter;
mod advise;
pub mod backends;
mod batch;
mod chain;
mod constraint;
mod context;
mod control_vector;
mod devices;
mod embeddings;
mod fit;
mod ggml;
mod infill;
mod library;
mod logprobs;
mod logs;
mod model;
mod observe;
mod penalties;
mod prediction;
pub mod ranking;
mod sampler;
#[cfg(test)]
mod sampler_tests;
mod steady;
#[cfg(test)]
mod steering_tests;
#[cfg(test)]
pub(in crate::engine) mod tiny;
#[cfg(test)]
pub(in crate::engine) mod tiny_mtp;
mod vocabulary;

use std::ffi::{CStr, c_char};
use std::path::PathBuf;
use std::sync::OnceLock;

use llama_cpp_sys_2 as sys;
use thiserror::Error;

use crate::engine::grammar::GrammarError;

pub use adapter::{Adapters, Steered};
pub use advise::{Mapping, Overlay, Span, Staging, page_bytes};
pub use backends::Module;
pub use batch::Batch;
pub use context::{AbortFlag, Context, Sequence, Watch};
pub use devices::{Device, DeviceKind, devices};
pub use embeddings::{Embedder, EmbedderSize, TEXTS_MAX};
pub use fit::{Measured, measure};
pub use ggml::{BlockError, decode_blocks, encode_blocks};
pub use infill::{Infill, InfillFile, InfillTokens};
pub use logprobs::{Logprobs, TOP_LOGPROBS_MAX};
pub use logs::{Line, LogLevel, Mark};
pub use model::Model;
pub use observe::{Observer, TensorView};
pub use prediction::{HiddenStates, PREDICTION_BATCH_TOKENS};
pub use sampler::{Sampler, argmax, check_finite};
pub use vocabulary::{TokenizeOptions, Vocabulary};

/// A token's number in its vocabulary.
pub type Token = i32;

/// Proof that llama.cpp's backend is initialised and its log goes to the ring of [`logs`], never to
/// the terminal.
#[derive(Debug)]
pub struct Backend {
    modules: Vec<Module>,
}

impl Backend {
    /// Initialises llama.cpp on the first call of the process, with the back-end modules of the
    /// settings' folder.
    pub fn get() -> &'static Backend {
        Self::initialised(backends::load_all)
    }

    /// As [`Self::get`], but a first call loads one module and no other, or none: for finding out
    /// which of them works.
    pub fn with_module(module: Option<PathBuf>) -> &'static Backend {
        Self::initialised(|| module.map(backends::load).into_iter().collect())
    }

    fn initialised(modules: impl FnOnce() -> Vec<Module>) -> &'static Backend {
        static BACKEND: OnceLock<Backend> = OnceLock::new();
        BACKEND.get_or_init(|| {
            logs::install();
            // SAFETY: takes no arguments and runs once, because the cell's closure does.
            unsafe { sys::llama_backend_init() };
            Backend { modules: modules() }
        })
    }

    /// The modules that were found, loaded or refused.
    pub fn modules(&self) -> &[Module] {
        &self.modules
    }

    /// The modules that were refused, each with its reason.
    pub fn refused(&self) -> Vec<String> {
        let refusal = |module: &Module| {
            let reason = module.outcome.as_ref().err()?;
            Some(format!("back-end {}: {reason}", module.path.display()))
        };
        self.modules.iter().filter_map(refusal).collect()
    }

    /// What ggml's code for the processor was compiled to use, such as "AVX2".
    pub fn compiled_features(&self) -> Vec<String> {
        // SAFETY: takes no arguments and returns a string that lives until the next call; the
        // backend's proof of initialisation keeps callers in line, and the text is copied at once.
        let words = text(unsafe { sys::llama_print_system_info() });
        // "CPU : SSE3 = 1 | AVX2 = 1 | … |"
        words
            .split('|')
            .filter_map(|part| part.rsplit(" : ").next()?.trim().strip_suffix(" = 1"))
            .map(str::to_owned)
            .collect()
    }

    /// The position in the log before anything happened.
    pub fn beginning(&self) -> Mark {
        Mark::default()
    }

    /// A position in the log, to read later what came after it.
    pub fn mark(&self) -> Mark {
        logs::mark()
    }

    /// The lines logged since a mark, as far as the ring still holds them.
    pub fn lines_since(&self, mark: Mark) -> Vec<Line> {
        logs::lines_since(mark)
    }
}

/// Why llama.cpp refused.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum LlamaError {
    /// A path that C cannot take.
    #[error("{0}: the path contains a zero byte")]
    Path(String),
    /// A pattern that C cannot take.
    #[error("{0}: the pattern contains a zero byte")]
    Pattern(String),
    /// The caller's progress callback said stop.
    #[error("loading was cancelled")]
    Cancelled,
    /// The model was not loaded.
    #[error("{path}: {reason}")]
    Load {
        /// The file.
        path: String,
        /// The last lines of llama.cpp's log.
        reason: String,
    },
    /// The context was not created.
    #[error("context of {context_tokens} tokens: {reason}")]
    Context {
        /// Tokens asked for.
        context_tokens: u32,
        /// The last lines of llama.cpp's log.
        reason: String,
    },
    /// A token that the vocabulary does not have.
    #[error("token {token}: the vocabulary has {vocabulary_tokens}")]
    Token {
        /// The token.
        token: Token,
        /// The size of the vocabulary.
        vocabulary_tokens: usize,
    },
    /// The file has no vocabulary to tokenise with.
    #[error("the model has no tokenizer")]
    NoTokenizer,
    /// More text than the tokenizer takes.
    #[error("text of {0} bytes: more than the tokenizer takes")]
    TextTooLong(usize),
    /// No room for the tokens.
    #[error(
        "the context is full: {used} of {context_tokens} tokens are taken, {asked} more were asked"
    )]
    ContextFull {
        /// Tokens in the context.
        used: usize,
        /// Room of the context.
        context_tokens: usize,
        /// Tokens that were to be added.
        asked: usize,
    },
    /// More at once than the context takes; a mistake of the caller.
    #[error("a batch of {tokens} tokens with {outputs} rows of logits is too large")]
    Batch {
        /// Tokens of the batch.
        tokens: usize,
        /// Rows of logits asked for.
        outputs: usize,
    },
    /// The abort flag was raised.
    #[error("the computation was cancelled")]
    Aborted,
    /// The computation failed.
    #[error("decoding failed with code {code}: {reason}")]
    Decode {
        /// What llama.cpp returned.
        code: i32,
        /// The last lines of its log.
        reason: String,
    },
    /// Logits were asked for where none were computed.
    #[error("no logits at output {0}")]
    NoLogits(i32),
    /// Logits that no token can be chosen from: a damaged model, or one whose training diverged.
    #[error("the model computes values that are not numbers: the logit of token {0}")]
    NotFinite(usize),
    /// A sampler could not be created.
    #[error("the sampler could not be created")]
    Sampler,
    /// The fill-in-the-middle sampler does not suit the vocabulary.
    #[error("sampler infill: {0}")]
    Infill(&'static str),
    /// An adapter or control vector that cannot be used.
    #[error("{path}: {problem}")]
    Adapter {
        /// The file.
        path: String,
        /// Why not.
        problem: String,
    },
    /// Adapters or control vectors that a context does not take.
    #[error("{0}")]
    Steering(String),
    /// A model without a classifier was asked for scores.
    #[error("the model has no classifier: it cannot rank")]
    NoClassifier,
    /// A vocabulary without a token between two texts.
    #[error("the vocabulary has no token that parts a query and a document")]
    NoSeparator,
    /// Nothing to embed.
    #[error("a text without tokens has no embedding")]
    EmptyText,
    /// The computation gave none.
    #[error("llama.cpp gave no embedding")]
    NoEmbedding,
    /// A vocabulary without tokens for fill-in-the-middle.
    #[error("the model has no tokens for fill-in-the-middle")]
    NoInfill,
    /// A vocabulary without tokens for other files.
    #[error("the model has no tokens for repositories and files beside the text to fill in")]
    NoInfillFiles,
    /// Biases and the model forbid every token.
    #[error("every token is forbidden: by the model or by logit bias")]
    NothingToChoose,
    /// A constraint that no token of this vocabulary can go on with.
    #[error("the constraint leaves no token of this vocabulary that could follow")]
    NothingFollows,
    /// A grammar or schema that cannot be used.
    #[error(transparent)]
    Grammar(#[from] GrammarError),
}

/// An owned copy of a C string that may be null.
fn text(pointer: *const c_char) -> String {
    if pointer.is_null() {
        return String::new();
    }
    // SAFETY: not null, and llama.cpp hands out zero-terminated strings that live as long as their
    // owner.
    unsafe { CStr::from_ptr(pointer) }.to_string_lossy().into_owned()
}
