//! `nfl audit`: who changed what on this machine's servers.

use clap::Args;
use serde_json::{Value, json};

use super::failure::Failure;
use super::model;
use crate::server::{Action, last_actions};
use crate::term::{Printer, neutral, table};

/// Show who changed models or keys on this machine's servers, the last action first.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// How many actions.
    #[arg(long, value_name = "N", default_value_t = 20)]
    last: u32,
    /// Print everything that is known as JSON.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: &Arguments, printer: &Printer) -> Result<(), Failure> {
    let store = model::store()?;
    let actions = last_actions(store.home(), arguments.last)
        .map_err(|error| Failure::new(format!("the audit cannot be read: {error}"), None))?;
    if arguments.json {
        let documents: Vec<Value> = actions.iter().map(document).collect();
        return Ok(printer.line(&json!({ "actions": documents }).to_string())?);
    }
    if actions.is_empty() {
        printer.say("nobody changed anything through a server");
        return Ok(());
    }
    let mut rows = vec![
        ["began", "who", "address", "action", "target", "outcome"].map(str::to_owned).to_vec(),
    ];
    rows.extend(actions.iter().map(row));
    Ok(printer.line(neutral(&table::render(&rows, &[])).trim_end())?)
}

fn row(action: &Action) -> Vec<String> {
    let or_dash = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".to_owned());
    vec![
        action.began.clone(),
        action.who.clone(),
        or_dash(&action.address),
        action.action.clone(),
        or_dash(&action.target),
        action.outcome.clone().unwrap_or_else(|| "goes on, or the server died".to_owned()),
    ]
}

fn document(action: &Action) -> Value {
    json!({
        "began": action.began,
        "ended": action.ended,
        "who": action.who,
        "address": action.address,
        "action": action.action,
        "target": action.target,
        "outcome": action.outcome,
        "request": action.request,
    })
}
