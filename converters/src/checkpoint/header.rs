//! The header of a safetensors file: eight bytes of length, JSON, then the data of the tensors
//! without gap.
//!
//! The `safetensors` crate gives the names of the types and their sizes, and is the judge in the
//! tests. The checks are our own because the crate's reader collects the header into a map in which
//! the last of two equal names wins, sets no limit to tensors or dimensions, builds the whole JSON
//! in memory first, and names no tensor in its errors.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;

use nfl_models::Hint;
use safetensors::Dtype;
use serde::de::{self, Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use thiserror::Error;

/// The format's own limit on the JSON of a header, in bytes.
pub const HEADER_BYTES_MAX: u64 = 100_000_000;
/// Tensors of one checkpoint. DeepSeek-V3 has 91 991 with its scales.
pub const TENSORS_MAX: usize = 500_000;
/// Dimensions of one tensor. PyTorch's convolution weights have five at the most.
pub const DIMENSIONS_MAX: usize = 8;
/// Bytes of a tensor's name. The longest names of real checkpoints have about 120.
pub const NAME_BYTES_MAX: usize = 1024;

const LENGTH_BYTES: usize = 8;
const METADATA: &str = "__metadata__";

/// The header of one file, checked against the length of that file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// The tensors in the order of their data.
    pub tensors: Vec<HeaderTensor>,
    /// Where the data begins in the file, in bytes.
    pub data_start: u64,
}

/// One tensor of a header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeaderTensor {
    /// Its name, unique in the file.
    pub name: String,
    /// Its element type.
    pub dtype: Dtype,
    /// Its dimensions, the slowest first.
    pub shape: Vec<u64>,
    /// Its bytes, counted from `data_start`.
    pub range: Range<u64>,
}

/// Why a safetensors header is refused.
#[derive(Debug, Error)]
pub enum HeaderError {
    /// Not a safetensors file at all.
    #[error("not a safetensors file but {what}")]
    Other {
        /// What its first bytes say.
        what: Impostor,
    },
    /// Not even the length is there.
    #[error("{bytes} bytes, too short for a safetensors file")]
    TooShort {
        /// The file's length.
        bytes: u64,
    },
    /// The length of the header is impossible.
    #[error("header length: {length} bytes, more than the limit of {HEADER_BYTES_MAX}")]
    TooLong {
        /// The length as written.
        length: u64,
    },
    /// The header ends beyond the file.
    #[error("header length: {length} bytes in a file of {bytes}")]
    BeyondFile {
        /// The length as written.
        length: u64,
        /// The file's length.
        bytes: u64,
    },
    /// The header is not UTF-8.
    #[error("header: not UTF-8 text")]
    NotText,
    /// The header is not JSON of the right form.
    #[error("header: {0}")]
    Json(#[from] serde_json::Error),
    /// Two tensors have one name.
    #[error("two tensors of one name: {name:?}")]
    NameTwice {
        /// The name.
        name: String,
    },
    /// A tensor ends before it begins.
    #[error("tensor {name:?}: data_offsets {start}..{end}")]
    Backwards {
        /// The tensor.
        name: String,
        /// As written.
        start: u64,
        /// As written.
        end: u64,
    },
    /// Two tensors share bytes.
    #[error(
        "tensor {name:?}: data_offsets {start}..{end} overlap the tensor before, which ends \
         at {previous_end}"
    )]
    Overlap {
        /// The second tensor.
        name: String,
        /// As written.
        start: u64,
        /// As written.
        end: u64,
        /// Where it should start.
        previous_end: u64,
    },
    /// Bytes between two tensors belong to none.
    #[error("tensor {name:?}: data_offsets {start}..{end} leave a gap after {previous_end}")]
    Gap {
        /// The second tensor.
        name: String,
        /// As written.
        start: u64,
        /// As written.
        end: u64,
        /// Where it should start.
        previous_end: u64,
    },
    /// The shape and the type ask for another number of bytes.
    #[error("tensor {name:?}: {shape:?} of {dtype} does not take {bytes} bytes")]
    Size {
        /// The tensor.
        name: String,
        /// Its shape.
        shape: Vec<u64>,
        /// Its type.
        dtype: Dtype,
        /// What its offsets say.
        bytes: u64,
    },
    /// The data is shorter or longer than the tensors.
    #[error("{present} bytes of data where the tensors take {declared}")]
    DataLength {
        /// The end of the last tensor.
        declared: u64,
        /// The bytes after the header.
        present: u64,
    },
}

/// What a file is that has the name of a safetensors file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Impostor {
    /// The text that Git leaves in place of a large file.
    LfsPointer,
    /// A zip archive, as `torch.save` writes it.
    Zip,
    /// A bare pickle.
    Pickle,
    /// A GGUF file.
    Gguf,
    /// A web page, often an error page or a login page saved by a download.
    Html,
}

impl fmt::Display for Impostor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::LfsPointer => "a Git LFS pointer",
            Self::Zip => "a zip archive (PyTorch's pickle format)",
            Self::Pickle => "a Python pickle",
            Self::Gguf => "a GGUF file",
            Self::Html => "a web page",
        })
    }
}

impl Impostor {
    fn of(bytes: &[u8]) -> Option<Self> {
        let begins = |magic: &[u8]| bytes.starts_with(magic);
        match bytes {
            _ if begins(b"version https://git-lfs") => Some(Self::LfsPointer),
            _ if begins(b"PK\x03\x04") => Some(Self::Zip),
            [0x80, 2..=5, ..] => Some(Self::Pickle),
            _ if begins(b"GGUF") => Some(Self::Gguf),
            _ if begins(b"<!DOCTYPE") || begins(b"<!doctype") || begins(b"<html") => {
                Some(Self::Html)
            }
            _ => None,
        }
    }
}

impl Hint for HeaderError {
    fn hint(&self) -> Option<String> {
        let text = match self {
            Self::Other { what: Impostor::LfsPointer } => {
                "fetch the real file with `git lfs pull` in the checkpoint's directory"
            }
            Self::Other { what: Impostor::Zip | Impostor::Pickle } => {
                "pickle can run code and is refused; save the model anew with transformers: \
                 model.save_pretrained(\"DIR\", safe_serialization=True)"
            }
            Self::Other { what: Impostor::Gguf } => {
                "run it with `nfl run`, or make other levels from it with `nfl quantize`"
            }
            Self::Other { what: Impostor::Html } => {
                "the download saved a web page; log in if the model asks for it, and download again"
            }
            Self::TooShort { .. } | Self::BeyondFile { .. } | Self::DataLength { .. } => {
                "download the file again; an interrupted download looks like this"
            }
            _ => "the file is damaged or made to deceive; download it again from its author",
        };
        Some(text.to_owned())
    }
}

/// Reads and checks the header of the safetensors file whose content is `bytes`.
///
/// # Errors
/// When anything about the header is wrong. Memory stays in proportion to the header that is really
/// there.
pub fn parse_header(bytes: &[u8]) -> Result<Header, HeaderError> {
    // The first bytes of a good header could be those of another format by chance, so they are
    // asked last.
    parse(bytes).map_err(|error| match Impostor::of(bytes) {
        Some(what) => HeaderError::Other { what },
        None => error,
    })
}

fn parse(bytes: &[u8]) -> Result<Header, HeaderError> {
    let length = header_length(bytes)?;
    let (header, data) = bytes[LENGTH_BYTES..].split_at(length);
    let text = std::str::from_utf8(header).map_err(|_| HeaderError::NotText)?;
    let Entries(mut tensors) = serde_json::from_str(text)?;
    refuse_equal_names(&tensors)?;
    tensors.sort_by_key(|tensor| (tensor.range.start, tensor.range.end));
    check_layout(&tensors, data.len() as u64)?;
    Ok(Header { tensors, data_start: (LENGTH_BYTES + length) as u64 })
}

fn header_length(bytes: &[u8]) -> Result<usize, HeaderError> {
    let Some(length) = bytes.first_chunk::<LENGTH_BYTES>() else {
        return Err(HeaderError::TooShort { bytes: bytes.len() as u64 });
    };
    let length = u64::from_le_bytes(*length);
    if length > HEADER_BYTES_MAX {
        return Err(HeaderError::TooLong { length });
    }
    if length > (bytes.len() - LENGTH_BYTES) as u64 {
        return Err(HeaderError::BeyondFile { length, bytes: bytes.len() as u64 });
    }
    Ok(length as usize)
}

fn refuse_equal_names(tensors: &[HeaderTensor]) -> Result<(), HeaderError> {
    let mut names: Vec<&str> = tensors.iter().map(|tensor| tensor.name.as_str()).collect();
    names.sort_unstable();
    match names.windows(2).find(|pair| pair[0] == pair[1]) {
        Some(pair) => Err(HeaderError::NameTwice { name: pair[0].to_owned() }),
        None => Ok(()),
    }
}

/// The tensors, sorted by offset, cover the data without overlap or gap, and each has the bytes of
/// its shape.
fn check_layout(tensors: &[HeaderTensor], present: u64) -> Result<(), HeaderError> {
    let mut previous_end = 0;
    for tensor in tensors {
        let Range { start, end } = tensor.range;
        let name = || tensor.name.clone();
        if start > end {
            return Err(HeaderError::Backwards { name: name(), start, end });
        }
        if start < previous_end {
            return Err(HeaderError::Overlap { name: name(), start, end, previous_end });
        }
        if start > previous_end {
            return Err(HeaderError::Gap { name: name(), start, end, previous_end });
        }
        if bytes_of(&tensor.shape, tensor.dtype) != Some(end - start) {
            let shape = tensor.shape.clone();
            let bytes = end - start;
            return Err(HeaderError::Size { name: name(), shape, dtype: tensor.dtype, bytes });
        }
        previous_end = end;
    }
    if previous_end != present {
        return Err(HeaderError::DataLength { declared: previous_end, present });
    }
    Ok(())
}

/// Bytes of a tensor; `None` when the product overflows or does not end on a byte.
fn bytes_of(shape: &[u64], dtype: Dtype) -> Option<u64> {
    let elements = shape.iter().try_fold(1_u64, |product, &n| product.checked_mul(n))?;
    let bits = elements.checked_mul(dtype.bitsize() as u64)?;
    bits.is_multiple_of(8).then_some(bits / 8)
}

/// All entries of the header's object, in the order of the text, without the free-text metadata.
struct Entries(Vec<HeaderTensor>);

impl<'de> Deserialize<'de> for Entries {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(EntriesVisitor).map(Self)
    }
}

struct EntriesVisitor;

impl<'de> Visitor<'de> for EntriesVisitor {
    type Value = Vec<HeaderTensor>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of tensors by name")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut tensors = Vec::new();
        let mut metadata = None;
        while let Some(name) = map.next_key::<String>()? {
            if name == METADATA {
                let previous =
                    metadata.replace(map.next_value::<Option<BTreeMap<String, String>>>()?);
                if previous.is_some() {
                    return Err(de::Error::duplicate_field(METADATA));
                }
                continue;
            }
            if name.len() > NAME_BYTES_MAX {
                return Err(de::Error::custom("a tensor's name is longer than 1024 bytes"));
            }
            if tensors.len() == TENSORS_MAX {
                return Err(de::Error::custom("more than 500000 tensors"));
            }
            let Entry { dtype, shape: Shape(shape), data_offsets: (start, end) } =
                map.next_value()?;
            tensors.push(HeaderTensor { name, dtype, shape, range: start..end });
        }
        Ok(tensors)
    }
}

#[derive(serde::Deserialize)]
struct Entry {
    dtype: Dtype,
    shape: Shape,
    data_offsets: (u64, u64),
}

/// Dimensions, at most [`DIMENSIONS_MAX`] of them.
struct Shape(Vec<u64>);

impl<'de> Deserialize<'de> for Shape {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ShapeVisitor;

        impl<'de> Visitor<'de> for ShapeVisitor {
            type Value = Shape;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("at most 8 dimensions")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Shape, A::Error> {
                let mut shape = Vec::with_capacity(DIMENSIONS_MAX);
                while shape.len() < DIMENSIONS_MAX {
                    match list.next_element()? {
                        Some(n) => shape.push(n),
                        None => return Ok(Shape(shape)),
                    }
                }
                match list.next_element::<IgnoredAny>()? {
                    Some(_) => Err(de::Error::invalid_length(DIMENSIONS_MAX + 1, &self)),
                    None => Ok(Shape(shape)),
                }
            }
        }

        deserializer.deserialize_seq(ShapeVisitor)
    }
}
