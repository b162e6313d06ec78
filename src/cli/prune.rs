//! `nfl prune`: content that no model names.

use clap::Args;
use serde_json::json;

use super::failure::Failure;
use super::model;
use crate::store::Scope;
use crate::term::{Printer, units};

/// Remove content that no model names. What a running model or a pull under way needs stays.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Only say what would go.
    #[arg(long)]
    dry_run: bool,
    /// Print the result as JSON.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: &Arguments, printer: &Printer) -> Result<(), Failure> {
    let collected = model::store()?.collect(Scope::All, arguments.dry_run)?;
    if arguments.json {
        let digests = collected.blobs.iter().map(|(digest, _)| digest.to_string());
        let document = json!({
            "dry_run": arguments.dry_run,
            "removed": digests.collect::<Vec<_>>(),
            "freed_bytes": collected.bytes(),
            "in_use": collected.in_use,
            "remains": collected.remains,
        });
        return Ok(printer.line(&document.to_string())?);
    }
    for (digest, bytes) in &collected.blobs {
        printer.line(&format!("{}  {}", digest.short(), units::bytes(*bytes)))?;
    }
    let freed = if arguments.dry_run { "would free" } else { "freed" };
    let used = match collected.in_use.len() {
        0 => String::new(),
        count => format!("; {count} in use, left alone"),
    };
    printer.say(&format!("{freed} {}{used}", units::bytes(collected.bytes())));
    Ok(())
}
