//! Back-ends for GPUs, as modules that are loaded while the program runs.
//!
//! # One binary that starts everywhere
//!
//! llama.cpp and ggml's CPU back-end are linked into the program. A GPU back-end is a library of its
//! own in an explicit folder (never the working directory): when the driver's library is missing,
//! or the card, the module is refused with a reason and everything else works. It is built from the
//! very sources that the bindings have (`./install.sh vulkan`, `./install.sh cuda`).
//!
//! # Two copies of ggml-base
//!
//! A back-end calls functions of ggml-base (sizes of types, buffers, the log). The alternatives, and
//! why they were left: the bindings' feature `dynamic-backends` makes all of llama.cpp a set of
//! shared libraries beside the program and compiles 14 CPU variants (8 CPU minutes more); exporting
//! ggml's symbols from the program makes every executable that loads a module (tests, benches) a
//! special case of the linker, and does not exist on Windows. So a module carries its own copy of
//! ggml-base with hidden symbols. That is sound because what crosses the border is data of one
//! version and tables of functions:
//!
//! - `ggml_tensor`, `ggml_cgraph`, buffers, buffer types, devices: plain structs of the same sources
//!   (checked by [`SOURCES`]), used through the function tables that they carry. Who made an object
//!   frees it, through its own table.
//! - ggml-base has little state of its own: the log callback, which is redirected here; the abort
//!   callback, which nobody sets; tables for quantising, which a back-end does not use.
//! - The registry of devices is in the program's copy alone.
//!
//! Measured: the lavapipe job (`./install.sh test-vulkan`) computes token for token what the CPU
//! does with layers on Vulkan.

use std::ffi::{CStr, CString, c_char, c_void};
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use libloading::Library;
use llama_cpp_sys_2 as sys;
use nfl_models::Hint;
use thiserror::Error;

use super::library::{self, LibraryError};
use super::{logs, text};
use crate::settings::{self, Modules};

/// The sources that a module must be built from: the bindings' package and version. It names the
/// folder of the modules and stands in each module as `nfl_backend_stamp`.
pub const SOURCES: &str = "llama-cpp-sys-2-0.1.161";

/// Modules that may show the same card, best first: llama.cpp takes a card where it sees it first.
const ORDER: &[&str] = &["cuda", "hip", "musa", "cann", "metal", "sycl", "vulkan", "opencl"];

/// How the words on standard error begin and end while modules are loaded.
const WORDS: &str = "back-end ";
const LOADING: &str = "loading";
const DONE: &str = "done";

/// Bytes of a stamp that are read.
const STAMP_BYTES_MAX: usize = 128;

/// A module that was found, and what came of it.
#[derive(Debug)]
pub struct Module {
    /// The file.
    pub path: PathBuf,
    /// The back-end, or why it was refused.
    pub outcome: Result<LoadedModule, ModuleError>,
}

/// A module that works.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoadedModule {
    /// ggml's name of the back-end, such as "Vulkan".
    pub backend: String,
    /// The devices that it found.
    pub devices: usize,
}

/// Why a module was refused.
#[derive(Debug, Error)]
pub enum ModuleError {
    /// Not a library, or not a whole one.
    #[error(transparent)]
    Library(#[from] LibraryError),
    /// Somebody else may put code there.
    #[error("others may write to {}", .0.display())]
    Writable(PathBuf),
    /// The system's loader says no: mostly a library of the driver is missing.
    #[error("{0}")]
    Loader(String),
    /// A library that was not built for nfl.
    #[error("not a module of nfl")]
    Foreign,
    /// Built from other sources.
    #[error("built from {found}, this nfl is built from {SOURCES}")]
    OtherSources {
        /// What it is built from.
        found: String,
    },
    /// The back-end itself says no.
    #[error("{0}")]
    Backend(String),
}

impl Hint for ModuleError {
    fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::Library(LibraryError::Io(_)) | Self::Backend(_) => return None,
            Self::Library(_) | Self::Foreign | Self::OtherSources { .. } => {
                "build it again: ./install.sh vulkan, or ./install.sh cuda"
            }
            Self::Writable(path) => return Some(format!("chmod go-w '{}'", path.display())),
            Self::Loader(reason) => driver_hint(reason),
        };
        Some(hint.to_owned())
    }
}

/// How to get the library that the system's loader misses.
fn driver_hint(reason: &str) -> &'static str {
    let hints = [
        ("libcuda.so", "install NVIDIA's driver: its library libcuda.so.1 is not on this machine"),
        (
            "libcublas",
            "build the module on this machine, or install CUDA's cuBLAS: ./install.sh cuda",
        ),
        (
            "libcudart",
            "build the module on this machine, or install CUDA's runtime: ./install.sh cuda",
        ),
        (
            "libvulkan",
            "install the Vulkan loader and a driver: apt-get install libvulkan1 mesa-vulkan-drivers",
        ),
        ("libamdhip64", "install AMD's ROCm runtime"),
        ("GLIBC", "the module was built on a newer system: build it on this one"),
    ];
    let found = hints.iter().find(|(library, _)| reason.contains(library));
    found.map_or(
        "build it on this machine: ./install.sh vulkan, or ./install.sh cuda",
        |(_, hint)| hint,
    )
}

/// The folder that modules of this build are loaded from; None when the settings say "none".
pub fn folder() -> Option<PathBuf> {
    match settings::modules() {
        Modules::None => None,
        Modules::Folder(folder) => Some(folder),
        Modules::Home(home) => Some(home.join("backends").join(SOURCES)),
    }
}

/// The modules in a folder, in the order in which they are to be loaded.
pub fn find(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let mut found: Vec<PathBuf> = entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| backend_of(path).is_some())
        .collect();
    found.sort_by_key(|path| {
        let name = backend_of(path).unwrap_or_default().to_owned();
        (ORDER.iter().position(|known| *known == name).unwrap_or(ORDER.len()), name)
    });
    found
}

/// The back-end that a file's name speaks of: "vulkan" for `libggml-vulkan.so`.
pub fn backend_of(path: &Path) -> Option<&str> {
    let name = path.file_name()?.to_str()?;
    let name = name.strip_prefix(if cfg!(windows) { "ggml-" } else { "libggml-" })?;
    name.strip_suffix(if cfg!(windows) { ".dll" } else { ".so" })
}

/// Loads all modules of the settings' folder. A driver may crash on the way, so standard error, where
/// a process's last words are looked for, says which module is at work.
pub(super) fn load_all() -> Vec<Module> {
    let announce = |path: &Path, step: &str| {
        let _ = writeln!(io::stderr(), "{WORDS}{}: {step}", path.display());
    };
    let announced = |path: PathBuf| {
        announce(&path, LOADING);
        let module = load(path);
        announce(&module.path, DONE);
        module
    };
    folder().map_or(Vec::new(), |folder| find(&folder)).into_iter().map(announced).collect()
}

/// Whether a process's last words are that it was loading a module.
pub fn is_loading(words: Option<&String>) -> bool {
    words.is_some_and(|words| words.starts_with(WORDS) && words.ends_with(LOADING))
}

/// Whether these words are of modules that were loaded, and so tell nothing of a later end.
pub fn is_past(words: &[String], index: usize) -> bool {
    words[index].starts_with(WORDS) && !(is_loading(words.get(index)) && index + 1 == words.len())
}

/// Loads one module: its devices join those of the program.
pub(super) fn load(path: PathBuf) -> Module {
    let outcome = try_load(&path);
    Module { path, outcome }
}

fn try_load(path: &Path) -> Result<LoadedModule, ModuleError> {
    // An absolute path: the loader would search its own folders for a bare name.
    let path = &path.canonicalize().map_err(LibraryError::Io)?;
    library::check(path)?;
    only_ours(path)?;
    let library = open(path)?;
    let stamp = stamp(&library).ok_or(ModuleError::Foreign)?;
    if stamp != SOURCES {
        return Err(ModuleError::OtherSources { found: stamp });
    }
    redirect_log(&library)?;
    // The back-end's code stays mapped as long as the process: ggml keeps pointers into it.
    std::mem::forget(library);
    let name =
        path.to_str().and_then(|path| CString::new(path).ok()).ok_or(ModuleError::Foreign)?;
    let mark = logs::mark();
    // SAFETY: a zero-terminated path of a library that is built from our own ggml's sources; ggml
    // checks the version of its interface and returns null when the back-end refuses.
    let registration = unsafe { sys::ggml_backend_load(name.as_ptr()) };
    if registration.is_null() {
        return Err(ModuleError::Backend(logs::reason_since(mark)));
    }
    // SAFETY: not null, and never unloaded.
    let (backend, devices) = unsafe {
        (
            text(sys::ggml_backend_reg_name(registration)),
            sys::ggml_backend_reg_dev_count(registration),
        )
    };
    Ok(LoadedModule { backend, devices })
}

/// Loads the library with all its symbols resolved now, so that what is missing is known now.
fn open(path: &Path) -> Result<Library, ModuleError> {
    #[cfg(unix)]
    // SAFETY: runs the library's constructors. It is a file that only this user or root may write,
    // in the folder for modules; code that they put there is theirs to trust.
    let library = unsafe {
        use libloading::os::unix;
        unix::Library::open(Some(path), unix::RTLD_NOW | unix::RTLD_LOCAL).map(Library::from)
    };
    #[cfg(not(unix))]
    // SAFETY: as above.
    let library = unsafe { Library::new(path) };
    library.map_err(|error| {
        let reason = error.to_string();
        // The loader begins with the path, which the caller knows.
        let own = format!("{}: ", path.display());
        ModuleError::Loader(reason.strip_prefix(&own).unwrap_or(&reason).to_owned())
    })
}

/// The sources that a module says it was built from.
fn stamp(library: &Library) -> Option<String> {
    // SAFETY: the symbol of this name is an array of characters that ends with a zero; at most
    // STAMP_BYTES_MAX of them are looked at, within the library's data.
    unsafe {
        let symbol = library.get::<*const c_char>(b"nfl_backend_stamp\0").ok()?;
        let start = symbol.try_as_raw_ptr()?.cast::<c_char>();
        let text = CStr::from_ptr(start).to_str().ok()?;
        (text.len() < STAMP_BYTES_MAX).then(|| text.to_owned())
    }
}

/// Sends the log of the module's own copy of ggml-base where ours goes.
fn redirect_log(library: &Library) -> Result<(), ModuleError> {
    type SetLog = unsafe extern "C" fn(sys::ggml_log_callback, *mut c_void);
    // SAFETY: the module is built from our ggml's sources, where the function has this type; the
    // callback is a plain function that lives as long as the process.
    unsafe {
        let set = library.get::<SetLog>(b"ggml_log_set\0").map_err(|_| ModuleError::Foreign)?;
        set(Some(logs::receive), std::ptr::null_mut());
    }
    Ok(())
}

/// Refuses a file that somebody besides its owner (this user or root) may change.
#[cfg(unix)]
fn only_ours(path: &Path) -> Result<(), ModuleError> {
    use std::os::unix::fs::MetadataExt;
    const OTHERS_MAY_WRITE: u32 = 0o022;
    for place in [Some(path), path.parent()].into_iter().flatten() {
        let metadata = fs::metadata(place).map_err(LibraryError::Io)?;
        let owner_is_fine = [0, rustix::process::geteuid().as_raw()].contains(&metadata.uid());
        if metadata.mode() & OTHERS_MAY_WRITE != 0 || !owner_is_fine {
            return Err(ModuleError::Writable(place.to_owned()));
        }
    }
    Ok(())
}

#[cfg(not(unix))]
fn only_ours(_: &Path) -> Result<(), ModuleError> {
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sources_are_those_of_the_pinned_bindings() {
        let manifest = include_str!("../../../Cargo.toml");
        let version = SOURCES.strip_prefix("llama-cpp-sys-2-").unwrap();
        assert!(
            manifest.contains(&format!("llama-cpp-sys-2 = {{ version = \"={version}\"")),
            "SOURCES must name the version of llama-cpp-sys-2 in Cargo.toml"
        );
    }

    #[cfg(unix)]
    #[test]
    fn modules_are_found_by_name_and_the_better_first() {
        let folder = tempfile::tempdir().unwrap();
        for name in [
            "libggml-vulkan.so",
            "libggml-zeta.so",
            "libggml-cuda.so",
            "libggml-base.so.0",
            "readme.txt",
            "ggml-cuda.so",
        ] {
            fs::write(folder.path().join(name), "").unwrap();
        }
        let found = find(folder.path());
        let names: Vec<_> = found.iter().filter_map(|path| backend_of(path)).collect();
        assert_eq!(names, ["cuda", "vulkan", "zeta"]);
        assert_eq!(find(Path::new("/nowhere")), Vec::<PathBuf>::new());
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn broken_modules_are_refused_with_a_reason() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let refusal = |name: &str, mode: u32, bytes: &[u8]| {
            let path = folder.path().join(name);
            fs::write(&path, bytes).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            load(path).outcome.unwrap_err()
        };
        let maps = fs::read_to_string("/proc/self/maps").unwrap();
        let line = maps.lines().find(|line| line.contains("/libm.so") || line.contains("/libm-"));
        let library = fs::read(line.unwrap().split_whitespace().last().unwrap()).unwrap();
        let error = refusal("libggml-a.so", 0o644, b"no library at all");
        assert!(error.to_string().contains("not a shared library"), "{error}");
        let error = refusal("libggml-b.so", 0o644, &library[..library.len() / 2]);
        assert!(error.to_string().contains("cut"), "{error}");
        assert!(error.hint().unwrap().contains("./install.sh"));
        let error = refusal("libggml-c.so", 0o644, &library);
        assert!(matches!(error, ModuleError::Foreign), "{error}");
        let error = refusal("libggml-d.so", 0o666, &library);
        assert!(error.hint().unwrap().contains("chmod"), "{error}");
    }

    #[test]
    fn a_missing_driver_is_told_with_its_remedy() {
        let reason = "libcuda.so.1: cannot open shared object file: No such file or directory";
        assert!(ModuleError::Loader(reason.to_owned()).hint().unwrap().contains("NVIDIA"));
        let other = ModuleError::Loader("something else".to_owned()).hint().unwrap();
        assert!(other.contains("./install.sh"), "{other}");
    }
}
