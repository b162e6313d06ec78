//! `nfl convert`: a trained safetensors checkpoint becomes GGUF at one or several levels.

use std::path::PathBuf;

use clap::Args;
use nfl_converters::Order;
use nfl_converters::checkpoint::Checkpoint;
use nfl_models::Level;

use super::failure::Failure;
use super::output::OutputArguments;
use super::report::{self, Reporter};
use crate::engine::blocks::GgmlBlocks;
use crate::term::Printer;

/// Turn a trained checkpoint into GGUF files.
///
/// CHECKPOINT is a Hugging Face directory: config.json, *.safetensors and the tokenizer's files. Several levels are
/// written in one pass over it; each file appears only when it is complete and has been read back.
#[derive(Debug, Args)]
#[command(after_help = report::levels_help())]
pub(super) struct Arguments {
    /// The checkpoint's directory.
    checkpoint: PathBuf,
    /// Levels to write, separated by commas (see below).
    #[arg(short, long, value_delimiter = ',', default_value = "q4_k_m", value_name = "LIST")]
    level: Vec<Level>,
    /// Write the metadata and the vocabulary only, no weights.
    #[arg(long)]
    vocab_only: bool,
    #[command(flatten)]
    output: OutputArguments,
}

pub(super) fn run(arguments: &Arguments, printer: &Printer) -> Result<(), Failure> {
    let checkpoint = Checkpoint::open(&arguments.checkpoint)?;
    let order = Order {
        vocab_only: arguments.vocab_only,
        ..arguments.output.order(&arguments.level, checkpoint.name().to_owned())
    };
    let mut reporter = Reporter::new(printer);
    let receipts =
        nfl_converters::convert(&checkpoint, &order, &GgmlBlocks, &mut |step| reporter.step(&step));
    reporter.finish(receipts, arguments.output.json)
}
