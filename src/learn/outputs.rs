//! What a run leaves: the adapter as PEFT's two files and as the GGUF that models run with.

use std::fs;
use std::io::Write;
use std::path::Path;

use super::error::LearnError;
use crate::training::decoder::Decoder;
use crate::training::files::{self, PeftConfig};
use crate::training::linear::Adapters;
use crate::training::targets::Target;

/// The adapter for llama.cpp.
pub const GGUF_FILE: &str = "adapter.gguf";

/// PEFT's numbers.
pub const PEFT_FILE: &str = "adapter_model.safetensors";

/// PEFT's settings.
pub const CONFIG_FILE: &str = "adapter_config.json";

/// Writes a file under its name only when it is complete.
pub fn write(path: &Path, bytes: &[u8]) -> Result<(), LearnError> {
    let io = |source| LearnError::Io { path: path.to_owned(), source };
    let folder = path.parent().unwrap_or(Path::new("."));
    let mut file = tempfile::NamedTempFile::new_in(folder).map_err(io)?;
    file.write_all(bytes).map_err(io)?;
    file.as_file().sync_all().map_err(io)?;
    file.persist(path).map_err(|error| io(error.error))?;
    Ok(())
}

/// The bytes of [`GGUF_FILE`].
pub fn gguf(
    architecture: &str,
    name: &str,
    targets: &[Target],
    adapters: &Adapters,
) -> Result<Vec<u8>, LearnError> {
    let mut bytes = Vec::new();
    files::gguf(&mut bytes, architecture, name, targets, adapters)?;
    Ok(bytes)
}

/// An adapter and the model that it belongs to.
#[derive(Debug)]
pub struct Adapter<'a> {
    /// The architecture's name in GGUF files.
    pub architecture: &'a str,
    /// What it is called.
    pub name: &'a str,
    /// Which linear maps it adapts.
    pub targets: &'a [Target],
    /// Its numbers.
    pub adapters: &'a Adapters,
    /// The frozen base.
    pub decoder: &'a Decoder,
    /// PEFT's settings.
    pub config: &'a PeftConfig,
}

impl Adapter<'_> {
    /// Writes all of its files.
    pub fn write(&self, folder: &Path) -> Result<(), LearnError> {
        let peft = files::peft(self.targets, self.adapters, self.decoder)?;
        let gguf = gguf(self.architecture, self.name, self.targets, self.adapters)?;
        // What others look for first comes last.
        write(&folder.join(GGUF_FILE), &gguf)?;
        write(&folder.join(PEFT_FILE), &peft)?;
        write(&folder.join(CONFIG_FILE), &self.config.json()?)
    }
}

/// The folder of a run, made where it does not exist.
pub fn make_folder(folder: &Path) -> Result<(), LearnError> {
    fs::create_dir_all(folder).map_err(|source| LearnError::Io { path: folder.to_owned(), source })
}
