//! `nfl push`: stored models to other machines.

use clap::Args;
use serde_json::json;

use super::failure::Failure;
use super::model;
use super::remote;
use super::transfer::Board;
use crate::hub::Meter;
use crate::store::{Manifest, Reference, Store};
use crate::term::{Printer, units};

/// Bring models of this machine to where their names say.
///
/// HOST:PORT/NAMESPACE/NAME:TAG is a model of an OCI or Ollama registry; hf.co/OWNER/REPOSITORY a repository of the hub,
/// which is made when it does not exist (HF_TOKEN must allow that). `nfl cp NAME HOST/...` gives a model such a name.
/// Content that the place has is not sent again.
#[derive(Debug, Args)]
#[command(
    after_help = "For registries, what docker login keeps is used, or NFL_REGISTRY_TOKEN=USER:PASSWORD@HOST."
)]
pub(super) struct Arguments {
    /// Stored models whose names have a host.
    #[arg(value_name = "NAME", required = true)]
    names: Vec<Reference>,
    /// Plain http to a registry on this machine.
    #[arg(long)]
    insecure: bool,
    /// Print progress and results as lines of JSON.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: &Arguments, printer: &Printer) -> Result<(), Failure> {
    let store = model::store()?;
    let board = Board::new(printer, "pushing", arguments.json);
    let results = board.run(&arguments.names, |name| send(arguments, name, &store, &board));
    let mut failures = Vec::new();
    for (name, result) in arguments.names.iter().zip(results) {
        match result {
            Ok((manifest, receipt)) if arguments.json => {
                let (name, bytes) = (name.to_string(), manifest.bytes());
                let line =
                    json!({"name": name, "status": "pushed", "bytes": bytes, "receipt": receipt});
                printer.line(&line.to_string())?;
            }
            Ok((manifest, receipt)) => {
                let size = units::bytes(manifest.bytes());
                printer.say(&format!("{name} is there ({size}): {receipt}"));
            }
            Err(failure) => failures.push(failure),
        }
    }
    Failure::last_of(failures, printer)
}

fn send(
    arguments: &Arguments,
    name: &Reference,
    store: &Store,
    board: &Board<'_>,
) -> Result<(Manifest, String), Failure> {
    let text = name.to_string();
    let manifest = store.resolve(&text)?.manifest.ok_or_else(|| store.missing(name))?;
    let hub = remote::hub(false)?;
    let meters: Vec<_> =
        manifest.layers.iter().map(|_| std::sync::Arc::new(Meter::default())).collect();
    board.begin(&text, &meters);
    let receipt = hub.push(&manifest, store, arguments.insecure, &meters)?;
    Ok((manifest, receipt))
}
