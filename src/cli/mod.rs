//! The command line: what can be typed, and which file answers it.

mod audit;
mod bench;
mod constraint;
mod convert;
mod cp;
mod create;
mod descent;
mod doctor;
mod embed;
mod failure;
mod finetune;
mod fit;
mod guessing;
mod import;
mod keys;
mod list;
mod listen;
mod loading;
mod merge;
mod model;
mod outdated;
mod output;
mod placement;
mod pool;
mod prune;
mod pull;
mod push;
mod quantize;
mod reader;
mod remote;
mod reply;
mod report;
mod rerank;
mod rm;
mod run;
mod sampling;
mod search;
mod security;
mod serve;
mod show;
mod steering;
mod stored;
mod synthesize;
mod transfer;
mod tune;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};

use crate::engine::{probe, reserve, worker};
use crate::settings;
use crate::term::{Printer, interrupt};
use failure::Failure;

/// Run and make language models on your own machine.
///
/// A trained checkpoint becomes a GGUF file at any quantisation level, and a GGUF file talks: dense or Mixture of
/// Experts, from a memory-mapped file, on CPU and GPU.
#[derive(Debug, Parser)]
#[command(name = "nfl", version, propagate_version = true, subcommand_required = true)]
#[command(arg_required_else_help = true, max_term_width = 100)]
pub struct CommandLine {
    /// Print only results, warnings and errors.
    #[arg(short, long, global = true)]
    quiet: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Convert(convert::Arguments),
    Quantize(quantize::Arguments),
    Show(show::Arguments),
    Pull(pull::Arguments),
    List(list::Arguments),
    Import(import::Arguments),
    Create(create::Arguments),
    Cp(cp::Arguments),
    Rm(rm::Arguments),
    Prune(prune::Arguments),
    Push(push::Arguments),
    Search(search::Arguments),
    Outdated(outdated::Arguments),
    Run(Box<run::Arguments>),
    Serve(serve::Arguments),
    Keys(keys::Arguments),
    Audit(audit::Arguments),
    Embed(Box<embed::Arguments>),
    Rerank(Box<rerank::Arguments>),
    Finetune(Box<finetune::Arguments>),
    Merge(merge::Arguments),
    Bench(Box<bench::Arguments>),
    Fit(Box<fit::Arguments>),
    Tune(tune::Arguments),
    Synthesize(synthesize::Arguments),
    Doctor(doctor::Arguments),
}

/// Runs the command of this process's arguments and returns its exit status: 0 done, 1 failed, 2 wrong usage,
/// 130 interrupted.
pub fn main() -> ExitCode {
    match std::env::args_os().nth(1) {
        Some(argument) if argument == worker::ARGUMENT => return worker::main(),
        Some(argument) if argument == probe::ARGUMENT => return probe::main(),
        Some(argument) if argument == reserve::ARGUMENT => return reserve::main(),
        _ => {}
    }
    let line = match CommandLine::try_parse() {
        Ok(line) => line,
        Err(error) => {
            // clap prints help and version to stdout with status 0, mistakes to stderr with status 2.
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    interrupt::install();
    let printer = Printer::new(line.quiet, settings::colour());
    match dispatch(line.command, &printer) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            if failure.status != 0 {
                printer.error(&failure.message, failure.hint.as_deref());
            }
            ExitCode::from(failure.status)
        }
    }
}

impl Command {
    /// Where a file may be named by a stored model's name. The commands that want to know more than its file ask for
    /// themselves.
    fn model_files(&mut self) -> Vec<&mut PathBuf> {
        match self {
            Self::Quantize(arguments) => vec![&mut arguments.file],
            Self::Fit(arguments) => {
                std::iter::once(&mut arguments.model).chain(&mut arguments.draft).collect()
            }
            Self::Tune(arguments) => vec![&mut arguments.file],
            Self::Finetune(arguments) => arguments.model.iter_mut().collect(),
            Self::Merge(arguments) => vec![&mut arguments.model],
            Self::Embed(arguments) => vec![&mut arguments.file],
            Self::Rerank(arguments) => vec![&mut arguments.file],
            Self::Run(arguments) => arguments.guessing.draft.iter_mut().collect(),
            _ => Vec::new(),
        }
    }
}

fn dispatch(mut command: Command, printer: &Printer) -> Result<(), Failure> {
    let _held = model::settle(command.model_files())?;
    match command {
        Command::Convert(arguments) => convert::run(&arguments, printer),
        Command::Quantize(arguments) => quantize::run(&arguments, printer),
        Command::Show(arguments) => show::run(&arguments, printer),
        Command::Pull(arguments) => pull::run(&arguments, printer),
        Command::Push(arguments) => push::run(&arguments, printer),
        Command::Serve(arguments) => serve::run(&arguments, printer),
        Command::Keys(arguments) => keys::run(&arguments, printer),
        Command::Audit(arguments) => audit::run(&arguments, printer),
        Command::Finetune(arguments) => finetune::run(&arguments, printer),
        Command::Merge(arguments) => merge::run(&arguments, printer),
        Command::Search(arguments) => search::run(&arguments, printer),
        Command::Outdated(arguments) => outdated::run(&arguments, printer),
        Command::List(arguments) => list::run(&arguments, printer),
        Command::Import(arguments) => import::run(&arguments, printer),
        Command::Create(arguments) => create::run(&arguments, printer),
        Command::Cp(arguments) => cp::run(&arguments, printer),
        Command::Rm(arguments) => rm::run(&arguments, printer),
        Command::Prune(arguments) => prune::run(&arguments, printer),
        Command::Run(mut arguments) => run::run(&mut arguments, printer),
        Command::Embed(arguments) => embed::run(&arguments, printer),
        Command::Rerank(arguments) => rerank::run(&arguments, printer),
        Command::Bench(arguments) => bench::run(&arguments, printer),
        Command::Fit(arguments) => fit::run(&arguments, printer),
        Command::Tune(arguments) => tune::run(&arguments, printer),
        Command::Synthesize(arguments) => synthesize::run(&arguments, printer),
        Command::Doctor(arguments) => doctor::run(&arguments, printer),
    }
}

/// The whole command tree, for tests of help texts and of the README.
pub fn command() -> clap::Command {
    CommandLine::command()
}
