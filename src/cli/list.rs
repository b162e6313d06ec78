//! `nfl list`: the models of this machine.

use std::time::{SystemTime, UNIX_EPOCH};

use clap::Args;
use nfl_models::Hint;
use nfl_models::template::Clock;
use serde_json::{Value, json};

use super::failure::Failure;
use super::model;
use crate::store::{Capability, Manifest, Store};
use crate::term::{Printer, neutral, table, units};

/// List the models of this machine: name, size, level, what they can do, when they were last used.
#[derive(Debug, Args)]
#[command(visible_alias = "ls")]
pub(super) struct Arguments {
    /// Only models whose name contains this.
    words: Vec<String>,
    /// Print everything that is known as JSON.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: &Arguments, printer: &Printer) -> Result<(), Failure> {
    let store = model::store()?;
    let mut listing = store.list()?;
    let words: Vec<String> = arguments.words.iter().map(|word| word.to_lowercase()).collect();
    listing.manifests.retain(|each| words.iter().all(|word| each.name.key().contains(word)));
    for error in &listing.broken {
        printer.warn(&match error.hint() {
            Some(hint) => format!("{error}; {hint}"),
            None => error.to_string(),
        });
    }
    if arguments.json {
        let models: Vec<Value> =
            listing.manifests.iter().map(|manifest| document(&store, manifest)).collect();
        let broken: Vec<String> = listing.broken.iter().map(ToString::to_string).collect();
        let document = json!({"models": models, "broken": broken});
        let text = serde_json::to_string_pretty(&document).expect("keys are strings");
        return Ok(printer.line(&text)?);
    }
    if listing.manifests.is_empty() {
        printer.say("no models: nfl pull NAME gets one, nfl import shows what other programs have");
        return Ok(());
    }
    let head = ["name", "size", "weights", "level", "context", "can", "used"];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    rows.extend(listing.manifests.iter().map(|manifest| row(&store, manifest)));
    Ok(printer.line(neutral(&table::render(&rows, &[1, 2, 4])).trim_end())?)
}

fn row(store: &Store, manifest: &Manifest) -> Vec<String> {
    let facts = &manifest.facts;
    let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
    let used = store.last_used(&manifest.name).map(|time| {
        // A clock that was set back makes it just now.
        units::ago(SystemTime::now().duration_since(time).unwrap_or_default())
    });
    vec![
        manifest.name.to_string(),
        units::bytes(manifest.bytes()),
        or_dash(facts.parameters.map(units::count)),
        or_dash(facts.level.clone()),
        or_dash(facts.context.map(|tokens| tokens.to_string())),
        capabilities(&facts.capabilities).join(" "),
        or_dash(used),
    ]
}

fn capabilities(found: &[Capability]) -> Vec<&'static str> {
    found.iter().map(|capability| capability.name()).collect()
}

/// A model for scripts.
pub(super) fn document(store: &Store, manifest: &Manifest) -> Value {
    let facts = &manifest.facts;
    let files: Vec<String> =
        manifest.layers.iter().map(|layer| store.layer_path(layer).display().to_string()).collect();
    json!({
        "name": manifest.name.to_string(),
        "bytes": manifest.bytes(),
        "digest": manifest.digest().to_string(),
        "architecture": facts.architecture,
        "parameters": facts.parameters,
        "level": facts.level,
        "context": facts.context,
        "embedding": facts.embedding,
        "capabilities": capabilities(&facts.capabilities),
        "source": manifest.source,
        "created": manifest.created,
        "last_used": store.last_used(&manifest.name).map(moment),
        "layers": manifest.layers,
        "files": files,
    })
}

fn moment(time: SystemTime) -> String {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    Clock { unix_seconds: since.as_secs() as i64, offset_seconds: 0 }.rfc3339()
}
