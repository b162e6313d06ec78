//! `nfl create`: a model made from another by a Modelfile.

use std::fs;
use std::path::{Path, PathBuf};

use clap::Args;
use nfl_converters::Order;
use nfl_converters::checkpoint::Checkpoint;
use nfl_models::Level;
use nfl_models::gguf::Gguf;

use super::failure::Failure;
use super::list;
use super::model::{self, LinkChoice};
use super::report::Reporter;
use crate::engine::blocks::GgmlBlocks;
use crate::hardware;
use crate::store::{
    Kind, Layer, Link, Manifest, Modelfile, Piece, Reference, Scope, Store, StoreError,
    TEXT_BYTES_MAX, Wanted,
};
use crate::term::{self, Printer, interrupt, units};

/// Make a model from another: its weights with other instructions, parameters, template or adapters.
///
/// The Modelfile's FROM is a stored model, a GGUF file, or a checkpoint's directory, which is converted. Weights are not
/// copied.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// The model's name; one of that name is replaced.
    name: Reference,
    /// The Modelfile; `-` is standard input.
    #[arg(short, long, default_value = "Modelfile", value_name = "FILE")]
    file: PathBuf,
    /// The level that a checkpoint is converted to.
    #[arg(short, long, default_value = "q4_k_m", value_name = "LEVEL")]
    level: Level,
    /// How the weights of files get into the store.
    #[arg(long, value_name = "HOW", value_enum, default_value_t = LinkChoice::Auto)]
    link: LinkChoice,
    /// Print the model as JSON.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: &Arguments, printer: &Printer) -> Result<(), Failure> {
    let (text, folder) = read(&arguments.file)?;
    let modelfile = Modelfile::parse(&text)?;
    let store = model::store()?;
    let maker = Maker { store: &store, folder, arguments, printer };
    let manifest = maker.make(&modelfile)?;
    let replaced = store.read(&arguments.name).unwrap_or_default();
    store.write(&manifest)?;
    if let Some(replaced) = &replaced {
        store.collect(Scope::Of(replaced), false)?;
    }
    if arguments.json {
        let text = serde_json::to_string_pretty(&list::document(&store, &manifest));
        return Ok(printer.line(&text.expect("keys are strings"))?);
    }
    printer.say(&format!("created {}, {}", manifest.name, units::bytes(manifest.bytes())));
    Ok(())
}

/// The Modelfile's text, and the folder that its paths start from.
fn read(file: &Path) -> Result<(String, PathBuf), Failure> {
    let failed = |error: std::io::Error| {
        let hint = "name the Modelfile with -f FILE";
        Failure::new(format!("cannot read {}: {error}", file.display()), Some(hint))
    };
    if file == Path::new("-") {
        return Ok((term::read_stdin(TEXT_BYTES_MAX).map_err(failed)?, PathBuf::new()));
    }
    let length = fs::metadata(file).map_err(failed)?.len();
    if length > TEXT_BYTES_MAX {
        let limit = units::bytes(TEXT_BYTES_MAX);
        return Err(Failure::new(format!("{} is longer than {limit}", file.display()), None));
    }
    let text = fs::read_to_string(file).map_err(failed)?;
    Ok((text, file.parent().unwrap_or(Path::new("")).to_owned()))
}

/// Makes the layers of a new model.
struct Maker<'a> {
    store: &'a Store,
    /// Where relative paths start.
    folder: PathBuf,
    arguments: &'a Arguments,
    printer: &'a Printer,
}

impl Maker<'_> {
    fn make(&self, modelfile: &Modelfile) -> Result<Manifest, Failure> {
        let mut base: Option<Manifest> = None;
        let mut layers = Vec::new();
        for from in &modelfile.from {
            match self.stored(from)? {
                Some(_) if base.is_some() => {
                    let hint = "begin with one model; a second FROM may be a projector's file";
                    return Err(Failure::new("FROM names two models", Some(hint)));
                }
                Some(manifest) => base = Some(manifest),
                None => layers.extend(self.at_path(from)?),
            }
        }
        for adapter in &modelfile.adapters {
            layers.extend(self.adapter(adapter)?);
        }
        let name = self.arguments.name.clone();
        Ok(self.store.derive(name, base, layers, modelfile)?)
    }

    /// The stored model that FROM names; `None` for a path.
    fn stored(&self, from: &str) -> Result<Option<Manifest>, Failure> {
        match Wanted::of(from)? {
            Wanted::Path(_) => Ok(None),
            Wanted::Name(_) if self.path(from).exists() && self.named(from)?.is_none() => Ok(None),
            _ => {
                let hint = format!("get it first: nfl pull {from}; a path begins with ./ or /");
                let message = format!("FROM {from}: there is no such model");
                self.named(from)?.map(Some).ok_or_else(|| Failure::new(message, Some(&hint)))
            }
        }
    }

    fn named(&self, text: &str) -> Result<Option<Manifest>, Failure> {
        let Wanted::Name(name) = Wanted::of(text)? else { return Ok(None) };
        Ok(self.store.read(&name)?)
    }

    fn path(&self, text: &str) -> PathBuf {
        let text = text.strip_prefix("file:").unwrap_or(text);
        match text.strip_prefix("~/").zip(crate::settings::user_home()) {
            Some((rest, home)) => home.join(rest),
            None => self.folder.join(text),
        }
    }

    /// What FROM brings when it is a file or a folder.
    fn at_path(&self, from: &str) -> Result<Vec<Layer>, Failure> {
        let path = self.path(from);
        if !path.is_dir() {
            return self.file(&path, self.arguments.link.links());
        }
        let mut files: Vec<PathBuf> = fs::read_dir(&path)
            .map_err(|error| {
                Failure::new(format!("cannot read {}: {error}", path.display()), None)
            })?
            .filter_map(|entry| Some(entry.ok()?.path()))
            .collect();
        files.sort();
        if files.iter().any(|file| file.extension().is_some_and(|end| end == "safetensors")) {
            return self.convert(&path);
        }
        let file = files.iter().find(|file| file.extension().is_some_and(|end| end == "gguf"));
        let hint = "give a GGUF file, or a directory with config.json and *.safetensors";
        let message = format!("FROM {}: no weights", path.display());
        let file = file.ok_or_else(|| Failure::new(message, Some(hint)))?;
        self.file(file, self.arguments.link.links())
    }

    /// A checkpoint becomes GGUF in the store's own folder, and then a blob.
    fn convert(&self, checkpoint: &Path) -> Result<Vec<Layer>, Failure> {
        let checkpoint = Checkpoint::open(checkpoint)?;
        let partial = self.store.partial_folder();
        fs::create_dir_all(&partial).map_err(|error| {
            Failure::new(format!("cannot create {}: {error}", partial.display()), None)
        })?;
        let folder = tempfile::Builder::new().prefix("converting-").tempdir_in(&partial).map_err(
            |error| Failure::new(format!("cannot write {}: {error}", partial.display()), None),
        )?;
        let order = Order {
            threads: hardware::default_threads() as usize,
            ..Order::new(vec![self.arguments.level], folder.path(), "model")
        };
        let mut reporter = Reporter::new(self.printer);
        nfl_converters::convert(&checkpoint, &order, &GgmlBlocks, &mut |step| {
            reporter.step(&step)
        })?;
        drop(reporter);
        // Nobody else has this file: a second name is as good as its first.
        let path = order.path(self.arguments.level);
        let written =
            |error| Failure::new(format!("cannot write {}: {error}", path.display()), None);
        let mut permissions = fs::metadata(&path).map_err(written)?.permissions();
        permissions.set_readonly(true);
        fs::set_permissions(&path, permissions).map_err(written)?;
        self.file(&path, &[Link::Hard, Link::Copy])
    }

    /// The layers of a GGUF file: a model's, a projector's or an adapter's.
    fn file(&self, path: &Path, links: &[Link]) -> Result<Vec<Layer>, Failure> {
        let gguf = Gguf::open(path)?;
        let kind = Kind::of_gguf(&gguf);
        let mut layers = Vec::new();
        for path in gguf.files() {
            let piece = Piece::new(kind, path)?;
            let brought = self.store.bring(&piece, links, &mut |_| !interrupt::requested());
            match brought {
                Err(StoreError::Interrupted) => return Err(Failure::interrupted()),
                brought => layers.push(brought?.0),
            }
        }
        Ok(layers)
    }

    fn adapter(&self, text: &str) -> Result<Vec<Layer>, Failure> {
        let path = self.path(text);
        if path.is_dir() {
            let hint = "convert it to GGUF first, with llama.cpp's convert_lora_to_gguf.py";
            let message = format!("ADAPTER {}: a directory", path.display());
            return Err(Failure::new(message, Some(hint)));
        }
        let layers = self.file(&path, self.arguments.link.links())?;
        if layers.iter().any(|layer| layer.kind != Kind::Adapter) {
            let hint = "an adapter's GGUF file says general.type = adapter";
            let message = format!("ADAPTER {}: it is a model", path.display());
            return Err(Failure::new(message, Some(hint)));
        }
        Ok(layers)
    }
}
