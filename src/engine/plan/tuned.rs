//! What measuring has shown to be faster than planning: remembered for each model on each machine.
//!
//! One JSON file in the folder of the user's data. A model is known by its file's name, size and
//! time of change, a machine by its GPUs and number of processors, and the program by its version,
//! because another llama.cpp may be fast elsewhere. What is not understood is no memory at all.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::UNIX_EPOCH;

use serde::{Deserialize, Serialize};

use super::machine::{Machine, Wishes};
use crate::engine::options::LoadMode;
use crate::settings;

/// The file's name.
const FILE: &str = "tuned.json";

/// Bytes of the file that are read.
const FILE_BYTES_MAX: u64 = 4 << 20;

/// What to do otherwise than planned.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tuned {
    /// Threads.
    pub threads: Option<u32>,
    /// Tokens that are computed at once.
    pub micro_batch_tokens: Option<u32>,
    /// How weights reach memory.
    pub load_mode: Option<LoadMode>,
    /// Whether weights are laid out anew for this CPU.
    pub repack: Option<bool>,
    /// Whether attention is computed in one fused pass.
    pub fused_attention: Option<bool>,
}

impl Tuned {
    /// Adds what was found to what the person left open.
    pub fn complete(&self, wishes: &mut Wishes) {
        let fill = |wish: &mut Option<u32>, found: Option<u32>| *wish = wish.or(found);
        fill(&mut wishes.micro_batch_tokens, self.micro_batch_tokens);
        if !wishes.lock_memory {
            wishes.load_mode = wishes.load_mode.or(self.load_mode);
        }
        wishes.repack = wishes.repack.or(self.repack);
        // llama.cpp computes with quantised values in one fused pass only.
        let is_exact = wishes.value_type.is_none_or(|kind| !kind.tensor_type().is_quantized());
        wishes.no_fused_attention |= self.fused_attention == Some(false) && is_exact;
    }

    /// In words: "threads 2, repack no"; "as planned" when nothing differs.
    pub fn describe(&self) -> String {
        let yes_no = |repack| if repack { "repack" } else { "no repack" };
        let parts = [
            self.threads.map(|threads| format!("{threads} threads")),
            self.micro_batch_tokens.map(|tokens| format!("micro-batch {tokens}")),
            self.load_mode.map(|mode| {
                if mode == LoadMode::Read { "weights read" } else { "weights mapped" }.to_owned()
            }),
            self.repack.map(|repack| yes_no(repack).to_owned()),
            self.fused_attention.map(|fused| {
                if fused { "fused attention" } else { "attention in steps" }.to_owned()
            }),
        ];
        let parts: Vec<String> = parts.into_iter().flatten().collect();
        if parts.is_empty() { "as planned".to_owned() } else { parts.join(", ") }
    }
}

/// What identifies a model on a machine.
fn key(model: &Path, machine: &Machine) -> Option<String> {
    let path = model.canonicalize().ok()?;
    let metadata = path.metadata().ok()?;
    let changed = metadata.modified().ok()?.duration_since(UNIX_EPOCH).ok()?.as_secs();
    let gpus: Vec<String> =
        machine.gpus.iter().map(|gpu| format!("{} {}", gpu.name, gpu.description)).collect();
    let processors = thread::available_parallelism().map_or(0, usize::from);
    Some(format!(
        "{}|{}|{changed}|{}|{processors} processors|nfl {}",
        path.file_name()?.to_string_lossy(),
        metadata.len(),
        gpus.join("+"),
        env!("CARGO_PKG_VERSION")
    ))
}

/// Where the memory is kept; None when there is no folder for data.
pub fn path() -> Option<PathBuf> {
    Some(settings::home()?.join(FILE))
}

fn read(path: &Path) -> BTreeMap<String, Tuned> {
    let small = fs::metadata(path).is_ok_and(|metadata| metadata.len() <= FILE_BYTES_MAX);
    let text = if small { fs::read_to_string(path).ok() } else { None };
    text.and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default()
}

/// What was found for a model on a machine.
pub fn recall(model: &Path, machine: &Machine) -> Option<Tuned> {
    read(&path()?).remove(&key(model, machine)?)
}

/// Remembers what was found, in place of what was known of the same model and machine.
///
/// # Errors
/// When the file cannot be written; the old one is left as it was.
pub fn remember(model: &Path, machine: &Machine, tuned: &Tuned) -> io::Result<PathBuf> {
    let missing = || io::Error::new(io::ErrorKind::NotFound, "there is no folder for data");
    let path = path().ok_or_else(missing)?;
    let key = key(model, machine).ok_or_else(missing)?;
    remember_in(&path, key, tuned)?;
    Ok(path)
}

fn remember_in(path: &Path, key: String, tuned: &Tuned) -> io::Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    let mut known = read(path);
    known.insert(key, tuned.clone());
    let text = serde_json::to_string_pretty(&known).map_err(io::Error::other)?;
    let unfinished = path.with_extension(format!("{}.tmp", std::process::id()));
    fs::write(&unfinished, text + "\n")?;
    fs::rename(&unfinished, path).inspect_err(|_| _ = fs::remove_file(&unfinished))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::options::CacheType;

    #[test]
    fn what_is_remembered_is_recalled_and_damage_is_no_memory() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("new").join(FILE);
        let slow = Tuned { repack: Some(false), ..Tuned::default() };
        let fast = Tuned { threads: Some(3), load_mode: Some(LoadMode::Read), ..Tuned::default() };
        remember_in(&path, "a".to_owned(), &slow).unwrap();
        remember_in(&path, "b".to_owned(), &fast).unwrap();
        remember_in(&path, "a".to_owned(), &fast).unwrap();
        assert_eq!(read(&path).into_values().collect::<Vec<_>>(), [fast.clone(), fast.clone()]);
        assert_eq!(fast.describe(), "3 threads, weights read");
        fs::write(&path, "{").unwrap();
        assert!(read(&path).is_empty());
        remember_in(&path, "c".to_owned(), &slow).unwrap();
        assert_eq!(read(&path).len(), 1);
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
    }

    #[test]
    fn the_person_comes_first() {
        let tuned =
            Tuned { repack: Some(false), micro_batch_tokens: Some(256), ..Tuned::default() };
        let mut wishes = Wishes { repack: Some(true), ..Wishes::default() };
        tuned.complete(&mut wishes);
        assert_eq!((wishes.repack, wishes.micro_batch_tokens), (Some(true), Some(256)));
        let tuned = Tuned { fused_attention: Some(false), ..Tuned::default() };
        tuned.complete(&mut wishes);
        assert!(wishes.no_fused_attention);
        let value_type = Some(CacheType::Q8_0);
        let mut wishes = Wishes { value_type, ..Wishes::default() };
        tuned.complete(&mut wishes);
        assert!(!wishes.no_fused_attention);
    }
}
