//! Parses the head of a GGUF file: version, metadata, tensor infos, and every check on them.

use std::collections::HashSet;

use super::cursor::Cursor;
use super::error::{GgufError, OffsetFault};
use super::limits;
use super::metadata::Metadata;
use super::value::{ARRAY_TYPE_ID, Array, Text, Value, value_type_name};
use crate::tensor::TensorType;

/// The first four bytes of a file.
pub const MAGIC: [u8; 4] = *b"GGUF";

/// The key that holds the alignment of the data section.
pub const ALIGNMENT_KEY: &str = "general.alignment";

/// The alignment of files that name none, in bytes.
pub const ALIGNMENT_DEFAULT: u64 = 32;

/// Bytes of the shortest metadata entry: length, a one-byte key, type, a one-byte value.
const ENTRY_BYTES_MIN: u64 = 8 + 1 + 4 + 1;

/// Bytes of the shortest tensor info: length, an empty name, no dimensions, type, offset.
const TENSOR_INFO_BYTES_MIN: u64 = 8 + 4 + 4 + 8;

/// Where and how one tensor is stored.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TensorInfo {
    /// Unique in the model.
    pub name: String,
    /// In ggml's order: the first is the length of a row. At most four; none for a scalar.
    pub dimensions: Vec<u64>,
    /// How its numbers are stored.
    pub tensor_type: TensorType,
    /// Where its bytes begin within the data section of its file.
    pub offset: u64,
    /// Which file of a split holds it, from 0.
    pub shard: usize,
}

impl TensorInfo {
    /// Number of elements.
    pub fn elements(&self) -> u64 {
        self.dimensions.iter().product()
    }

    /// Elements of a row.
    pub fn row_elements(&self) -> u64 {
        self.dimensions.first().copied().unwrap_or(1)
    }

    /// Number of rows.
    pub fn rows(&self) -> u64 {
        // Not the product of the other dimensions: nothing bounds that when the row is empty.
        self.elements().checked_div(self.row_elements()).unwrap_or(0)
    }

    /// Bytes of its data, without padding.
    ///
    /// # Panics
    /// When the size overflows or the row does not divide into blocks, which the reader refuses.
    pub fn bytes(&self) -> u64 {
        tensor_bytes(self.tensor_type, &self.dimensions)
            .expect("the reader refuses tensors whose size overflows or whose rows do not divide")
    }
}

/// Bytes of a tensor; `None` when its row does not divide or its size overflows.
///
/// Like ggml, counts elements as i64: a product of dimensions beyond that is an overflow.
pub fn tensor_bytes(tensor_type: TensorType, dimensions: &[u64]) -> Option<u64> {
    let mut elements: u64 = 1;
    for &dimension in dimensions {
        elements = elements.checked_mul(dimension)?;
        if dimension > i64::MAX as u64 || elements > i64::MAX as u64 {
            return None;
        }
    }
    let row = dimensions.first().copied().unwrap_or(1);
    if !row.is_multiple_of(tensor_type.block_elements()) {
        return None;
    }
    tensor_type.row_bytes(elements)
}

/// Rounds up to a multiple of the alignment; `None` when that overflows.
pub(super) fn align(position: u64, alignment: u64) -> Option<u64> {
    position.checked_next_multiple_of(alignment)
}

/// Everything before the data section of one file.
#[derive(Clone, PartialEq, Debug)]
pub struct Header {
    /// 2 or 3; they differ in nothing for little-endian files.
    pub version: u32,
    /// Of the data section and of each tensor in it, in bytes; a power of two.
    pub alignment: u64,
    /// The entries, in the file's order.
    pub metadata: Metadata,
    /// The tensors, in the file's order, which is that of their data.
    pub tensors: Vec<TensorInfo>,
    /// Where the data section begins, in bytes from the start of the file.
    pub data_offset: u64,
}

impl Header {
    /// Parses and checks a whole file; `bytes` is all of it, usually mapped.
    pub fn parse(bytes: &[u8]) -> Result<Self, GgufError> {
        Self::parse_prefix(bytes, bytes.len() as u64)
    }

    /// The same when only the first bytes of a file of `file_bytes` are at hand.
    pub fn parse_prefix(bytes: &[u8], file_bytes: u64) -> Result<Self, GgufError> {
        let mut cursor = Cursor::new(bytes, file_bytes);
        let version = read_version(&mut cursor)?;
        let tensor_count = cursor.length("number of tensors", limits::TENSORS_MAX)?;
        let entry_count =
            cursor.length("number of metadata entries", limits::METADATA_ENTRIES_MAX)?;
        let metadata = read_metadata(&mut cursor, entry_count)?;
        let alignment = alignment_of(&metadata)?;
        let tensors = read_tensors(&mut cursor, tensor_count)?;
        let mut data_offset = cursor.position();
        if !tensors.is_empty() {
            data_offset = data_offset.next_multiple_of(alignment);
            cursor.expect(data_offset - cursor.position(), 1, "padding before the tensor data")?;
        }
        check_places(&tensors, alignment, data_offset, file_bytes.max(bytes.len() as u64))?;
        Ok(Self { version, alignment, metadata, tensors, data_offset })
    }
}

fn read_version(cursor: &mut Cursor<'_>) -> Result<u32, GgufError> {
    let magic = cursor.take(4, "magic")?;
    let magic: [u8; 4] = magic.try_into().expect("four bytes were taken");
    if magic != MAGIC {
        return Err(if magic == *b"FUGG" { GgufError::BigEndian } else { GgufError::Magic(magic) });
    }
    match cursor.u32("version")? {
        version @ (2 | 3) => Ok(version),
        // A small version in the other byte order has only high bits set.
        swapped if swapped != 0 && swapped.trailing_zeros() >= 16 => Err(GgufError::BigEndian),
        version => Err(GgufError::Version(version)),
    }
}

fn text(bytes: &[u8], what: &'static str, index: u64) -> Result<String, GgufError> {
    match str::from_utf8(bytes) {
        Ok(text) if !text.contains('\0') => Ok(text.to_owned()),
        _ => Err(GgufError::NotText { what, index, bytes: bytes[..bytes.len().min(64)].to_vec() }),
    }
}

fn read_metadata(cursor: &mut Cursor<'_>, count: u64) -> Result<Metadata, GgufError> {
    const WHAT: &str = "metadata";
    cursor.expect(count, ENTRY_BYTES_MIN, WHAT)?;
    let start = cursor.position();
    let mut metadata = Metadata::new();
    for index in 0..count {
        let key = cursor.string("metadata key", limits::KEY_BYTES_MAX)?;
        if key.is_empty() {
            return Err(GgufError::EmptyKey(index));
        }
        let key = text(key, "metadata key", index)?;
        if metadata.get(&key).is_some() {
            return Err(GgufError::DuplicateKey(key));
        }
        let type_id = cursor.u32("type of a metadata value")?;
        let budget = limits::METADATA_BYTES_MAX.saturating_sub(cursor.position() - start);
        let value = read_value(cursor, &key, type_id, budget)?;
        metadata.set(key, value);
    }
    Ok(metadata)
}

/// Refuses values that would take the metadata section beyond its limit, before they are allocated.
fn within(budget: u64, bytes: u64) -> Result<(), GgufError> {
    if bytes > budget {
        let limit = limits::METADATA_BYTES_MAX;
        return Err(GgufError::Limit {
            what: "bytes of metadata",
            value: limit - budget + bytes.min(limit),
            limit,
        });
    }
    Ok(())
}

fn read_value(
    cursor: &mut Cursor<'_>,
    key: &str,
    type_id: u32,
    budget: u64,
) -> Result<Value, GgufError> {
    const WHAT: &str = "a metadata value";
    Ok(match type_id {
        0 => Value::U8(cursor.take(1, WHAT)?[0]),
        1 => Value::I8(cursor.take(1, WHAT)?[0] as i8),
        2 => Value::U16(u16_of(cursor.take(2, WHAT)?)),
        3 => Value::I16(u16_of(cursor.take(2, WHAT)?) as i16),
        4 => Value::U32(u32_of(cursor.take(4, WHAT)?)),
        5 => Value::I32(u32_of(cursor.take(4, WHAT)?) as i32),
        6 => Value::F32(f32::from_bits(u32_of(cursor.take(4, WHAT)?))),
        // llama.cpp takes every byte but zero for true.
        7 => Value::Bool(cursor.take(1, WHAT)?[0] != 0),
        8 => {
            let bytes = cursor.string("a metadata string", limits::STRING_BYTES_MAX)?;
            within(budget, 8 + bytes.len() as u64)?;
            Value::String(Text::from_bytes(bytes))
        }
        ARRAY_TYPE_ID => Value::Array(read_array(cursor, key, budget)?),
        10 => Value::U64(u64_of(cursor.take(8, WHAT)?)),
        11 => Value::I64(u64_of(cursor.take(8, WHAT)?) as i64),
        12 => Value::F64(f64::from_bits(u64_of(cursor.take(8, WHAT)?))),
        id => return Err(GgufError::ValueType { key: key.to_owned(), id }),
    })
}

fn read_array(cursor: &mut Cursor<'_>, key: &str, budget: u64) -> Result<Array, GgufError> {
    const WHAT: &str = "a metadata array";
    let type_id = cursor.u32(WHAT)?;
    let element_bytes = match type_id {
        0 | 1 | 7 => 1,
        2 | 3 => 2,
        4..=6 => 4,
        8 | 10..=12 => 8,
        ARRAY_TYPE_ID => return Err(GgufError::NestedArray(key.to_owned())),
        id => return Err(GgufError::ValueType { key: key.to_owned(), id }),
    };
    let count = cursor.length("elements of a metadata array", limits::ARRAY_ELEMENTS_MAX)?;
    cursor.expect(count, element_bytes, WHAT)?;
    within(budget, count * element_bytes)?;
    if type_id == 8 {
        return read_strings(cursor, count, budget).map(Array::String);
    }
    let bytes = cursor.take(count * element_bytes, WHAT)?;
    let twos = || bytes.chunks_exact(2).map(u16_of);
    let fours = || bytes.chunks_exact(4).map(u32_of);
    let eights = || bytes.chunks_exact(8).map(u64_of);
    Ok(match type_id {
        0 => Array::U8(bytes.to_vec()),
        1 => Array::I8(bytes.iter().map(|&byte| byte as i8).collect()),
        2 => Array::U16(twos().collect()),
        3 => Array::I16(twos().map(|bits| bits as i16).collect()),
        4 => Array::U32(fours().collect()),
        5 => Array::I32(fours().map(|bits| bits as i32).collect()),
        6 => Array::F32(fours().map(f32::from_bits).collect()),
        7 => Array::Bool(bytes.iter().map(|&byte| byte != 0).collect()),
        10 => Array::U64(eights().collect()),
        11 => Array::I64(eights().map(|bits| bits as i64).collect()),
        _ => Array::F64(eights().map(f64::from_bits).collect()),
    })
}

fn read_strings(cursor: &mut Cursor<'_>, count: u64, budget: u64) -> Result<Vec<Text>, GgufError> {
    let start = cursor.position();
    let mut texts = Vec::with_capacity(count as usize);
    for _ in 0..count {
        let bytes = cursor.string("a string of a metadata array", limits::STRING_BYTES_MAX)?;
        within(budget, cursor.position() - start)?;
        texts.push(Text::from_bytes(bytes));
    }
    Ok(texts)
}

fn u16_of(bytes: &[u8]) -> u16 {
    u16::from_le_bytes(bytes.try_into().expect("callers pass two bytes"))
}

fn u32_of(bytes: &[u8]) -> u32 {
    u32::from_le_bytes(bytes.try_into().expect("callers pass four bytes"))
}

fn u64_of(bytes: &[u8]) -> u64 {
    u64::from_le_bytes(bytes.try_into().expect("callers pass eight bytes"))
}

/// The alignment that metadata ask for, checked.
pub(super) fn alignment_of(metadata: &Metadata) -> Result<u64, GgufError> {
    let alignment = match metadata.get(ALIGNMENT_KEY) {
        None => ALIGNMENT_DEFAULT,
        Some(Value::U32(alignment)) => u64::from(*alignment),
        Some(other) => return Err(GgufError::AlignmentType(value_type_name(other.type_id()))),
    };
    if !alignment.is_power_of_two() {
        return Err(GgufError::Alignment(alignment));
    }
    if alignment > limits::ALIGNMENT_MAX {
        let limit = limits::ALIGNMENT_MAX;
        return Err(GgufError::Limit { what: ALIGNMENT_KEY, value: alignment, limit });
    }
    Ok(alignment)
}

fn read_tensors(cursor: &mut Cursor<'_>, count: u64) -> Result<Vec<TensorInfo>, GgufError> {
    cursor.expect(count, TENSOR_INFO_BYTES_MIN, "tensor infos")?;
    let mut tensors = Vec::with_capacity(count as usize);
    let mut names = HashSet::with_capacity(count as usize);
    for index in 0..count {
        let tensor = read_tensor(cursor, index)?;
        if !names.insert(tensor.name.clone()) {
            return Err(GgufError::DuplicateTensor(tensor.name));
        }
        tensors.push(tensor);
    }
    Ok(tensors)
}

fn read_tensor(cursor: &mut Cursor<'_>, index: u64) -> Result<TensorInfo, GgufError> {
    const WHAT: &str = "a tensor info";
    let name = cursor.string("bytes of a tensor name", limits::TENSOR_NAME_BYTES_MAX)?;
    let name = text(name, "tensor name", index)?;
    let dimension_count = cursor.u32(WHAT)?;
    if dimension_count > limits::DIMENSIONS_MAX {
        return Err(GgufError::Limit {
            what: "dimensions of a tensor",
            value: dimension_count.into(),
            limit: limits::DIMENSIONS_MAX.into(),
        });
    }
    let mut dimensions = Vec::with_capacity(dimension_count as usize);
    for _ in 0..dimension_count {
        dimensions.push(cursor.u64(WHAT)?);
    }
    let id = cursor.u32(WHAT)?;
    let Some(tensor_type) = TensorType::from_id(id) else {
        return Err(GgufError::TensorType { name, id });
    };
    let row = dimensions.first().copied().unwrap_or(1);
    if !row.is_multiple_of(tensor_type.block_elements()) {
        return Err(GgufError::Row { name, row, tensor_type });
    }
    if tensor_bytes(tensor_type, &dimensions).is_none() {
        return Err(GgufError::TensorSize { name, dimensions });
    }
    let offset = cursor.u64(WHAT)?;
    Ok(TensorInfo { name, dimensions, tensor_type, offset, shard: 0 })
}

/// Each tensor begins where the one before ends, aligned, as llama.cpp demands; and all end within
/// the file. The padding after the last one may be missing: llama.cpp loads such files.
fn check_places(
    tensors: &[TensorInfo],
    alignment: u64,
    data_offset: u64,
    file_bytes: u64,
) -> Result<(), GgufError> {
    let mut expected = 0_u64;
    for tensor in tensors {
        let (name, offset) = (tensor.name.clone(), tensor.offset);
        if offset != expected {
            let fault = if !offset.is_multiple_of(alignment) {
                OffsetFault::Unaligned
            } else if offset < expected {
                OffsetFault::Overlap
            } else {
                OffsetFault::Gap
            };
            return Err(GgufError::Offset { name, offset, expected, fault });
        }
        let end = offset.checked_add(tensor.bytes());
        let within = end.and_then(|end| end.checked_add(data_offset));
        match (within, end.and_then(|end| align(end, alignment))) {
            (Some(end), Some(next)) if end <= file_bytes => expected = next,
            (Some(end), _) => return Err(GgufError::OutOfFile { name, end, file_bytes }),
            _ => {
                let dimensions = tensor.dimensions.clone();
                return Err(GgufError::TensorSize { name, dimensions });
            }
        }
    }
    Ok(())
}
