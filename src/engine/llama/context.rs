//! A context: the key-value cache of one conversation and the computation on it.

use std::ffi::c_void;
use std::fmt;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use llama_cpp_sys_2 as sys;

use super::observe::{Observed, Observer};
use super::vocabulary::Vocabulary;
use super::{LlamaError, Model, Token, logs};
use crate::engine::options::{CacheType, ContextOptions, FlashAttention};

/// Bytes of logits of one call. It bounds how many positions of a batch may ask for theirs: a full
/// batch of a large vocabulary would reserve more than a gigabyte that generation never needs.
const LOGITS_BYTES_MAX: usize = 64 << 20;

/// The only sequence of a context.
const SEQUENCE: sys::llama_seq_id = 0;

/// A flag that stops a computation; cheap to share and to raise from anywhere.
pub type AbortFlag = Arc<AtomicBool>;

/// A context of one sequence.
pub struct Context {
    pointer: NonNull<sys::llama_context>,
    model: Arc<Model>,
    vocabulary: Vocabulary,
    /// Read by llama.cpp during decoding, through a pointer.
    _abort: AbortFlag,
    /// Read by llama.cpp during decoding, through a pointer: boxed, so that it never moves.
    observed: Option<Box<Observed>>,
    capacity_tokens: usize,
    batch_tokens: usize,
    outputs_max: usize,
    /// Positions of the last batch that have logits.
    outputs: usize,
    marks: Vec<i8>,
}

// SAFETY: a context is used by one thread at a time (every method that touches it takes `&mut
// self`), and llama.cpp ties nothing to the thread that created it.
unsafe impl Send for Context {}

impl fmt::Debug for Context {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Context")
            .field("capacity_tokens", &self.capacity_tokens)
            .field("batch_tokens", &self.batch_tokens)
            .finish_non_exhaustive()
    }
}

impl Context {
    /// Creates a context of `context_tokens` tokens (llama.cpp reserves up to 255 more, which stay
    /// unused). Raising `abort` stops a running computation on it.
    pub fn new(
        model: &Arc<Model>,
        options: &ContextOptions,
        context_tokens: u32,
        abort: AbortFlag,
        observer: Option<Box<dyn Observer>>,
    ) -> Result<Self, LlamaError> {
        /// Creating two contexts of one model at once is not sound in llama.cpp.
        static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
        let vocabulary = model.vocabulary();
        let mut observed = observer.map(|observer| Box::new(Observed::new(observer)));
        let row_bytes = (vocabulary.len() * size_of::<f32>()).max(1);
        let batch_tokens = options.batch_tokens.max(1);
        let outputs_max = (LOGITS_BYTES_MAX / row_bytes).clamp(1, batch_tokens as usize);
        let mut params = parameters(options, context_tokens);
        params.n_outputs_max = outputs_max as u32;
        params.abort_callback = Some(on_abort);
        params.abort_callback_data = Arc::as_ptr(&abort).cast_mut().cast::<c_void>();
        if let Some(observed) = &mut observed {
            params.cb_eval = Some(Observed::callback);
            params.cb_eval_user_data = (&raw mut **observed).cast::<c_void>();
        }
        let guard = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
        let mark = logs::mark();
        // SAFETY: the model is alive; the abort flag and the observer are owned by the context that
        // is made here.
        let pointer = unsafe { sys::llama_init_from_model(model.as_ptr(), params) };
        drop(guard);
        let Some(pointer) = NonNull::new(pointer) else {
            let reason = logs::reason_since(mark);
            return Err(LlamaError::Context { context_tokens, reason });
        };
        // SAFETY: the context was just made.
        let (context, batch) = unsafe {
            (sys::llama_n_ctx_seq(pointer.as_ptr()), sys::llama_n_batch(pointer.as_ptr()))
        };
        Ok(Self {
            pointer,
            model: Arc::clone(model),
            vocabulary,
            _abort: abort,
            observed,
            capacity_tokens: context.min(context_tokens) as usize,
            batch_tokens: (batch as usize).max(1),
            outputs_max,
            outputs: 0,
            marks: Vec::new(),
        })
    }

    pub(super) fn as_ptr(&self) -> *mut sys::llama_context {
        self.pointer.as_ptr()
    }

    /// The vocabulary of its model.
    pub fn vocabulary(&self) -> &Vocabulary {
        &self.vocabulary
    }

    /// Its model.
    pub fn model(&self) -> &Arc<Model> {
        &self.model
    }

    /// Its room in tokens.
    pub fn context_tokens(&self) -> usize {
        self.capacity_tokens
    }

    /// The most tokens of one [`Context::decode`].
    pub fn batch_tokens(&self) -> usize {
        self.batch_tokens
    }

    /// The most tokens that are computed at once: larger batches gain nothing.
    pub fn micro_batch_tokens(&self) -> usize {
        // SAFETY: the context is alive.
        (unsafe { sys::llama_n_ubatch(self.as_ptr()) } as usize).clamp(1, self.batch_tokens)
    }

    /// The most logits rows of one [`Context::decode`].
    pub fn outputs_max(&self) -> usize {
        self.outputs_max.min(self.batch_tokens)
    }

    /// The observer, to read what it gathered.
    pub fn observer(&mut self) -> Option<&mut dyn Observer> {
        self.observed.as_mut().map(|observed| observed.observer())
    }

    /// Tokens in the key-value cache.
    pub fn used_tokens(&self) -> usize {
        // SAFETY: the context is alive; a context without memory has a null one, which llama.cpp
        // handles.
        let last = unsafe { sys::llama_memory_seq_pos_max(self.memory(), SEQUENCE) };
        usize::try_from(last.saturating_add(1)).unwrap_or(0)
    }

    /// The first position that is still in the key-value cache: above 0 when a sliding window moved
    /// on.
    pub fn first_position(&self) -> Option<usize> {
        // SAFETY: as above.
        usize::try_from(unsafe { sys::llama_memory_seq_pos_min(self.memory(), SEQUENCE) }).ok()
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.outputs = 0;
        // SAFETY: the context is alive. The data need not be zeroed: masked cells are never read.
        unsafe { sys::llama_memory_clear(self.memory(), false) };
    }

    /// Forgets everything from a position on; false when this kind of memory cannot.
    pub fn truncate(&mut self, position: usize) -> bool {
        self.outputs = 0;
        let position = i32::try_from(position).unwrap_or(i32::MAX);
        // SAFETY: the context is alive.
        unsafe { sys::llama_memory_seq_rm(self.memory(), SEQUENCE, position, -1) }
    }

    /// Computes tokens that follow those in the cache, with logits from index `outputs_from` of the
    /// batch on. At most [`Context::batch_tokens`] of them, and [`Context::outputs_max`] with
    /// logits.
    pub fn decode(&mut self, tokens: &[Token], outputs_from: usize) -> Result<(), LlamaError> {
        let outputs = tokens.len().saturating_sub(outputs_from);
        if tokens.len() > self.batch_tokens || outputs > self.outputs_max {
            return Err(LlamaError::Batch { tokens: tokens.len(), outputs });
        }
        if tokens.is_empty() {
            return Ok(());
        }
        for &token in tokens {
            self.vocabulary.check(token)?;
        }
        let used = self.used_tokens();
        if used + tokens.len() > self.capacity_tokens {
            let (context_tokens, asked) = (self.capacity_tokens, tokens.len());
            return Err(LlamaError::ContextFull { used, context_tokens, asked });
        }
        self.marks.clear();
        self.marks.resize(tokens.len() - outputs, 0);
        self.marks.resize(tokens.len(), 1);
        self.outputs = 0;
        let batch = sys::llama_batch {
            n_tokens: tokens.len() as i32,
            // llama.cpp only reads through this pointer; its type is older than const.
            token: tokens.as_ptr().cast_mut(),
            embd: std::ptr::null_mut(),
            pos: std::ptr::null_mut(),
            n_seq_id: std::ptr::null_mut(),
            seq_id: std::ptr::null_mut(),
            logits: self.marks.as_mut_ptr(),
        };
        let mark = logs::mark();
        // SAFETY: tokens and marks have `n_tokens` entries and outlive the call; the tokens exist
        // in the vocabulary; the batch is within the limits that llama.cpp asserts.
        let code = unsafe { sys::llama_decode(self.as_ptr(), batch) };
        match code {
            0 => {
                self.outputs = outputs;
                Ok(())
            }
            2 => Err(LlamaError::Aborted),
            1 => Err(LlamaError::ContextFull {
                used,
                context_tokens: self.capacity_tokens,
                asked: tokens.len(),
            }),
            _ => Err(LlamaError::Decode { code, reason: logs::reason_since(mark) }),
        }
    }

    /// The logits of output `index` of the last batch (0 is the first position that asked for
    /// them).
    pub fn logits(&mut self, index: usize) -> Result<&mut [f32], LlamaError> {
        let position = (self.marks.len() - self.outputs).saturating_add(index);
        let position = i32::try_from(position).unwrap_or(i32::MAX);
        if index >= self.outputs {
            return Err(LlamaError::NoLogits(position));
        }
        // SAFETY: the context is alive and the position asked for logits in the last batch.
        let pointer = unsafe { sys::llama_get_logits_ith(self.as_ptr(), position) };
        if pointer.is_null() {
            return Err(LlamaError::NoLogits(position));
        }
        // SAFETY: a row has one entry a token of the vocabulary, in memory of the context that
        // stays until the next decode, which needs `&mut self`.
        Ok(unsafe { std::slice::from_raw_parts_mut(pointer, self.vocabulary.len()) })
    }

    /// The logits of the last output of the last batch.
    pub fn logits_of_last(&mut self) -> Result<&mut [f32], LlamaError> {
        let last = self.outputs.checked_sub(1).ok_or(LlamaError::NoLogits(-1))?;
        self.logits(last)
    }

    /// Where the last output of the last batch is, as llama.cpp's samplers want it.
    pub(super) fn last_output(&self) -> Result<i32, LlamaError> {
        if self.outputs == 0 { Err(LlamaError::NoLogits(-1)) } else { Ok(-1) }
    }

    fn memory(&self) -> sys::llama_memory_t {
        // SAFETY: the context is alive.
        unsafe { sys::llama_get_memory(self.as_ptr()) }
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        // SAFETY: nobody else owns the context; model, flag and observer are dropped after it.
        unsafe { sys::llama_free(self.as_ptr()) };
    }
}

fn parameters(options: &ContextOptions, context_tokens: u32) -> sys::llama_context_params {
    // SAFETY: takes nothing and returns a plain struct.
    let mut params = unsafe { sys::llama_context_default_params() };
    params.n_ctx = context_tokens;
    params.n_batch = options.batch_tokens.max(1);
    params.n_ubatch = options.micro_batch_tokens.clamp(1, options.batch_tokens.max(1));
    params.n_seq_max = 1;
    params.n_threads = i32::try_from(options.threads.max(1)).unwrap_or(1);
    params.n_threads_batch = i32::try_from(options.prompt_threads.max(1)).unwrap_or(1);
    params.flash_attn_type = match options.flash_attention {
        FlashAttention::Auto => sys::LLAMA_FLASH_ATTN_TYPE_AUTO,
        FlashAttention::On => sys::LLAMA_FLASH_ATTN_TYPE_ENABLED,
        FlashAttention::Off => sys::LLAMA_FLASH_ATTN_TYPE_DISABLED,
    };
    params.type_k = cache_type(options.key_type);
    params.type_v = cache_type(options.value_type);
    params.no_perf = true;
    // A full-size cache for layers that only look back a window would be memory for nothing.
    params.swa_full = false;
    params
}

fn cache_type(kind: CacheType) -> sys::ggml_type {
    match kind {
        CacheType::F32 => sys::GGML_TYPE_F32,
        CacheType::F16 => sys::GGML_TYPE_F16,
        CacheType::BF16 => sys::GGML_TYPE_BF16,
        CacheType::Q8_0 => sys::GGML_TYPE_Q8_0,
        CacheType::Q5_1 => sys::GGML_TYPE_Q5_1,
        CacheType::Q5_0 => sys::GGML_TYPE_Q5_0,
        CacheType::Q4_1 => sys::GGML_TYPE_Q4_1,
        CacheType::Q4_0 => sys::GGML_TYPE_Q4_0,
    }
}

unsafe extern "C" fn on_abort(data: *mut c_void) -> bool {
    // SAFETY: `data` is the flag that the context owns.
    unsafe { &*data.cast::<AtomicBool>() }.load(Ordering::Relaxed)
}
