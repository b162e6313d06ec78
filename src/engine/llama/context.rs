//! A context: the key-value cache of one or more sequences of tokens and the computation on it.

use std::ffi::c_void;
use std::fmt;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use llama_cpp_sys_2 as sys;

use super::batch::Batch;
use super::observe::{Observed, Observer};
use super::prediction::HiddenStates;
use super::steady::Steady;
use super::vocabulary::Vocabulary;
use super::{LlamaError, Model, Token, logs};
use crate::engine::options::{CacheType, ContextOptions, FlashAttention, SEQUENCES_MAX};

/// Bytes of logits of one call. It bounds how many positions of a batch may ask for theirs: a full
/// batch of a large vocabulary would reserve more than a gigabyte that generation never needs.
const LOGITS_BYTES_MAX: usize = 64 << 20;

/// A sequence of tokens in the cache: a number below [`Context::sequences`].
pub type Sequence = u16;

/// The most cells of a cache: positions and cells are 32-bit numbers with a sign.
const CELLS_MAX: u32 = 1 << 30;

/// A flag that stops a computation; cheap to share and to raise from anywhere.
pub type AbortFlag = Arc<AtomicBool>;

/// What llama.cpp asks, very often, whether to go on.
pub(super) struct Interrupt {
    pub(super) flag: AbortFlag,
    pub(super) watch: Option<Watch>,
}

/// Says in the middle of a computation whether to stop it; called on the thread that computes.
pub type Watch = Box<dyn FnMut() -> bool + Send>;

/// A context: sequences that share one cache and are computed together.
pub struct Context {
    pointer: NonNull<sys::llama_context>,
    model: Arc<Model>,
    vocabulary: Vocabulary,
    /// Read by llama.cpp during decoding, through a pointer: boxed, so that it never moves.
    interrupt: Box<Interrupt>,
    /// Read by llama.cpp during decoding, through a pointer: boxed, so that it never moves.
    observed: Option<Box<Observed>>,
    /// Room of one sequence.
    capacity_tokens: usize,
    batch_tokens: usize,
    outputs_max: usize,
    sequences: usize,
    /// Where in the last batch the tokens with logits are.
    outputs: Vec<i32>,
    /// The batch of [`Context::decode`], kept for its memory.
    own_batch: Batch,
    /// Keeps batches to one order of summation.
    steady: Option<Steady>,
    /// Which tokens leave their state.
    pub(super) hidden_states: HiddenStates,
    /// Numbers of the state that comes with each token; 0 for a context that takes none.
    pub(super) input_state_length: usize,
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
    /// Creates a context whose sequences have room for `context_tokens` tokens each (llama.cpp
    /// reserves up to 255 more in all, which stay unused). Raising `abort` stops a running
    /// computation on it.
    ///
    /// The sequences share one pool of cells: a beginning that several of them have in common is
    /// kept once, and tokens of all of them fit one pass over the weights.
    pub fn new(
        model: &Arc<Model>,
        options: &ContextOptions,
        context_tokens: u32,
        abort: AbortFlag,
        observer: Option<Box<dyn Observer>>,
    ) -> Result<Self, LlamaError> {
        let kind = sys::LLAMA_CONTEXT_TYPE_DEFAULT;
        Self::open(model, options, (context_tokens, kind), abort, observer)
    }

    /// A context that computes the model, or a part of it.
    pub(super) fn open(
        model: &Arc<Model>,
        options: &ContextOptions,
        (context_tokens, kind): (u32, sys::llama_context_type),
        abort: AbortFlag,
        observer: Option<Box<dyn Observer>>,
    ) -> Result<Self, LlamaError> {
        let vocabulary = model.vocabulary();
        let mut observed = observer.map(|observer| Box::new(Observed::new(observer)));
        let row_bytes = (vocabulary.len() * size_of::<f32>()).max(1);
        let batch_tokens = options.batch_tokens.max(1);
        let sequences = options.sequences.clamp(1, SEQUENCES_MAX);
        let cells = context_tokens.saturating_mul(sequences).min(CELLS_MAX);
        let outputs_max = (LOGITS_BYTES_MAX / row_bytes).clamp(1, batch_tokens as usize);
        let mut params = parameters(options, cells, sequences);
        params.n_outputs_max = outputs_max as u32;
        params.ctx_type = kind;
        let mut interrupt = Box::new(Interrupt { flag: abort, watch: None });
        if let Some(observed) = &mut observed {
            params.cb_eval = Some(Observed::callback);
            params.cb_eval_user_data = (&raw mut **observed).cast::<c_void>();
        }
        let pointer = create(model, params, context_tokens, &mut interrupt)?;
        // SAFETY: the context was just made.
        let (context, batch) =
            unsafe { (sys::llama_n_ctx(pointer.as_ptr()), sys::llama_n_batch(pointer.as_ptr())) };
        Ok(Self {
            pointer,
            model: Arc::clone(model),
            vocabulary,
            interrupt,
            observed,
            capacity_tokens: (context / sequences).min(context_tokens) as usize,
            batch_tokens: (batch as usize).max(1),
            outputs_max,
            sequences: sequences as usize,
            outputs: Vec::new(),
            own_batch: Batch::default(),
            // SAFETY: the context was just made and owns what is returned.
            steady: unsafe { Steady::of(pointer.as_ptr()) },
            hidden_states: HiddenStates::None,
            input_state_length: 0,
        })
    }

    /// Asks this, too, whether a running computation is to be stopped. It must be quick.
    pub fn set_watch(&mut self, watch: Watch) {
        self.interrupt.watch = Some(watch);
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

    /// Its sequences, numbered from 0.
    pub fn sequences(&self) -> usize {
        self.sequences
    }

    /// The room of one sequence in tokens.
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

    /// Whether [`Context::set_steady`] can keep its promise: only the CPU can.
    pub fn can_be_steady(&self) -> bool {
        self.steady.is_some()
    }

    /// Computes what follows so that no row of logits depends on what else is in its batch: a token alone and the same
    /// token among guesses give the same bits. Batches of several tokens take longer so; without effect where
    /// [`Context::can_be_steady`] says no.
    pub fn set_steady(&mut self, steady: bool) {
        if let Some(switch) = self.steady {
            switch.set(steady);
        }
    }

    /// Tokens of a sequence in the cache.
    pub fn used_tokens(&self, sequence: Sequence) -> usize {
        // SAFETY: the context is alive and has the sequence; a context without memory has a null
        // one, which llama.cpp handles.
        let last = unsafe { sys::llama_memory_seq_pos_max(self.memory(), self.existing(sequence)) };
        usize::try_from(last.saturating_add(1)).unwrap_or(0)
    }

    /// The first position of a sequence that is still in the cache: above 0 when a sliding window
    /// moved on.
    pub fn first_position(&self, sequence: Sequence) -> Option<usize> {
        // SAFETY: as above.
        let first =
            unsafe { sys::llama_memory_seq_pos_min(self.memory(), self.existing(sequence)) };
        usize::try_from(first).ok()
    }

    /// Forgets all sequences.
    pub fn clear(&mut self) {
        // SAFETY: the context is alive. The data need not be zeroed: masked cells are never read.
        unsafe { sys::llama_memory_clear(self.memory(), false) };
    }

    /// Forgets a sequence from a position on; false when this kind of memory cannot.
    pub fn truncate(&mut self, sequence: Sequence, position: usize) -> bool {
        let (sequence, position) = (self.existing(sequence), cell(position));
        // SAFETY: the context is alive and has the sequence.
        unsafe { sys::llama_memory_seq_rm(self.memory(), sequence, position, -1) }
    }

    /// Lets an empty sequence begin with the first `tokens` of another one, whose cells both then
    /// share. False when the source does not reach so far.
    pub fn copy_beginning(&mut self, source: Sequence, target: Sequence, tokens: usize) -> bool {
        let (from, to) = (self.existing(source), self.existing(target));
        if from == to || self.used_tokens(source) < tokens || self.used_tokens(target) > 0 {
            return false;
        }
        // SAFETY: the context is alive and has both sequences.
        unsafe { sys::llama_memory_seq_cp(self.memory(), from, to, 0, cell(tokens)) };
        self.used_tokens(target) == tokens
    }

    /// Takes `tokens` tokens from a position on out of a sequence; those behind move up. False, and
    /// nothing changed, when this kind of memory cannot.
    pub fn cut_out(&mut self, sequence: Sequence, position: usize, tokens: usize) -> bool {
        let sequence = self.existing(sequence);
        let (start, end) = (cell(position), cell(position + tokens));
        let shift = -cell(tokens);
        // SAFETY: the context is alive and has the sequence; positions are moved only where the
        // memory says that it can.
        unsafe {
            if !sys::llama_memory_can_shift(self.memory())
                || !sys::llama_memory_seq_rm(self.memory(), sequence, start, end)
            {
                return false;
            }
            sys::llama_memory_seq_add(self.memory(), sequence, end, -1, shift);
        }
        true
    }

    /// What the cache holds of a sequence, as bytes that [`Context::restore`] takes; empty when
    /// there is nothing.
    pub fn save(&mut self, sequence: Sequence) -> Vec<u8> {
        let sequence = self.existing(sequence);
        // SAFETY: the context is alive and has the sequence.
        let bytes = unsafe { sys::llama_state_seq_get_size(self.as_ptr(), sequence) };
        let mut state = vec![0_u8; bytes];
        // SAFETY: the buffer has the length that is passed.
        let written = unsafe {
            sys::llama_state_seq_get_data(self.as_ptr(), state.as_mut_ptr(), bytes, sequence)
        };
        state.truncate(written);
        state
    }

    /// Puts back what [`Context::save`] gave, in place of what the sequence holds. False when it is
    /// not from a context like this one; the sequence is empty then. The bytes must be ours:
    /// llama.cpp checks little of them.
    pub fn restore(&mut self, sequence: Sequence, state: &[u8]) -> bool {
        let id = self.existing(sequence);
        // SAFETY: the buffer has the length that is passed; the context has the sequence.
        let read = unsafe {
            sys::llama_state_seq_set_data(self.as_ptr(), state.as_ptr(), state.len(), id)
        };
        if read == 0 {
            self.truncate(sequence, 0);
        }
        read != 0
    }

    /// Computes tokens that follow those of the first sequence, with logits from index
    /// `outputs_from` of them on.
    pub fn decode(&mut self, tokens: &[Token], outputs_from: usize) -> Result<(), LlamaError> {
        let mut batch = std::mem::take(&mut self.own_batch);
        batch.clear();
        batch.push(0, self.used_tokens(0), tokens, outputs_from);
        let result = self.compute(&mut batch);
        self.own_batch = batch;
        result
    }

    /// Computes a batch: at most [`Context::batch_tokens`] tokens, [`Context::outputs_max`] of them
    /// with logits. When it is cut short, a part of it may be in the cache.
    pub fn compute(&mut self, batch: &mut Batch) -> Result<(), LlamaError> {
        let (tokens, outputs) = (batch.len(), batch.outputs());
        let fits = tokens <= self.batch_tokens && outputs <= self.outputs_max;
        if !fits || batch.state_values() != tokens * self.input_state_length {
            return Err(LlamaError::Batch { tokens, outputs });
        }
        self.outputs.clear();
        if tokens == 0 {
            return Ok(());
        }
        for (token, sequence, position) in batch.entries() {
            self.vocabulary.check(token)?;
            let position = position.unsigned_abs() as usize;
            if position >= self.capacity_tokens || sequence as usize >= self.sequences {
                let context_tokens = self.capacity_tokens;
                return Err(LlamaError::ContextFull { used: position, context_tokens, asked: 1 });
            }
        }
        let mark = logs::mark();
        let raw = batch.as_raw();
        // SAFETY: the batch outlives the call; its tokens exist in the vocabulary, its sequences in
        // the context; it is within the limits that llama.cpp asserts.
        let code = unsafe { sys::llama_decode(self.as_ptr(), raw) };
        match code {
            0 => {
                batch.output_places(&mut self.outputs);
                Ok(())
            }
            2 => Err(LlamaError::Aborted),
            1 => Err(LlamaError::ContextFull {
                used: self.capacity_tokens,
                context_tokens: self.capacity_tokens,
                asked: tokens,
            }),
            _ => Err(LlamaError::Decode { code, reason: logs::reason_since(mark) }),
        }
    }

    /// The logits of output `index` of the last batch (0 is the first token that asked for them).
    /// They stay until the next computation, whatever is forgotten meanwhile.
    pub fn logits(&mut self, index: usize) -> Result<&mut [f32], LlamaError> {
        let place = self.outputs.get(index).copied().ok_or(LlamaError::NoLogits(-1))?;
        // SAFETY: the context is alive and the token asked for logits in the last batch.
        let pointer = unsafe { sys::llama_get_logits_ith(self.as_ptr(), place) };
        if pointer.is_null() {
            return Err(LlamaError::NoLogits(place));
        }
        // SAFETY: a row has one entry a token of the vocabulary, in memory of the context that
        // stays until the next decode, which needs `&mut self`.
        Ok(unsafe { std::slice::from_raw_parts_mut(pointer, self.vocabulary.len()) })
    }

    /// The logits of the last output of the last batch.
    pub fn logits_of_last(&mut self) -> Result<&mut [f32], LlamaError> {
        let last = self.outputs.len().checked_sub(1).ok_or(LlamaError::NoLogits(-1))?;
        self.logits(last)
    }

    /// The number of a sequence as llama.cpp wants it: it asserts that there is one.
    fn existing(&self, sequence: Sequence) -> sys::llama_seq_id {
        i32::from(sequence).min(self.sequences as i32 - 1)
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

/// A position or a length as llama.cpp wants it.
fn cell(tokens: usize) -> i32 {
    i32::try_from(tokens).unwrap_or(i32::MAX)
}

/// Creates a context, which the caller frees before `interrupt` and whatever else the parameters
/// point to.
pub(super) fn create(
    model: &Model,
    mut params: sys::llama_context_params,
    context_tokens: u32,
    interrupt: &mut Interrupt,
) -> Result<NonNull<sys::llama_context>, LlamaError> {
    /// Creating two contexts of one model at once is not sound in llama.cpp.
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    params.abort_callback = Some(on_abort);
    params.abort_callback_data = (&raw mut *interrupt).cast::<c_void>();
    let guard = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let mark = logs::mark();
    // SAFETY: the model is alive; what the parameters point to lives as long as the context.
    let pointer = unsafe { sys::llama_init_from_model(model.as_ptr(), params) };
    drop(guard);
    NonNull::new(pointer).ok_or_else(|| {
        let reason = logs::reason_since(mark);
        LlamaError::Context { context_tokens, reason }
    })
}

pub(super) fn parameters(
    options: &ContextOptions,
    cells: u32,
    sequences: u32,
) -> sys::llama_context_params {
    // SAFETY: takes nothing and returns a plain struct.
    let mut params = unsafe { sys::llama_context_default_params() };
    params.n_ctx = cells;
    params.n_batch = options.batch_tokens.max(1);
    params.n_ubatch = options.micro_batch_tokens.clamp(1, options.batch_tokens.max(1));
    params.n_seq_max = sequences;
    // One pool of cells: split pools would cut a batch of unequal sequences into several passes.
    params.kv_unified = sequences > 1;
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
    // SAFETY: `data` is the box that the context owns; ggml asks on one thread, during `compute`,
    // which has `&mut`.
    let interrupt = unsafe { &mut *data.cast::<Interrupt>() };
    interrupt.flag.load(Ordering::Relaxed) || interrupt.watch.as_mut().is_some_and(|watch| watch())
}
