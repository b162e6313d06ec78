//! `nfl search`: models on the hub, and which of them run here.

use clap::Args;
use serde_json::json;

use super::failure::Failure;
use super::remote;
use crate::hardware;
use crate::hub::{Found, fits};
use crate::term::{Printer, neutral, table, units};
use nfl_models::Level;

/// Search the hub for models in GGUF.
///
/// FITS says whether its weights at Q4_K_M fit into this machine's memory, and how large they are.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Words that the repository's name must hold.
    #[arg(required = true)]
    words: Vec<String>,
    /// Only models that fit into this machine's memory.
    #[arg(long)]
    fits: bool,
    /// How many, the most downloaded first.
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=100))]
    limit: u32,
    /// Print the results as JSON.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: &Arguments, printer: &Printer) -> Result<(), Failure> {
    let memory = hardware::memory().usable_bytes();
    let mut found = remote::hub(false)?.search(&arguments.words.join(" "), arguments.limit)?;
    if arguments.fits {
        found.retain(|each| bytes(each).is_some_and(|bytes| fits(bytes, memory)));
    }
    if arguments.json {
        let entry = |each: &Found| {
            json!({
                "name": format!("hf.co/{}", each.repository),
                "downloads": each.downloads,
                "likes": each.likes,
                "modified": each.modified,
                "gated": each.is_gated,
                "parameters": each.weights,
                "architecture": each.architecture,
                "context": each.context,
                "bytes_q4_k_m": bytes(each),
                "fits": bytes(each).map(|bytes| fits(bytes, memory)),
            })
        };
        let list: Vec<_> = found.iter().map(entry).collect();
        let text = serde_json::to_string_pretty(&list).expect("keys are strings");
        return Ok(printer.line(&text)?);
    }
    if found.is_empty() {
        printer.say("nothing found; fewer words find more");
        return Ok(());
    }
    let titles = ["NAME", "WEIGHTS", "FITS", "DOWNLOADS", "CHANGED"];
    let mut rows = vec![titles.map(str::to_owned).to_vec()];
    rows.extend(found.iter().map(|each| row(each, memory)));
    printer.stream(&table::render(&rows, &[1, 3]))?;
    Ok(())
}

fn row(each: &Found, memory: u64) -> Vec<String> {
    let gated = if each.is_gated { " (gated)" } else { "" };
    let fits = bytes(each).map(|bytes| {
        let word = if fits(bytes, memory) { "yes" } else { "no" };
        format!("{word}, {}", units::bytes(bytes))
    });
    let changed = each.modified.as_deref().and_then(|text| text.get(..10)).unwrap_or_default();
    vec![
        neutral(&format!("hf.co/{}{gated}", each.repository)),
        each.weights.map(units::count).unwrap_or_default(),
        fits.unwrap_or_default(),
        units::count(each.downloads),
        neutral(changed),
    ]
}

/// The size of its weights at the level that a pull prefers.
fn bytes(each: &Found) -> Option<u64> {
    let bits = f64::from(Level::Q4_K_M.bits_per_weight());
    each.weights.map(|weights| (weights as f64 * bits / 8.0) as u64)
}
