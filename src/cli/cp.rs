//! `nfl cp`: a second name for a model.

use clap::Args;
use serde_json::json;

use super::failure::Failure;
use super::model;
use crate::store::{Reference, Scope};
use crate::term::Printer;

/// Give a model a second name; its content is shared. A name with a host is where `nfl push` brings it.
#[derive(Debug, Args)]
#[command(visible_alias = "copy")]
pub(super) struct Arguments {
    /// The model, as `nfl list` shows it.
    source: Reference,
    /// The new name: NAME:TAG, or HOST:PORT/OWNER/NAME:TAG.
    target: Reference,
    /// Replace a model of that name.
    #[arg(long)]
    overwrite: bool,
    /// Print the result as JSON.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: &Arguments, printer: &Printer) -> Result<(), Failure> {
    let store = model::store()?;
    // One that cannot be read is replaced too.
    let replaced = store.read(&arguments.target).unwrap_or_default();
    store.copy(&arguments.source, &arguments.target, arguments.overwrite)?;
    if let Some(replaced) = &replaced {
        store.collect(Scope::Of(replaced), false)?;
    }
    if arguments.json {
        let (source, target) = (arguments.source.to_string(), arguments.target.to_string());
        return Ok(printer.line(&json!({"source": source, "target": target}).to_string())?);
    }
    printer.say(&format!("{} is {} too", arguments.source, arguments.target));
    Ok(())
}
