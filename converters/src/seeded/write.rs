//! Writing the weights: values are made in a buffer of fixed size by all threads and appended to
//! the file, so memory does not depend on the size of a tensor.

use std::fs::File;
use std::io::Write;
use std::path::Path;

use rayon::prelude::*;
use safetensors::Dtype;
use safetensors::tensor::{Metadata, TensorInfo};
use serde_json::{Map, json};

use super::random::{Stream, encode};
use super::tensors::Spec;
use crate::output::within_limit;

use super::{Progress, Seed, SeededError, WeightType, write_json};

/// Bytes that are made at a time by all threads together.
const BUFFER_BYTES: usize = 8 << 20;
/// Bytes that one thread makes at a time.
const PIECE_BYTES: usize = 128 << 10;

/// Writes all tensors into one or more files and returns how many files.
pub(super) fn weights(
    directory: &Path,
    specs: &[Spec],
    seed: &Seed,
    on_progress: &mut Progress<'_>,
) -> Result<usize, SeededError> {
    let width = seed.dtype.bytes();
    let shards = cut(specs, width, seed.shard_bytes_max);
    let total: u64 = specs.iter().map(|spec| spec.elements() * width).sum();
    let mut writer = Writer { buffer: vec![0; BUFFER_BYTES], seed, done: 0, total, on_progress };
    let mut weight_map = Map::new();
    for (number, shard) in shards.iter().enumerate() {
        let name = match shards.len() {
            1 => "model.safetensors".to_owned(),
            count => format!("model-{:05}-of-{count:05}.safetensors", number + 1),
        };
        writer.shard(&directory.join(&name), shard)?;
        weight_map.extend(shard.iter().map(|spec| (spec.name.clone(), json!(name))));
    }
    if shards.len() > 1 {
        weight_map.sort_keys();
        let index = json!({"metadata": {"total_size": total}, "weight_map": weight_map});
        write_json(&directory.join("model.safetensors.index.json"), &index)?;
    }
    Ok(shards.len())
}

/// Consecutive tensors of at most `bytes_max` together; a larger tensor has a file of its own.
fn cut(specs: &[Spec], width: u64, bytes_max: u64) -> Vec<&[Spec]> {
    let mut shards = Vec::new();
    let (mut first, mut bytes) = (0, 0);
    for (number, spec) in specs.iter().enumerate() {
        let own = spec.elements() * width;
        if number > first && bytes + own > bytes_max {
            shards.push(&specs[first..number]);
            (first, bytes) = (number, 0);
        }
        bytes += own;
    }
    shards.push(&specs[first..]);
    shards
}

struct Writer<'a, 'b> {
    buffer: Vec<u8>,
    seed: &'a Seed,
    done: u64,
    total: u64,
    on_progress: &'a mut Progress<'b>,
}

impl Writer<'_, '_> {
    fn shard(&mut self, path: &Path, specs: &[Spec]) -> Result<(), SeededError> {
        let io = |error| SeededError::io(path, error);
        let bytes = specs.iter().map(|spec| spec.elements() * self.seed.dtype.bytes()).sum();
        within_limit(bytes).map_err(io)?;
        let mut file = File::create_new(path).map_err(io)?;
        file.write_all(&header(specs, self.seed.dtype).map_err(|e| io(e.into()))?).map_err(io)?;
        for spec in specs {
            let stream = Stream::new(self.seed.seed, &spec.name);
            let elements = spec.elements();
            let width = self.seed.dtype.bytes();
            let mut start = 0;
            while start < elements {
                let count = (elements - start).min(BUFFER_BYTES as u64 / width);
                let bytes = &mut self.buffer[..(count * width) as usize];
                fill(bytes, (stream, spec.deviation), start, self.seed.dtype);
                file.write_all(bytes).map_err(io)?;
                start += count;
                self.done += bytes.len() as u64;
                if (self.on_progress)(self.done, self.total).is_break() {
                    return Err(SeededError::Stopped);
                }
            }
        }
        Ok(())
    }
}

/// Makes the elements from `start` on, on all threads.
fn fill(
    bytes: &mut [u8],
    (stream, deviation): (Stream, Option<f32>),
    start: u64,
    dtype: WeightType,
) {
    let elements = PIECE_BYTES as u64 / dtype.bytes();
    bytes.par_chunks_mut(PIECE_BYTES).enumerate().for_each(|(number, bytes)| {
        encode(stream, deviation, start + number as u64 * elements, dtype, bytes);
    });
}

/// The length and the JSON before the data, padded so that the data begins at a multiple of 8.
fn header(specs: &[Spec], weight_type: WeightType) -> Result<Vec<u8>, serde_json::Error> {
    let dtype = match weight_type {
        WeightType::F32 => Dtype::F32,
        WeightType::F16 => Dtype::F16,
        WeightType::BF16 => Dtype::BF16,
    };
    let mut end = 0;
    let tensors = specs.iter().map(|spec| {
        let start = end;
        end += (spec.elements() * weight_type.bytes()) as usize;
        let shape = spec.shape.iter().map(|&length| length as usize).collect();
        (spec.name.clone(), TensorInfo { dtype, shape, data_offsets: (start, end) })
    });
    let note = [("format".to_owned(), "pt".to_owned())].into_iter().collect();
    let metadata = Metadata::new(Some(note), tensors.collect())
        .map_err(<serde_json::Error as serde::ser::Error>::custom)?;
    let mut json = serde_json::to_vec(&metadata)?;
    json.resize(json.len().next_multiple_of(8), b' ');
    let mut header = (json.len() as u64).to_le_bytes().to_vec();
    header.append(&mut json);
    Ok(header)
}
