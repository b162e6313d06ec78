//! Control vectors: a direction that is added to the output of each layer.

use std::path::Path;

use llama_cpp_sys_2 as sys;
use nfl_models::TensorType;
use nfl_models::gguf::Gguf;

use super::adapter::refuse;
use super::{Context, LlamaError, Model};
use crate::engine::steering::ControlUse;

/// Directions for the layers 1, 2, … one after the other; layer 0 has none.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct ControlVector {
    /// Length of one direction.
    width: usize,
    values: Vec<f32>,
}

impl ControlVector {
    /// One that changes nothing.
    pub(super) fn none(model: &Model) -> Self {
        let width = model.hidden_length() as usize;
        let layers = (model.blocks() as usize).saturating_sub(1);
        Self { width, values: vec![0.0; width * layers] }
    }

    /// From a file's tensors `direction.N`.
    pub(super) fn read(path: &Path, model: &Model) -> Result<Self, LlamaError> {
        let gguf = Gguf::open(path).map_err(|error| refuse(path, error.to_string()))?;
        let mut vector = Self::none(model);
        let layers = vector.values.len() / vector.width.max(1);
        let mut found = false;
        for tensor in gguf.tensors() {
            let problem = |text: &str| refuse(path, format!("tensor {}: {text}", tensor.name));
            let number = tensor.name.strip_prefix("direction.").and_then(|n| n.parse().ok());
            let layer: usize = number.ok_or_else(|| problem("not direction.N"))?;
            if !(1..=layers).contains(&layer) {
                return Err(problem(&format!("the model has directions 1 to {layers}")));
            }
            if tensor.tensor_type != TensorType::F32 {
                return Err(problem("its type is not F32"));
            }
            let values: Vec<f32> = gguf
                .data(tensor)
                .as_chunks::<4>()
                .0
                .iter()
                .map(|bytes| f32::from_le_bytes(*bytes))
                .collect();
            if tensor.dimensions != [vector.width as u64] || values.len() != vector.width {
                return Err(problem(&format!("it has not the model's {} numbers", vector.width)));
            }
            if !values.iter().all(|value| value.is_finite()) {
                return Err(problem("it holds values that are no numbers"));
            }
            vector.values[(layer - 1) * vector.width..][..vector.width].copy_from_slice(&values);
            found = true;
        }
        if found { Ok(vector) } else { Err(refuse(path, "it has no directions".to_owned())) }
    }

    /// Adds another one as far and as strongly as it is used.
    pub(super) fn add(&mut self, other: &Self, used: &ControlUse) {
        let width = self.width.max(1);
        let (first, last) = used.layers.unwrap_or((1, u32::MAX));
        let pairs = self.values.chunks_mut(width).zip(other.values.chunks(width));
        for (layer, (mine, others)) in (1_u32..).zip(pairs) {
            if (first..=last).contains(&layer) {
                for (mine, other) in mine.iter_mut().zip(others) {
                    *mine += used.scale * other;
                }
            }
        }
    }

    pub(super) fn into_values(self) -> Vec<f32> {
        self.values
    }
}

/// Sets the directions of a context, or takes them away.
pub(super) fn set(context: &mut Context, values: Option<&[f32]>) -> Result<(), LlamaError> {
    let (width, blocks) = (context.model().hidden_length(), context.model().blocks());
    let (pointer, length) = values.map_or((std::ptr::null(), 0), |v| (v.as_ptr(), v.len()));
    // SAFETY: the context is alive; the values are copied during the call and have the length that
    // is passed: one direction for each layer from 1 on.
    let code = unsafe {
        sys::llama_set_adapter_cvec(
            context.as_ptr(),
            pointer,
            length,
            i32::try_from(width).unwrap_or(0),
            1,
            i32::try_from(blocks).unwrap_or(i32::MAX),
        )
    };
    match code {
        0 => Ok(()),
        _ => Err(LlamaError::Steering("the control vector could not be set".to_owned())),
    }
}
