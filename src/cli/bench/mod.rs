//! `nfl bench`: how fast models read and write on this machine, alone or against each other.

mod report;

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use clap::{Args, Parser};

use super::failure::Failure;
use super::loading;
use super::model;
use super::placement::PlacementArguments;
use crate::engine::options::SEQUENCES_MAX;
use crate::engine::process::CancelHandle;
use crate::eval::bench::{BenchError, Outcome, Side, Workload, measure};
use crate::term::progress::Progress;
use crate::term::{Printer, interrupt};
use report::Report;

/// Measure how fast models read a prompt and write.
///
/// Tokens are random and counted as llama.cpp's llama-bench counts them; the way through the worker process, the choice
/// of each token and its text are inside the time. Models are placed as `nfl run` would place them. Several files, or --vs,
/// are loaded together and measured in turns.
#[derive(Debug, Args)]
#[command(after_help = "nfl bench a.gguf                          one model\n\
    nfl bench a.gguf b.gguf                   two models, interleaved; ratios to the first\n\
    nfl bench a.gguf --vs '--threads 1'       one model with and without other options\n\
    nfl bench a.gguf --depth 0,4096           with an empty and with a filled context\n\
    nfl bench a.gguf --batch 1,4,8            one, four and eight sequences at once")]
pub(super) struct Arguments {
    /// Stored models' names, or GGUF files; of a split model, any of its files.
    #[arg(required = true, value_name = "MODEL")]
    files: Vec<PathBuf>,
    /// Tokens to read at once; 0 leaves reading out.
    #[arg(long, value_name = "N", default_value_t = 512)]
    prompt: u32,
    /// Tokens to write one after the other; 0 leaves writing out.
    #[arg(short = 'n', long, value_name = "N", default_value_t = 128)]
    tokens: u32,
    /// Rounds after the warm-up.
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1000))]
    repeat: u32,
    /// Tokens that are in the context before: one test each, separated by commas.
    #[arg(long, value_name = "LIST", value_delimiter = ',', default_value = "0")]
    depth: Vec<u32>,
    /// Sequences that are computed at once: one test each, separated by commas; speeds are of all together.
    #[arg(long, value_name = "LIST", value_delimiter = ',', default_value = "1",
        value_parser = clap::value_parser!(u32).range(1..=i64::from(SEQUENCES_MAX)))]
    batch: Vec<u32>,
    /// Measure each file with these options too, and compare.
    #[arg(long, value_name = "OPTIONS", allow_hyphen_values = true)]
    vs: Option<String>,
    /// Print everything as JSON, each sample included.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    placement: PlacementArguments,
}

/// What `--vs` is read as.
#[derive(Debug, Parser)]
#[command(no_binary_name = true, disable_help_flag = true)]
struct Versus {
    #[command(flatten)]
    placement: PlacementArguments,
}

/// One side of the measurement, as it was asked for.
struct Asked {
    /// As it was typed: the file of a stored model is called after its content.
    name: String,
    file: PathBuf,
    /// What distinguishes it from another side with the same file; else empty.
    options: String,
    placement: PlacementArguments,
}

pub(super) fn run(arguments: &Arguments, printer: &Printer) -> Result<(), Failure> {
    let workload = Workload {
        prompt_tokens: arguments.prompt,
        generated_tokens: arguments.tokens,
        depths: arguments.depth.clone(),
        batches: arguments.batch.clone(),
        repeats: arguments.repeat,
    };
    if workload.prompt_tokens == 0 && workload.generated_tokens == 0 {
        let hint = "give --prompt or --tokens a number above 0";
        return Err(Failure::usage("nothing to measure: --prompt 0 and --tokens 0", hint));
    }
    let mut files = arguments.files.clone();
    let _held = model::settle(files.iter_mut().collect())?;
    let asked = asked(arguments, &files)?;
    let mut sides = Vec::new();
    for side in &asked {
        sides.push(start(side, &workload, printer)?);
    }
    let outcomes = take_turns(&mut sides, &workload, printer)?;
    let report = Report { asked: &asked, sides: &sides, workload: &workload, outcomes: &outcomes };
    if arguments.json {
        let text = serde_json::to_string_pretty(&report.document()).expect("keys are strings");
        return Ok(printer.line(&text)?);
    }
    printer.line(report.table().trim_end())?;
    Ok(())
}

fn name(path: &Path) -> String {
    path.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned())
}

/// Every file, with the usual options and with those of `--vs`.
fn asked(arguments: &Arguments, files: &[PathBuf]) -> Result<Vec<Asked>, Failure> {
    let versus = match &arguments.vs {
        None => None,
        Some(options) => {
            let parsed = Versus::try_parse_from(options.split_whitespace()).map_err(|error| {
                let text = error.to_string();
                let first = text.lines().next().unwrap_or_default();
                let reason = first.trim_start_matches("error: ");
                let hint = "--vs takes the options under \"Memory and speed\": nfl bench --help";
                Failure::usage(format!("--vs {options}: {reason}"), hint)
            })?;
            Some((options, parsed.placement))
        }
    };
    let mut sides = Vec::new();
    for (typed, file) in arguments.files.iter().zip(files) {
        let mut add = |options: &str, placement: &PlacementArguments| {
            let (name, file, placement) = (name(typed), file.clone(), placement.clone());
            sides.push(Asked { name, file, options: options.to_owned(), placement });
        };
        add("", &arguments.placement);
        if let Some((options, placement)) = &versus {
            add(options.trim(), placement);
        }
    }
    Ok(sides)
}

fn start(side: &Asked, workload: &Workload, printer: &Printer) -> Result<Side, Failure> {
    let program = loading::program()?;
    let (room, sequences) = (workload.context_tokens(), workload.sequences());
    let (request, planned) =
        side.placement.request_with_room(&side.file, &program, room, sequences)?;
    let started = loading::load(printer, |told| Side::start(&program, request, told))?;
    loading::warn(printer, started.info(), planned.as_ref());
    Ok(started)
}

fn take_turns(
    sides: &mut [Side],
    workload: &Workload,
    printer: &Printer,
) -> Result<Vec<Vec<Outcome>>, Failure> {
    let handles: Vec<_> = sides.iter().map(Side::cancel_handle).collect();
    let guard = interrupt::on_request(move || handles.iter().for_each(CancelHandle::cancel));
    let steps = workload.steps() * sides.len() as u64;
    let mut progress = Progress::permille(printer);
    progress.message("measuring");
    let mut done = 0;
    let outcomes = measure(sides, workload, &mut || {
        progress.set(done * 1000 / steps);
        done += 1;
        if interrupt::requested() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    drop(guard);
    drop(progress);
    match outcomes {
        Err(BenchError::Stopped) => Err(Failure::interrupted()),
        outcomes => Ok(outcomes?),
    }
}
