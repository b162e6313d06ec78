//! Files, TCP and signals, by Landlock: whatever is not granted here is refused.

use std::fs;
use std::path::{Path, PathBuf};

use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, CompatLevel, Compatible, LandlockStatus,
    PathBeneath, PathFd, RestrictSelf, RestrictSelfAttr, Ruleset, RulesetAttr, RulesetCreated,
    RulesetCreatedAttr, RulesetError, RulesetStatus, Scope,
};

use super::{CageInfo, Reach};

/// The newest ABI whose rights are known here; on an older kernel the rest is left out.
const NEWEST: ABI = ABI::V9;

/// What ggml, OpenMP and the C library read: the processors, and this process's own tables; and the
/// control groups, whose limits say how many experts memory holds.
/// Landlock hides the tables of other processes even where the system would show them.
const SYSTEM: &[&str] = &[
    "/proc/self",
    "/proc/cpuinfo",
    "/proc/meminfo",
    "/proc/sys/kernel/numa_balancing",
    "/sys/devices/system/cpu",
    "/sys/devices/system/node",
    "/sys/fs/cgroup",
];

/// What the drivers of graphics cards read: themselves, their settings, the devices' tables.
const DRIVERS: &[&str] = &[
    "/etc/OpenCL",
    "/etc/drirc",
    "/etc/glvnd",
    "/etc/ld.so.cache",
    "/etc/nvidia",
    "/etc/vulkan",
    "/lib",
    "/lib64",
    "/nix/store",
    "/opt/rocm",
    "/proc/devices",
    "/proc/driver/nvidia",
    "/proc/modules",
    "/proc/sys/vm",
    "/run/opengl-driver",
    "/sys",
    "/usr/lib",
    "/usr/lib64",
    "/usr/local/lib",
    "/usr/share/drirc.d",
    "/usr/share/glvnd",
    "/usr/share/libdrm",
    "/usr/share/nvidia",
    "/usr/share/vulkan",
];

/// Devices of graphics cards (those of `/dev` that begin so are added), and the shared memory that
/// their drivers put between processes.
const DEVICES: &[&str] =
    &["/dev/dri", "/dev/dxg", "/dev/kfd", "/dev/null", "/dev/shm", "/dev/zero"];

/// Beginnings of names in `/dev` of graphics cards.
const DEVICE_PREFIXES: &[&str] = &["nvidia", "nvhost", "nvmap"];

/// Landlock's ABI, or why there is none.
pub(super) fn offered() -> Result<u32, String> {
    // Without a flag this asks for the ABI and restricts nothing.
    let status = RestrictSelf::default().no_new_privs(false).apply().map(|status| status.landlock);
    match status {
        Ok(LandlockStatus::Available { effective_abi, .. }) => Ok(effective_abi as u32),
        Ok(LandlockStatus::NotEnabled) => {
            Err("files: this kernel has Landlock switched off; add landlock to its lsm= list"
                .to_owned())
        }
        Ok(LandlockStatus::NotImplemented) => {
            Err("files: this kernel has no Landlock (Linux 5.13 has)".to_owned())
        }
        Err(error) => Err(format!("files: Landlock does not answer: {error}")),
    }
}

/// Restricts this thread and those that it starts.
pub(super) fn close(reach: &Reach, info: &mut CageInfo) {
    let abi = match offered() {
        Ok(abi) => abi,
        Err(reason) => return info.lacks.push(reason),
    };
    match restrict(reach) {
        Ok((RulesetStatus::NotEnforced, _)) => {
            info.lacks.push("files: Landlock did not take hold".to_owned());
        }
        Ok((_, all_threads)) => account(reach, abi, all_threads, info),
        Err(error) => info.lacks.push(format!("files: Landlock: {error}")),
    }
}

/// Returns what holds, and whether it holds for threads that were there before.
fn restrict(reach: &Reach) -> Result<(RulesetStatus, bool), RulesetError> {
    let mut rules = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(NEWEST))?
        .handle_access(AccessNet::from_all(NEWEST))?
        .scope(Scope::from_all(NEWEST))?
        .create()?;
    let read = AccessFs::ReadFile | AccessFs::ReadDir;
    for path in reach.readable() {
        rules = grant(rules, &path, read)?;
    }
    for path in SYSTEM {
        rules = grant(rules, Path::new(path), read)?;
    }
    if let Some(directory) = &reach.writable {
        let write =
            AccessFs::WriteFile | AccessFs::Truncate | AccessFs::MakeReg | AccessFs::RemoveFile;
        rules = grant(rules, directory, read | write)?;
    }
    if reach.gpu {
        rules = grant_gpu(rules)?;
    }
    let status = rules.all_threads(true)?.restrict_self()?;
    Ok((status.ruleset, status.all_threads))
}

fn grant_gpu(mut rules: RulesetCreated) -> Result<RulesetCreated, RulesetError> {
    for path in DRIVERS {
        rules = grant(rules, Path::new(path), AccessFs::ReadFile | AccessFs::ReadDir)?;
    }
    let is_device = |name: &str| DEVICE_PREFIXES.iter().any(|prefix| name.starts_with(prefix));
    let named: Vec<PathBuf> = fs::read_dir("/dev")
        .into_iter()
        .flatten()
        .flatten()
        .filter(|entry| entry.file_name().to_str().is_some_and(is_device))
        .map(|entry| entry.path())
        .collect();
    let device = AccessFs::ReadFile
        | AccessFs::ReadDir
        | AccessFs::WriteFile
        | AccessFs::Truncate
        | AccessFs::IoctlDev
        | AccessFs::MakeReg
        | AccessFs::RemoveFile;
    for path in DEVICES.iter().map(PathBuf::from).chain(named) {
        rules = grant(rules, &path, device)?;
    }
    Ok(rules)
}

/// Grants access to a file or a directory with all below it. One that does not exist needs no
/// grant: whoever opens it is told so.
fn grant(
    rules: RulesetCreated,
    path: &Path,
    access: BitFlags<AccessFs>,
) -> Result<RulesetCreated, RulesetError> {
    let Ok(file) = PathFd::new(path) else { return Ok(rules) };
    let is_directory = path.is_dir();
    let access = if is_directory { access } else { access & AccessFs::from_file(NEWEST) };
    let rules = rules.add_rule(PathBeneath::new(&file, access))?;
    if path.starts_with("/proc") {
        // A rule is tied to an inode, and this file system makes a new one for a name that nobody
        // has held for a while.
        std::mem::forget(file);
    }
    Ok(rules)
}

fn account(reach: &Reach, abi: u32, all_threads: bool, info: &mut CageInfo) {
    let by = format!("(Landlock, ABI {abi})");
    let read = reach.readable().len();
    let written = reach.writable.as_ref().map_or("nothing to write".to_owned(), |directory| {
        format!("{} to write", directory.display())
    });
    let gpu = if reach.gpu { ", drivers and devices of the GPU" } else { "" };
    info.holds.push(format!("files: {read} to read{gpu}, {written}, none to execute {by}"));
    let mut say = |from_abi: u32, holds: &str, lacks: &str| {
        if abi >= from_abi {
            info.holds.push(format!("{holds} {by}"));
        } else {
            info.lacks
                .push(format!("{lacks} (Landlock has that from ABI {from_abi}, here is {abi})"));
        }
    };
    say(4, "network: no TCP", "network: TCP by files' rules");
    say(6, "signals: none to other processes", "signals to other processes");
    let threads = fs::read_dir("/proc/self/task").map_or(1, Iterator::count);
    if threads > 1 && !all_threads {
        info.lacks.push(format!(
            "files: threads that were there before the cage, outside of its rules for files: {}",
            threads - 1
        ));
    }
}
