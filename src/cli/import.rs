//! `nfl import`: models that this machine has already, without a second copy of their weights.

use std::path::{Path, PathBuf};

use clap::Args;
use nfl_models::gguf::Gguf;
use nfl_models::{file_name_parts, nearest};
use serde_json::{Value, json};

use super::failure::Failure;
use super::model::{self, LinkChoice};
use super::{descent, list};
use crate::settings;
use crate::store::{
    Finds, Found, Kind, Link, Manifest, Origin, Piece, Reference, Scope, Source, Store, StoreError,
    Wanted,
};
use crate::term::progress::Progress;
use crate::term::{Printer, interrupt, table, units};

/// Import models that this machine has already, without copying their weights.
///
/// Without MODEL, lists what Ollama's store, Hugging Face's cache and LM Studio's folder hold. MODEL is a name of that list,
/// or a GGUF file. Weights are shared (reflink), get a second name (hard link), or are used in place, whatever works first;
/// other programs' files are never changed.
#[derive(Debug, Args)]
#[expect(clippy::struct_excessive_bools, reason = "independent switches")]
pub(super) struct Arguments {
    /// A GGUF file (of a split model, any of its files), or a name of the list.
    model: Vec<PathBuf>,
    /// The name that it gets; from the file's name or the list unless given.
    #[arg(long, value_name = "NAME")]
    name: Option<Reference>,
    /// A projector (mmproj) that belongs to the file.
    #[arg(long, value_name = "FILE")]
    projector: Option<PathBuf>,
    /// Import everything of the list.
    #[arg(long, conflicts_with_all = ["model", "name", "projector"])]
    all: bool,
    /// How the weights get into the store.
    #[arg(long, value_name = "HOW", value_enum, default_value_t = LinkChoice::Auto)]
    link: LinkChoice,
    /// Replace a model of that name.
    #[arg(long)]
    overwrite: bool,
    /// Only say what would be imported.
    #[arg(long)]
    dry_run: bool,
    /// Print the list, or what was imported, as JSON.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: &Arguments, printer: &Printer) -> Result<(), Failure> {
    let store = model::store()?;
    let wanted = wanted(arguments, printer)?;
    if arguments.dry_run || (arguments.model.is_empty() && !arguments.all) {
        return show(&store, &wanted, arguments.json, printer);
    }
    let mut imported = Vec::new();
    for found in &wanted {
        match import(&store, found, arguments, printer) {
            Ok(document) => imported.push(document),
            // One that fails does not keep the others of a list out.
            Err(failure) if arguments.all && failure.status == 1 => {
                printer.warn(&format!("{}: {}", found.name, failure.message));
            }
            Err(failure) => return Err(failure),
        }
    }
    if arguments.json {
        let text = serde_json::to_string_pretty(&json!({"imported": imported}));
        printer.line(&text.expect("keys are strings"))?;
    }
    Ok(())
}

/// What is asked for: everything that was found, those with the names given, or files.
fn wanted(arguments: &Arguments, printer: &Printer) -> Result<Vec<Found>, Failure> {
    if arguments.name.is_some() && arguments.model.len() > 1 {
        return Err(Failure::usage("--name: several models", "import them one by one"));
    }
    let mut wanted = Vec::new();
    if arguments.model.is_empty() {
        return Ok(finds(printer).models);
    }
    for model in &arguments.model {
        let name = match model.to_str().map(Wanted::of) {
            Some(Ok(Wanted::Name(name))) if !model.is_file() => name,
            Some(Ok(Wanted::Path(path))) => {
                wanted.push(file(&path, arguments)?);
                continue;
            }
            Some(Err(error)) if !model.is_file() => return Err(error.into()),
            _ => {
                wanted.push(file(model, arguments)?);
                continue;
            }
        };
        let mut found = pick(finds(printer), &name)?;
        found.name = arguments.name.clone().unwrap_or(found.name);
        wanted.push(found);
    }
    Ok(wanted)
}

/// What other programs have; what cannot be read is said.
fn finds(printer: &Printer) -> Finds {
    let mut folders: Vec<(Origin, PathBuf)> = Vec::new();
    folders.extend(settings::ollama_folders().into_iter().map(|folder| (Origin::Ollama, folder)));
    folders.extend(settings::hub_cache_folder().map(|folder| (Origin::HubCache, folder)));
    folders
        .extend(settings::lm_studio_folders().into_iter().map(|folder| (Origin::LmStudio, folder)));
    let finds = Finds::of(&folders);
    for error in &finds.broken {
        printer.warn(&error.to_string());
    }
    finds
}

fn pick(finds: Finds, name: &Reference) -> Result<Found, Failure> {
    let names: Vec<String> = finds.models.iter().map(|found| found.name.to_string()).collect();
    finds.models.into_iter().find(|found| found.name == *name).ok_or_else(|| {
        let hint = match nearest(&name.to_string(), names.iter().map(String::as_str)) {
            Some(nearest) => format!("there is {nearest}"),
            None => "`nfl import` lists what there is; a file is meant by ./NAME".to_owned(),
        };
        Failure::new(format!("no other program has a model {name}"), Some(&hint))
    })
}

/// A file that a person names.
fn file(path: &Path, arguments: &Arguments) -> Result<Found, Failure> {
    let gguf = Gguf::open(path)?;
    let mut pieces = Vec::new();
    for path in gguf.files() {
        pieces.push(Piece::new(Kind::Model, path)?);
    }
    if let Some(path) = &arguments.projector {
        Gguf::open(path)?;
        pieces.push(Piece::new(Kind::Projector, path)?);
    }
    let name = match &arguments.name {
        Some(name) => name.clone(),
        None => name_of(path)?,
    };
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let source = Source::new(Origin::File, absolute.display().to_string());
    Ok(Found { name, source, pieces })
}

/// The name that a file's own says: `TinyLlama-1.1B-Q4_K_M.gguf` → `tinyllama-1.1b:q4_k_m`.
fn name_of(path: &Path) -> Result<Reference, Failure> {
    let stem = path.file_stem().unwrap_or_default().to_string_lossy().to_lowercase();
    let (name, level) = file_name_parts(&stem);
    let name = level.map_or(name.to_owned(), |level| format!("{name}:{level}"));
    name.parse().map_err(|error: StoreError| {
        Failure::usage(format!("{}: {error}", path.display()), "choose a name: --name NAME")
    })
}

fn import(
    store: &Store,
    found: &Found,
    arguments: &Arguments,
    printer: &Printer,
) -> Result<Value, Failure> {
    let replaced = match store.read(&found.name) {
        Ok(Some(_)) if !arguments.overwrite && !arguments.all => {
            let hint = "choose another with --name, or add --overwrite";
            let message = format!("there is a model {} already", found.name);
            return Err(Failure::new(message, Some(hint)));
        }
        Ok(replaced) => replaced,
        Err(_) => None,
    };
    let mut progress = Progress::bytes(printer, found.bytes());
    progress.message(&found.name.to_string());
    let mut done = 0;
    let mut on_bytes = |bytes| {
        done += bytes;
        progress.set(done);
        !interrupt::requested()
    };
    let imported = store.import(found, arguments.link.links(), &mut on_bytes);
    drop(progress);
    let (manifest, link) = match imported {
        Err(StoreError::Interrupted) => return Err(Failure::interrupted()),
        imported => imported?,
    };
    if let Some(replaced) = &replaced {
        store.collect(Scope::Of(replaced), false)?;
    }
    say(&manifest, link, printer);
    descent::warn(store, &manifest, printer);
    let mut document = list::document(store, &manifest);
    document["link"] = json!(link.map(Link::name));
    Ok(document)
}

fn say(manifest: &Manifest, link: Option<Link>, printer: &Printer) {
    let how = link.map_or("the content was here already".to_owned(), |link| match link {
        Link::InPlace => "used in place".to_owned(),
        link => format!("by {}", link.name()),
    });
    printer.say(&format!("imported {}, {}: {how}", manifest.name, units::bytes(manifest.bytes())));
}

fn show(store: &Store, found: &[Found], as_json: bool, printer: &Printer) -> Result<(), Failure> {
    let origin = |found: &Found| match found.source.origin {
        Origin::Ollama => "Ollama",
        Origin::HubCache => "Hugging Face's cache",
        Origin::LmStudio => "LM Studio",
        _ => "file",
    };
    let is_here = |found: &Found| store.is_named(&found.name);
    if as_json {
        let entry = |found: &Found| {
            let files: Vec<String> =
                found.pieces.iter().map(|piece| piece.path.display().to_string()).collect();
            json!({"name": found.name.to_string(), "bytes": found.bytes(), "where": origin(found),
                "source": found.source, "files": files, "imported": is_here(found)})
        };
        let document = json!({"found": found.iter().map(entry).collect::<Vec<_>>()});
        let text = serde_json::to_string_pretty(&document).expect("keys are strings");
        return Ok(printer.line(&text)?);
    }
    if found.is_empty() {
        printer.say("nothing found; nfl import FILE imports a GGUF file");
        return Ok(());
    }
    let mut rows = vec![["name", "size", "where", ""].map(str::to_owned).to_vec()];
    rows.extend(found.iter().map(|found| {
        let state = if is_here(found) { "imported" } else { "" };
        let size = units::bytes(found.bytes());
        vec![found.name.to_string(), size, origin(found).to_owned(), state.to_owned()]
    }));
    Ok(printer.line(table::render(&rows, &[1]).trim_end())?)
}
