//! `nfl quantize`: a GGUF file becomes GGUF files at other levels.

use std::path::PathBuf;

use clap::Args;
use nfl_converters::Order;
use nfl_models::Level;
use nfl_models::gguf::Gguf;

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
    /// A GGUF file; of a split model, any of its files.
    file: PathBuf,
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
fn stem(path: &std::path::Path) -> String {
    let name = path.file_stem().map_or("model".into(), |stem| stem.to_string_lossy().into_owned());
    let mut parts: Vec<&str> = name.split('-').collect();
    let is_number = |text: &str| text.len() == 5 && text.bytes().all(|byte| byte.is_ascii_digit());
    if let [.., number, "of", count] = parts[..]
        && is_number(number)
        && is_number(count)
    {
        parts.truncate(parts.len() - 3);
    }
    if parts.len() > 1 && parts.last().is_some_and(|part| part.parse::<Level>().is_ok()) {
        parts.pop();
    }
    if parts.is_empty() { name } else { parts.join("-") }
}

#[cfg(test)]
mod tests {
    use super::stem;

    #[test]
    fn the_level_leaves_the_name() {
        let stem = |name: &str| stem(std::path::Path::new(name));
        assert_eq!(stem("dir/m-F16.gguf"), "m");
        assert_eq!(stem("m-F16-00001-of-00002.gguf"), "m");
        assert_eq!(stem("qwen-8b.gguf"), "qwen-8b");
        assert_eq!(stem("F16.gguf"), "F16");
        assert_eq!(stem("ref-x-f32.gguf"), "ref-x");
    }
}
