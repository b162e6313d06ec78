//! From a GGUF file to other levels, as `llama-quantize` does: `nfl quantize`.
//!
//! The output keeps the metadata in their order, except that `general.quantization_version` and
//! `general.file_type` move to the end and `split.*` is left out; tensors are laid out by block,
//! then by name. A tensor whose type does not change is copied. A source in shards is read as one.
//!
//! The source is mapped. Its length is looked at before every piece of it, so that a file which is
//! cut meanwhile is an error; only a cut in the very moment of a read still ends the process.

use crate::error::ConvertError;
use crate::families::mark_quantized;
use crate::order::{Order, Step};
use crate::output::{Layout, Output};
use crate::pipeline::{choose, finish, tensor_plans};
use crate::quantize::category::{Candidate, file_order};
use crate::quantize::mixture::Choice;
use crate::quantize::{self, BlockEncoder};
use crate::receipt::Receipt;
use crate::stream::{Job, JobTensor, Source, tell};
use nfl_models::TensorType;
use nfl_models::gguf::{Gguf, TensorInfo};
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::time::Instant;

/// Keys that describe the shards of a split model, which the output is not.
const SPLIT_KEYS: [&str; 3] = ["split.no", "split.count", "split.tensors.count"];

/// What happens to a model's values before they are written.
pub trait Change: Sync {
    /// Whether it changes a tensor; any other may be copied.
    fn changes(&self, tensor: &str) -> bool;

    /// Changes the values of a tensor from `start` on.
    fn change(&self, tensor: &str, start: u64, values: &mut [f32]);
}

/// Writes a GGUF model at each level of the order, in one pass over it.
pub fn requantize(
    source: &Gguf,
    order: &Order,
    encoder: &dyn BlockEncoder,
    on_step: &mut dyn FnMut(Step<'_>) -> ControlFlow<()>,
) -> Result<Vec<Receipt>, ConvertError> {
    rewrite(source, None, order, encoder, on_step)
}

/// [`requantize`] with changed values.
pub fn rewrite(
    source: &Gguf,
    change: Option<&dyn Change>,
    order: &Order,
    encoder: &dyn BlockEncoder,
    on_step: &mut dyn FnMut(Step<'_>) -> ControlFlow<()>,
) -> Result<Vec<Receipt>, ConvertError> {
    let started = Instant::now();
    let levels = order.distinct_levels()?;
    let paths: Vec<PathBuf> = levels.iter().map(|level| order.path(*level)).collect();
    order.prepare(&paths, source.files())?;
    let mut infos: Vec<&TensorInfo> = source.tensors().iter().collect();
    infos.sort_by_key(|info| file_order(&info.name));
    let candidates: Vec<Candidate<'_>> = infos
        .iter()
        .map(|info| Candidate {
            name: &info.name,
            dimensions: &info.dimensions,
            source_type: info.tensor_type,
        })
        .collect();
    let choices = choose(source.metadata(), &levels, &candidates, on_step)?;
    check_sources(order, &candidates, &choices, on_step)?;
    let tensors: Vec<JobTensor> = infos
        .iter()
        .map(|info| JobTensor { name: info.name.clone(), dimensions: info.dimensions.clone() })
        .collect();
    let mut outputs = Vec::new();
    for ((level, path), choices) in levels.iter().zip(paths).zip(&choices) {
        let mut metadata = source.metadata().clone();
        mark_quantized(&mut metadata, *level);
        for key in SPLIT_KEYS {
            metadata.remove(key);
        }
        outputs.push(Output::create(Layout {
            level: *level,
            path,
            metadata: &metadata,
            tensors: tensor_plans(&tensors, choices),
            order: (0..tensors.len()).collect(),
        })?);
    }
    let elements = tensors.iter().map(JobTensor::elements).sum();
    tell(on_step, Step::Started { tensors: tensors.len(), elements, levels: &levels })?;
    let gguf = GgufSource { file: source, infos: &infos, blocks: encoder, change };
    let threads = order.thread_count();
    let job = Job { source: &gguf, tensors: &tensors, outputs: &outputs, blocks: encoder, threads };
    job.run(on_step)?;
    finish(outputs, order, started, &|_| Ok(()), on_step)
}

/// Refuses to quantise twice, unless that was asked for; then says what it costs.
fn check_sources(
    order: &Order,
    candidates: &[Candidate<'_>],
    choices: &[Vec<Choice>],
    on_step: &mut dyn FnMut(Step<'_>) -> ControlFlow<()>,
) -> Result<(), ConvertError> {
    let changes = |index: usize| {
        let source_type = candidates[index].source_type;
        source_type.is_quantized()
            && choices.iter().any(|choices| choices[index].tensor_type != source_type)
    };
    let twice: Vec<usize> = (0..candidates.len()).filter(|index| changes(*index)).collect();
    let Some(first) = twice.first().map(|index| &candidates[*index]) else { return Ok(()) };
    if !order.allow_requantize {
        return Err(ConvertError::AlreadyQuantized {
            tensor: first.name.to_owned(),
            tensor_type: first.source_type,
        });
    }
    let text = format!(
        "{} tensors are quantised already ({} and others): the result is worse than one made from \
         the original",
        twice.len(),
        first.source_type
    );
    tell(on_step, Step::Warning { text: &text })
}

/// The values of a GGUF file.
struct GgufSource<'a> {
    file: &'a Gguf,
    infos: &'a [&'a TensorInfo],
    blocks: &'a dyn BlockEncoder,
    change: Option<&'a dyn Change>,
}

impl GgufSource<'_> {
    /// What changes a tensor.
    fn change(&self, tensor: &str) -> Option<&dyn Change> {
        self.change.filter(|change| change.changes(tensor))
    }
}

impl Source for GgufSource<'_> {
    fn read(&self, tensor: usize, start: u64, target: &mut [f32]) -> Result<(), ConvertError> {
        let info = self.infos[tensor];
        self.file.check_length(info)?;
        let block = info.tensor_type.block_elements();
        let position = |elements: u64| (elements / block * info.tensor_type.block_bytes()) as usize;
        let end = start + target.len() as u64;
        let bytes = &self.file.data(info)[position(start)..position(end)];
        quantize::decode(self.blocks, info.tensor_type, bytes, target)
            .map_err(|source| ConvertError::Encode { tensor: info.name.clone(), source })?;
        if let Some(change) = self.change(&info.name) {
            change.change(&info.name, start, target);
        }
        Ok(())
    }

    fn stored(&self, tensor: usize) -> Result<Option<(TensorType, &[u8])>, ConvertError> {
        let info = self.infos[tensor];
        self.file.check_length(info)?;
        if self.change(&info.name).is_some() {
            return Ok(None);
        }
        Ok(Some((info.tensor_type, self.file.data(info))))
    }

    fn release(&self, _: usize) {}
}
