//! `nfl convert`: a trained safetensors checkpoint becomes GGUF at one or several levels.

use std::path::PathBuf;

use clap::Args;
use nfl_converters::Order;
use nfl_converters::checkpoint::Checkpoint;
use nfl_models::Level;

use super::failure::Failure;
use super::report::{self, Reporter};
use crate::engine::blocks::GgmlBlocks;
use crate::hardware;
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
    /// Directory for the files NAME-LEVEL.gguf.
    #[arg(short, long, default_value = ".", value_name = "DIR")]
    output: PathBuf,
    /// Name of the files, without level; the checkpoint directory's name unless given.
    #[arg(long)]
    name: Option<String>,
    /// Replace files that exist.
    #[arg(long)]
    overwrite: bool,
    /// Write the metadata and the vocabulary only, no weights.
    #[arg(long)]
    vocab_only: bool,
    /// Threads that quantise; the physical cores unless given.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=512))]
    threads: Option<u32>,
    /// Print what was written as JSON, with the SHA-256 of every tensor.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: &Arguments, printer: &Printer) -> Result<(), Failure> {
    let checkpoint = Checkpoint::open(&arguments.checkpoint)?;
    let name = arguments.name.clone().unwrap_or_else(|| checkpoint.name().to_owned());
    let order = Order {
        threads: arguments.threads.unwrap_or_else(hardware::default_threads) as usize,
        overwrite: arguments.overwrite,
        vocab_only: arguments.vocab_only,
        checksums: arguments.json,
        ..Order::new(arguments.level.clone(), &arguments.output, name)
    };
    let mut reporter = Reporter::new(printer);
    let receipts =
        nfl_converters::convert(&checkpoint, &order, &GgmlBlocks, &mut |step| reporter.step(&step));
    reporter.finish(receipts, arguments.json)
}
