//! A loaded model: owned, shared by contexts, freed when the last of them goes.

use std::ffi::{CString, c_void};
use std::path::Path;
use std::ptr::NonNull;
use std::sync::{Arc, OnceLock};

use llama_cpp_sys_2 as sys;

use super::vocabulary::Vocabulary;
use super::{Backend, LlamaError, logs, text};
use crate::engine::grammar::Pieces;
use crate::engine::options::{CPU, LoadMode, ModelOptions, TensorOverride};

/// The names of expert tensors in every architecture of llama.cpp that has them.
const EXPERT_TENSORS: &str = r"\.ffn_(up|down|gate|gate_up)_(ch|)exps";

/// Bytes of a description or a metadata value that are read.
const TEXT_BYTES_MAX: usize = 256;

/// A model in memory.
#[derive(Debug)]
pub struct Model {
    pointer: NonNull<sys::llama_model>,
    /// llama.cpp keeps the parameters it was loaded with, and what they point to must live as long.
    _placement: Placement,
    /// What constraints test tokens with; made when first needed.
    pieces: OnceLock<Arc<Pieces>>,
}

// SAFETY: llama.cpp does not change a model after loading; contexts, which do change, each own
// their state, and their creation is serialised in `Context::new`.
unsafe impl Send for Model {}
// SAFETY: as above.
unsafe impl Sync for Model {}

struct Progress<'a> {
    report: &'a mut dyn FnMut(f32) -> bool,
    cancelled: bool,
}

impl Model {
    /// Loads a GGUF file. `progress` gets the share that is loaded, 0 to 1, and returns whether to
    /// go on.
    pub fn load(
        backend: &Backend,
        path: &Path,
        options: &ModelOptions,
        progress: &mut dyn FnMut(f32) -> bool,
    ) -> Result<Arc<Self>, LlamaError> {
        Self::open(backend, path, options, false, progress)
    }

    /// A model without its weights: what it would take can be measured, nothing can be computed.
    pub(super) fn without_weights(
        backend: &Backend,
        path: &Path,
        options: &ModelOptions,
    ) -> Result<Arc<Self>, LlamaError> {
        Self::open(backend, path, options, true, &mut |_| true)
    }

    fn open(
        backend: &Backend,
        path: &Path,
        options: &ModelOptions,
        measure_only: bool,
        progress: &mut dyn FnMut(f32) -> bool,
    ) -> Result<Arc<Self>, LlamaError> {
        let shown = path.display().to_string();
        let file = c_path(path).ok_or_else(|| LlamaError::Path(shown.clone()))?;
        let placement = Placement::of(options)?;
        let mut progress = Progress { report: progress, cancelled: false };
        // SAFETY: takes nothing and returns a plain struct.
        let mut params = unsafe { sys::llama_model_default_params() };
        params.load_mode =
            if measure_only { sys::LLAMA_LOAD_MODE_NONE } else { load_mode(options) };
        params.no_alloc = measure_only;
        params.n_gpu_layers =
            options.gpu_layers.map_or(-1, |layers| i32::try_from(layers).unwrap_or(i32::MAX));
        params.tensor_buft_overrides = first_or_null(&placement.overrides);
        params.tensor_split = first_or_null(&placement.split);
        params.use_extra_bufts = options.repack;
        params.vocab_only = options.vocabulary_only;
        params.check_tensors = options.check_tensors;
        params.load_mtp = options.prediction;
        params.progress_callback = Some(on_progress);
        params.progress_callback_user_data = (&raw mut progress).cast::<c_void>();
        let mark = backend.mark();
        // SAFETY: `file` and `placement` outlive the call (the latter the model); `progress`
        // outlives the call, the only time at which llama.cpp calls back.
        let pointer = unsafe { sys::llama_model_load_from_file(file.as_ptr(), params) };
        match NonNull::new(pointer) {
            Some(pointer) => {
                let pieces = OnceLock::new();
                Ok(Arc::new(Self { pointer, _placement: placement, pieces }))
            }
            None if progress.cancelled => Err(LlamaError::Cancelled),
            None => Err(LlamaError::Load { path: shown, reason: logs::reason_since(mark) }),
        }
    }

    pub(super) fn as_ptr(&self) -> *mut sys::llama_model {
        self.pointer.as_ptr()
    }

    pub(super) fn pieces(&self) -> &OnceLock<Arc<Pieces>> {
        &self.pieces
    }

    /// The vocabulary.
    pub fn vocabulary(self: &Arc<Self>) -> Vocabulary {
        Vocabulary::of(self)
    }

    /// The context that the model was trained on, in tokens; 0 when the file does not say.
    pub fn context_trained_tokens(&self) -> u32 {
        // SAFETY: the model is alive.
        unsafe { sys::llama_model_n_ctx_train(self.as_ptr()) }.max(0) as u32
    }

    /// The sliding window of its attention in tokens; 0 when it has none.
    pub fn window_tokens(&self) -> u32 {
        // SAFETY: the model is alive.
        unsafe { sys::llama_model_n_swa(self.as_ptr()) }.max(0) as u32
    }

    /// Blocks (layers).
    pub fn blocks(&self) -> u32 {
        // SAFETY: the model is alive.
        unsafe { sys::llama_model_n_layer(self.as_ptr()) }.max(0) as u32
    }

    /// Bytes of all tensors.
    pub fn weights_bytes(&self) -> u64 {
        // SAFETY: the model is alive.
        unsafe { sys::llama_model_size(self.as_ptr()) }
    }

    /// Weights, counted one by one.
    pub fn parameters(&self) -> u64 {
        // SAFETY: the model is alive.
        unsafe { sys::llama_model_n_params(self.as_ptr()) }
    }

    /// llama.cpp's line about the model, such as "llama 7B Q4_K - Medium".
    pub fn description(&self) -> String {
        let mut buffer = vec![0_u8; TEXT_BYTES_MAX];
        // SAFETY: the buffer has the length that is passed, and the result is zero-terminated.
        unsafe {
            sys::llama_model_desc(self.as_ptr(), buffer.as_mut_ptr().cast(), buffer.len());
        }
        text(buffer.as_ptr().cast())
    }

    /// A scalar metadata value as text.
    pub fn metadata(&self, key: &str) -> Option<String> {
        let key = CString::new(key).ok()?;
        let mut buffer = vec![0_u8; TEXT_BYTES_MAX];
        // SAFETY: the key is zero-terminated, the buffer has the length that is passed.
        let length = unsafe {
            sys::llama_model_meta_val_str(
                self.as_ptr(),
                key.as_ptr(),
                buffer.as_mut_ptr().cast(),
                buffer.len(),
            )
        };
        (length >= 0).then(|| text(buffer.as_ptr().cast()))
    }

    /// Whether the latest tokens can be taken back: no state that only goes forward, no window that has moved on.
    pub fn takes_back(&self) -> bool {
        // SAFETY: the model is alive.
        let goes_forward = unsafe {
            sys::llama_model_is_recurrent(self.as_ptr())
                || sys::llama_model_is_hybrid(self.as_ptr())
        };
        !goes_forward && self.window_tokens() == 0
    }

    /// Numbers of a token's state within the model.
    pub fn hidden_length(&self) -> u32 {
        // SAFETY: the model is alive.
        unsafe { sys::llama_model_n_embd(self.as_ptr()) }.max(0) as u32
    }

    /// Numbers of an embedding.
    pub fn embedding_length(&self) -> usize {
        // SAFETY: the model is alive.
        unsafe { sys::llama_model_n_embd_out(self.as_ptr()) }.max(0) as usize
    }

    /// Scores of its classifier.
    pub fn classes(&self) -> usize {
        // SAFETY: the model is alive.
        unsafe { sys::llama_model_n_cls_out(self.as_ptr()) as usize }
    }

    /// A scalar metadata value as text, of any length.
    pub fn metadata_of_any_length(&self, key: &str) -> Option<String> {
        let key = CString::new(key).ok()?;
        let read = |buffer: &mut Vec<u8>| {
            // SAFETY: the key is zero-terminated, the buffer has the length that is passed.
            unsafe {
                sys::llama_model_meta_val_str(
                    self.as_ptr(),
                    key.as_ptr(),
                    buffer.as_mut_ptr().cast(),
                    buffer.len(),
                )
            }
        };
        let length = usize::try_from(read(&mut vec![0; 1])).ok()?;
        let mut buffer = vec![0_u8; length + 1];
        read(&mut buffer);
        Some(text(buffer.as_ptr().cast()))
    }

    /// Whether text can be generated with a plain decoder loop.
    pub fn generates(&self) -> bool {
        // SAFETY: the model is alive.
        unsafe {
            sys::llama_model_has_decoder(self.as_ptr())
                && !sys::llama_model_has_encoder(self.as_ptr())
                && !sys::llama_model_is_diffusion(self.as_ptr())
        }
    }
}

impl Drop for Model {
    fn drop(&mut self) {
        // SAFETY: contexts hold an `Arc` of their model, so none is left.
        unsafe { sys::llama_model_free(self.as_ptr()) };
    }
}

fn load_mode(options: &ModelOptions) -> sys::llama_load_mode {
    match (options.load_mode, options.lock_memory) {
        (LoadMode::Auto, false) => sys::LLAMA_LOAD_MODE_AUTO,
        (LoadMode::Map, false) => sys::LLAMA_LOAD_MODE_MMAP,
        (LoadMode::Auto | LoadMode::Map, true) => sys::LLAMA_LOAD_MODE_MMAP_MLOCK,
        (LoadMode::Read, false) => sys::LLAMA_LOAD_MODE_NONE,
        (LoadMode::Read, true) => sys::LLAMA_LOAD_MODE_MLOCK,
    }
}

/// What the load parameters point to, and llama.cpp keeps pointing to.
#[derive(Debug)]
struct Placement {
    /// The patterns that the table below points into.
    _patterns: Vec<CString>,
    /// Pattern and buffer type, closed by a row of nulls.
    overrides: Vec<sys::llama_model_tensor_buft_override>,
    /// One number for each device that llama.cpp can have; empty for its own choice.
    split: Vec<f32>,
}

impl Placement {
    fn of(options: &ModelOptions) -> Result<Self, LlamaError> {
        // SAFETY: takes nothing; the buffer type lives as long as the process.
        let cpu = unsafe { sys::ggml_backend_cpu_buffer_type() };
        let mut rows = Vec::new();
        for TensorOverride { pattern, device } in &options.overrides {
            let buffer = if device == CPU { cpu } else { buffer_of(device)? };
            rows.push((pattern.as_str(), buffer));
        }
        let kept = options.cpu_experts.then_some(EXPERT_TENSORS);
        let kept = kept.into_iter().chain(options.cpu_tensors.iter().map(String::as_str));
        rows.extend(kept.map(|pattern| (pattern, cpu)));
        let mut patterns = Vec::with_capacity(rows.len());
        let mut overrides = Vec::with_capacity(rows.len() + 1);
        for (text, buft) in rows {
            let text = CString::new(text).map_err(|_| LlamaError::Pattern(text.to_owned()))?;
            let pattern = text.as_ptr(); // into the heap: the string may move, this may not
            overrides.push(sys::llama_model_tensor_buft_override { pattern, buft });
            patterns.push(text);
        }
        if !overrides.is_empty() {
            let (pattern, buft) = (std::ptr::null(), std::ptr::null_mut());
            overrides.push(sys::llama_model_tensor_buft_override { pattern, buft });
        }
        let mut split: Vec<f32> = options.split.iter().map(|layers| *layers as f32).collect();
        if !split.is_empty() {
            // SAFETY: takes nothing. llama.cpp reads that many numbers.
            split.resize(unsafe { sys::llama_max_devices() }, 0.0);
        }
        Ok(Self { _patterns: patterns, overrides, split })
    }
}

/// The memory of a device.
fn buffer_of(device: &str) -> Result<sys::ggml_backend_buffer_type_t, LlamaError> {
    let reason = "no such device".to_owned();
    let unknown = || LlamaError::Load { path: device.to_owned(), reason: reason.clone() };
    let name = CString::new(device).map_err(|_| unknown())?;
    // SAFETY: the name is zero-terminated.
    let found = unsafe { sys::ggml_backend_dev_by_name(name.as_ptr()) };
    if found.is_null() {
        return Err(unknown());
    }
    // SAFETY: the device was just found; devices live as long as the process.
    Ok(unsafe { sys::ggml_backend_dev_buffer_type(found) })
}

/// The first of several, or null for none.
fn first_or_null<T>(items: &[T]) -> *const T {
    if items.is_empty() { std::ptr::null() } else { items.as_ptr() }
}

unsafe extern "C" fn on_progress(share: f32, data: *mut c_void) -> bool {
    // SAFETY: `data` is the `Progress` of the `load` that is running.
    let progress = unsafe { &mut *data.cast::<Progress<'_>>() };
    let goes_on = (progress.report)(share);
    progress.cancelled |= !goes_on;
    goes_on
}

#[cfg(unix)]
pub(super) fn c_path(path: &Path) -> Option<CString> {
    use std::os::unix::ffi::OsStrExt;
    CString::new(path.as_os_str().as_bytes()).ok()
}

#[cfg(not(unix))]
pub(super) fn c_path(path: &Path) -> Option<CString> {
    CString::new(path.to_str()?).ok()
}
