//! Checkpoints: everything that a run needs to go on as if it had never stopped, in one file.
//!
//! A safetensors file with the adapters (`A.N`, `B.N`), the optimiser's moments (`A.N.first`, …) and, where the best
//! adapter is looked for, that one (`A.N.best`); its metadata has the step and what must be the same for the run to go
//! on: the recipe, the data and the base. One file, written beside its name and renamed, so that there is always a
//! whole one.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::Path;

use safetensors::tensor::{Dtype, SafeTensors, TensorView};

use super::error::LearnError;
use super::order::Identity;
use super::outputs;
use crate::training::linear::Adapters;
use crate::training::ops::{tensor, values};
use crate::training::optimizer::Moments;
use crate::training::trainer::Trainer;

/// The checkpoint's name in the run's folder.
pub const FILE: &str = "checkpoint.safetensors";

/// Bytes of a checkpoint that is read.
const BYTES_MAX: u64 = 64 << 30;

/// How a run that may end early has fared.
#[derive(Debug, Clone, Default)]
pub struct Standing {
    /// The best adapter so far.
    pub best: Option<Best>,
    /// Looks since then.
    pub misses: u64,
}

/// The best adapter so far.
#[derive(Debug, Clone)]
pub struct Best {
    /// Behind how many steps it was.
    pub step: u64,
    /// Its loss on the evaluation examples.
    pub loss: f64,
    /// What it was.
    pub adapters: Adapters,
}

/// A tensor of a checkpoint: its name, its dimensions and its numbers.
type Entry = (String, Vec<usize>, Vec<u8>);

fn entry(name: String, dimensions: &[usize], values: &[f32]) -> Entry {
    let bytes = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    (name, dimensions.to_vec(), bytes)
}

/// Writes where a run stands. An adapter that is not finite is refused, and the checkpoint before it stays.
pub fn write(
    folder: &Path,
    identity: &Identity,
    trainer: &Trainer,
    standing: &Standing,
) -> Result<(), LearnError> {
    let mut all: Vec<Entry> = Vec::new();
    for (number, (lora, moments)) in
        trainer.adapters.0.iter().zip(&trainer.memory.moments).enumerate()
    {
        for (part, tensor, moments) in [("A", &lora.a, &moments[0]), ("B", &lora.b, &moments[1])] {
            let name = format!("{part}.{number}");
            let values = values(tensor)?;
            if !values.iter().all(|value| value.is_finite()) {
                return Err(LearnError::NotFinite(trainer.memory.steps));
            }
            for (end, values) in [("first", &moments.first), ("second", &moments.second)] {
                all.push(entry(format!("{name}.{end}"), tensor.dims(), values));
            }
            all.push(entry(name, tensor.dims(), &values));
        }
    }
    let mut metadata = HashMap::from([
        ("step".to_owned(), trainer.memory.steps.to_string()),
        ("recipe".to_owned(), identity.recipe.clone()),
        ("data".to_owned(), identity.data.clone()),
        ("base".to_owned(), identity.base.clone()),
    ]);
    if let Some(best) = &standing.best {
        for (number, lora) in best.adapters.0.iter().enumerate() {
            for (part, tensor) in [("A", &lora.a), ("B", &lora.b)] {
                all.push(entry(format!("{part}.{number}.best"), tensor.dims(), &values(tensor)?));
            }
        }
        metadata.insert("best_step".to_owned(), best.step.to_string());
        // Rust prints the shortest digits that give the same number back.
        metadata.insert("best_loss".to_owned(), best.loss.to_string());
        metadata.insert("misses".to_owned(), standing.misses.to_string());
    }
    let views = all.iter().map(|(name, dimensions, bytes)| {
        TensorView::new(Dtype::F32, dimensions.clone(), bytes).map(|view| (name.as_str(), view))
    });
    let views = views.collect::<Result<Vec<_>, _>>()?;
    let bytes = safetensors::serialize(views, Some(metadata))?;
    outputs::write(&folder.join(FILE), &bytes)
}

/// Puts a run where its checkpoint left it; where there is none, it stays at its beginning.
///
/// # Errors
/// When the checkpoint is of another run, or cannot be read.
pub fn read(
    folder: &Path,
    identity: &Identity,
    trainer: &mut Trainer,
    standing: &mut Standing,
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
    let notes = Notes(head.metadata().clone().unwrap_or_default());
    let [recipe, data, base] = ["recipe", "data", "base"].map(|name| notes.text(name));
    let (recipe, data, base) = (recipe?, data?, base?);
    if let Some(difference) = identity.difference(&Identity { recipe, data, base }) {
        return Err(LearnError::OtherRun(difference));
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
    let fill = |adapters: &mut Adapters, end: &str| -> Result<(), LearnError> {
        for (number, lora) in adapters.0.iter_mut().enumerate() {
            for (part, old) in [("A", &mut lora.a), ("B", &mut lora.b)] {
                let values = numbers(&format!("{part}.{number}{end}"), old.elem_count())?;
                *old = tensor(values, old.dims())?;
            }
        }
        Ok(())
    };
    fill(&mut trainer.adapters, "")?;
    for (number, moments) in trainer.memory.moments.iter_mut().enumerate() {
        for (part, Moments { first, second }) in ["A", "B"].iter().zip(moments) {
            *first = numbers(&format!("{part}.{number}.first"), first.len())?;
            *second = numbers(&format!("{part}.{number}.second"), second.len())?;
        }
    }
    trainer.memory.steps = notes.number("step")?;
    if notes.0.contains_key("best_step") {
        let mut adapters = trainer.adapters.clone();
        fill(&mut adapters, ".best")?;
        let (step, loss) = (notes.number("best_step")?, notes.number("best_loss")?);
        *standing =
            Standing { best: Some(Best { step, loss, adapters }), misses: notes.number("misses")? };
    }
    Ok(())
}

/// A checkpoint's metadata.
struct Notes(HashMap<String, String>);

impl Notes {
    fn text(&self, name: &str) -> Result<String, LearnError> {
        let found = self.0.get(name).cloned();
        found.ok_or_else(|| LearnError::Checkpoint(format!("it does not say its {name}")))
    }

    fn number<T: std::str::FromStr>(&self, name: &str) -> Result<T, LearnError> {
        let text = self.text(name)?;
        text.parse().map_err(|_| LearnError::Checkpoint(format!("{name}: {text}")))
    }
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
