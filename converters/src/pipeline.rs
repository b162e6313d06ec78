//! From a checkpoint to GGUF files: plan, choose types, stream, check.

use crate::checkpoint::{Checkpoint, SourceTensor};
use crate::error::ConvertError;
use crate::families::Plan;
use crate::families::tensors::{Content, Recipe};
use crate::order::{Order, Step};
use crate::output::{Layout, Output};
use crate::quantize::BlockEncoder;
use crate::quantize::category::{Candidate, file_order};
use crate::quantize::mixture::{self, Choice, Traits};
use crate::receipt::Receipt;
use crate::reshape::RowOrder;
use crate::stream::{Job, JobTensor, Source, tell};
use nfl_models::gguf::{Gguf, Metadata, TensorInfo, TensorPlan};
use nfl_models::{Level, Shape, TensorType, check_inventory, preflight};
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::time::Instant;

/// Converts a checkpoint to one GGUF file for each level of the order, in one pass over it.
///
/// The files equal what upstream's tools make in two steps: those of F32, F16 and BF16 are laid out
/// as `convert_hf_to_gguf.py` does, those of other levels as `llama-quantize` does with the F32
/// file (tensors by block and name, `general.file_type` last).
pub fn convert(
    checkpoint: &Checkpoint,
    order: &Order,
    encoder: &dyn BlockEncoder,
    on_step: &mut dyn FnMut(Step<'_>) -> ControlFlow<()>,
) -> Result<Vec<Receipt>, ConvertError> {
    let started = Instant::now();
    if order.vocab_only {
        return vocabulary_only(checkpoint, order, started, on_step);
    }
    let levels = order.distinct_levels()?;
    let paths: Vec<PathBuf> = levels.iter().map(|level| order.path(*level)).collect();
    order.prepare(&paths, checkpoint.shard_paths())?;
    let plan = Plan::new(checkpoint)?;
    for text in &plan.warnings {
        tell(on_step, Step::Warning { text })?;
    }
    let tensors: Vec<JobTensor> = plan.recipes.iter().map(job_tensor).collect();
    let candidates: Vec<Candidate<'_>> = tensors
        .iter()
        .map(|tensor| Candidate {
            name: &tensor.name,
            dimensions: &tensor.dimensions,
            source_type: TensorType::F32,
        })
        .collect();
    let choices = choose(&plan.metadata, &levels, &candidates, on_step)?;
    for (level, choices) in levels.iter().zip(&choices) {
        check_runs(&plan.metadata(*level), tensor_plans(&tensors, choices))?;
    }
    let mut outputs = Vec::new();
    for ((level, path), choices) in levels.iter().zip(paths).zip(&choices) {
        let mut file: Vec<usize> = (0..tensors.len()).collect();
        if level.base_type().is_quantized() {
            file.sort_by_key(|index| file_order(&tensors[*index].name));
        }
        outputs.push(Output::create(Layout {
            level: *level,
            path,
            metadata: &plan.metadata(*level),
            tensors: tensor_plans(&tensors, choices),
            order: file,
        })?);
    }
    let source = CheckpointSource::new(checkpoint, &plan.recipes)?;
    let elements = tensors.iter().map(JobTensor::elements).sum();
    tell(on_step, Step::Started { tensors: tensors.len(), elements, levels: &levels })?;
    let threads = order.thread_count();
    let job =
        Job { source: &source, tensors: &tensors, outputs: &outputs, blocks: encoder, threads };
    job.run(on_step)?;
    finish(outputs, order, started, &check_file, on_step)
}

/// Refuses what `nfl run` would refuse, before hours are spent on it.
fn check_runs(metadata: &Metadata, tensors: Vec<TensorPlan>) -> Result<(), ConvertError> {
    let info = |plan: TensorPlan| {
        let TensorPlan { name, dimensions, tensor_type } = plan;
        // the check looks at no data, so places do not matter
        TensorInfo { name, dimensions, tensor_type, offset: 0, shard: 0 }
    };
    let tensors: Vec<TensorInfo> = tensors.into_iter().map(info).collect();
    // `nfl run` gives the warnings
    preflight::check(metadata, &tensors)?;
    Ok(())
}

/// Checks a finished file against the inventory of its architecture.
fn check_file(file: &Gguf) -> Result<(), ConvertError> {
    Ok(check_inventory(&Shape::of(file)?, file.tensors())?)
}

/// Writes metadata and vocabulary, without tensors.
fn vocabulary_only(
    checkpoint: &Checkpoint,
    order: &Order,
    started: Instant,
    on_step: &mut dyn FnMut(Step<'_>) -> ControlFlow<()>,
) -> Result<Vec<Receipt>, ConvertError> {
    let level = order.levels.first().copied().unwrap_or(Level::F16);
    let path = order.vocabulary_path();
    order.prepare(std::slice::from_ref(&path), checkpoint.shard_paths())?;
    let plan = Plan::vocabulary_only(checkpoint)?;
    for text in &plan.warnings {
        tell(on_step, Step::Warning { text })?;
    }
    let metadata = plan.metadata(level);
    check_runs(&metadata, vec![])?;
    let layout = Layout { level, path, metadata: &metadata, tensors: vec![], order: vec![] };
    finish(vec![Output::create(layout)?], order, started, &|_| Ok(()), on_step)
}

fn job_tensor(recipe: &Recipe) -> JobTensor {
    JobTensor { name: recipe.name.clone(), dimensions: recipe.dimensions.clone() }
}

/// The choice of types for every level; reports fall-backs, and fails when a level cannot be made.
pub(crate) fn choose(
    metadata: &Metadata,
    levels: &[Level],
    candidates: &[Candidate<'_>],
    on_step: &mut dyn FnMut(Step<'_>) -> ControlFlow<()>,
) -> Result<Vec<Vec<Choice>>, ConvertError> {
    let traits = Traits::of(metadata);
    let mut all = Vec::new();
    for level in levels {
        let choices = mixture::choose(&traits, *level, candidates)?;
        let chosen = || candidates.iter().zip(&choices);
        let mut useless = chosen().filter(|(_, choice)| choice.needs_importance);
        if let Some((first, _)) = useless.next() {
            let (tensor, count) = (first.name.to_owned(), 1 + useless.count());
            return Err(ConvertError::NeedsImportance { level: *level, tensor, count });
        }
        for (candidate, choice) in chosen() {
            if let Some(wanted) = choice.wanted {
                let (tensor, used) = (candidate.name, choice.tensor_type);
                let row = candidate.dimensions[0];
                tell(on_step, Step::Fallback { level: *level, tensor, wanted, used, row })?;
            }
        }
        all.push(choices);
    }
    Ok(all)
}

pub(crate) fn tensor_plans(tensors: &[JobTensor], choices: &[Choice]) -> Vec<TensorPlan> {
    let planned = tensors.iter().zip(choices).map(|(tensor, choice)| TensorPlan {
        name: tensor.name.clone(),
        dimensions: tensor.dimensions.clone(),
        tensor_type: choice.tensor_type,
    });
    planned.collect()
}

/// Checks and names the files one after the other.
pub(crate) fn finish(
    outputs: Vec<Output>,
    order: &Order,
    started: Instant,
    check: &dyn Fn(&Gguf) -> Result<(), ConvertError>,
    on_step: &mut dyn FnMut(Step<'_>) -> ControlFlow<()>,
) -> Result<Vec<Receipt>, ConvertError> {
    let mut receipts = Vec::new();
    for output in outputs {
        let (level, total) = (output.level(), output.elements());
        // the last chance to stop: syncing and reading back may take a while
        tell(on_step, Step::Progress { done: total, total })?;
        let receipt = output.finish(order, started, check)?;
        // a file that has its name stays, whatever the answer; the next one asks again
        let _ = on_step(Step::Written { level, path: &receipt.path, bytes: receipt.bytes });
        receipts.push(receipt);
    }
    Ok(receipts)
}

/// The values of a plan's recipes.
struct CheckpointSource<'a> {
    checkpoint: &'a Checkpoint,
    tensors: Vec<Values<'a>>,
}

enum Values<'a> {
    Parts { parts: Vec<&'a SourceTensor>, order: RowOrder },
    Computed(&'a [f32]),
}

impl<'a> CheckpointSource<'a> {
    fn new(checkpoint: &'a Checkpoint, recipes: &'a [Recipe]) -> Result<Self, ConvertError> {
        let find = |name: &String| {
            let missing = || ConvertError::MissingTensor { name: name.clone() };
            checkpoint.tensor(name).ok_or_else(missing)
        };
        let values = |recipe: &'a Recipe| match &recipe.content {
            Content::Values(values) => Ok(Values::Computed(values)),
            Content::Parts { parts, order } => {
                let parts = parts.iter().map(find).collect::<Result<_, _>>()?;
                Ok(Values::Parts { parts, order: *order })
            }
        };
        let tensors = recipes.iter().map(values).collect::<Result<_, ConvertError>>()?;
        Ok(Self { checkpoint, tensors })
    }
}

impl Source for CheckpointSource<'_> {
    fn read(&self, tensor: usize, start: u64, target: &mut [f32]) -> Result<(), ConvertError> {
        let (parts, order) = match &self.tensors[tensor] {
            Values::Computed(values) => {
                let start = start as usize;
                target.copy_from_slice(&values[start..start + target.len()]);
                return Ok(());
            }
            Values::Parts { parts, order } => (parts, *order),
        };
        let elements = parts[0].elements();
        let rows = parts[0].shape.first().copied().unwrap_or(1);
        let columns = elements.checked_div(rows).unwrap_or(0);
        let mut done = 0;
        while done < target.len() {
            let at = start + done as u64;
            let part = parts[(at / elements) as usize];
            let within = at % elements;
            let length = (elements - within).min((target.len() - done) as u64);
            for run in order.runs(rows, columns, within, length) {
                let target = &mut target[done..done + run.length as usize];
                self.checkpoint.read_f32(part, run.start, target)?;
                done += run.length as usize;
            }
        }
        Ok(())
    }

    fn stored(&self, _: usize) -> Result<Option<(TensorType, &[u8])>, ConvertError> {
        Ok(None)
    }

    fn release(&self, tensor: usize) {
        if let Values::Parts { parts, .. } = &self.tensors[tensor] {
            for part in parts {
                self.checkpoint.release(part);
            }
        }
    }
}
