//! Checkpoints: everything that a run needs to go on as if it had never stopped, in one file.
//!
//! A safetensors file with the adapters (`A.N`, `B.N`) and the optimiser's moments (`A.N.first`, …); its metadata has the
//! step and what must be the same for the run to go on: the recipe, the data and the base. One file, written beside its
//! name and renamed, so that there is always a whole one.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::Path;

use safetensors::tensor::{Dtype, SafeTensors, TensorView};

use super::error::LearnError;
use super::outputs;
use crate::training::linear::Adapters;
use crate::training::ops::values;
use crate::training::optimizer::{Memory, Moments};

/// The checkpoint's name in the run's folder.
pub const FILE: &str = "checkpoint.safetensors";

/// Bytes of a checkpoint that is read.
const BYTES_MAX: u64 = 64 << 30;

/// Writes where a run stands. `identity` must be the same when it goes on.
pub fn write(
    folder: &Path,
    identity: &str,
    adapters: &Adapters,
    memory: &Memory,
) -> Result<(), LearnError> {
    let mut all: Vec<(String, Vec<usize>, Vec<u8>)> = Vec::new();
    let bytes = |values: &[f32]| values.iter().flat_map(|value| value.to_le_bytes()).collect();
    for (number, (lora, moments)) in adapters.0.iter().zip(&memory.moments).enumerate() {
        for (part, tensor, moments) in [("A", &lora.a, &moments[0]), ("B", &lora.b, &moments[1])] {
            let name = format!("{part}.{number}");
            let dimensions = tensor.dims().to_vec();
            for (end, values) in [("first", &moments.first), ("second", &moments.second)] {
                all.push((format!("{name}.{end}"), dimensions.clone(), bytes(values)));
            }
            all.push((name, dimensions, bytes(&values(tensor)?)));
        }
    }
    let views = all.iter().map(|(name, dimensions, bytes)| {
        TensorView::new(Dtype::F32, dimensions.clone(), bytes).map(|view| (name.as_str(), view))
    });
    let views = views.collect::<Result<Vec<_>, _>>()?;
    let metadata = HashMap::from([
        ("step".to_owned(), memory.steps.to_string()),
        ("identity".to_owned(), identity.to_owned()),
    ]);
    let bytes = safetensors::serialize(views, Some(metadata))?;
    outputs::write(&folder.join(FILE), &bytes)
}

/// Puts a run where its checkpoint left it; where there is none, it stays at its beginning.
///
/// # Errors
/// When the checkpoint is of another run, or cannot be read.
pub fn read(
    folder: &Path,
    identity: &str,
    adapters: &mut Adapters,
    memory: &mut Memory,
) -> Result<(), LearnError> {
    let path = folder.join(FILE);
    let length = match fs::metadata(&path) {
        Ok(metadata) => metadata.len(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(source) => return Err(LearnError::Io { path, source }),
    };
    if length > BYTES_MAX {
        return Err(LearnError::Checkpoint(format!("{length} bytes are too many")));
    }
    let bytes = fs::read(&path).map_err(|source| LearnError::Io { path, source })?;
    let (_, head) = SafeTensors::read_metadata(&bytes)?;
    let notes = head.metadata().clone().unwrap_or_default();
    if notes.get("identity").map(String::as_str) != Some(identity) {
        return Err(LearnError::OtherRun);
    }
    let file = SafeTensors::deserialize(&bytes)?;
    let numbers = |name: &str, count: usize| -> Result<Vec<f32>, LearnError> {
        let view = file.tensor(name)?;
        let (values, _) = view.data().as_chunks::<4>();
        if values.len() != count {
            return Err(LearnError::Checkpoint(format!("{name} has {} numbers", values.len())));
        }
        Ok(values.iter().map(|four| f32::from_le_bytes(*four)).collect())
    };
    for (number, (lora, moments)) in adapters.0.iter_mut().zip(&mut memory.moments).enumerate() {
        let [of_a, of_b] = moments;
        for (part, tensor, moments) in [("A", &mut lora.a, of_a), ("B", &mut lora.b, of_b)] {
            let (name, count) = (format!("{part}.{number}"), tensor.elem_count());
            *moments = Moments {
                first: numbers(&format!("{name}.first"), count)?,
                second: numbers(&format!("{name}.second"), count)?,
            };
            *tensor = crate::training::ops::tensor(numbers(&name, count)?, tensor.dims())?;
        }
    }
    let step = notes.get("step").and_then(|step| step.parse().ok());
    memory.steps =
        step.ok_or_else(|| LearnError::Checkpoint("it does not say its step".to_owned()))?;
    Ok(())
}

/// Removes the checkpoint of a run that has come to its end.
pub fn remove(folder: &Path) -> Result<(), LearnError> {
    let path = folder.join(FILE);
    match fs::remove_file(&path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            Err(LearnError::Io { path, source })
        }
        _ => Ok(()),
    }
}
