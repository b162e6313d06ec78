//! What the environment says; the only reader of environment variables.

mod access;
mod network;
mod serving;

use std::ffi::OsString;
use std::path::PathBuf;

use directories::{BaseDirs, ProjectDirs};

pub use access::{allowed_hosts, allowed_origins};
pub use network::{hub_endpoint, hub_token, offline, proxy, registry_login_files, registry_token};
pub use serving::{Setting, serving};

/// Variables that a worker process may see. Everything else (tokens, keys, proxies with passwords) stays out of the
/// process that parses files which nobody vouches for.
const WORKER_VARIABLES: &[&str] = &[
    "HOME",
    "LANG",
    "LC_ALL",
    "LD_LIBRARY_PATH",
    "DYLD_LIBRARY_PATH",
    "NFL_BACKENDS",
    "NFL_HOME",
    "PATH",
    "SYSTEMROOT",
    "TEMP",
    "TMP",
    "TMPDIR",
    "XDG_CACHE_HOME",
    "XDG_DATA_HOME",
];

/// Prefixes of variables that choose devices or tune the compute libraries.
const WORKER_PREFIXES: &[&str] =
    &["CUDA_", "GGML_", "GOMP_", "HIP_", "MESA_", "NVIDIA_", "OMP_", "ROCR_", "VK_"];

/// The part of this process's environment that a worker process may see.
pub fn worker_environment() -> Vec<(OsString, OsString)> {
    let may_pass = |name: &str| {
        WORKER_VARIABLES.contains(&name)
            || WORKER_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
    };
    std::env::vars_os().filter(|(name, _)| name.to_str().is_some_and(may_pass)).collect()
}

/// The folder of the user's data: `NFL_HOME`, else where the platform keeps such data; None when it has no such place.
pub fn home() -> Option<PathBuf> {
    match folder("NFL_HOME") {
        Some(home) => Some(home),
        None => Some(ProjectDirs::from("", "", "nfl")?.data_dir().to_owned()),
    }
}

/// Where Ollama keeps models: `OLLAMA_MODELS`, else the user's folder and that of the service.
pub fn ollama_folders() -> Vec<PathBuf> {
    let service = || PathBuf::from("/usr/share/ollama/.ollama/models");
    let user = || user_home().map(|home| home.join(".ollama/models"));
    match folder("OLLAMA_MODELS") {
        Some(folder) => vec![folder],
        None => user().into_iter().chain([service()]).collect(),
    }
}

/// Where Hugging Face's programs keep what they download: `HF_HUB_CACHE`, else `hub` in `HF_HOME`, else in the user's
/// folder of caches.
pub fn hub_cache_folder() -> Option<PathBuf> {
    if let Some(folder) = folder("HF_HUB_CACHE") {
        return Some(folder);
    }
    let home = folder("HF_HOME").or_else(|| {
        let caches = folder("XDG_CACHE_HOME").or_else(|| Some(user_home()?.join(".cache")));
        Some(caches?.join("huggingface"))
    });
    Some(home?.join("hub"))
}

/// Where LM Studio keeps models, now and in earlier versions.
pub fn lm_studio_folders() -> Vec<PathBuf> {
    let places = [".lmstudio/models", ".cache/lm-studio/models"];
    user_home().into_iter().flat_map(|home| places.map(|place| home.join(place))).collect()
}

fn folder(variable: &str) -> Option<PathBuf> {
    std::env::var_os(variable).filter(|value| !value.is_empty()).map(PathBuf::from)
}

/// The user's own folder.
pub fn user_home() -> Option<PathBuf> {
    Some(BaseDirs::new()?.home_dir().to_owned())
}

/// Where back-end modules are looked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Modules {
    /// Nowhere: everything is computed with what is built in.
    None,
    /// In this folder.
    Folder(PathBuf),
    /// Below the folder of the user's data.
    Home(PathBuf),
}

/// `NFL_BACKENDS`: a folder, or "none"; unset, the folder of the user's data.
pub fn modules() -> Modules {
    match std::env::var_os("NFL_BACKENDS").filter(|value| !value.is_empty()) {
        Some(value) if value == "none" => Modules::None,
        Some(folder) => Modules::Folder(PathBuf::from(folder)),
        None => home().map_or(Modules::None, Modules::Home),
    }
}

/// Whether colour is welcome: `NO_COLOR` unset or empty (<https://no-color.org>) and the terminal not a dumb one.
pub fn colour() -> bool {
    let is_set = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    !is_set("NO_COLOR") && std::env::var_os("TERM").is_none_or(|term| term != "dumb")
}
