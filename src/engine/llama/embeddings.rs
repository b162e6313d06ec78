//! Embeddings and scores: a context of its own that reads many texts at once and keeps nothing.

use std::fmt;
use std::ptr::NonNull;
use std::sync::Arc;

use llama_cpp_sys_2 as sys;
use nfl_models::gguf::Gguf;

use super::context::{AbortFlag, Interrupt, Watch, create, parameters};
use super::{LlamaError, Model, Token, TokenizeOptions, Vocabulary, logs, text};
use crate::engine::embedding::{Embedding, EmbeddingOptions, Pooling, normalize};
use crate::engine::options::ContextOptions;

/// Texts that are read at once.
const SEQUENCES_MAX: usize = 32;

/// Where a reranking model's file says how query and document are put together.
const RERANK_TEMPLATE: &str = "tokenizer.chat_template.rerank";

/// Computes embeddings with one model.
pub struct Embedder {
    pointer: NonNull<sys::llama_context>,
    /// Read by llama.cpp while it computes, through a pointer: boxed, so that it never moves.
    interrupt: Box<Interrupt>,
    model: Arc<Model>,
    vocabulary: Vocabulary,
    pooling: Pooling,
    normalize: bool,
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

impl Embedder {
    /// For texts of up to `context_tokens` tokens, with a model whose file has a classifier of this
    /// many scores, if any. Raising `abort` stops a running computation.
    pub fn new(
        model: &Arc<Model>,
        options: &ContextOptions,
        (context_tokens, classes): (u32, Option<u64>),
        wanted: &EmbeddingOptions,
        abort: AbortFlag,
    ) -> Result<Self, LlamaError> {
        let mut params = parameters(options, context_tokens, SEQUENCES_MAX as u32);
        // A text that is looked at from both sides, or pooled, must be computed as a whole.
        params.n_batch = context_tokens;
        params.n_ubatch = context_tokens;
        params.embeddings = true;
        params.pooling_type = match wanted.pooling {
            None => sys::LLAMA_POOLING_TYPE_UNSPECIFIED,
            Some(Pooling::None) => sys::LLAMA_POOLING_TYPE_NONE,
            Some(Pooling::Mean) => sys::LLAMA_POOLING_TYPE_MEAN,
            Some(Pooling::Cls) => sys::LLAMA_POOLING_TYPE_CLS,
            Some(Pooling::Last) => sys::LLAMA_POOLING_TYPE_LAST,
            Some(Pooling::Rank) => sys::LLAMA_POOLING_TYPE_RANK,
        };
        // llama.cpp fails an assertion where the classifier gives less than it has labels for.
        let ranks = classes == Some(model.classes() as u64);
        if wanted.pooling == Some(Pooling::Rank) && !ranks {
            return Err(LlamaError::NoClassifier);
        }
        let mut interrupt = Box::new(Interrupt { flag: abort, watch: None });
        let pointer = create(model, params, context_tokens, &mut interrupt)?;
        // SAFETY: the context was just made.
        let pooling = match unsafe { sys::llama_pooling_type(pointer.as_ptr()) } {
            sys::LLAMA_POOLING_TYPE_MEAN => Pooling::Mean,
            sys::LLAMA_POOLING_TYPE_CLS => Pooling::Cls,
            sys::LLAMA_POOLING_TYPE_LAST => Pooling::Last,
            sys::LLAMA_POOLING_TYPE_RANK => Pooling::Rank,
            _ => Pooling::None,
        };
        let width =
            if pooling == Pooling::Rank { model.classes() } else { model.embedding_length() };
        let embedder = Self {
            pointer,
            interrupt,
            model: Arc::clone(model),
            vocabulary: model.vocabulary(),
            pooling,
            normalize: wanted.normalize && pooling != Pooling::Rank,
            capacity_tokens: context_tokens as usize,
            width,
        };
        if pooling == Pooling::Rank && !ranks {
            return Err(LlamaError::NoClassifier);
        }
        Ok(embedder)
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

    /// What the scores of a reranking model stand for, when its file names them.
    pub fn labels(&self) -> Vec<String> {
        if self.pooling != Pooling::Rank {
            return Vec::new();
        }
        (0..self.width as u32)
            .map(|class| {
                // SAFETY: the model is alive; unknown classes give null.
                text(unsafe { sys::llama_model_cls_label(self.model.as_ptr(), class) })
            })
            .collect()
    }

    /// The tokens of a query and a document, as a reranking model wants them beside each other.
    pub fn pair(&self, query: &str, document: &str) -> Result<Vec<Token>, LlamaError> {
        let vocabulary = &self.vocabulary;
        let plain = TokenizeOptions { add_special: false, parse_special: false };
        let template = self.model.metadata_of_any_length(RERANK_TEMPLATE);
        if let Some(template) = template.filter(|template| !template.is_empty()) {
            // The texts are put in as they are, but only the template's own words are special.
            let options = TokenizeOptions { add_special: true, parse_special: true };
            let whole = template.replace("{query}", query).replace("{document}", document);
            return vocabulary.tokenize(&whole, options);
        }
        let end = vocabulary.end().or_else(|| vocabulary.separator());
        let mut tokens = Vec::new();
        tokens.extend(vocabulary.begin().filter(|_| vocabulary.adds_begin()));
        tokens.extend(vocabulary.tokenize(query, plain)?);
        tokens.extend(end.filter(|_| vocabulary.adds_end()));
        tokens.extend(vocabulary.separator().filter(|_| vocabulary.adds_separator()));
        tokens.extend(vocabulary.tokenize(document, plain)?);
        tokens.extend(end.filter(|_| vocabulary.adds_end()));
        Ok(tokens)
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
        for text in texts.iter().take(SEQUENCES_MAX) {
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
        let mut vector = unsafe { std::slice::from_raw_parts(pointer, self.width) }.to_vec();
        if let Some(place) = vector.iter().position(|value| !value.is_finite()) {
            return Err(LlamaError::NotFinite(place));
        }
        if self.normalize {
            normalize(&mut vector);
        }
        Ok(vector)
    }
}

impl Drop for Embedder {
    fn drop(&mut self) {
        // SAFETY: nobody else owns the context; model and interrupt are dropped after it.
        unsafe { sys::llama_free(self.pointer.as_ptr()) };
    }
}

/// How many scores the classifier of a file gives; None without a classifier.
pub fn classifier_scores(gguf: &Gguf) -> Option<u64> {
    let tensor = gguf.tensor("cls.output.weight").or_else(|| gguf.tensor("cls.weight"))?;
    // A single row may be stored as a vector.
    Some(tensor.dimensions.get(1).copied().unwrap_or(1))
}
