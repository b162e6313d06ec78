//! `nfl pull`: models from other machines into the store.

use std::path::PathBuf;

use clap::Args;
use nfl_converters::Order as Conversion;
use nfl_converters::checkpoint::Checkpoint;
use nfl_models::Level;
use serde_json::{Value, json};

use super::failure::Failure;
use super::remote::{self, Order};
use super::report::Reporter;
use super::transfer::Board;
use super::{descent, list, model};
use crate::engine::blocks::GgmlBlocks;
use crate::hardware;
use crate::hub::{Choice, Plan};
use crate::store::{Digest, Found, Kind, Link, Manifest, Piece, Reference, Scope, Store};
use crate::term::{Printer, table, units};

/// Get models from other machines.
///
/// NAME is a short name (qwen3:8b), hf.co/OWNER/REPOSITORY with a level (:Q8_0) or without one (what fits is chosen),
/// HOST/NAMESPACE/NAME:TAG of an OCI or Ollama registry, or the web address of a GGUF file. Content is verified while it
/// arrives, and a pull that was stopped, killed or cut goes on where it was.
#[derive(Debug, Args)]
#[command(
    after_help = "HF_ENDPOINT names a mirror of the hub; HF_TOKEN opens private and gated repositories;\n\
    for registries, what docker login keeps is used, or NFL_REGISTRY_TOKEN=USER:PASSWORD@HOST;\n\
    HTTPS_PROXY, HTTP_PROXY and NO_PROXY are kept; NFL_OFFLINE=1 cuts all connections."
)]
#[expect(clippy::struct_excessive_bools, reason = "independent switches")]
pub(super) struct Arguments {
    /// What to get; several are fetched at the same time.
    #[arg(value_name = "NAME", required_unless_present = "all")]
    names: Vec<String>,
    /// Its name here, other than its own.
    #[arg(long, value_name = "NAME", conflicts_with = "all")]
    name: Option<Reference>,
    /// A branch, tag or commit of the repository.
    #[arg(long, value_name = "REVISION")]
    revision: Option<String>,
    /// Get the safetensors checkpoint of the repository, and convert it to this level.
    #[arg(long, value_name = "LEVEL")]
    convert: Option<Level>,
    /// Everything here that came from elsewhere, where it has changed there.
    #[arg(long, conflicts_with_all = ["names", "convert", "revision"])]
    all: bool,
    /// Only say what would be fetched.
    #[arg(long)]
    dry_run: bool,
    /// Plain http to a registry on this machine.
    #[arg(long)]
    insecure: bool,
    /// Make no connection; succeeds for models that are here.
    #[arg(long)]
    offline: bool,
    /// Print progress and results as lines of JSON.
    #[arg(long)]
    json: bool,
}

/// What became of an order.
enum Outcome {
    /// It is what it was.
    Current(Manifest),
    /// It is here now.
    Pulled(Manifest),
    /// Its checkpoint is in this folder.
    Checkpoint(Plan, PathBuf),
    /// What would be done: bytes that are missing.
    Planned(Plan, u64),
}

pub(super) fn run(arguments: &Arguments, printer: &Printer) -> Result<(), Failure> {
    if arguments.name.is_some() && arguments.names.len() > 1 {
        return Err(Failure::usage("--name with several models", "pull them one by one"));
    }
    let store = model::store()?;
    let orders: Vec<Order> = if arguments.all {
        remote::from_elsewhere(&store)?.into_iter().map(|(order, _)| order).collect()
    } else {
        let order = |text: &String| Order { text: text.clone(), name: arguments.name.clone() };
        arguments.names.iter().map(order).collect()
    };
    let board = Board::new(printer, "pulling", arguments.json);
    let results = board.run(&orders, |order| fetch(arguments, order, &store, &board));
    let (mut failures, mut planned) = (Vec::new(), Vec::new());
    for (order, result) in orders.iter().zip(results) {
        let told = match result {
            Ok(Outcome::Planned(plan, missing)) => {
                planned.push((plan, missing));
                Ok(())
            }
            Ok(Outcome::Checkpoint(plan, folder)) => {
                convert(arguments, &store, &plan, &folder, printer)
                    .and_then(|manifest| tell(arguments, &store, &manifest, "pulled", printer))
            }
            Ok(Outcome::Current(manifest)) => {
                tell(arguments, &store, &manifest, "current", printer)
            }
            Ok(Outcome::Pulled(manifest)) => tell(arguments, &store, &manifest, "pulled", printer),
            Err(failure) => Err(failure),
        };
        if let Err(failure) = told {
            if arguments.json {
                let line =
                    json!({"name": order.text, "status": "failed", "error": failure.message});
                printer.line(&line.to_string())?;
            }
            failures.push(failure);
        }
    }
    if arguments.dry_run {
        tell_plans(arguments, &planned, printer)?;
    }
    Failure::last_of(failures, printer)
}

/// Plans an order and carries the plan out, up to what only the main thread does.
fn fetch(
    arguments: &Arguments,
    order: &Order,
    store: &Store,
    board: &Board<'_>,
) -> Result<Outcome, Failure> {
    let hub = remote::hub(arguments.offline)?;
    if hub.is_offline()
        && let Ok(resolved) = store.resolve(&order.text)
        && let Some(manifest) = resolved.manifest
    {
        return Ok(Outcome::Current(manifest));
    }
    let choice = Choice {
        revision: arguments.revision.clone(),
        insecure: arguments.insecure,
        checkpoint: arguments.convert.is_some(),
        name: None,
    };
    let mut plan = remote::plan(&hub, order, &choice)?;
    if let Some(level) = arguments.convert.filter(|_| order.name.is_none()) {
        plan.name = plan.name.with_tag(level.name())?;
    }
    for note in &plan.notes {
        board.say(|printer| printer.say(&format!("{}: {note}", plan.name)));
    }
    let replaced = store.read(&plan.name).unwrap_or_default();
    let is_current = |model: &Manifest| plan.is_current(model) == Some(true);
    let current = replaced.as_ref().filter(|model| is_current(model));
    let current = current.filter(|model| store.resolve_manifest((*model).clone()).is_ok());
    if let Some(current) = current {
        return Ok(Outcome::Current(current.clone()));
    }
    let missing = plan.missing_bytes(store);
    if arguments.dry_run {
        return Ok(Outcome::Planned(plan, missing));
    }
    let meters = plan.meters();
    board.begin(&plan.name.to_string(), &meters);
    if plan.is_checkpoint {
        // The same folder for the same revision, so that what was fetched is found again.
        let key = format!("{:?} {:?}", plan.source.path, plan.source.revision);
        let folder = format!("checkpoint-{}", Digest::of(key.as_bytes()).short());
        let folder = store.partial_folder().join(folder);
        hub.pull_checkpoint(&plan, &folder, &store.partial_folder(), &meters)?;
        return Ok(Outcome::Checkpoint(plan, folder));
    }
    let manifest = hub.pull(&plan, store, &meters)?;
    if let Some(replaced) = &replaced {
        store.collect(Scope::Of(replaced), false)?;
    }
    Ok(Outcome::Pulled(manifest))
}

/// Converts a checkpoint that was fetched, and keeps only the result.
fn convert(
    arguments: &Arguments,
    store: &Store,
    plan: &Plan,
    folder: &std::path::Path,
    printer: &Printer,
) -> Result<Manifest, Failure> {
    let level = arguments.convert.expect("checkpoints are fetched to be converted");
    let checkpoint = Checkpoint::open(folder)?;
    let base = plan.source.path.rsplit('/').next().unwrap_or("model").to_owned();
    let output = folder.join("converted");
    std::fs::create_dir_all(&output).map_err(|error| Failure::new(error, None))?;
    let conversion = Conversion {
        threads: hardware::default_threads() as usize,
        overwrite: true,
        ..Conversion::new(vec![level], &output, base)
    };
    let mut reporter = Reporter::new(printer);
    let receipts = nfl_converters::convert(&checkpoint, &conversion, &GgmlBlocks, &mut |step| {
        reporter.step(&step)
    });
    let path = receipts
        .as_ref()
        .ok()
        .and_then(|receipts| receipts.first())
        .map(|first| first.path.clone());
    reporter.finish(receipts, false)?;
    let path = path.expect("one level was asked for");
    let piece = Piece::new(Kind::Model, &path)?;
    let found = Found { name: plan.name.clone(), source: plan.source.clone(), pieces: vec![piece] };
    let links = [Link::Reflink, Link::Hard, Link::Copy];
    let (manifest, _) = store.import(&found, &links, &mut |_| true)?;
    std::fs::remove_dir_all(folder).map_err(|error| Failure::new(error, None))?;
    Ok(manifest)
}

fn tell(
    arguments: &Arguments,
    store: &Store,
    manifest: &Manifest,
    status: &str,
    printer: &Printer,
) -> Result<(), Failure> {
    if status == "pulled" {
        descent::warn(store, manifest, printer);
    }
    if arguments.json {
        let mut document = list::document(store, manifest);
        document["status"] = Value::from(status);
        return Ok(printer.line(&document.to_string())?);
    }
    let (name, size) = (&manifest.name, units::bytes(manifest.bytes()));
    let level = manifest.facts.level.as_deref().unwrap_or("unknown level");
    printer.say(&match status {
        "current" => format!("{name} is up to date ({size})"),
        _ => format!("{name}: {level}, {size}; run it with: nfl run {name}"),
    });
    Ok(())
}

fn tell_plans(
    arguments: &Arguments,
    plans: &[(Plan, u64)],
    printer: &Printer,
) -> Result<(), Failure> {
    if arguments.json {
        for (plan, missing) in plans {
            let file = |item: &crate::hub::Item| json!({"kind": item.kind, "file": item.file_name, "bytes": item.bytes, "digest": item.digest});
            let files: Vec<Value> = plan.items.iter().map(file).collect();
            let line = json!({"name": plan.name, "status": "planned", "bytes": plan.bytes(),
                "missing_bytes": missing, "files": files});
            printer.line(&line.to_string())?;
        }
        return Ok(());
    }
    let mut rows = vec![["NAME", "SIZE", "TO FETCH", "FILES"].map(str::to_owned).to_vec()];
    rows.extend(plans.iter().map(|(plan, missing)| {
        vec![
            plan.name.to_string(),
            units::bytes(plan.bytes()),
            units::bytes(*missing),
            plan.items.len().to_string(),
        ]
    }));
    if rows.len() > 1 {
        printer.stream(&table::render(&rows, &[1, 2, 3]))?;
    } else {
        printer.say("nothing to fetch");
    }
    Ok(())
}
