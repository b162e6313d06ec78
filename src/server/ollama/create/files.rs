//! Weights for a new model: uploaded files, checkpoints that are converted, and models that are quantised.

use std::fs;
use std::io;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use nfl_converters::checkpoint::Checkpoint;
use nfl_converters::{ConvertError, Order, Step};
use nfl_models::gguf::{Gguf, GgufError};
use nfl_models::{Hint, Level, file_name_parts};
use tempfile::TempDir;

use super::super::super::problem::Problem;
use super::super::progress::Teller;
use super::super::wire::Status;
use crate::engine::blocks::GgmlBlocks;
use crate::hardware;
use crate::store::{Digest, Kind, Layer, Link, Manifest, Piece, Store, StoreError};

/// What stands where a digest should while there is none.
const NO_DIGEST: &str = "0000000000000000000";

/// The level that a checkpoint is converted to when nobody says otherwise.
const LEVEL_DEFAULT: Level = Level::F16;

/// Makes the layers of a new model.
#[derive(Debug)]
pub(super) struct Maker<'a> {
    pub(super) store: &'a Store,
    pub(super) teller: &'a Teller,
    /// What the weights become; as they are when None.
    pub(super) level: Option<Level>,
}

impl Maker<'_> {
    /// The layers of a model's files: GGUF, or a checkpoint's.
    pub(super) fn model(&self, files: &[(String, Digest)]) -> Result<Vec<Layer>, Problem> {
        let ends = |end: &str| files.iter().any(|(name, _)| name.to_lowercase().ends_with(end));
        if files.is_empty() {
            return Err(Problem::invalid("no files provided to convert"));
        }
        if ends(".safetensors") {
            return self.checkpoint(files);
        }
        self.teller.say("parsing GGUF")?;
        let layers = self.gguf(files)?;
        match self.level {
            Some(level) => self.quantize(&layers, level),
            None => Ok(layers),
        }
    }

    /// The layers of adapters.
    pub(super) fn adapters(&self, files: &[(String, Digest)]) -> Result<Vec<Layer>, Problem> {
        if files.is_empty() {
            return Ok(Vec::new());
        }
        if files.iter().any(|(name, _)| name.to_lowercase().ends_with(".safetensors")) {
            let words = "adapters: only GGUF files; llama.cpp's convert_lora_to_gguf.py makes them";
            return Err(Problem::invalid(words));
        }
        let layers = self.gguf(files)?;
        if layers.iter().any(|layer| layer.kind != Kind::Adapter) {
            let words = "adapters: a file is a model (an adapter's says general.type = adapter)";
            return Err(Problem::invalid(words));
        }
        Ok(layers)
    }

    /// The weights of a stored model at another level; none when they stay as they are.
    pub(super) fn quantized(&self, base: &Manifest) -> Result<Vec<Layer>, Problem> {
        let weights: Vec<Layer> = base.layers_of(Kind::Model).cloned().collect();
        match self.level {
            Some(level) if base.facts.level.as_deref() != Some(level.name()) => {
                self.quantize(&weights, level)
            }
            _ => Ok(Vec::new()),
        }
    }

    /// The layers of uploaded GGUF files. Only the first file of a split model can be read by itself.
    fn gguf(&self, files: &[(String, Digest)]) -> Result<Vec<Layer>, Problem> {
        let is_split = files.len() > 1 && files.iter().all(|(name, _)| is_shard(name));
        let layer = |(name, digest): &(String, Digest)| {
            let path = self.blob(digest)?;
            let kind = if is_split { Kind::Model } else { Kind::of_gguf(&open(&path)?) };
            let bytes = fs::metadata(&path).map_err(|error| io_problem(&path, error))?.len();
            let base = name.rsplit('/').next().map(str::to_owned);
            Ok(Layer { file_name: base, ..Layer::new(kind, *digest, bytes) })
        };
        files.iter().map(layer).collect()
    }

    /// The file of uploaded content, which is held from now on.
    fn blob(&self, digest: &Digest) -> Result<PathBuf, Problem> {
        let path = self.store.blob_path(digest);
        let bytes = fs::metadata(&path).map(|metadata| metadata.len());
        if bytes.is_ok_and(|bytes| self.store.has(digest, bytes)) {
            return Ok(path);
        }
        Err(Problem::invalid(format!("blob {:?} not found", digest.to_string())))
    }

    /// A checkpoint's files, under their own names in a folder, become one GGUF file.
    fn checkpoint(&self, files: &[(String, Digest)]) -> Result<Vec<Layer>, Problem> {
        self.teller.say("converting model")?;
        let folder = self.folder()?;
        let source = folder.path().join("checkpoint");
        for (name, digest) in files {
            let (path, blob) = (source.join(name), self.blob(digest)?);
            let place = path.parent().unwrap_or(&source);
            fs::create_dir_all(place).map_err(|error| io_problem(place, error))?;
            let linked = fs::hard_link(&blob, &path);
            linked
                .or_else(|_| fs::copy(&blob, &path).map(drop))
                .map_err(|error| io_problem(&path, error))?;
        }
        let checkpoint = Checkpoint::open(&source).map_err(|error| Problem {
            hint: error.hint(),
            ..Problem::invalid(error.to_string())
        })?;
        let level = self.level.unwrap_or(LEVEL_DEFAULT);
        let order = order(level, folder.path());
        let mut steps = Steps { teller: self.teller, status: None, bytes: 0, told: 0 };
        let made = nfl_converters::convert(&checkpoint, &order, &GgmlBlocks, &mut |step| {
            steps.step(&step)
        });
        made.map_err(|error| convert_problem(&error))?;
        self.teller.say("verifying conversion")?;
        self.take(&order.path(level))
    }

    /// Weights at another level.
    fn quantize(&self, weights: &[Layer], level: Level) -> Result<Vec<Layer>, Problem> {
        let [weights] = weights else {
            return Err(Problem::invalid("quantize: a split model must be merged first"));
        };
        let source = open(&self.store.layer_path(weights))?;
        let file_type = source.metadata().u32("general.file_type");
        let from = file_type.and_then(Level::from_file_type);
        if !matches!(from, Some(Level::F32 | Level::F16 | Level::BF16)) {
            let words = "quantization is only supported for F16, BF16 and F32 models";
            return Err(Problem::invalid(words));
        }
        let from = from.map_or("", Level::name);
        let status = format!("quantizing {from} model to {}", level.name());
        let folder = self.folder()?;
        let order = order(level, folder.path());
        let bytes = source.file_bytes();
        let mut steps = Steps { teller: self.teller, status: Some(status), bytes, told: 0 };
        let made =
            nfl_converters::requantize(&source, &order, &GgmlBlocks, &mut |step| steps.step(&step));
        made.map_err(|error| convert_problem(&error))?;
        self.teller.say("verifying conversion")?;
        self.take(&order.path(level))
    }

    /// A folder beside the blobs that goes when it is dropped.
    fn folder(&self) -> Result<TempDir, Problem> {
        let partial = self.store.partial_folder();
        fs::create_dir_all(&partial).map_err(|error| io_problem(&partial, error))?;
        let made = tempfile::Builder::new().prefix("converting-").tempdir_in(&partial);
        made.map_err(|error| io_problem(&partial, error))
    }

    /// Makes a file that nobody else has a layer.
    fn take(&self, path: &Path) -> Result<Vec<Layer>, Problem> {
        let read_only = || {
            let mut permissions = fs::metadata(path)?.permissions();
            permissions.set_readonly(true);
            fs::set_permissions(path, permissions)
        };
        read_only().map_err(|error| io_problem(path, error))?;
        let piece = Piece::new(Kind::Model, path)?;
        let links = [Link::Hard, Link::Copy];
        let (layer, _) = self.store.bring(&piece, &links, &mut |_| !self.teller.is_alone())?;
        Ok(vec![Layer { file_name: None, ..layer }])
    }
}

fn order(level: Level, folder: &Path) -> Order {
    Order {
        threads: hardware::default_threads() as usize,
        ..Order::new(vec![level], folder, "model")
    }
}

/// Whether a name is that of one file of several: `m-00001-of-00002.gguf`.
fn is_shard(name: &str) -> bool {
    let stem = name.strip_suffix(".gguf").unwrap_or(name);
    let (base, level) = file_name_parts(stem);
    stem.len() > base.len() + level.map_or(0, |level| level.len() + 1)
}

fn open(path: &Path) -> Result<Gguf, Problem> {
    let is_magic = |error: &GgufError| match error {
        GgufError::InFile { source, .. } => matches!(**source, GgufError::Magic(_)),
        error => matches!(error, GgufError::Magic(_)),
    };
    Gguf::open(path).map_err(|error| match error {
        error if is_magic(&error) => Problem::invalid("supplied file was not in GGUF format"),
        error => Problem { hint: error.hint(), ..Problem::invalid(error.to_string()) },
    })
}

fn io_problem(path: &Path, source: io::Error) -> Problem {
    StoreError::Io { action: "cannot write", path: path.to_owned(), source }.into()
}

fn convert_problem(error: &ConvertError) -> Problem {
    Problem { hint: error.hint(), ..Problem::invalid(error.to_string()) }
}

/// Tells of the values that were written, and stops when nobody listens any more.
struct Steps<'a> {
    teller: &'a Teller,
    /// What is being done; nothing is told without it.
    status: Option<String>,
    /// Of the source.
    bytes: u64,
    /// The last share that was told, in hundredths.
    told: u64,
}

impl Steps<'_> {
    fn step(&mut self, step: &Step<'_>) -> ControlFlow<()> {
        if self.teller.is_alone() {
            return ControlFlow::Break(());
        }
        let heard = match step {
            Step::Progress { done, total } => self.progress(*done, (*total).max(1)),
            Step::Warning { text } => self.teller.say(*text),
            Step::Fallback { tensor, wanted, used, row, .. } => self.teller.say(format!(
                "{tensor} has rows of {row}, which {wanted} cannot hold; using {used}"
            )),
            _ => Ok(()),
        };
        if heard.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    }

    fn progress(&mut self, done: u64, total: u64) -> Result<(), Problem> {
        let Some(status) = &self.status else { return Ok(()) };
        let share = done as f64 / total as f64;
        let hundredths = (share * 100.0) as u64;
        if hundredths == self.told && done < total {
            return Ok(());
        }
        self.told = hundredths;
        self.teller.tell(Status {
            words: status.clone(),
            digest: Some(NO_DIGEST.to_owned()),
            total: self.bytes,
            completed: (self.bytes as f64 * share) as u64,
        })
    }
}
