//! What the checkpoint tests share: material, hand-made files, and the one way to be refused.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nfl_converters::checkpoint::Checkpoint;
use nfl_models::Hint;
use tempfile::TempDir;

/// A path of the shared material, or `None` with a line that says so.
pub(crate) fn material(name: &str) -> Option<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/material").join(name);
    if !path.exists() {
        eprintln!("skipped: {} is absent", path.display());
        return None;
    }
    Some(path)
}

/// A safetensors file of a header as it stands and data.
pub(crate) fn safetensors(header: &str, data: &[u8]) -> Vec<u8> {
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header.as_bytes());
    bytes.extend(data);
    bytes
}

/// A header with one tensor `name` of `elements` F32 values.
pub(crate) fn one_tensor(name: &str, elements: usize) -> Vec<u8> {
    let end = elements * 4;
    let header =
        format!(r#"{{"{name}":{{"dtype":"F32","shape":[{elements}],"data_offsets":[0,{end}]}}}}"#);
    safetensors(&header, &vec![0; end])
}

/// A checkpoint in the making, in a directory of its own.
pub(crate) struct Draft {
    pub(crate) root: TempDir,
}

impl Draft {
    /// With an empty object as `config.json`.
    pub(crate) fn new() -> Self {
        Self::empty().with("config.json", b"{}")
    }

    pub(crate) fn empty() -> Self {
        Self { root: tempfile::tempdir().unwrap() }
    }

    pub(crate) fn path(&self) -> &Path {
        self.root.path()
    }

    pub(crate) fn with(self, name: &str, bytes: &[u8]) -> Self {
        let path = self.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
        self
    }

    pub(crate) fn with_index(self, entries: &[(&str, &str)]) -> Self {
        let map: serde_json::Map<String, serde_json::Value> =
            entries.iter().map(|(tensor, file)| ((*tensor).into(), (*file).into())).collect();
        let index = serde_json::json!({"metadata": {"total_size": 0}, "weight_map": map});
        self.with("model.safetensors.index.json", index.to_string().as_bytes())
    }
}

/// Opens what must be refused: within a second, with a hint, and with `text` in the message.
#[track_caller]
pub(crate) fn refused(path: &Path, text: &str) {
    let start = Instant::now();
    let error = Checkpoint::open(path).expect_err("must be refused");
    assert!(start.elapsed() < Duration::from_secs(1), "{error}: {:?}", start.elapsed());
    let message = error.to_string();
    assert!(message.contains(text), "{message:?} lacks {text:?}");
    assert!(!message.contains('\u{1b}'), "a control character: {message:?}");
    let hint = error.hint().unwrap_or_else(|| panic!("no hint: {message}"));
    assert!(!hint.ends_with('.') && !message.ends_with('.'), "{message:?} {hint:?}");
}
