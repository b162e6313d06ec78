//! Why a GGUF file was refused, and what the user can do about it.

use std::io;
use std::path::PathBuf;

use crate::hint::Hint;
use crate::tensor::TensorType;

/// Why a file is not a GGUF model that can be read. Messages read `what: value`.
#[derive(Debug, thiserror::Error)]
pub enum GgufError {
    /// The system would not open or map the file.
    #[error("cannot read {path}: {source}", path = path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A directory, a pipe or a device.
    #[error("not a regular file: {path}", path = .0.display())]
    NotAFile(PathBuf),
    /// One file of a model is broken.
    #[error("{path}: {source}", path = path.display())]
    InFile {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: Box<GgufError>,
    },
    /// The first four bytes are not `GGUF`.
    #[error("not a GGUF file: it begins with {}", .0.escape_ascii())]
    Magic([u8; 4]),
    /// Written for big-endian machines.
    #[error("big-endian GGUF file")]
    BigEndian,
    /// Version 0, 1 or one of the future.
    #[error("GGUF version: {0} (versions 2 and 3 can be read)")]
    Version(u32),
    /// The file ends in the middle of something.
    #[error("file ends inside {what}: {needed} bytes wanted at {position}, {remaining} remain")]
    Truncated {
        /// What was being read.
        what: &'static str,
        /// Where in the file.
        position: u64,
        /// Bytes wanted.
        needed: u64,
        /// Bytes there.
        remaining: u64,
    },
    /// Only with [`super::Header::parse_prefix`]: the header is longer than the bytes at hand.
    #[error("the header is longer than the bytes at hand: at least {needed} bytes are needed")]
    PrefixTooShort {
        /// Bytes from the start of the file that are needed at least.
        needed: u64,
    },
    /// A number that is beyond a limit of [`super::limits`].
    #[error("{what}: {value} (at most {limit})")]
    Limit {
        /// What the number counts.
        what: &'static str,
        /// The number.
        value: u64,
        /// The limit.
        limit: u64,
    },
    /// A key of no bytes.
    #[error("metadata entry {0} has an empty key")]
    EmptyKey(u64),
    /// A key or tensor name that is not UTF-8, or holds a zero byte.
    #[error("{what} {index} is not text: {}", bytes.escape_ascii())]
    NotText {
        /// `metadata key` or `tensor name`.
        what: &'static str,
        /// Its place in the file, from 0.
        index: u64,
        /// Its bytes.
        bytes: Vec<u8>,
    },
    /// The same key twice.
    #[error("metadata key appears twice: {0}")]
    DuplicateKey(String),
    /// A value type that the format does not have.
    #[error("type of metadata value {key}: {id} (0 to 12 exist)")]
    ValueType {
        /// The key.
        key: String,
        /// The number of the type.
        id: u32,
    },
    /// An array of arrays.
    #[error("array of arrays: {0}")]
    NestedArray(String),
    /// `general.alignment` is not a u32.
    #[error("type of general.alignment: {0} (must be u32)")]
    AlignmentType(&'static str),
    /// `general.alignment` is no power of two.
    #[error("general.alignment: {0} (must be a power of two)")]
    Alignment(u64),
    /// The same tensor twice.
    #[error("tensor appears twice: {0}")]
    DuplicateTensor(String),
    /// A dimension beyond i64, or a product of dimensions beyond it, or too many bytes.
    #[error("size of tensor {name} overflows: {dimensions:?}")]
    TensorSize {
        /// The tensor.
        name: String,
        /// Its dimensions.
        dimensions: Vec<u64>,
    },
    /// A tensor type that is unknown or was removed.
    #[error("type of tensor {name}: {id}{}", removed_name(*.id))]
    TensorType {
        /// The tensor.
        name: String,
        /// The number of the type.
        id: u32,
    },
    /// A row that is no multiple of the type's block.
    #[error("row of tensor {name}: {row} elements ({tensor_type} needs a multiple of {})",
        tensor_type.block_elements())]
    Row {
        /// The tensor.
        name: String,
        /// Elements of a row.
        row: u64,
        /// The type.
        tensor_type: TensorType,
    },
    /// Data that is not aligned, overlaps the tensor before, or leaves a gap.
    #[error("offset of tensor {name}: {offset} ({expected} expected: {fault})")]
    Offset {
        /// The tensor.
        name: String,
        /// Where the file says its data is.
        offset: u64,
        /// Where the tensor before ends, aligned.
        expected: u64,
        /// Which rule is broken.
        fault: OffsetFault,
    },
    /// Data beyond the end of the file.
    #[error("data of tensor {name} ends at {end}, the file at {file_bytes}")]
    OutOfFile {
        /// The tensor.
        name: String,
        /// Where its data would end.
        end: u64,
        /// Size of the file.
        file_bytes: u64,
    },
    /// The file became shorter after it was opened.
    #[error("{path}: became shorter while it was read: {found} of {expected} bytes",
        path = path.display())]
    Shrunk {
        /// The file.
        path: PathBuf,
        /// Bytes at opening.
        expected: u64,
        /// Bytes now.
        found: u64,
    },
    /// A split that does not fit together.
    #[error(transparent)]
    Split(#[from] super::split::SplitError),
}

/// How a tensor's offset breaks the format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum OffsetFault {
    /// No multiple of the alignment.
    #[error("not aligned")]
    Unaligned,
    /// Before the end of the tensor before.
    #[error("overlaps the tensor before it")]
    Overlap,
    /// After the end of the tensor before.
    #[error("leaves a gap")]
    Gap,
}

fn removed_name(id: u32) -> String {
    match TensorType::removed(id) {
        Some((name, _)) => format!(" ({name}, which ggml has removed)"),
        None => " (unknown)".to_owned(),
    }
}

impl Hint for GgufError {
    fn hint(&self) -> Option<String> {
        let text = match self {
            Self::Io { source, .. } if source.kind() == io::ErrorKind::NotFound => "check the path",
            Self::NotAFile(path) if path.is_dir() => {
                "give a .gguf file; `nfl convert` makes one of a checkpoint directory"
            }
            Self::InFile { source, .. } => return source.hint(),
            Self::Split(source) => return source.hint(),
            Self::Magic(magic) => magic_hint(*magic)?,
            Self::BigEndian => {
                "convert it to little-endian with gguf-py's gguf_convert_endian.py, or convert the \
                 original checkpoint again"
            }
            Self::Version(1) => {
                "version 1 was in use for some days of 2023: convert the original checkpoint again"
            }
            Self::Version(version) if *version > 3 => "a newer nfl may read it",
            Self::Truncated { .. } | Self::OutOfFile { .. } => {
                "the file is incomplete or damaged: download or convert it again"
            }
            Self::Shrunk { .. } => "leave the file alone while it is read, then start again",
            Self::TensorType { id, .. } => match TensorType::removed(*id) {
                Some((_, instead)) => {
                    return Some(format!("quantise the original again, to {instead}"));
                }
                None => "a newer nfl may know the type",
            },
            Self::Io { .. }
            | Self::NotAFile(_)
            | Self::PrefixTooShort { .. }
            | Self::Version(_) => return None,
            _ => "the file is damaged, or no GGUF tool wrote it: get it again from where it came",
        };
        Some(text.to_owned())
    }
}

/// What the first bytes of other files that people try say about them.
fn magic_hint(magic: [u8; 4]) -> Option<&'static str> {
    Some(match &magic {
        b"lmgg" | b"fmgg" | b"tjgg" | b"algg" => {
            "a ggml file from before GGUF: convert the original checkpoint again"
        }
        b"vers" => "a Git LFS pointer, not the file itself: fetch it with `git lfs pull`",
        b"PK\x03\x04" => {
            "a PyTorch pickle: it can run code when loaded; get the model as safetensors"
        }
        b"<!DO" | b"<htm" => "a web page: the download went wrong",
        _ => return None,
    })
}
