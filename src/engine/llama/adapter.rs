//! LoRA adapters: checked by us, loaded by llama.cpp, set on a context for as long as they are
//! wanted.
//!
//! An adapter belongs to its model, which frees it; a context that uses it holds the model. So none
//! can be freed too early, and those that were loaded once are there for the next request.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::ptr::NonNull;
use std::sync::Arc;
use std::time::SystemTime;

use llama_cpp_sys_2 as sys;
use nfl_models::TensorType;
use nfl_models::gguf::{Gguf, TensorInfo, Value};

use super::control_vector::{self, ControlVector};
use super::model::c_path;
use super::{Context, LlamaError, Model, logs};
use crate::engine::steering::{AdapterUse, Steering};

/// Adapters that one model holds at a time; they stay in memory until it goes.
const ADAPTERS_MAX: usize = 64;

/// Types that a matrix of an adapter may have.
const TYPES: [TensorType; 4] =
    [TensorType::F32, TensorType::F16, TensorType::BF16, TensorType::Q8_0];

/// What a file was when it was read: another file under the same name is another adapter.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Version {
    path: PathBuf,
    bytes: u64,
    changed: Option<SystemTime>,
}

impl Version {
    pub(super) fn of(path: &Path) -> Result<Self, LlamaError> {
        let refused = |error: std::io::Error| refuse(path, error.to_string());
        let path = path.canonicalize().map_err(refused)?;
        let metadata = path.metadata().map_err(refused)?;
        Ok(Self { path, bytes: metadata.len(), changed: metadata.modified().ok() })
    }
}

/// An adapter that its model holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct AdapterPointer(NonNull<sys::llama_adapter_lora>);

// SAFETY: the model holds the adapter as long as it lives, and nobody changes it after loading.
unsafe impl Send for AdapterPointer {}
// SAFETY: as above.
unsafe impl Sync for AdapterPointer {}

/// A steering whose files were read. Equal ones compute the same.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Steered {
    adapters: Vec<(AdapterPointer, f32)>,
    directions: Option<Vec<f32>>,
}

impl Steered {
    /// Whether the model stays as it is.
    pub fn is_none(&self) -> bool {
        self.adapters.is_empty() && self.directions.is_none()
    }
}

/// What an adapter must fit.
#[derive(Debug)]
struct Base {
    architecture: String,
    /// The dimensions of the model's tensors.
    tensors: HashMap<String, Vec<u64>>,
}

impl Base {
    fn read(path: &Path) -> Result<Self, LlamaError> {
        let gguf = Gguf::open(path).map_err(|error| refuse(path, error.to_string()))?;
        let dimensions = |tensor: &TensorInfo| (tensor.name.clone(), tensor.dimensions.clone());
        Ok(Self {
            architecture: gguf.metadata().architecture().unwrap_or_default().to_owned(),
            tensors: gguf.tensors().iter().map(dimensions).collect(),
        })
    }
}

/// The adapters and control vectors of one model.
#[derive(Debug)]
pub struct Adapters {
    model: Arc<Model>,
    path: PathBuf,
    base: Option<Base>,
    loaded: HashMap<Version, NonNull<sys::llama_adapter_lora>>,
    vectors: HashMap<Version, ControlVector>,
}

// SAFETY: the pointers belong to the model and are used through `&mut self` only; llama.cpp ties
// them to no thread.
unsafe impl Send for Adapters {}

impl Adapters {
    /// For a model that was loaded from `path`, of which the head is read again when the first
    /// adapter comes.
    pub fn new(model: &Arc<Model>, path: &Path) -> Self {
        Self {
            model: Arc::clone(model),
            path: path.to_owned(),
            base: None,
            loaded: HashMap::new(),
            vectors: HashMap::new(),
        }
    }

    /// Reads what a steering names, so that nothing can fail later for a bad file.
    pub fn resolve(&mut self, steering: &Steering) -> Result<Steered, LlamaError> {
        let mut steered = Steered::default();
        for AdapterUse { path, scale } in &steering.adapters {
            let adapter = AdapterPointer(self.adapter(path)?);
            // llama.cpp takes an adapter once.
            match steered.adapters.iter_mut().find(|(other, _)| *other == adapter) {
                Some((_, sum)) => *sum += scale,
                None => steered.adapters.push((adapter, *scale)),
            }
        }
        // Without effect is without adapter: what was computed may be shared.
        steered.adapters.retain(|(_, scale)| *scale != 0.0);
        steered.directions = self.directions(steering)?;
        Ok(steered)
    }

    /// Sets a context to a steering, whatever it had before. What was computed with another one is
    /// no longer what the model would compute: the caller keeps them apart.
    pub fn apply(&self, context: &mut Context, steered: &Steered) -> Result<(), LlamaError> {
        if !Arc::ptr_eq(context.model(), &self.model) {
            return Err(LlamaError::Steering("adapters of another model".to_owned()));
        }
        let mut pointers: Vec<_> =
            steered.adapters.iter().map(|(adapter, _)| adapter.0.as_ptr()).collect();
        let mut scales: Vec<f32> = steered.adapters.iter().map(|(_, scale)| *scale).collect();
        // SAFETY: context and adapters are alive (both hold the model); the lists have the length
        // that is passed.
        let code = unsafe {
            sys::llama_set_adapters_lora(
                context.as_ptr(),
                pointers.as_mut_ptr(),
                pointers.len(),
                scales.as_mut_ptr(),
            )
        };
        if code != 0 {
            return Err(LlamaError::Steering("the adapters could not be set".to_owned()));
        }
        control_vector::set(context, steered.directions.as_deref())
    }

    fn adapter(&mut self, path: &Path) -> Result<NonNull<sys::llama_adapter_lora>, LlamaError> {
        let version = Version::of(path)?;
        if let Some(adapter) = self.loaded.get(&version) {
            return Ok(*adapter);
        }
        if self.loaded.len() == ADAPTERS_MAX {
            let problem =
                format!("{ADAPTERS_MAX} adapters are loaded already: load the model anew");
            return Err(refuse(path, problem));
        }
        let base = match self.base.take() {
            Some(base) => base,
            None => Base::read(&self.path)?,
        };
        self.base.insert(base).check(path)?;
        let file = c_path(&version.path).ok_or_else(|| refuse(path, "a zero byte".to_owned()))?;
        let mark = logs::mark();
        // SAFETY: the model is alive and owns the adapter from here on; contexts of the model that
        // run meanwhile do not look at the list that it is added to.
        let pointer = unsafe { sys::llama_adapter_lora_init(self.model.as_ptr(), file.as_ptr()) };
        let adapter =
            NonNull::new(pointer).ok_or_else(|| refuse(path, logs::reason_since(mark)))?;
        self.loaded.insert(version, adapter);
        Ok(adapter)
    }

    fn directions(&mut self, steering: &Steering) -> Result<Option<Vec<f32>>, LlamaError> {
        let mut sum = ControlVector::none(&self.model);
        for control in &steering.controls {
            let version = Version::of(&control.path)?;
            if !self.vectors.contains_key(&version) {
                let vector = ControlVector::read(&control.path, &self.model)?;
                self.vectors.insert(version.clone(), vector);
            }
            if let Some(vector) = self.vectors.get(&version) {
                sum.add(vector, control);
            }
        }
        let values = sum.into_values();
        Ok(values.iter().any(|value| *value != 0.0).then_some(values))
    }
}

impl Base {
    /// Our own reading of an adapter, which llama.cpp sees only when there is nothing to refuse: it
    /// fails assertions at metadata of the wrong type, and computes nonsense or fails them later
    /// with matrices that do not fit each other.
    fn check(&self, path: &Path) -> Result<(), LlamaError> {
        let gguf = Gguf::open(path).map_err(|error| refuse(path, error.to_string()))?;
        let metadata = gguf.metadata();
        for (key, wanted) in [
            ("general.type", "adapter"),
            ("adapter.type", "lora"),
            ("general.architecture", &self.architecture),
        ] {
            if metadata.text(key) != Some(wanted) {
                let found = match metadata.get(key) {
                    Some(Value::String(text)) => text.as_str().unwrap_or("no text").to_owned(),
                    Some(_) => "no text".to_owned(),
                    None => "missing".to_owned(),
                };
                return Err(refuse(path, format!("{key} is {found}, not {wanted}")));
            }
        }
        match metadata.get("adapter.lora.alpha") {
            Some(Value::F32(alpha)) if alpha.is_finite() => {}
            None => {}
            Some(_) => return Err(refuse(path, "adapter.lora.alpha is no F32 number".to_owned())),
        }
        if metadata.get("adapter.alora.invocation_tokens").is_some() {
            let problem = "it acts behind certain tokens only (aLoRA), which is not supported";
            return Err(refuse(path, problem.to_owned()));
        }
        if gguf.files().len() != 1 {
            return Err(refuse(path, "an adapter in several files".to_owned()));
        }
        self.check_tensors(&gguf).map_err(|problem| refuse(path, problem))
    }

    fn check_tensors(&self, gguf: &Gguf) -> Result<(), String> {
        if gguf.tensors().is_empty() {
            return Err("it has no tensors".to_owned());
        }
        for tensor in gguf.tensors() {
            if !TYPES.contains(&tensor.tensor_type) {
                return Err(format!("tensor {}: type {:?}", tensor.name, tensor.tensor_type));
            }
            let name = &tensor.name;
            let (base, other) = if let Some(base) = name.strip_suffix(".lora_a") {
                (base, format!("{base}.lora_b"))
            } else if let Some(base) = name.strip_suffix(".lora_b") {
                (base, format!("{base}.lora_a"))
            } else {
                // llama.cpp would leave norms out without a word.
                return Err(format!("tensor {name} is no part of a low-rank pair"));
            };
            let Some(other) = gguf.tensor(&other) else {
                return Err(format!("tensor {name} has no {other}"));
            };
            let Some(dimensions) = self.tensors.get(base) else {
                return Err(format!("the model has no tensor {base}"));
            };
            if name.ends_with(".lora_a") && !fits(base, dimensions, tensor, other) {
                let shown = |tensor: &TensorInfo| format!("{:?}", tensor.dimensions);
                let (a, b) = (shown(tensor), shown(other));
                return Err(format!("tensor {base} of {dimensions:?} with pair {a} and {b}"));
            }
        }
        Ok(())
    }
}

/// Whether B·A has the dimensions of the model's tensor; for the table of embeddings both are
/// transposed.
fn fits(base: &str, tensor: &[u64], a: &TensorInfo, b: &TensorInfo) -> bool {
    let at = |dimensions: &[u64], place: usize| dimensions.get(place).copied().unwrap_or(1);
    let (a, b) = (&a.dimensions, &b.dimensions);
    let rest =
        |place: usize| at(a, place) == at(tensor, place) && at(b, place) == at(tensor, place);
    if base.ends_with("token_embd.weight") {
        return at(tensor, 0) == at(b, 1)
            && at(tensor, 1) == at(a, 1)
            && at(a, 0) == at(b, 0)
            && rest(2)
            && rest(3);
    }
    let rank = at(a, 1);
    rank > 0
        && rank == at(b, 0)
        && at(tensor, 0) == at(a, 0)
        && at(tensor, 1) == at(b, 1)
        && rest(2)
        && rest(3)
}

pub(super) fn refuse(path: &Path, problem: String) -> LlamaError {
    LlamaError::Adapter { path: path.display().to_string(), problem }
}
