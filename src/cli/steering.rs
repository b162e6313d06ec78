//! The flags that change a model for a command: adapters and control vectors.

use std::path::PathBuf;

use clap::Args;

use crate::engine::steering::{AdapterUse, ControlUse, Steering};
use crate::learn::outputs;

#[derive(Debug, Args)]
#[command(next_help_heading = "Adapters")]
pub(super) struct SteeringArguments {
    /// A LoRA adapter (GGUF, or a folder of `nfl finetune`) and how strongly it acts, 1 unless given; may be given several
    /// times.
    #[arg(long, value_name = "FILE|DIR[=SCALE]", value_parser = adapter)]
    adapter: Vec<(PathBuf, f32)>,
    /// A control vector (GGUF) and how strongly it acts, 1 unless given; may be given several times.
    #[arg(long, value_name = "FILE[=SCALE]", value_parser = scaled)]
    control_vector: Vec<(PathBuf, f32)>,
    /// The layers that control vectors act on, such as 10-20 [default: all].
    #[arg(long, value_name = "FIRST-LAST", value_parser = layers, requires = "control_vector")]
    control_layers: Option<(u32, u32)>,
}

impl SteeringArguments {
    /// Adapters that belong to the model; they act besides those that were asked for.
    pub(super) fn add(&mut self, adapters: &[PathBuf]) {
        self.adapter.extend(adapters.iter().map(|path| (path.clone(), 1.0)));
    }

    pub(super) fn read(&self) -> Steering {
        let adapters = self.adapter.iter();
        let controls = self.control_vector.iter();
        Steering {
            adapters: adapters
                .map(|(path, scale)| AdapterUse { path: path.clone(), scale: *scale })
                .collect(),
            controls: controls
                .map(|(path, scale)| ControlUse {
                    path: path.clone(),
                    scale: *scale,
                    layers: self.control_layers,
                })
                .collect(),
        }
    }

    /// The files that the worker must be able to read.
    pub(super) fn files(&self) -> Vec<PathBuf> {
        self.adapter.iter().chain(&self.control_vector).map(|(path, _)| path.clone()).collect()
    }
}

/// An adapter's file, and a scale where one is given; of a folder the adapter in it.
pub(super) fn adapter(text: &str) -> Result<(PathBuf, f32), String> {
    let (path, scale) = scaled(text)?;
    if !path.is_dir() {
        return Ok((path, scale));
    }
    let file = path.join(outputs::GGUF_FILE);
    if !file.is_file() {
        return Err(format!("there is no {} in {}", outputs::GGUF_FILE, path.display()));
    }
    Ok((file, scale))
}

/// A path, and a scale where the text behind the last `=` is a number. The worker may run in another
/// folder, so that the path is made absolute.
fn scaled(text: &str) -> Result<(PathBuf, f32), String> {
    let number = text.rsplit_once('=').and_then(|(path, scale)| Some((path, scale.parse().ok()?)));
    let (path, scale) = number.unwrap_or((text, 1.0));
    let absolute = std::path::absolute(path).map_err(|error| format!("{path}: {error}"))?;
    Ok((absolute, scale))
}

fn layers(text: &str) -> Result<(u32, u32), String> {
    let parsed = text
        .split_once('-')
        .and_then(|(first, last)| Some((first.trim().parse().ok()?, last.trim().parse().ok()?)));
    parsed.ok_or_else(|| "FIRST-LAST is expected, such as 10-20".to_owned())
}
