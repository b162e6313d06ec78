//! `nfl synthesize`: a checkpoint of random weights in the shape of a real model.

use std::ops::ControlFlow;
use std::path::PathBuf;

use clap::Args;
use nfl_converters::seeded::{Overrides, Seed, SeededError, WeightType, generate};

use super::failure::Failure;
use crate::term::progress::Progress;
use crate::term::{Printer, interrupt, units};

/// Make a checkpoint of seeded random weights in the shape of a real model.
///
/// For benchmarks, tests and planning: from any Llama, Mistral or Mixtral config.json comes a Hugging Face checkpoint of
/// that shape, full or reduced, in seconds. The same seed gives the same bytes everywhere.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// A config.json, or a directory that holds one.
    config: PathBuf,
    /// The directory to make.
    #[arg(short, long, value_name = "DIR")]
    output: PathBuf,
    /// Where the random numbers start.
    #[arg(long, default_value_t = 0, value_name = "N")]
    seed: u64,
    /// Type of the weights: f32, f16 or bf16.
    #[arg(long, default_value = "bf16", value_name = "TYPE", value_parser = dtype)]
    dtype: WeightType,
    /// Layers.
    #[arg(long, value_name = "N", help_heading = "Instead of what the config says")]
    layers: Option<u64>,
    /// Length of the hidden state.
    #[arg(long, value_name = "N", help_heading = "Instead of what the config says")]
    hidden: Option<u64>,
    /// Neurons of a feed-forward layer or of an expert.
    #[arg(long, value_name = "N", help_heading = "Instead of what the config says")]
    intermediate: Option<u64>,
    /// Attention heads.
    #[arg(long, value_name = "N", help_heading = "Instead of what the config says")]
    heads: Option<u64>,
    /// Heads of keys and values.
    #[arg(long, value_name = "N", help_heading = "Instead of what the config says")]
    kv_heads: Option<u64>,
    /// Experts.
    #[arg(long, value_name = "N", help_heading = "Instead of what the config says")]
    experts: Option<u64>,
    /// Experts that each token uses.
    #[arg(long, value_name = "N", help_heading = "Instead of what the config says")]
    experts_used: Option<u64>,
    /// Tokens of the vocabulary.
    #[arg(long, value_name = "N", help_heading = "Instead of what the config says")]
    vocabulary: Option<u64>,
    /// Directory whose tokenizer files are copied; without it a vocabulary is made up.
    #[arg(long, value_name = "DIR")]
    tokenizer: Option<PathBuf>,
    /// Spread of the router's logits; from about 4 the chosen experts stand clear, 0 is as random as the rest.
    #[arg(long, default_value_t = 0.0, value_name = "S")]
    router_sharpness: f32,
    /// Bytes of one weight file at most; larger checkpoints are sharded.
    #[arg(long, default_value_t = nfl_converters::seeded::SHARD_BYTES_MAX, value_name = "BYTES")]
    shard_bytes: u64,
}

fn dtype(text: &str) -> Result<WeightType, SeededError> {
    text.parse()
}

pub(super) fn run(arguments: &Arguments, printer: &Printer) -> Result<(), Failure> {
    let seed = Seed {
        seed: arguments.seed,
        dtype: arguments.dtype,
        shard_bytes_max: arguments.shard_bytes,
        overrides: Overrides {
            layers: arguments.layers,
            hidden: arguments.hidden,
            intermediate: arguments.intermediate,
            heads: arguments.heads,
            kv_heads: arguments.kv_heads,
            experts: arguments.experts,
            experts_used: arguments.experts_used,
            vocabulary: arguments.vocabulary,
        },
        router_sharpness: arguments.router_sharpness,
        tokenizer: arguments.tokenizer.clone(),
    };
    let mut progress: Option<Progress> = None;
    let result = generate(&arguments.config, &arguments.output, &seed, &mut |done, total| {
        let bar = progress.get_or_insert_with(|| Progress::bytes(printer, total));
        bar.message("random weights");
        bar.set(done);
        if interrupt::requested() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    drop(progress);
    let made = match result {
        Err(SeededError::Stopped) => return Err(Failure::interrupted()),
        other => other?,
    };
    printer.say(&format!(
        "{}: {} weights, {} in {} files",
        made.directory.display(),
        units::count(made.parameters),
        units::bytes(made.bytes),
        made.shards
    ));
    Ok(())
}
