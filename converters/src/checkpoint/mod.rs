//! A trained model as Hugging Face publishes it: a directory with `config.json` and safetensors
//! files.
//!
//! Everything is memory-mapped; values are decoded to `f32` piece by piece as they are asked for.
//! Nothing in the directory is trusted: see `access` for names and links, `header` for the files'
//! structure.
//!
//! A file that becomes shorter while it is mapped cannot be made safe altogether: its length is
//! asked before every read, which turns a download that starts anew into an error, but a cut in the
//! very moment of a read ends the process with SIGBUS, as in every program that maps files.

mod access;
mod config;
mod decode;
mod error;
mod header;
mod packed;
mod scale;
mod shards;

use std::collections::HashMap;
use std::ops::Range;
use std::path::{Path, PathBuf};

pub use self::access::Folder;
pub use self::config::{CONFIG_BYTES_MAX, Config};
pub use self::decode::SourceType;
pub use self::error::CheckpointError;
pub use self::header::{
    DIMENSIONS_MAX, HEADER_BYTES_MAX, Header, HeaderError, HeaderTensor, Impostor, NAME_BYTES_MAX,
    TENSORS_MAX, parse_header,
};
pub use self::shards::{INDEX_BYTES_MAX, SHARDS_MAX};

use self::scale::Scale;
use self::shards::{Shard, ShardNames};

/// Bytes of any other text file that is read through [`Checkpoint::read_text`]: vocabularies reach
/// tens of megabytes.
pub const TEXT_BYTES_MAX: u64 = 256 << 20;

/// An open checkpoint. It may be shared among threads.
#[derive(Debug)]
pub struct Checkpoint {
    name: String,
    folder: Folder,
    config: Config,
    shards: Vec<Shard>,
    tensors: Vec<SourceTensor>,
    by_name: HashMap<String, usize>,
}

/// A tensor of a checkpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceTensor {
    /// Its name, unique in the checkpoint.
    pub name: String,
    /// Its dimensions in PyTorch's order, the slowest first.
    pub shape: Vec<u64>,
    /// Its element type.
    pub dtype: SourceType,
    shard: usize,
    range: Range<usize>,
    scale: Option<Scale>,
    /// Whether it only serves another tensor (scales) and is no weight itself.
    is_companion: bool,
}

impl SourceTensor {
    /// The number of elements.
    pub fn elements(&self) -> u64 {
        // The header's check has multiplied them without overflow.
        self.shape.iter().product()
    }

    /// The number of bytes in the file.
    pub fn bytes(&self) -> u64 {
        self.range.len() as u64
    }

    /// The number of the weight file it lies in, counted as [`Checkpoint::shard_paths`] does.
    pub fn shard(&self) -> usize {
        self.shard
    }

    #[cfg(test)]
    fn for_tests(name: &str, shape: &[u64], dtype: SourceType) -> Self {
        Self {
            name: name.to_owned(),
            shape: shape.to_vec(),
            dtype,
            shard: 0,
            range: 0..0,
            scale: None,
            is_companion: false,
        }
    }
}

impl Checkpoint {
    /// Opens the checkpoint in `path`: a directory, or one of its weight files when `config.json`
    /// lies beside it.
    ///
    /// # Errors
    /// When it is no checkpoint that can be read; the error's hint says what to do.
    pub fn open(path: &Path) -> Result<Self, CheckpointError> {
        let directory = directory_of(path)?;
        let folder = Folder::open(directory)?;
        let name = name_of(directory, &folder);
        let names = ShardNames::find(&folder);
        // A directory without weights is explained by what it holds; config.json comes second.
        let names = match (names, folder.file("config.json")?) {
            (Ok(names), _) => names,
            (Err(CheckpointError::NoWeights { directory }), None) => {
                return Err(CheckpointError::NoConfig { directory });
            }
            (Err(error), _) => return Err(error),
        };
        let config = Config::read(&folder)?;
        let opened = names.open(&folder)?;
        let mut shards = Vec::with_capacity(opened.len());
        let mut tensors = Vec::new();
        for (number, (shard, header)) in opened.into_iter().enumerate() {
            shards.push(shard);
            tensors.extend(source_tensors(number, header));
        }
        let by_name =
            tensors.iter().enumerate().map(|(i, tensor)| (tensor.name.clone(), i)).collect();
        packed::refuse(&config, &tensors)?;
        let mut checkpoint = Self { name, folder, config, shards, tensors, by_name };
        checkpoint.find_scales()?;
        Ok(checkpoint)
    }

    /// The name of the directory; that of the model when the directory lies in a Hugging Face
    /// cache.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The directory, without links.
    pub fn directory(&self) -> &Path {
        self.folder.path()
    }

    /// The directory for reading further files within the rules of [`Folder`].
    pub fn folder(&self) -> &Folder {
        &self.folder
    }

    /// `config.json`.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The weight files as they were opened, by number.
    pub fn shard_paths(&self) -> impl Iterator<Item = &Path> {
        self.shards.iter().map(|shard| shard.path.as_path())
    }

    /// The weights, sorted by file, then by place. Scales of FP8 weights are left out: they are
    /// applied by [`Checkpoint::read_f32`].
    pub fn tensors(&self) -> impl Iterator<Item = &SourceTensor> {
        self.tensors.iter().filter(|tensor| !tensor.is_companion)
    }

    /// The tensor of that name, also when it is a scale.
    pub fn tensor(&self, name: &str) -> Option<&SourceTensor> {
        self.by_name.get(name).map(|&index| &self.tensors[index])
    }

    /// Where the regular file `name` of the directory really lies; `None` when absent.
    ///
    /// # Errors
    /// When the name or the file is refused, as [`Folder::file`] says.
    pub fn file(&self, name: &str) -> Result<Option<PathBuf>, CheckpointError> {
        self.folder.file(name)
    }

    /// The text of the file `name` of the directory; `None` when absent.
    ///
    /// # Errors
    /// As [`Folder::read_text`], with the limit [`TEXT_BYTES_MAX`].
    pub fn read_text(&self, name: &str) -> Result<Option<String>, CheckpointError> {
        self.folder.read_text(name, TEXT_BYTES_MAX)
    }

    /// The JSON of the file `name` of the directory; `None` when absent.
    ///
    /// # Errors
    /// As [`Folder::read_json`], with the limit [`TEXT_BYTES_MAX`].
    pub fn read_json(&self, name: &str) -> Result<Option<serde_json::Value>, CheckpointError> {
        self.folder.read_json(name, TEXT_BYTES_MAX)
    }

    /// The bytes of a tensor as they lie in the file, little-endian and at any address, without
    /// scale.
    pub fn raw(&self, tensor: &SourceTensor) -> &[u8] {
        &self.shards[tensor.shard].bytes()[tensor.range.clone()]
    }

    /// Decodes the elements `start..start + target.len()` of a tensor to `f32`; FP8 with its scale
    /// applied.
    ///
    /// # Errors
    /// When the type holds no weights, the range is not within the tensor, an FP8 tensor lacks its
    /// scale, or the file became shorter.
    pub fn read_f32(
        &self,
        tensor: &SourceTensor,
        start: u64,
        target: &mut [f32],
    ) -> Result<(), CheckpointError> {
        let elements = tensor.elements();
        let end = start.saturating_add(target.len() as u64);
        if end > elements {
            return Err(CheckpointError::Range { name: tensor.name.clone(), start, end, elements });
        }
        let shard = &self.shards[tensor.shard];
        shard.check_length()?;
        let unreadable = || CheckpointError::TensorType {
            name: tensor.name.clone(),
            found: tensor.dtype.to_string(),
        };
        if !tensor.dtype.is_readable() {
            return Err(unreadable());
        }
        let width = tensor.dtype.bytes().ok_or_else(unreadable)?;
        let first = tensor.range.start + start as usize * width;
        let source = &shard.bytes()[first..first + target.len() * width];
        if !decode::decode(tensor.dtype, source, target) {
            return Err(unreadable());
        }
        if let Some(scale) = &tensor.scale {
            self.apply(scale, start, target)?;
        }
        Ok(())
    }

    /// Lets go of the mapped pages of a tensor that is done with; it may be read again.
    pub fn release(&self, tensor: &SourceTensor) {
        if !tensor.range.is_empty() {
            self.shards[tensor.shard].release(tensor.range.clone());
        }
    }

    fn apply(&self, scale: &Scale, start: u64, target: &mut [f32]) -> Result<(), CheckpointError> {
        let holder = &self.tensors[scale.tensor];
        self.shards[holder.shard].check_length()?;
        let bytes = self.raw(holder);
        let width = holder.dtype.bytes().unwrap_or(1);
        scale.apply(start, target, |index| {
            let first = index as usize * width;
            // `find_scales` has seen that the type can be decoded and the shape covers every index.
            decode::decode_scale(holder.dtype, &bytes[first..first + width]).unwrap_or(f32::NAN)
        });
        Ok(())
    }

    /// Joins every FP8 weight with its scale and sets companions aside.
    fn find_scales(&mut self) -> Result<(), CheckpointError> {
        if !self.tensors.iter().any(|tensor| tensor.dtype.is_fp8()) {
            return Ok(());
        }
        let block = scale::block_size(&self.config)?;
        let is_quantized = scale::quantization(&self.config)?.is_some();
        for index in 0..self.tensors.len() {
            let weight = &self.tensors[index];
            if scale::is_of_activations(&weight.name) {
                self.tensors[index].is_companion = true;
                continue;
            }
            if !weight.dtype.is_fp8() {
                continue;
            }
            let holder = scale::names_of(&weight.name).find_map(|name| self.by_name.get(&name));
            let refuse = |reason: &str| CheckpointError::Scale {
                name: weight.name.clone(),
                reason: reason.to_owned(),
            };
            let Some(&holder) = holder else {
                if is_quantized {
                    return Err(refuse("absent"));
                }
                // Weights that were merely cast to FP8 have none.
                continue;
            };
            let scales = &self.tensors[holder];
            let probe = vec![0; scales.dtype.bytes().unwrap_or(0)];
            if scales.dtype.is_fp8() || decode::decode_scale(scales.dtype, &probe).is_none() {
                return Err(refuse(&format!("type {} holds no scales", scales.dtype)));
            }
            let layout = Scale::new(weight, scales, holder, block)?;
            self.tensors[index].scale = Some(layout);
            self.tensors[holder].is_companion = true;
        }
        Ok(())
    }
}

/// The directory that `path` means: itself, or its parent when it is a weight file with
/// `config.json` beside it.
fn directory_of(path: &Path) -> Result<&Path, CheckpointError> {
    let metadata = match std::fs::metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Err(CheckpointError::NotFound { path: path.to_path_buf() });
        }
        Err(error) => return Err(CheckpointError::io(path, error)),
    };
    if metadata.is_dir() {
        return Ok(path);
    }
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let own = || path.to_path_buf();
    if shards::is_pickle(name) {
        return Err(CheckpointError::Pickle { path: own() });
    }
    if shards::has_extension(name, "gguf") {
        return Err(CheckpointError::AlreadyGguf { path: own() });
    }
    let parent = match path.parent() {
        Some(parent) if parent.as_os_str().is_empty() => Path::new("."),
        Some(parent) => parent,
        None => return Err(CheckpointError::NotADirectory { path: own() }),
    };
    // Only when the file is one of those that the directory is read from; any other file was meant
    // by itself.
    if shards::has_extension(name, "safetensors") && parent.join("config.json").is_file() {
        let names = ShardNames::find(&Folder::open(parent)?)?.names;
        if names.iter().any(|known| known == name) {
            return Ok(parent);
        }
    }
    Err(CheckpointError::NotADirectory { path: own() })
}

fn name_of(directory: &Path, folder: &Folder) -> String {
    let named = |path: &Path| path.file_name().map(|name| name.to_string_lossy().into_owned());
    folder
        .hub_name()
        .or_else(|| named(directory))
        .or_else(|| named(folder.path()))
        .unwrap_or_else(|| "model".to_owned())
}

fn source_tensors(shard: usize, header: Header) -> impl Iterator<Item = SourceTensor> {
    let Header { tensors, data_start } = header;
    tensors.into_iter().map(move |HeaderTensor { name, dtype, shape, range }| SourceTensor {
        name,
        shape,
        dtype: dtype.into(),
        shard,
        // Within the mapped file, as the header's check has shown.
        range: (data_start + range.start) as usize..(data_start + range.end) as usize,
        scale: None,
        is_companion: false,
    })
}
