//! What a metadata entry holds: one of GGUF's thirteen value types, kept exactly.

use std::fmt;

/// A GGUF string: bytes kept exactly, even when they are not UTF-8 (tokens of byte-level
/// vocabularies sometimes are not).
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Text(Box<[u8]>);

impl Text {
    /// Wraps bytes as they are.
    pub fn from_bytes(bytes: impl Into<Box<[u8]>>) -> Self {
        Self(bytes.into())
    }

    /// The bytes as they stand in the file.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The text, when it is UTF-8.
    pub fn as_str(&self) -> Option<&str> {
        str::from_utf8(&self.0).ok()
    }
}

impl From<&str> for Text {
    fn from(text: &str) -> Self {
        Self(text.as_bytes().into())
    }
}

impl From<String> for Text {
    fn from(text: String) -> Self {
        Self(text.into_bytes().into())
    }
}

impl fmt::Display for Text {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(&String::from_utf8_lossy(&self.0))
    }
}

impl fmt::Debug for Text {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:?}", String::from_utf8_lossy(&self.0))
    }
}

/// One metadata value.
#[expect(missing_docs, reason = "each variant is the GGUF value type of the same name")]
#[derive(Clone, PartialEq, Debug)]
pub enum Value {
    U8(u8),
    I8(i8),
    U16(u16),
    I16(i16),
    U32(u32),
    I32(i32),
    F32(f32),
    Bool(bool),
    String(Text),
    Array(Array),
    U64(u64),
    I64(i64),
    F64(f64),
}

/// An array value: all elements have one type. Arrays of arrays exist on paper only; llama.cpp
/// refuses them, and so does the reader.
#[expect(missing_docs, reason = "each variant is the GGUF value type of the same name")]
#[derive(Clone, PartialEq, Debug)]
pub enum Array {
    U8(Vec<u8>),
    I8(Vec<i8>),
    U16(Vec<u16>),
    I16(Vec<i16>),
    U32(Vec<u32>),
    I32(Vec<i32>),
    F32(Vec<f32>),
    Bool(Vec<bool>),
    String(Vec<Text>),
    U64(Vec<u64>),
    I64(Vec<i64>),
    F64(Vec<f64>),
}

/// The number of the array type in a file; the only value type that wraps another.
pub(crate) const ARRAY_TYPE_ID: u32 = 9;

impl Value {
    /// The number of the value's type in a file.
    pub fn type_id(&self) -> u32 {
        match self {
            Self::U8(_) => 0,
            Self::I8(_) => 1,
            Self::U16(_) => 2,
            Self::I16(_) => 3,
            Self::U32(_) => 4,
            Self::I32(_) => 5,
            Self::F32(_) => 6,
            Self::Bool(_) => 7,
            Self::String(_) => 8,
            Self::Array(_) => ARRAY_TYPE_ID,
            Self::U64(_) => 10,
            Self::I64(_) => 11,
            Self::F64(_) => 12,
        }
    }

    /// The name of the value's type, as llama.cpp prints it; for an array that of its elements.
    pub fn type_name(&self) -> &'static str {
        match self {
            Self::Array(array) => value_type_name(array.type_id()),
            _ => value_type_name(self.type_id()),
        }
    }

    /// The value as an unsigned number, from any integer type that fits.
    pub fn as_u64(&self) -> Option<u64> {
        match *self {
            Self::U8(value) => Some(value.into()),
            Self::U16(value) => Some(value.into()),
            Self::U32(value) => Some(value.into()),
            Self::U64(value) => Some(value),
            Self::I8(value) => value.try_into().ok(),
            Self::I16(value) => value.try_into().ok(),
            Self::I32(value) => value.try_into().ok(),
            Self::I64(value) => value.try_into().ok(),
            _ => None,
        }
    }

    /// The value as a number with 32-bit precision, from either float type.
    pub fn as_f32(&self) -> Option<f32> {
        match *self {
            Self::F32(value) => Some(value),
            Self::F64(value) => Some(value as f32),
            _ => None,
        }
    }

    /// The text of a string value, when it is UTF-8.
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Self::String(text) => text.as_str(),
            _ => None,
        }
    }

    /// The array of an array value.
    pub fn as_array(&self) -> Option<&Array> {
        match self {
            Self::Array(array) => Some(array),
            _ => None,
        }
    }
}

impl Array {
    /// The number of the elements' type in a file.
    pub fn type_id(&self) -> u32 {
        match self {
            Self::U8(_) => 0,
            Self::I8(_) => 1,
            Self::U16(_) => 2,
            Self::I16(_) => 3,
            Self::U32(_) => 4,
            Self::I32(_) => 5,
            Self::F32(_) => 6,
            Self::Bool(_) => 7,
            Self::String(_) => 8,
            Self::U64(_) => 10,
            Self::I64(_) => 11,
            Self::F64(_) => 12,
        }
    }

    /// Number of elements.
    pub fn len(&self) -> usize {
        match self {
            Self::U8(values) => values.len(),
            Self::I8(values) => values.len(),
            Self::U16(values) => values.len(),
            Self::I16(values) => values.len(),
            Self::U32(values) => values.len(),
            Self::I32(values) => values.len(),
            Self::F32(values) => values.len(),
            Self::Bool(values) => values.len(),
            Self::String(values) => values.len(),
            Self::U64(values) => values.len(),
            Self::I64(values) => values.len(),
            Self::F64(values) => values.len(),
        }
    }

    /// Whether there are no elements.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// One element as a value of its own.
    pub fn value(&self, index: usize) -> Option<Value> {
        Some(match self {
            Self::U8(values) => Value::U8(*values.get(index)?),
            Self::I8(values) => Value::I8(*values.get(index)?),
            Self::U16(values) => Value::U16(*values.get(index)?),
            Self::I16(values) => Value::I16(*values.get(index)?),
            Self::U32(values) => Value::U32(*values.get(index)?),
            Self::I32(values) => Value::I32(*values.get(index)?),
            Self::F32(values) => Value::F32(*values.get(index)?),
            Self::Bool(values) => Value::Bool(*values.get(index)?),
            Self::String(values) => Value::String(values.get(index)?.clone()),
            Self::U64(values) => Value::U64(*values.get(index)?),
            Self::I64(values) => Value::I64(*values.get(index)?),
            Self::F64(values) => Value::F64(*values.get(index)?),
        })
    }

    /// The elements as values of their own.
    pub fn values(&self) -> impl Iterator<Item = Value> + '_ {
        (0..self.len()).filter_map(|index| self.value(index))
    }

    /// The strings of an array of strings.
    pub fn as_texts(&self) -> Option<&[Text]> {
        match self {
            Self::String(texts) => Some(texts),
            _ => None,
        }
    }
}

/// The name of a value type, as llama.cpp prints it.
pub(crate) fn value_type_name(id: u32) -> &'static str {
    const NAMES: [&str; 13] =
        ["u8", "i8", "u16", "i16", "u32", "i32", "f32", "bool", "str", "arr", "u64", "i64", "f64"];
    NAMES.get(id as usize).copied().unwrap_or("unknown")
}

macro_rules! from_number {
    ($($number:ty => $variant:ident),* $(,)?) => {$(
        impl From<$number> for Value {
            fn from(value: $number) -> Self {
                Self::$variant(value)
            }
        }

        impl From<Vec<$number>> for Value {
            fn from(values: Vec<$number>) -> Self {
                Self::Array(Array::$variant(values))
            }
        }
    )*};
}

from_number!(
    u8 => U8, i8 => I8, u16 => U16, i16 => I16, u32 => U32, i32 => I32, f32 => F32, bool => Bool,
    u64 => U64, i64 => I64, f64 => F64, Text => String,
);

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::String(text.into())
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::String(text.into())
    }
}

impl From<Array> for Value {
    fn from(array: Array) -> Self {
        Self::Array(array)
    }
}
