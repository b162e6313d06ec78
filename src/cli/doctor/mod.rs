//! `nfl doctor`: what this machine has to run models with, what it lacks, and how to get it.

mod cage;
mod facts;
mod findings;

use std::path::PathBuf;

use clap::Args;
use serde_json::json;

use super::failure::Failure;
use super::loading;
use crate::term::{Printer, neutral, table};
use facts::Facts;
use findings::{Finding, findings};

/// Show what this machine has to run models with, what is missing, and how to get it.
///
/// Processor, memory and its limits, graphics cards and their drivers, back-end modules, the disk, and what the kernel has
/// to cage the worker with. Each line is ok, a
/// note, or something missing with what to do about it. Drivers are asked in processes of their own: one that crashes is
/// reported like the rest.
#[derive(Debug, Args)]
#[command(
    after_help = "NFL_BACKENDS=DIR takes back-end modules from another folder; NFL_BACKENDS=none does without them."
)]
pub(super) struct Arguments {
    /// A model, or a folder of models, whose disk is to be looked at.
    #[arg(default_value = ".")]
    path: PathBuf,
    /// Print everything as JSON.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: &Arguments, printer: &Printer) -> Result<(), Failure> {
    if !arguments.path.exists() {
        let hint = "give a model, a folder of models, or nothing: nfl doctor";
        return Err(Failure::usage(
            format!("{}: no such file or folder", arguments.path.display()),
            hint,
        ));
    }
    let program = loading::program()?;
    let facts = Facts::gather(&program, &arguments.path);
    let findings = findings(&facts);
    if arguments.json {
        let mut document = facts.to_json();
        document["findings"] = findings.iter().map(finding_json).collect();
        let text = serde_json::to_string_pretty(&document).expect("keys are strings");
        return Ok(printer.line(&text)?);
    }
    let rows: Vec<Vec<String>> = findings.iter().flat_map(rows_of).collect();
    Ok(printer.line(table::render(&rows, &[]).trim_end())?)
}

fn finding_json(finding: &Finding) -> serde_json::Value {
    json!({
        "status": finding.status.word(),
        "topic": finding.topic,
        "text": finding.text,
        "advice": finding.advice,
    })
}

/// A finding as lines of the table: its advice stands below it.
fn rows_of(finding: &Finding) -> Vec<Vec<String>> {
    let row =
        |status: &str, topic: &str, text: String| vec![status.to_owned(), topic.to_owned(), text];
    let mut rows = vec![row(finding.status.word(), finding.topic, neutral(&finding.text))];
    let advice = finding.advice.iter();
    rows.extend(advice.map(|advice| row("", "", format!("hint: {}", neutral(advice)))));
    rows
}
