//! What the doctor looks at, gathered once; judged in `findings`.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::engine::llama::Device;
use crate::engine::llama::backends;
use crate::engine::probe::{self, Findings as Probe};
use crate::engine::worker::cage::{self, Offered};
use crate::hardware::{self, GraphicsCard, Memory, Processor, Storage};

/// One machine as it is now.
#[derive(Debug, Default)]
pub(super) struct Facts {
    pub(super) processor: Processor,
    /// Threads that nfl takes unless told otherwise.
    pub(super) threads: u32,
    pub(super) memory: Memory,
    pub(super) huge_pages: Option<String>,
    pub(super) cards: Vec<GraphicsCard>,
    /// What the program has without modules.
    pub(super) own: Probe,
    /// The folder of the modules; None when they are switched off.
    pub(super) folder: Option<PathBuf>,
    /// Modules, each with what came of it.
    pub(super) modules: Vec<(PathBuf, Probe)>,
    /// Folders beside ours, with modules for another nfl.
    pub(super) other_folders: Vec<PathBuf>,
    pub(super) storage: Option<Storage>,
    /// What the kernel has to cage a worker with.
    pub(super) cage: Offered,
}

impl Facts {
    /// Looks around; `program` is nfl itself, `path` lies on the disk that matters.
    pub(super) fn gather(program: &Path, path: &Path) -> Self {
        let folder = backends::folder();
        let found = folder.as_deref().map(backends::find).unwrap_or_default();
        Self {
            processor: hardware::processor(),
            threads: hardware::default_threads(),
            memory: hardware::memory(),
            huge_pages: hardware::transparent_huge_pages(),
            cards: hardware::graphics_cards(),
            own: probe::probe(program, None),
            modules: found
                .into_iter()
                .map(|module| {
                    let probe = probe::probe(program, Some(&module));
                    (module, probe)
                })
                .collect(),
            other_folders: folder.as_deref().map(other_folders).unwrap_or_default(),
            folder,
            storage: hardware::storage(path),
            cage: cage::offered(),
        }
    }

    /// All devices: those of the program, then those of the modules.
    pub(super) fn devices(&self) -> impl Iterator<Item = &Device> {
        let of_modules = self.modules.iter().flat_map(|(_, probe)| &probe.devices);
        self.own.devices.iter().chain(of_modules)
    }

    pub(super) fn to_json(&self) -> Value {
        let memory = &self.memory;
        let modules: Vec<Value> = self.modules.iter().map(module_json).collect();
        let cards: Vec<Value> = self.cards.iter().map(card_json).collect();
        json!({
            "version": env!("CARGO_PKG_VERSION"),
            "engine": {
                "sources": backends::SOURCES,
                "compiled_features": self.own.compiled_features,
                "refusal": self.own.refusal,
            },
            "cpu": {
                "name": self.processor.name,
                "logical_processors": self.processor.logical,
                "threads": self.threads,
                "features": self.processor.features,
                "unused_features": self.processor.unused(&self.own.compiled_features),
            },
            "memory": {
                "total_bytes": memory.total_bytes,
                "available_bytes": memory.available_bytes,
                "limit_bytes": memory.limit_bytes,
                "swap_total_bytes": memory.swap_total_bytes,
                "swap_free_bytes": memory.swap_free_bytes,
                "transparent_huge_pages": self.huge_pages,
            },
            "graphics_cards": cards,
            "modules": { "folder": self.folder, "files": modules },
            "devices": self.devices().collect::<Vec<_>>(),
            "storage": self.storage.as_ref().map(storage_json),
            "cage": {
                "landlock": self.cage.landlock,
                "seccomp": self.cage.seccomp,
                "missing": self.cage.missing,
            },
        })
    }
}

fn module_json((path, probe): &(PathBuf, Probe)) -> Value {
    json!({
        "path": path,
        "status": if probe.refusal.is_none() { "loaded" } else { "refused" },
        "backend": probe.backend,
        "refusal": probe.refusal,
        "advice": probe.hint,
        "devices": probe.devices.iter().map(|device| &device.name).collect::<Vec<_>>(),
        "log": probe.log,
    })
}

fn card_json(card: &GraphicsCard) -> Value {
    json!({
        "bus_id": card.bus_id,
        "vendor": card.vendor.name(),
        "identity": card.identity,
        "driver": card.driver,
        "driver_version": card.driver_version,
    })
}

fn storage_json(storage: &Storage) -> Value {
    json!({
        "name": storage.name,
        "read_ahead_bytes": storage.read_ahead_bytes,
        "is_rotational": storage.is_rotational,
    })
}

/// Folders with modules beside ours, which another version of nfl left or uses.
fn other_folders(ours: &Path) -> Vec<PathBuf> {
    let is_default = ours.file_name().is_some_and(|name| name == backends::SOURCES);
    let parent = ours.parent().filter(|_| is_default);
    let entries = parent.and_then(|parent| fs::read_dir(parent).ok());
    let mut others: Vec<PathBuf> = entries
        .into_iter()
        .flatten()
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path != ours && !backends::find(path).is_empty())
        .collect();
    others.sort();
    others
}
