//! `nfl keys`: who may use a server.

use clap::{Args, Subcommand, ValueEnum};
use serde_json::{Value, json};

use super::failure::Failure;
use super::model;
use crate::server::{Action, Key, Keyring, Scope, record};
use crate::term::{Printer, table};

/// Make, list and remove the keys that nfl serve asks for.
///
/// A running server notices changes at once. As soon as there is a key, every server of this home folder asks for one,
/// unless it was started with --no-keys.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Make a key and print it; it is not shown again.
    Add {
        /// What you call it.
        name: String,
        /// What it is good for.
        #[arg(long, value_name = "SCOPE", default_value = "infer")]
        scope: ScopeChoice,
        /// Print it as JSON.
        #[arg(long)]
        json: bool,
    },
    /// List keys, without their text.
    #[command(visible_alias = "ls")]
    List {
        /// Print them as JSON.
        #[arg(long)]
        json: bool,
    },
    /// Remove keys; whoever has them gets in no more.
    #[command(visible_alias = "remove")]
    Rm {
        /// Names, as nfl keys list shows them.
        #[arg(required = true, value_name = "NAME")]
        names: Vec<String>,
    },
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum ScopeChoice {
    /// Ask models, and see which there are.
    Infer,
    /// That, and get, make, remove and unload models.
    Manage,
}

pub(super) fn run(arguments: &Arguments, printer: &Printer) -> Result<(), Failure> {
    let store = model::store()?;
    let keyring = Keyring::new(store.home());
    let note = |action: &str, target: &str| {
        let mut action = Action::new("nfl", action);
        action.target = Some(target.to_owned());
        action.outcome = Some("done".to_owned());
        if let Err(error) = record(store.home(), &action) {
            printer.warn(&format!("the audit was not written: {error}"));
        }
    };
    match &arguments.verb {
        Verb::Add { name, scope, json } => {
            let text = keyring.add(name, (*scope).into())?;
            note("keys add", name);
            if *json {
                let document = json!({"name": name, "scope": word((*scope).into()), "key": text});
                printer.line(&document.to_string())?;
            } else {
                printer.say("keep it: it is not shown again");
                printer.line(&text)?;
            }
        }
        Verb::List { json } => list(&keyring.keys()?, *json, printer)?,
        Verb::Rm { names } => {
            for name in names {
                let left = keyring.remove(name)?;
                note("keys rm", name);
                printer.say(&format!("removed {name}"));
                if left == 0 {
                    printer.warn(
                        "that was the last key: servers that only this machine reaches ask for none now",
                    );
                }
            }
        }
    }
    Ok(())
}

fn list(keys: &[Key], json: bool, printer: &Printer) -> Result<(), Failure> {
    if json {
        let document = |key: &Key| {
            let scope = word(key.scope);
            json!({"name": key.name, "scope": scope, "created": key.created})
        };
        let documents: Vec<Value> = keys.iter().map(document).collect();
        return Ok(printer.line(&json!({ "keys": documents }).to_string())?);
    }
    if keys.is_empty() {
        printer.say("no keys: nfl keys add NAME makes one");
        return Ok(());
    }
    let mut rows = vec![["name", "scope", "created"].map(str::to_owned).to_vec()];
    rows.extend(
        keys.iter()
            .map(|key| vec![key.name.clone(), word(key.scope).to_owned(), key.created.clone()]),
    );
    Ok(printer.line(table::render(&rows, &[]).trim_end())?)
}

fn word(scope: Scope) -> &'static str {
    match scope {
        Scope::Infer => "infer",
        Scope::Manage => "manage",
    }
}

impl From<ScopeChoice> for Scope {
    fn from(choice: ScopeChoice) -> Self {
        match choice {
            ScopeChoice::Infer => Self::Infer,
            ScopeChoice::Manage => Self::Manage,
        }
    }
}
