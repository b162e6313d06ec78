//! `nfl rm`: models that are no longer wanted.

use clap::Args;
use serde_json::json;

use super::failure::Failure;
use super::model;
use crate::store::{Collected, Reference, Scope, StoreError};
use crate::term::{Printer, units};

/// Remove models; what no other model needs of them is freed.
#[derive(Debug, Args)]
#[command(visible_alias = "remove")]
pub(super) struct Arguments {
    /// Names, as `nfl list` shows them.
    #[arg(required = true, value_name = "NAME")]
    names: Vec<String>,
    /// Print what was freed as JSON.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: &Arguments, printer: &Printer) -> Result<(), Failure> {
    let store = model::store()?;
    // A name that is wrong stops it before anything is removed.
    let mut names = Vec::new();
    for text in &arguments.names {
        let name: Reference = text.parse()?;
        if !store.is_named(&name) {
            return Err(store.missing(&name).into());
        }
        names.push(name);
    }
    let mut freed = 0;
    for name in &names {
        let removed = store.remove(name)?;
        let Some(manifest) = removed else {
            printer.warn(&format!("{name} could not be read; nfl prune frees what it had"));
            continue;
        };
        let collected = match store.collect(Scope::Of(&manifest), false) {
            Ok(collected) => collected,
            Err(error @ (StoreError::Manifest { .. } | StoreError::Version { .. })) => {
                printer.warn(&format!("nothing was freed, since {error}"));
                Collected::default()
            }
            Err(error) => return Err(error.into()),
        };
        freed += collected.bytes();
        for digest in &collected.in_use {
            printer.say(&format!("{} is in use; nfl prune frees it later", digest.short()));
        }
        printer.say(&format!("removed {name}, freed {}", units::bytes(collected.bytes())));
    }
    if arguments.json {
        let names: Vec<String> = names.iter().map(ToString::to_string).collect();
        printer.line(&json!({"removed": names, "freed_bytes": freed}).to_string())?;
    }
    Ok(())
}
