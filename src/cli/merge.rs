//! `nfl merge`: an adapter becomes part of its model.

use std::path::PathBuf;

use clap::Args;
use nfl_converters::Order;
use nfl_models::Level;
use nfl_models::gguf::Gguf;

use super::failure::Failure;
use super::loading;
use super::report::{self, Reporter};
use super::steering;
use crate::engine::blocks::GgmlBlocks;
use crate::engine::options::{ContextOptions, LoadRequest, ModelOptions};
use crate::engine::process::Engine;
use crate::eval::{divergence, perplexity};
use crate::hardware;
use crate::learn::merge::{self, Deltas, MergeError};
use crate::term::Printer;

/// Tokens of a chunk of the text that both models are held against.
const CHUNK_TOKENS: u32 = 256;

/// Make an adapter part of its model, at any level.
///
/// The adapter is added to the weights as the model's file has them, because it was trained beside those. A model that is
/// quantised loses again when it is quantised again: --level f16 loses least, and --eval shows what was lost or won.
#[derive(Debug, Args)]
#[command(after_help = report::levels_help())]
pub(super) struct Arguments {
    /// The model that the adapter was trained on: a GGUF file, or a stored model.
    #[arg(value_name = "MODEL")]
    pub(super) model: PathBuf,
    /// The adapter (GGUF, or a folder of nfl finetune), and how strongly it is added, 1 unless given.
    #[arg(long, value_name = "FILE|DIR[=SCALE]", value_parser = steering::adapter)]
    adapter: (PathBuf, f32),
    /// The level to write (see below).
    #[arg(short, long, default_value = "f16")]
    level: Level,
    /// The file to write.
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
    /// Replace the file if it exists.
    #[arg(long)]
    overwrite: bool,
    /// Threads that compute; the physical cores unless given.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=512))]
    threads: Option<u32>,
    /// A text: tell its perplexity before and after, and how far the two models are apart.
    #[arg(long, value_name = "FILE")]
    eval: Option<PathBuf>,
}

pub(super) fn run(arguments: &Arguments, printer: &Printer) -> Result<(), Failure> {
    let model = Gguf::open(&arguments.model)?;
    let (path, strength) = &arguments.adapter;
    let deltas = Deltas::read(path, *strength, &model, &GgmlBlocks)?;
    printer.say(&format!("the adapter changes {} tensors", deltas.count()));
    let output = std::path::absolute(&arguments.output)
        .map_err(|error| Failure::new(format!("{}: {error}", arguments.output.display()), None))?;
    let (Some(folder), Some(name)) = (output.parent(), output.file_name()) else {
        let what = format!("--output {}", output.display());
        return Err(Failure::usage(what, "give the name of a file"));
    };
    let order = Order {
        file: Some(output.clone()),
        threads: arguments.threads.unwrap_or_else(hardware::default_threads) as usize,
        overwrite: arguments.overwrite,
        allow_requantize: true,
        ..Order::new(vec![arguments.level], folder, name.to_string_lossy())
    };
    let mut reporter = Reporter::new(printer);
    let merged = match merge::merge(&model, &deltas, &order, &GgmlBlocks, &mut |step| {
        reporter.step(&step)
    }) {
        Err(MergeError::Convert(error)) => Err(error),
        other => Ok(other?),
    };
    reporter.finish(merged, false)?;
    match &arguments.eval {
        Some(text) => compare(arguments, text, printer),
        None => Ok(()),
    }
}

/// Holds the merged model against what it was.
fn compare(arguments: &Arguments, path: &PathBuf, printer: &Printer) -> Result<(), Failure> {
    let text = std::fs::read_to_string(path)
        .map_err(|error| Failure::new(format!("{}: {error}", path.display()), None))?;
    let program = loading::program()?;
    let threads = arguments.threads.unwrap_or_else(hardware::default_threads);
    let start = |model: &PathBuf| {
        let context = ContextOptions {
            context_tokens: Some(CHUNK_TOKENS),
            ..ContextOptions::with_threads(threads)
        };
        let load = LoadRequest::new(model, ModelOptions::default(), context);
        loading::load(printer, |told| Engine::start(&program, &load, told))
    };
    let (mut before, mut after) = (start(&arguments.model)?, start(&arguments.output)?);
    let chunk = CHUNK_TOKENS as usize;
    let was = perplexity::measure(&mut before, &text, chunk)?;
    let is = perplexity::measure(&mut after, &text, chunk)?;
    let apart = divergence::measure(&before, &after, &text, chunk)?;
    let change = 100.0 * (is.value / was.value - 1.0);
    printer.say(&format!(
        "perplexity {:.4} before, {:.4} after ({change:+.1} %), of {} tokens; KL divergence {apart:.5} nats a token",
        was.value, is.value, is.tokens
    ));
    Ok(())
}
