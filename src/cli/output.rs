//! Where converted files go and how they are made: what `convert` and `quantize` take alike.

use std::path::PathBuf;

use clap::Args;
use nfl_converters::Order;
use nfl_models::Level;

use crate::hardware;

#[derive(Debug, Args)]
pub(super) struct OutputArguments {
    /// Directory for the files NAME-LEVEL.gguf.
    #[arg(short, long, default_value = ".", value_name = "DIR")]
    output: PathBuf,
    /// Name of the files, without level; that of the source unless given.
    #[arg(long)]
    name: Option<String>,
    /// Replace files that exist.
    #[arg(long)]
    overwrite: bool,
    /// Threads that quantise; the physical cores unless given.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=512))]
    threads: Option<u32>,
    /// Print what was written as JSON, with the SHA-256 of every tensor.
    #[arg(long)]
    pub(super) json: bool,
}

impl OutputArguments {
    /// The order that these arguments make; files are named after `source` unless the person chose.
    pub(super) fn order(&self, levels: &[Level], source: String) -> Order {
        Order {
            threads: self.threads.unwrap_or_else(hardware::default_threads) as usize,
            overwrite: self.overwrite,
            checksums: self.json,
            ..Order::new(levels.to_vec(), &self.output, self.name.clone().unwrap_or(source))
        }
    }
}
