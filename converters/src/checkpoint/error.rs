//! What can be wrong with a checkpoint, and what the user can do about it.

use std::io;
use std::path::{Path, PathBuf};

use nfl_models::Hint;
use thiserror::Error;

use super::header::HeaderError;

/// Why a checkpoint, or a part of it, cannot be read.
///
/// Names that come from a file are printed quoted and escaped: they may hold terminal control
/// sequences.
#[derive(Debug, Error)]
pub enum CheckpointError {
    /// The path names nothing.
    #[error("no such checkpoint: {}", .path.display())]
    NotFound {
        /// The path as given.
        path: PathBuf,
    },
    /// A file was given where a directory belongs.
    #[error("not a checkpoint directory: {}", .path.display())]
    NotADirectory {
        /// The path as given.
        path: PathBuf,
    },
    /// A GGUF file was given, or the directory holds nothing but GGUF files.
    #[error("already in GGUF: {}", .path.display())]
    AlreadyGguf {
        /// The file.
        path: PathBuf,
    },
    /// Weights in PyTorch's pickle format, which can run any code when it is read.
    #[error("weights in PyTorch's pickle format, which is refused because reading it can run \
             code: {}", .path.display())]
    Pickle {
        /// The file.
        path: PathBuf,
    },
    /// The directory has no `config.json`.
    #[error("no config.json: {}", .directory.display())]
    NoConfig {
        /// The directory.
        directory: PathBuf,
    },
    /// The directory has no safetensors file.
    #[error("no model.safetensors and no model.safetensors.index.json: {}", .directory.display())]
    NoWeights {
        /// The directory.
        directory: PathBuf,
    },
    /// The directory holds a LoRA adapter, not a model.
    #[error("a LoRA adapter without its base model: {}", .directory.display())]
    AdapterOnly {
        /// The directory.
        directory: PathBuf,
    },
    /// A file name that could lead out of the directory.
    #[error("not a plain file name: {name:?}")]
    FileName {
        /// The name as it stands in the index.
        name: String,
    },
    /// A symbolic link that leads out of the checkpoint.
    #[error("link out of the checkpoint: {} -> {}", .path.display(), .target.display())]
    LinkOutside {
        /// The link.
        path: PathBuf,
        /// Where it leads.
        target: PathBuf,
    },
    /// A symbolic link whose target is absent.
    #[error("link to a file that is absent: {}", .path.display())]
    LinkDangling {
        /// The link.
        path: PathBuf,
    },
    /// A pipe, device, socket or directory where a file belongs.
    #[error("not a regular file: {}", .path.display())]
    NotRegular {
        /// The path.
        path: PathBuf,
    },
    /// A text file beyond its limit.
    #[error("{}: {bytes} bytes, more than the limit of {limit}", .path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Its size.
        bytes: u64,
        /// The limit.
        limit: u64,
    },
    /// The operating system's answer.
    #[error("{}: {source}", .path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// A file that is not the JSON it ought to be.
    #[error("{}: {source}", .path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: serde_json::Error,
    },
    /// A text file that is not UTF-8.
    #[error("{}: not UTF-8 text", .path.display())]
    NotText {
        /// The file.
        path: PathBuf,
    },
    /// An entry of `config.json` is absent.
    #[error("config.json: {key}: absent")]
    SettingAbsent {
        /// The entry.
        key: String,
    },
    /// An entry of `config.json` has the wrong type or an impossible value.
    #[error("config.json: {key}: {found}, expected {expected}")]
    Setting {
        /// The entry.
        key: String,
        /// What stands there, shortened.
        found: String,
        /// What should stand there.
        expected: String,
    },
    /// A safetensors file whose header is wrong.
    #[error("{}: {source}", .path.display())]
    Header {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: HeaderError,
    },
    /// The index and the files do not agree.
    #[error("{}: {reason}", .path.display())]
    Index {
        /// The index file.
        path: PathBuf,
        /// What disagrees.
        reason: String,
    },
    /// Files that the index names are absent.
    #[error("{count} of {total} weight files absent, the first: {first:?}")]
    ShardsAbsent {
        /// The first absent file.
        first: String,
        /// How many are absent.
        count: usize,
        /// How many there should be.
        total: usize,
    },
    /// One tensor stands in two files.
    #[error("tensor in two files: {name:?} in {first:?} and {second:?}")]
    TensorTwice {
        /// The tensor.
        name: String,
        /// The first file.
        first: String,
        /// The second file.
        second: String,
    },
    /// More tensors or files than any model has.
    #[error("{what}: {count}, more than the limit of {limit}")]
    TooMany {
        /// What there is too much of.
        what: &'static str,
        /// How many.
        count: usize,
        /// The limit.
        limit: usize,
    },
    /// The whole checkpoint is quantised in a format whose weights are packed integers.
    #[error("weights packed by {method:?}: {tensor:?} holds {found}")]
    Packed {
        /// `quantization_config.quant_method`.
        method: String,
        /// A tensor that shows it.
        tensor: String,
        /// Its type.
        found: String,
    },
    /// A tensor that was asked for has a type that holds no weights.
    #[error("tensor {name:?}: type {found} holds no floating-point weights")]
    TensorType {
        /// The tensor.
        name: String,
        /// Its type.
        found: String,
    },
    /// The scale of an FP8 tensor is absent or does not fit it.
    #[error("scale of FP8 tensor {name:?}: {reason}")]
    Scale {
        /// The tensor whose scale it is.
        name: String,
        /// What is wrong.
        reason: String,
    },
    /// A read beyond the end of a tensor.
    #[error("tensor {name:?}: elements {start}..{end} asked of {elements}")]
    Range {
        /// The tensor.
        name: String,
        /// First element asked for.
        start: u64,
        /// One past the last element asked for.
        end: u64,
        /// How many it has.
        elements: u64,
    },
    /// The file became shorter after it was opened.
    #[error("{}: became shorter while it was read: {found} of {expected} bytes", .path.display())]
    Shrunk {
        /// The file.
        path: PathBuf,
        /// Bytes at opening.
        expected: u64,
        /// Bytes now.
        found: u64,
    },
}

impl CheckpointError {
    /// An error of the operating system about `path`.
    pub(crate) fn io(path: &Path, source: io::Error) -> Self {
        Self::Io { path: path.to_path_buf(), source }
    }
}

const DOWNLOAD_AGAIN: &str =
    "download the checkpoint again; an interrupted download looks like this";

impl Hint for CheckpointError {
    fn hint(&self) -> Option<String> {
        let text = match self {
            Self::NotFound { .. } => {
                "give the directory that holds config.json and the .safetensors files".to_owned()
            }
            Self::NotADirectory { path } => match path.parent() {
                Some(parent) if path.extension().is_some_and(|e| e == "safetensors") => {
                    let parent =
                        if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
                    format!(
                        "give the directory that holds config.json and all .safetensors files, \
                         perhaps {}",
                        parent.display()
                    )
                }
                _ => "give the directory that holds config.json and the .safetensors files".into(),
            },
            Self::AlreadyGguf { .. } => {
                "run it with `nfl run`, or make other levels from it with `nfl quantize`".into()
            }
            Self::Pickle { .. } => "look for a safetensors version of this model, or save it anew \
                 with transformers: model.save_pretrained(\"DIR\", safe_serialization=True)"
                .into(),
            Self::NoConfig { directory } => no_config_hint(directory),
            Self::NoWeights { .. } => {
                "a checkpoint needs config.json and model.safetensors (or its numbered files with \
                 model.safetensors.index.json)"
                    .into()
            }
            Self::AdapterOnly { .. } => {
                "convert the base model that adapter_config.json names".into()
            }
            Self::FileName { .. } => {
                "do not trust this checkpoint: its index points outside its own directory".into()
            }
            Self::LinkOutside { .. } => "copy the file into the directory; links may lead only \
                 within it or into the blobs folder of a Hugging Face cache"
                .into(),
            Self::LinkDangling { .. }
            | Self::ShardsAbsent { .. }
            | Self::Json { .. }
            | Self::NotText { .. } => DOWNLOAD_AGAIN.into(),
            Self::NotRegular { .. } => "put the file itself there".into(),
            Self::Header { source, .. } => return source.hint(),
            Self::Index { .. } | Self::TensorTwice { .. } => {
                "the index and the weight files are not of one version; download both again".into()
            }
            Self::Packed { method, .. } => packed_hint(method),
            Self::TensorType { .. } => {
                "start from the model's unquantised version (BF16, F16 or F32)".into()
            }
            Self::Scale { .. } => "start from the model's unquantised version, or download this \
                 one again if files are missing"
                .into(),
            Self::Shrunk { .. } => {
                "leave the checkpoint alone while it is converted, then start again".into()
            }
            Self::Setting { .. } | Self::SettingAbsent { .. } => {
                "compare config.json with the one the model's author published".into()
            }
            Self::TooLarge { .. } | Self::TooMany { .. } => {
                "no known model needs that much; check where the file comes from".into()
            }
            Self::Io { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => {
                "check the permissions of the file and its directory".into()
            }
            Self::Io { .. } => "see whether the file can be opened: its disk, its link".into(),
            Self::Range { .. } => return None,
        };
        Some(text)
    }
}

/// Mistral publishes many models in two layouts; the one without `config.json` is its own.
fn no_config_hint(directory: &Path) -> String {
    if directory.join("params.json").exists() {
        "this is Mistral's own layout (params.json); download the Hugging Face layout of the same \
         model, with config.json"
            .into()
    } else {
        "give the directory that holds config.json; download it from the model's page if absent"
            .into()
    }
}

fn packed_hint(method: &str) -> String {
    format!(
        "start from the model's unquantised version (BF16 or F16) and let a level do the work, \
         for example --level q4_k_m; weights packed by {method} would only lose quality again"
    )
}
