//! Why a conversion failed, and what the user can do about it.

use crate::checkpoint::CheckpointError;
use crate::families;
use crate::outline;
use crate::quantize::EncodeError;
use crate::quantize::mixture::BlockError;
use crate::vocabulary::VocabularyError;
use nfl_models::gguf::{GgufError, WriteError};
use nfl_models::{Hint, InventoryError, Level, Refusal, ShapeError, TensorType};
use std::io;
use std::path::PathBuf;

/// Why a conversion failed. Nothing is left behind under the output's name.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the fields are what the messages show")]
pub enum ConvertError {
    /// The checkpoint cannot be read.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// The vocabulary cannot be read.
    #[error(transparent)]
    Vocabulary(#[from] VocabularyError),
    /// A GGUF file cannot be read.
    #[error(transparent)]
    Gguf(#[from] GgufError),
    /// The output would not be a valid GGUF file.
    #[error(transparent)]
    Header(#[from] WriteError),
    /// The metadata do not describe a model of the architecture.
    #[error(transparent)]
    Shape(#[from] ShapeError),
    /// The tensors are not those of the architecture.
    #[error(transparent)]
    Inventory(#[from] InventoryError),
    /// The result would be refused before it runs.
    #[error("the result could not run: {0}")]
    Refused(#[from] Refusal),
    /// The block of a tensor cannot be told.
    #[error(transparent)]
    Block(#[from] BlockError),
    /// No family has this class.
    #[error("unknown architecture: {class}")]
    UnknownFamily { class: String },
    /// No spelling has this class: nothing can be told from its configuration.
    #[error("unknown architecture: {class}")]
    UnknownShape { class: String },
    /// A tensor that the architecture does not own.
    #[error("tensor not known to this architecture: {name}")]
    UnknownTensor { name: String },
    /// A tensor that the architecture needs.
    #[error("missing tensor: {name}")]
    MissingTensor { name: String },
    /// Two tensors of one name.
    #[error("tensor given twice: {name}")]
    DuplicateTensor { name: String },
    /// A tensor whose dimensions disagree with the rest.
    #[error("{name}: dimensions {found:?}, expected {expected:?}")]
    Dimensions { name: String, found: Vec<u64>, expected: Vec<u64> },
    /// A projection whose rows cannot be shared among the heads.
    #[error("{name}: rows of shape {shape:?} do not divide among the attention heads")]
    Heads { name: String, shape: Vec<u64> },
    /// A row longer than any model has.
    #[error("{name}: a row of {elements} values")]
    Row { name: String, elements: u64 },
    /// A weight that is NaN or infinite.
    #[error("{tensor}: value {index} is {value}")]
    NotFinite { tensor: String, index: u64, value: f32 },
    /// A weight, or a block's scale, beyond the range of F16.
    #[error("{tensor}: values too large for {tensor_type}")]
    TooLarge { tensor: String, tensor_type: TensorType },
    /// A source that holds NaN or infinity where it is copied.
    #[error("{tensor}: holds a value that is not finite ({tensor_type})")]
    Damaged { tensor: String, tensor_type: TensorType },
    /// A level that is useless without an importance matrix.
    #[error("{level}: needs an importance matrix for {} tensors, first {tensor}", .count)]
    NeedsImportance { level: Level, tensor: String, count: usize },
    /// A source that is quantised already.
    #[error("{tensor}: already quantised ({tensor_type})")]
    AlreadyQuantized { tensor: String, tensor_type: TensorType },
    /// The encoder failed.
    #[error("{tensor}: {source}")]
    Encode { tensor: String, source: EncodeError },
    /// No level was asked for.
    #[error("no level to convert to")]
    NoLevels,
    /// The name of the output is not a file name.
    #[error("not a file name: {name}")]
    Name { name: String },
    /// The output exists.
    #[error("output exists: {}", .path.display())]
    Exists { path: PathBuf },
    /// The output would replace what is being read.
    #[error("output is the input: {}", .path.display())]
    IsInput { path: PathBuf },
    /// The output cannot be written.
    #[error("cannot write {}: {source}", .path.display())]
    Write { path: PathBuf, source: io::Error },
    /// What was written is not what was planned.
    #[error("{}: wrong after writing: {problem}", .path.display())]
    Check { path: PathBuf, problem: String },
    /// The caller asked to stop.
    #[error("interrupted")]
    Interrupted,
}

impl Hint for ConvertError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::Checkpoint(error) => error.hint(),
            Self::Vocabulary(error) => error.hint(),
            Self::Gguf(error) => error.hint(),
            Self::Header(error) => error.hint(),
            Self::Shape(error) => error.hint(),
            Self::Refused(refusal) => refusal.hint(),
            Self::UnknownFamily { class } => Some(known(class, families::classes().collect())),
            Self::UnknownShape { class } => Some(known(class, outline::classes().collect())),
            Self::UnknownTensor { .. } | Self::MissingTensor { .. } | Self::Inventory(_) => Some(
                "compare the checkpoint with its source: files may be missing or of another model"
                    .into(),
            ),
            Self::NotFinite { .. } | Self::Damaged { .. } => {
                Some("the file is damaged, or its training diverged: fetch it again".into())
            }
            Self::TooLarge { .. } => Some("convert to F32 or BF16, whose range is wider".into()),
            Self::NeedsImportance { .. } => {
                Some("choose Q2_K, which is made without one, or a larger level".into())
            }
            Self::AlreadyQuantized { .. } => Some(
                "start from the F32, F16 or BF16 file; --allow-requantize accepts the loss".into(),
            ),
            Self::Encode { source, .. } => source.hint(),
            Self::NoLevels => Some("name one, such as --level q4_k_m".into()),
            Self::Exists { .. } => Some("choose another --output, or --overwrite".into()),
            Self::IsInput { .. } => Some("choose another --output".into()),
            Self::Write { source, .. } => write_hint(source),
            _ => None,
        }
    }
}

fn write_hint(error: &io::Error) -> Option<String> {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            Some("make room, or choose an --output on another disk".into())
        }
        io::ErrorKind::FileTooLarge => Some(
            "raise the limit (ulimit -f), or choose an --output on a disk that takes large files"
                .into(),
        ),
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
            Some("choose an --output that you may write to".into())
        }
        _ => None,
    }
}

fn known(class: &str, all: Vec<&str>) -> String {
    let list = format!("known are {}", all.join(", "));
    match nfl_models::nearest(class, all) {
        Some(nearest) => format!("did you mean {nearest}? {list}"),
        None => list,
    }
}
