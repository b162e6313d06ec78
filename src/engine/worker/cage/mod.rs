//! The cage: what a worker gives up before llama.cpp reads a file that nobody vouches for.
//!
//! Two locks of the Linux kernel, each useful without the other. Landlock (`files`) leaves the
//! process the files of its model and takes the rest of the file system, TCP, and signals to
//! others. seccomp (`calls`) leaves it the system calls that a computation needs and takes the
//! rest: sockets, programs, other processes, executable memory. Neither opens again.
//!
//! Both are best effort: a kernel without them is no reason not to work, but what does not hold is
//! said ([`CageInfo`], `nfl run --verbose`, `nfl doctor`).
//!
//! Landlock binds the thread that asks for it and the threads that this one starts later (all of
//! them from its ABI 8 on), so the cage is closed before there are others. seccomp reaches threads
//! that are there already.

#[cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]
mod calls;
#[cfg(target_os = "linux")]
mod files;
#[cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]
mod numbers;
#[cfg(test)]
#[cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]
mod tests;

use std::path::{Path, PathBuf};

use nfl_models::gguf::split::shard_paths;
use serde::{Deserialize, Serialize};

/// What stays within reach of a caged worker.
#[derive(Debug, Clone, Default)]
pub struct Reach {
    /// The model's file; the other shards of a split model stay within reach with it.
    pub model: PathBuf,
    /// Files, and directories with all below them, that may be read besides.
    pub readable: Vec<PathBuf>,
    /// The one directory whose files may be written.
    pub writable: Option<PathBuf>,
    /// Whether a GPU computes: its devices and drivers, and what these need, stay within reach.
    pub gpu: bool,
}

impl Reach {
    /// The model's files and the others that may be read.
    fn readable(&self) -> Vec<PathBuf> {
        [model_files(&self.model), self.readable.clone()].concat()
    }
}

/// What holds a worker, and what does not.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CageInfo {
    /// What it is kept from, each with the means, such as "network: no sockets (seccomp)".
    pub holds: Vec<String>,
    /// What it is not kept from, each with the reason.
    pub lacks: Vec<String>,
}

/// What this system has to build a cage with.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Offered {
    /// Landlock's ABI number (1 and up; network from 4, signals from 6).
    pub landlock: Option<u32>,
    /// Whether system calls can be filtered.
    pub seccomp: bool,
    /// What is missing, with the reason and what can be done about it.
    pub missing: Vec<String>,
}

/// Closes the cage around this process, as far as the system has the means, for good.
pub fn close(reach: &Reach) -> CageInfo {
    let mut info = CageInfo::default();
    system::close(reach, &mut info);
    info
}

/// What this system offers; changes nothing.
pub fn offered() -> Offered {
    system::offered()
}

/// The file and, when its name is that of a shard, all shards: by their names alone, because nobody
/// has looked into the file yet.
fn model_files(path: &Path) -> Vec<PathBuf> {
    let shards = || {
        let name = path.file_name()?.to_str()?.strip_suffix(".gguf")?;
        let (rest, count) = name.rsplit_once("-of-")?;
        let (_, number) = rest.rsplit_once('-')?;
        let (number, count) = (number.parse::<u64>().ok()?, count.parse::<u64>().ok()?);
        shard_paths(path, number.checked_sub(1)?, count.min(u16::MAX.into()))
    };
    shards().unwrap_or_else(|| vec![path.to_owned()])
}

#[cfg(target_os = "linux")]
mod system {
    use super::{CageInfo, Offered, Reach, files};

    #[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
    use super::calls;

    /// No table of system calls for this processor.
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    mod calls {
        use super::{CageInfo, Reach};

        pub(super) fn close(_: &Reach, info: &mut CageInfo) {
            info.lacks.push(missing());
        }

        pub(super) fn offered() -> Result<(), String> {
            Err(missing())
        }

        fn missing() -> String {
            format!("system calls: nfl has no list of them for {}", std::env::consts::ARCH)
        }
    }

    pub(super) fn close(reach: &Reach, info: &mut CageInfo) {
        // Landlock first: afterwards seccomp refuses the calls that it takes.
        files::close(reach, info);
        calls::close(reach, info);
    }

    pub(super) fn offered() -> Offered {
        let (landlock, seccomp) = (files::offered(), calls::offered());
        Offered {
            landlock: landlock.as_ref().ok().copied(),
            seccomp: seccomp.is_ok(),
            missing: landlock.err().into_iter().chain(seccomp.err()).collect(),
        }
    }
}

#[cfg(not(target_os = "linux"))]
mod system {
    use super::{CageInfo, Offered, Reach};

    const MISSING: &str = "cage: nfl knows none for this system; the worker has the rights of the person who starts it";

    pub(super) fn close(_: &Reach, info: &mut CageInfo) {
        info.lacks.push(MISSING.to_owned());
    }

    pub(super) fn offered() -> Offered {
        Offered { missing: vec![MISSING.to_owned()], ..Offered::default() }
    }
}

#[cfg(test)]
mod names {
    use super::*;

    #[test]
    fn shards_come_with_the_file_that_is_named() {
        let files = |name: &str| model_files(Path::new(name));
        assert_eq!(files("/m/a.gguf"), [PathBuf::from("/m/a.gguf")]);
        let shards = ["/m/a-00001-of-00002.gguf", "/m/a-00002-of-00002.gguf"].map(PathBuf::from);
        assert_eq!(files("/m/a-00002-of-00002.gguf"), shards);
        for odd in ["/m/a-00000-of-00002.gguf", "/m/a-1-of-2.gguf", "/m/a-00003-of-x.gguf", "/"] {
            assert_eq!(files(odd), [PathBuf::from(odd)]);
        }
    }
}
