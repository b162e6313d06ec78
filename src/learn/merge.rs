//! An adapter becomes part of its model: W + s·B·A, at any level.
//!
//! The adapter is added to the weights as the model's file has them, whatever their level, because it was trained beside
//! those; then they are written like those of `nfl quantize`.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::Path;

use nfl_converters::quantize::{self, BlockEncoder, EncodeError};
use nfl_converters::{Change, ConvertError, Order, Receipt, Step};
use nfl_models::Hint;
use nfl_models::gguf::{Gguf, GgufError, TensorInfo};
use thiserror::Error;

/// Endings of the two matrices of an adapted tensor.
const ENDINGS: [&str; 2] = [".lora_a", ".lora_b"];

/// Why an adapter cannot be merged.
#[derive(Debug, Error)]
pub enum MergeError {
    /// A file that cannot be read.
    #[error(transparent)]
    File(#[from] GgufError),
    /// No adapter that can be merged.
    #[error("the adapter: {0}")]
    Adapter(String),
    /// An adapter for another model.
    #[error("the adapter does not fit the model: {0}")]
    OtherModel(String),
    /// The adapter's numbers.
    #[error("the adapter: {0}")]
    Numbers(#[from] EncodeError),
    /// The model cannot be written.
    #[error(transparent)]
    Convert(#[from] ConvertError),
}

impl Hint for MergeError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::File(error) => error.hint(),
            Self::Convert(error) => error.hint(),
            Self::Numbers(_) => None,
            Self::Adapter(_) => Some("give a folder of nfl finetune, or a LoRA as GGUF".to_owned()),
            Self::OtherModel(_) => Some("give the model that it was trained on".to_owned()),
        }
    }
}

/// s·B·A of one tensor.
#[derive(Debug)]
struct Delta {
    /// \[rank, in\].
    a: Vec<f32>,
    /// \[out, rank\].
    b: Vec<f32>,
    rank: usize,
    scale: f32,
}

impl Delta {
    /// Adds the values from `start` on.
    fn add(&self, start: usize, values: &mut [f32]) {
        let width = self.a.len() / self.rank;
        let mut done = 0;
        while done < values.len() {
            let (row, first) = ((start + done) / width, (start + done) % width);
            let count = (width - first).min(values.len() - done);
            let part = &mut values[done..done + count];
            let factors = &self.b[row * self.rank..][..self.rank];
            for (factor, row) in factors.iter().zip(self.a.chunks_exact(width)) {
                let factor = factor * self.scale;
                for (value, a) in part.iter_mut().zip(&row[first..]) {
                    *value += factor * a;
                }
            }
            done += count;
        }
    }
}

/// What an adapter changes.
#[derive(Debug)]
pub struct Deltas(BTreeMap<String, Delta>);

impl Deltas {
    /// Reads the adapter of a file, as strong as `strength` says, and holds it against the model.
    pub fn read(
        path: &Path,
        strength: f32,
        model: &Gguf,
        blocks: &dyn BlockEncoder,
    ) -> Result<Self, MergeError> {
        let file = Gguf::open(path)?;
        let metadata = file.metadata();
        if metadata.text("adapter.type") != Some("lora") {
            return Err(MergeError::Adapter("it is no LoRA".to_owned()));
        }
        let (own, other) = (metadata.architecture(), model.metadata().architecture());
        if own != other {
            let names = [own, other].map(Option::unwrap_or_default);
            return Err(MergeError::OtherModel(format!(
                "it is for {}, not {}",
                names[0], names[1]
            )));
        }
        let alpha = metadata.f32("adapter.lora.alpha").unwrap_or(0.0);
        let numbers = |tensor: &TensorInfo| -> Result<Vec<f32>, MergeError> {
            file.check_length(tensor)?;
            let mut values = vec![0.0; tensor.elements() as usize];
            quantize::decode(blocks, tensor.tensor_type, file.data(tensor), &mut values)?;
            Ok(values)
        };
        let mut deltas = BTreeMap::new();
        for tensor in file.tensors() {
            let Some(name) = ENDINGS.iter().find_map(|end| tensor.name.strip_suffix(end)) else {
                let text = format!("{} is neither A nor B of a LoRA", tensor.name);
                return Err(MergeError::Adapter(text));
            };
            let [Some(a), Some(b)] = ENDINGS.map(|end| file.tensor(&format!("{name}{end}"))) else {
                return Err(MergeError::Adapter(format!("{name} has one matrix of two")));
            };
            let rank = fits(name, model, a, b)?;
            // llama.cpp: a file without alpha is added as it is.
            let scale = if alpha == 0.0 { 1.0 } else { alpha / rank as f32 };
            let delta = Delta { a: numbers(a)?, b: numbers(b)?, rank, scale: scale * strength };
            deltas.insert(name.to_owned(), delta);
        }
        if deltas.is_empty() {
            return Err(MergeError::Adapter("there is nothing in it".to_owned()));
        }
        Ok(Self(deltas))
    }

    /// How many tensors it changes.
    pub fn count(&self) -> usize {
        self.0.len()
    }
}

/// The rank of the two matrices of a tensor, when they go with that of the model.
fn fits(name: &str, model: &Gguf, a: &TensorInfo, b: &TensorInfo) -> Result<usize, MergeError> {
    let refuse = |text: String| Err(MergeError::OtherModel(text));
    let Some(tensor) = model.tensor(name) else {
        return refuse(format!("the model has no {name}"));
    };
    match (&a.dimensions[..], &b.dimensions[..], &tensor.dimensions[..]) {
        ([a_in, rank], [b_rank, b_out], [width, rows])
            if a_in == width && b_out == rows && rank == b_rank && *rank > 0 =>
        {
            Ok(*rank as usize)
        }
        _ => refuse(format!(
            "{name} is {:?} in the model, and A {:?} and B {:?}",
            tensor.dimensions, a.dimensions, b.dimensions
        )),
    }
}

impl Change for Deltas {
    fn changes(&self, tensor: &str) -> bool {
        self.0.contains_key(tensor)
    }

    fn change(&self, tensor: &str, start: u64, values: &mut [f32]) {
        if let Some(delta) = self.0.get(tensor) {
            delta.add(start as usize, values);
        }
    }
}

/// Writes the model with the adapter in it.
pub fn merge(
    model: &Gguf,
    deltas: &Deltas,
    order: &Order,
    blocks: &dyn BlockEncoder,
    on_step: &mut dyn FnMut(Step<'_>) -> ControlFlow<()>,
) -> Result<Vec<Receipt>, MergeError> {
    Ok(nfl_converters::rewrite(model, Some(deltas), order, blocks, on_step)?)
}
