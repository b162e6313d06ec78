//! Embeddings and scores: a context of its own that reads many texts at once and keeps nothing.

use std::fmt;
use std::ptr::NonNull;
use std::sync::Arc;

use llama_cpp_sys_2 as sys;

use super::context::{AbortFlag, Interrupt, Watch, create, parameters};
use super::{LlamaError, Model, Token, Vocabulary, logs};
use crate::engine::embedding::{Embedding, Pooling};
use crate::engine::options::ContextOptions;

/// Texts that are read at once.
pub const TEXTS_MAX: usize = 32;

/// Computes embeddings with one model.
pub struct Embedder {
    pointer: NonNull<sys::llama_context>,
    /// Read by llama.cpp while it computes, through a pointer: boxed, so that it never moves.
    interrupt: Box<Interrupt>,
    model: Arc<Model>,
    vocabulary: Vocabulary,
    pooling: Pooling,
    /// The most tokens of one text, and of all that are read at once.
    capacity_tokens: usize,
    /// Numbers of one vector.
    width: usize,
}

// SAFETY: an embedder is used by one thread at a time (every method that computes takes `&mut
// self`), and llama.cpp ties nothing to the thread that created it.
unsafe impl Send for Embedder {}

impl fmt::Debug for Embedder {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Embedder")
            .field("pooling", &self.pooling)
            .field("capacity_tokens", &self.capacity_tokens)
            .field("width", &self.width)
            .finish_non_exhaustive()
    }
}

/// How much an embedder takes at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EmbedderSize {
    /// Tokens of the context: the same for all texts, because some models compute by it.
    pub context_tokens: u32,
    /// The most tokens of one text, and of all that are read at once; memory grows with it.
    pub batch_tokens: u32,
}

impl Embedder {
    /// With a model of which `ranks` says whether it can score. Raising `abort` stops a running computation.
    pub fn new(
        model: &Arc<Model>,
        options: &ContextOptions,
        size: EmbedderSize,
        (pooling, ranks): (Pooling, bool),
        abort: AbortFlag,
    ) -> Result<Self, LlamaError> {
        let batch_tokens = size.batch_tokens.clamp(1, size.context_tokens);
        let mut params = parameters(options, size.context_tokens, TEXTS_MAX as u32);
        // A text that is looked at from both sides, or pooled, must be computed as a whole.
        params.n_batch = batch_tokens;
        params.n_ubatch = batch_tokens;
        params.embeddings = true;
        params.pooling_type = match pooling {
            Pooling::None => sys::LLAMA_POOLING_TYPE_NONE,
            Pooling::Mean => sys::LLAMA_POOLING_TYPE_MEAN,
            Pooling::Cls => sys::LLAMA_POOLING_TYPE_CLS,
            Pooling::Last => sys::LLAMA_POOLING_TYPE_LAST,
            Pooling::Rank => sys::LLAMA_POOLING_TYPE_RANK,
        };
        // llama.cpp fails an assertion where the classifier gives less than it has labels for.
        if pooling == Pooling::Rank && !ranks {
            return Err(LlamaError::NoClassifier);
        }
        let mut interrupt = Box::new(Interrupt { flag: abort, watch: None });
        let pointer = create(model, params, size.context_tokens, &mut interrupt)?;
        let width =
            if pooling == Pooling::Rank { model.classes() } else { model.embedding_length() };
        Ok(Self {
            pointer,
            interrupt,
            model: Arc::clone(model),
            vocabulary: model.vocabulary(),
            pooling,
            capacity_tokens: batch_tokens as usize,
            width,
        })
    }

    /// Asks this, too, whether a running computation is to be stopped. It must be quick.
    pub fn set_watch(&mut self, watch: Watch) {
        self.interrupt.watch = Some(watch);
    }

    /// How tokens become one vector.
    pub fn pooling(&self) -> Pooling {
        self.pooling
    }

    /// The most tokens of one text.
    pub fn capacity_tokens(&self) -> usize {
        self.capacity_tokens
    }

    /// Numbers of one vector.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Whether a text can be embedded; an error says why not.
    pub fn check(&self, tokens: &[Token]) -> Result<(), LlamaError> {
        if tokens.is_empty() {
            return Err(LlamaError::EmptyText);
        }
        if tokens.len() > self.capacity_tokens {
            let (used, context_tokens, asked) = (0, self.capacity_tokens, tokens.len());
            return Err(LlamaError::ContextFull { used, context_tokens, asked });
        }
        tokens.iter().try_for_each(|&token| self.vocabulary.check(token))
    }

    /// The embeddings of texts, in their order.
    pub fn embed(&mut self, texts: &[Vec<Token>]) -> Result<Vec<Embedding>, LlamaError> {
        let mut embeddings = Vec::with_capacity(texts.len());
        while embeddings.len() < texts.len() {
            self.embed_some(&texts[embeddings.len()..], &mut embeddings)?;
        }
        Ok(embeddings)
    }

    /// Computes one batch: the embeddings of the first texts, at least of one.
    pub fn embed_some(
        &mut self,
        texts: &[Vec<Token>],
        embeddings: &mut Vec<Embedding>,
    ) -> Result<(), LlamaError> {
        let (mut count, mut tokens) = (0, 0);
        for text in texts.iter().take(TEXTS_MAX) {
            self.check(text)?;
            tokens += text.len();
            if tokens > self.capacity_tokens {
                break;
            }
            count += 1;
        }
        if count == 0 {
            return Ok(());
        }
        self.batch(&texts[..count], embeddings)
    }

    /// Texts that fit into one batch, each a sequence of its own.
    fn batch(
        &mut self,
        texts: &[Vec<Token>],
        embeddings: &mut Vec<Embedding>,
    ) -> Result<(), LlamaError> {
        let mut tokens: Vec<Token> = texts.iter().flatten().copied().collect();
        let mut positions: Vec<i32> = Vec::with_capacity(tokens.len());
        let mut sequences: Vec<i32> = Vec::with_capacity(tokens.len());
        for (sequence, text) in texts.iter().enumerate() {
            positions.extend(0..text.len() as i32);
            sequences.resize(positions.len(), sequence as i32);
        }
        let mut pointers: Vec<*mut i32> =
            sequences.iter_mut().map(|sequence| &raw mut *sequence).collect();
        let mut counts = vec![1_i32; tokens.len()];
        let mut outputs = vec![1_i8; tokens.len()];
        let batch = sys::llama_batch {
            n_tokens: tokens.len() as i32,
            token: tokens.as_mut_ptr(),
            embd: std::ptr::null_mut(),
            pos: positions.as_mut_ptr(),
            n_seq_id: counts.as_mut_ptr(),
            seq_id: pointers.as_mut_ptr(),
            logits: outputs.as_mut_ptr(),
        };
        let context = self.pointer.as_ptr();
        let mark = logs::mark();
        // SAFETY: all lists have `n_tokens` entries and outlive the call; tokens and sequences are in
        // their ranges; the batch is within the limits that llama.cpp asserts. A context without
        // memory has a null one, which llama.cpp handles.
        let code = unsafe {
            sys::llama_memory_clear(sys::llama_get_memory(context), false);
            if sys::llama_model_has_encoder(self.model.as_ptr()) {
                sys::llama_encode(context, batch)
            } else {
                sys::llama_decode(context, batch)
            }
        };
        match code {
            0 => {}
            2 => return Err(LlamaError::Aborted),
            _ => return Err(LlamaError::Decode { code, reason: logs::reason_since(mark) }),
        }
        let mut start = 0;
        for (sequence, text) in texts.iter().enumerate() {
            let mut vectors = Vec::new();
            if self.pooling == Pooling::None {
                for place in start..start + text.len() {
                    // SAFETY: the context is alive and this token asked for an output.
                    let pointer = unsafe { sys::llama_get_embeddings_ith(context, place as i32) };
                    vectors.push(self.vector(pointer)?);
                }
            } else {
                // SAFETY: the context is alive; unknown sequences give null.
                let pointer = unsafe { sys::llama_get_embeddings_seq(context, sequence as i32) };
                vectors.push(self.vector(pointer)?);
            }
            start += text.len();
            embeddings.push(Embedding { vectors, tokens: text.len() as u32 });
        }
        Ok(())
    }

    fn vector(&self, pointer: *const f32) -> Result<Vec<f32>, LlamaError> {
        if pointer.is_null() {
            return Err(LlamaError::NoEmbedding);
        }
        // SAFETY: a vector has `width` entries, in memory of the context that stays until the next
        // batch.
        let vector = unsafe { std::slice::from_raw_parts(pointer, self.width) }.to_vec();
        match vector.iter().position(|value| !value.is_finite()) {
            Some(place) => Err(LlamaError::NotFinite(place)),
            None => Ok(vector),
        }
    }
}

impl Drop for Embedder {
    fn drop(&mut self) {
        // SAFETY: nobody else owns the context; model and interrupt are dropped after it.
        unsafe { sys::llama_free(self.pointer.as_ptr()) };
    }
}
