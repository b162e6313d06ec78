//! What a model says with the adapter as it is now.

use std::fs;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use crate::cli::failure::Failure;
use crate::engine::frames::{Event, Generation, Prompt};
use crate::engine::process::Engine;
use crate::engine::steering::{AdapterUse, Steering};
use crate::learn::outputs;

/// Tokens of context that a sample has.
pub(super) const CONTEXT_TOKENS: u32 = 512;

/// Tokens that are said.
const TOKENS: u32 = 48;

/// The folder that samples' adapters are read from, as an absolute path: the engine may run elsewhere.
pub(super) fn folder(output: &Path) -> Result<PathBuf, Failure> {
    outputs::make_folder(output)?;
    fs::canonicalize(output)
        .map_err(|error| Failure::new(format!("{}: {error}", output.display()), None))
}

/// How a model with an adapter goes on with a text, always with its likeliest token.
pub(super) fn hear(
    engine: &Engine,
    output: &Path,
    text: &str,
    adapter: &[u8],
) -> Result<String, Failure> {
    let io = |error: std::io::Error| Failure::new(format!("{}: {error}", output.display()), None);
    // Under a new name each time: an engine keeps what it has read.
    let file = tempfile::Builder::new()
        .prefix("sample")
        .suffix(".gguf")
        .tempfile_in(folder(output)?)
        .map_err(io)?;
    fs::write(file.path(), adapter).map_err(io)?;
    let adapters = vec![AdapterUse { path: file.path().to_owned(), scale: 1.0 }];
    let prompt = Prompt::Text { text: text.to_owned(), add_special: true, parse_special: true };
    let steering = Steering { adapters, controls: Vec::new() };
    let generation = Generation { steering, ..Generation::greedy(prompt, TOKENS) };
    let mut said = String::new();
    engine.generate(&generation, &mut |event| {
        if let Event::Token { text, .. } = event {
            said += &text;
        }
        ControlFlow::Continue(())
    })?;
    Ok(said)
}
