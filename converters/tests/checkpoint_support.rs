//! What the checkpoint tests share: material, hand-made files, and the one way to be refused.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
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

/// Time that this thread has spent on a processor, so that a loaded machine fails no test; the time
/// of day where the system does not tell.
pub(crate) fn busy() -> Duration {
    static START: OnceLock<Instant> = OnceLock::new();
    let spent = fs::read_to_string("/proc/thread-self/schedstat").ok();
    let spent = spent.and_then(|text| text.split(' ').next()?.parse().ok());
    spent.map_or_else(|| START.get_or_init(Instant::now).elapsed(), Duration::from_nanos)
}

/// Opens what must be refused: within a second of work, with a hint, and with `text` in the message.
#[track_caller]
pub(crate) fn refused(path: &Path, text: &str) {
    let start = busy();
    let error = Checkpoint::open(path).expect_err("must be refused");
    let took = busy().saturating_sub(start);
    assert!(took < Duration::from_secs(1), "{error}: {took:?}");
    let message = error.to_string();
    assert!(message.contains(text), "{message:?} lacks {text:?}");
    assert!(!message.contains('\u{1b}'), "a control character: {message:?}");
    let hint = error.hint().unwrap_or_else(|| panic!("no hint: {message}"));
    assert!(!hint.ends_with('.') && !message.ends_with('.'), "{message:?} {hint:?}");
}

/// The clock of `busy` runs while the thread works, and stands while it waits.
#[cfg(target_os = "linux")]
#[test]
fn waiting_is_no_work() {
    let (start, wall) = (busy(), Instant::now());
    std::thread::sleep(Duration::from_millis(300));
    let waited = busy().saturating_sub(start);
    assert!(waited < Duration::from_millis(200), "{waited:?}");
    // Far longer than the work asked for, in case the machine has no time for this thread.
    while busy().saturating_sub(start) < Duration::from_millis(50) {
        assert!(wall.elapsed() < Duration::from_mins(1), "the clock stands");
    }
}
