//! `nfl outdated`: which models have changed where they came from.

use clap::Args;
use serde_json::json;

use super::failure::Failure;
use super::model;
use super::remote::{self, Order};
use super::transfer::Board;
use crate::hub::Choice;
use crate::store::{Manifest, Store};
use crate::term::{Printer, neutral, table, units};

/// Say which models have changed where they came from; `nfl pull --all` fetches what changed.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Plain http to registries on this machine.
    #[arg(long)]
    insecure: bool,
    /// Print the results as JSON.
    #[arg(long)]
    json: bool,
}

/// What the place of a model says.
struct Answer {
    state: &'static str,
    /// Bytes that a pull would fetch.
    missing: Option<u64>,
    reason: Option<String>,
}

pub(super) fn run(arguments: &Arguments, printer: &Printer) -> Result<(), Failure> {
    let store = model::store()?;
    let orders = remote::from_elsewhere(&store)?;
    let board = Board::new(printer, "asking", false);
    let answers = board.run(&orders, |(order, model)| ask(arguments, order, model, &store));
    let answers: Vec<(&Manifest, Answer)> =
        orders.iter().map(|(_, model)| model).zip(answers.into_iter().flatten()).collect();
    if arguments.json {
        let entry = |(model, answer): &(&Manifest, Answer)| {
            json!({"name": model.name, "state": answer.state, "missing_bytes": answer.missing,
                "reason": answer.reason, "source": model.source.asked})
        };
        let list: Vec<_> = answers.iter().map(entry).collect();
        let text = serde_json::to_string_pretty(&list).expect("keys are strings");
        return Ok(printer.line(&text)?);
    }
    if answers.is_empty() {
        printer.say("no model here came from elsewhere");
        return Ok(());
    }
    let mut rows = vec![["NAME", "STATE", "TO FETCH", ""].map(str::to_owned).to_vec()];
    rows.extend(answers.iter().map(|(model, answer)| {
        vec![
            model.name.to_string(),
            answer.state.to_owned(),
            answer.missing.map(units::bytes).unwrap_or_default(),
            neutral(answer.reason.as_deref().unwrap_or_default()),
        ]
    }));
    printer.stream(&table::render(&rows, &[2]))?;
    Ok(())
}

fn ask(
    arguments: &Arguments,
    order: &Order,
    model: &Manifest,
    store: &Store,
) -> Result<Answer, Failure> {
    let hub = remote::hub(false)?;
    let choice = Choice { insecure: arguments.insecure, ..Choice::default() };
    Ok(match remote::plan(&hub, order, &choice) {
        Ok(plan) => match plan.is_current(model) {
            Some(true) => Answer { state: "current", missing: None, reason: None },
            Some(false) => {
                Answer { state: "outdated", missing: Some(plan.missing_bytes(store)), reason: None }
            }
            None => {
                let reason = Some("its place does not say what it has".to_owned());
                Answer { state: "unknown", missing: None, reason }
            }
        },
        Err(failure) => Answer { state: "unknown", missing: None, reason: Some(failure.message) },
    })
}
