//! `nfl quantize`: a GGUF file becomes GGUF files at other levels.

use std::path::{Path, PathBuf};

use clap::Args;
use nfl_converters::Order;
use nfl_models::gguf::Gguf;
use nfl_models::{Level, file_name_parts};

use super::failure::Failure;
use super::output::OutputArguments;
use super::report::{self, Reporter};
use crate::engine::blocks::GgmlBlocks;
use crate::term::Printer;

/// Turn a GGUF file into GGUF files at other levels.
///
/// Start from F32, F16 or BF16: quantising what is quantised already loses twice. Metadata and vocabulary stay as they
/// are; each file appears only when it is complete and has been read back.
#[derive(Debug, Args)]
#[command(after_help = report::levels_help())]
pub(super) struct Arguments {
    /// A GGUF file (of a split model, any of its files), or a stored model.
    pub(super) file: PathBuf,
    /// Levels to write, separated by commas (see below).
    #[arg(short, long, value_delimiter = ',', required = true, value_name = "LIST")]
    level: Vec<Level>,
    /// Allow a source that is quantised already.
    #[arg(long)]
    allow_requantize: bool,
    #[command(flatten)]
    output: OutputArguments,
}

pub(super) fn run(arguments: &Arguments, printer: &Printer) -> Result<(), Failure> {
    let source = Gguf::open(&arguments.file)?;
    let order = Order {
        allow_requantize: arguments.allow_requantize,
        ..arguments.output.order(&arguments.level, stem(&arguments.file))
    };
    let mut reporter = Reporter::new(printer);
    let receipts =
        nfl_converters::requantize(&source, &order, &GgmlBlocks, &mut |step| reporter.step(&step));
    reporter.finish(receipts, arguments.output.json)
}

/// The file's name without `.gguf`, the numbers of a split and the level: `m-F16-00001-of-00002.gguf` → `m`.
fn stem(path: &Path) -> String {
    let name = path.file_stem().map_or("model".into(), |stem| stem.to_string_lossy());
    file_name_parts(&name).0.to_owned()
}
