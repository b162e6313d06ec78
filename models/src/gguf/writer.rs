//! Writes a GGUF file as a stream: the whole head first, then each tensor's bytes in order, nothing
//! held back.
//!
//! The head is built in memory, and parsed by this crate's own reader before its first byte is
//! written: what the reader would refuse is never written.

use std::collections::VecDeque;
use std::io::{self, Write};

use super::error::GgufError;
use super::header::{Header, MAGIC, align, alignment_of, tensor_bytes};
use super::metadata::Metadata;
use super::value::{Array, Value};
use crate::hint::Hint;
use crate::tensor::TensorType;

/// How a file is written where the format leaves a choice.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Options {
    /// 2 or 3.
    pub version: u32,
    /// Whether a file without tensors is padded to the alignment, as llama-gguf-split does with
    /// the first shard; convert_hf_to_gguf.py does not pad a vocabulary.
    pub pad_without_tensors: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self { version: 3, pad_without_tensors: false }
    }
}

/// A tensor that will be written.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TensorPlan {
    /// Unique in the model.
    pub name: String,
    /// In ggml's order: the first is the length of a row.
    pub dimensions: Vec<u64>,
    /// How its numbers are stored.
    pub tensor_type: TensorType,
}

/// Why a file could not be written.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// The system would not take the bytes.
    #[error("cannot write: {0}")]
    Io(#[from] io::Error),
    /// The reader would refuse the file.
    #[error("the file would not be readable: {0}")]
    Refused(#[from] GgufError),
    /// More bytes than the current tensor has, or bytes after the last tensor.
    #[error("too many bytes for tensor {name}: {extra} more than planned")]
    TooMany {
        /// The tensor; empty after the last one.
        name: String,
        /// Bytes beyond the plan.
        extra: u64,
    },
    /// A tensor was finished, or the file was, before all of its bytes were written.
    #[error("tensor {name} is incomplete: {missing} bytes missing")]
    Incomplete {
        /// The tensor.
        name: String,
        /// Bytes that are missing.
        missing: u64,
    },
    /// A tensor was finished after the last one.
    #[error("no tensor left to finish")]
    NothingLeft,
}

impl Hint for WriteError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::Io(source) if source.kind() == io::ErrorKind::StorageFull => {
                Some("free some space, or choose another output directory".to_owned())
            }
            Self::Refused(source) => source.hint(),
            _ => None,
        }
    }
}

/// A tensor that has not been finished yet.
struct Pending {
    name: String,
    missing: u64,
    padding: u64,
}

/// Streams one GGUF file.
pub struct Writer<W: Write> {
    target: W,
    pending: VecDeque<Pending>,
    data_offset: u64,
    total_bytes: u64,
}

impl<W: Write> Writer<W> {
    /// Writes the head of a version 3 file. The alignment is that of `general.alignment`, else 32.
    pub fn new(
        target: W,
        metadata: &Metadata,
        tensors: Vec<TensorPlan>,
    ) -> Result<Self, WriteError> {
        Self::with_options(target, metadata, tensors, Options::default())
    }

    /// Writes the head of a file of version 2 or 3, with every choice that the format leaves.
    ///
    /// # Panics
    /// When the reader does not see what was planned: an error of this module, caught before a byte
    /// is written.
    pub fn with_options(
        mut target: W,
        metadata: &Metadata,
        tensors: Vec<TensorPlan>,
        options: Options,
    ) -> Result<Self, WriteError> {
        let alignment = alignment_of(metadata)?;
        let mut head = Vec::new();
        encode_metadata(&mut head, options.version, metadata, tensors.len());
        let data_bytes = encode_tensors(&mut head, &tensors, alignment)?;
        if !tensors.is_empty() || options.pad_without_tensors {
            head.resize(head.len().next_multiple_of(alignment as usize), 0);
        }
        let data_offset = head.len() as u64;
        let total_bytes = data_offset.checked_add(data_bytes).ok_or_else(|| overflow(&tensors))?;
        let read = Header::parse_prefix(&head, total_bytes)?;
        let same = read.tensors.iter().zip(&tensors).all(|(read, plan)| {
            read.name == plan.name
                && read.dimensions == plan.dimensions
                && read.tensor_type == plan.tensor_type
        });
        assert!(
            same && read.tensors.len() == tensors.len(),
            "the reader must see what was planned"
        );
        target.write_all(&head)?;
        let pending = tensors.into_iter().zip(&read.tensors).map(|(plan, tensor)| {
            let missing = tensor.bytes();
            let padding = missing.next_multiple_of(alignment) - missing;
            Pending { name: plan.name, missing, padding }
        });
        Ok(Self { target, pending: pending.collect(), data_offset, total_bytes })
    }

    /// Appends bytes to the current tensor.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), WriteError> {
        let length = bytes.len() as u64;
        let Some(current) = self.pending.front_mut() else {
            return match length {
                0 => Ok(()),
                extra => Err(WriteError::TooMany { name: String::new(), extra }),
            };
        };
        if length > current.missing {
            let (name, extra) = (current.name.clone(), length - current.missing);
            return Err(WriteError::TooMany { name, extra });
        }
        current.missing -= length;
        self.target.write_all(bytes)?;
        Ok(())
    }

    /// Ends the current tensor, which must be complete, and pads it.
    pub fn finish_tensor(&mut self) -> Result<(), WriteError> {
        let Some(current) = self.pending.front() else {
            return Err(WriteError::NothingLeft);
        };
        if current.missing > 0 {
            let (name, missing) = (current.name.clone(), current.missing);
            return Err(WriteError::Incomplete { name, missing });
        }
        self.target.write_all(&vec![0; current.padding as usize])?;
        self.pending.pop_front();
        Ok(())
    }

    /// Ends the file; every tensor must have been finished. Flushes, and gives the target back.
    pub fn finish(mut self) -> Result<W, WriteError> {
        if let Some(Pending { name, missing, .. }) = self.pending.pop_front() {
            return Err(WriteError::Incomplete { name, missing });
        }
        self.target.flush()?;
        Ok(self.target)
    }

    /// The name of the tensor whose bytes are due; `None` after the last.
    pub fn current(&self) -> Option<&str> {
        self.pending.front().map(|pending| pending.name.as_str())
    }

    /// Where the data section begins, in bytes.
    pub fn data_offset(&self) -> u64 {
        self.data_offset
    }

    /// Bytes of the whole file when it is finished.
    pub fn total_bytes(&self) -> u64 {
        self.total_bytes
    }
}

fn overflow(tensors: &[TensorPlan]) -> WriteError {
    let last = tensors.last().cloned();
    let (name, dimensions) =
        last.map_or_else(Default::default, |plan| (plan.name, plan.dimensions));
    GgufError::TensorSize { name, dimensions }.into()
}

fn encode_metadata(head: &mut Vec<u8>, version: u32, metadata: &Metadata, tensor_count: usize) {
    head.extend(MAGIC);
    head.extend(version.to_le_bytes());
    head.extend((tensor_count as u64).to_le_bytes());
    head.extend((metadata.len() as u64).to_le_bytes());
    for (key, value) in metadata.iter() {
        encode_bytes(head, key.as_bytes());
        head.extend(value.type_id().to_le_bytes());
        encode_value(head, value);
    }
}

/// Appends the tensor infos; returns the bytes of the data section.
fn encode_tensors(
    head: &mut Vec<u8>,
    tensors: &[TensorPlan],
    alignment: u64,
) -> Result<u64, WriteError> {
    let mut offset = 0_u64;
    for TensorPlan { name, dimensions, tensor_type } in tensors {
        encode_bytes(head, name.as_bytes());
        head.extend((dimensions.len() as u32).to_le_bytes());
        for dimension in dimensions {
            head.extend(dimension.to_le_bytes());
        }
        head.extend(tensor_type.id().to_le_bytes());
        head.extend(offset.to_le_bytes());
        // Where the size is unknown the reader will name the fault; any number serves until then.
        let bytes = tensor_bytes(*tensor_type, dimensions).unwrap_or(0);
        let end = offset.checked_add(bytes).and_then(|end| align(end, alignment));
        offset = end.ok_or_else(|| overflow(tensors))?;
    }
    Ok(offset)
}

fn encode_bytes(head: &mut Vec<u8>, bytes: &[u8]) {
    head.extend((bytes.len() as u64).to_le_bytes());
    head.extend(bytes);
}

fn encode_value(head: &mut Vec<u8>, value: &Value) {
    match value {
        Value::U8(value) => head.push(*value),
        Value::I8(value) => head.extend(value.to_le_bytes()),
        Value::U16(value) => head.extend(value.to_le_bytes()),
        Value::I16(value) => head.extend(value.to_le_bytes()),
        Value::U32(value) => head.extend(value.to_le_bytes()),
        Value::I32(value) => head.extend(value.to_le_bytes()),
        Value::F32(value) => head.extend(value.to_le_bytes()),
        Value::Bool(value) => head.push(u8::from(*value)),
        Value::String(text) => encode_bytes(head, text.as_bytes()),
        Value::Array(array) => encode_array(head, array),
        Value::U64(value) => head.extend(value.to_le_bytes()),
        Value::I64(value) => head.extend(value.to_le_bytes()),
        Value::F64(value) => head.extend(value.to_le_bytes()),
    }
}

fn encode_array(head: &mut Vec<u8>, array: &Array) {
    head.extend(array.type_id().to_le_bytes());
    head.extend((array.len() as u64).to_le_bytes());
    match array {
        Array::U8(values) => head.extend(values),
        Array::I8(values) => values.iter().for_each(|value| head.extend(value.to_le_bytes())),
        Array::U16(values) => values.iter().for_each(|value| head.extend(value.to_le_bytes())),
        Array::I16(values) => values.iter().for_each(|value| head.extend(value.to_le_bytes())),
        Array::U32(values) => values.iter().for_each(|value| head.extend(value.to_le_bytes())),
        Array::I32(values) => values.iter().for_each(|value| head.extend(value.to_le_bytes())),
        Array::F32(values) => values.iter().for_each(|value| head.extend(value.to_le_bytes())),
        Array::Bool(values) => head.extend(values.iter().map(|&value| u8::from(value))),
        Array::String(texts) => texts.iter().for_each(|text| encode_bytes(head, text.as_bytes())),
        Array::U64(values) => values.iter().for_each(|value| head.extend(value.to_le_bytes())),
        Array::I64(values) => values.iter().for_each(|value| head.extend(value.to_le_bytes())),
        Array::F64(values) => values.iter().for_each(|value| head.extend(value.to_le_bytes())),
    }
}
