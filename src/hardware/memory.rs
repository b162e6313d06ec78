//! Main memory: what the machine has, what this process may still take of it, and what limits it.
//!
//! A container's limit is not in the numbers of the machine, and exceeding it ends the process, so
//! control groups are looked at first: the tightest limit on the way from this process's group to
//! the root counts. Pages of files in the page cache are free for the taking and count as available.

/// Main memory as it is now. All sizes in bytes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Memory {
    /// What the machine has.
    pub total_bytes: u64,
    /// What this process can take without swapping: the smaller of what the machine has free and
    /// what its control group leaves.
    pub available_bytes: u64,
    /// The limit of the control group, when it is below the machine's memory.
    pub limit_bytes: Option<u64>,
    /// All swap space.
    pub swap_total_bytes: u64,
    /// Unused swap space.
    pub swap_free_bytes: u64,
}

impl Memory {
    /// The most that this process may ever have: the machine's memory within the limit.
    pub fn usable_bytes(&self) -> u64 {
        self.limit_bytes.map_or(self.total_bytes, |limit| limit.min(self.total_bytes))
    }
}

/// Looks at main memory; all zero where the system does not tell.
pub fn memory() -> Memory {
    system::memory()
}

/// Memory of this process that is in main memory now; None where the system does not tell.
pub fn resident_bytes() -> Option<u64> {
    system::resident_bytes()
}

/// How large pages are handed out; None where the system has no such setting.
pub fn transparent_huge_pages() -> Option<String> {
    let text = std::fs::read_to_string("/sys/kernel/mm/transparent_hugepage/enabled").ok()?;
    Some(chosen(&text)?.to_owned())
}

/// The chosen word of a kernel setting such as "always [madvise] never".
fn chosen(text: &str) -> Option<&str> {
    Some(text.split_once('[')?.1.split_once(']')?.0)
}

#[cfg(target_os = "linux")]
mod system {
    use std::fs;
    use std::path::{Path, PathBuf};

    use super::Memory;

    pub(super) fn memory() -> Memory {
        read(Path::new("/"))
    }

    pub(super) fn resident_bytes() -> Option<u64> {
        kilobytes(&fs::read_to_string("/proc/self/status").ok()?, "VmRSS:")
    }

    /// Reads the files below `root`, which is another folder only in tests.
    pub(super) fn read(root: &Path) -> Memory {
        let table = fs::read_to_string(root.join("proc/meminfo")).unwrap_or_default();
        let bytes = |name: &str| kilobytes(&table, name).unwrap_or(0);
        let total_bytes = bytes("MemTotal:");
        let groups = fs::read_to_string(root.join("proc/self/cgroup")).unwrap_or_default();
        let limits = limits(&root.join("sys/fs/cgroup"), &groups);
        let left = limits.iter().map(|limit| limit.left_bytes).min();
        Memory {
            total_bytes,
            available_bytes: bytes("MemAvailable:").min(left.unwrap_or(u64::MAX)),
            limit_bytes: limits
                .iter()
                .map(|limit| limit.bytes)
                .min()
                .filter(|limit| *limit < total_bytes),
            swap_total_bytes: bytes("SwapTotal:"),
            swap_free_bytes: bytes("SwapFree:"),
        }
    }

    /// The value of a line "Name:   123 kB", in bytes.
    fn kilobytes(table: &str, name: &str) -> Option<u64> {
        let line = table.lines().find_map(|line| line.strip_prefix(name))?;
        line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
    }

    /// The limit of one control group and what it leaves.
    struct Limit {
        bytes: u64,
        left_bytes: u64,
    }

    /// The names of the files that the two versions of control groups keep.
    struct Version {
        limit: &'static str,
        usage: &'static str,
        /// The lines of `memory.stat` with pages of files, which the kernel can take back.
        reclaimable: [&'static str; 2],
    }

    const VERSION_1: Version = Version {
        limit: "memory.limit_in_bytes",
        usage: "memory.usage_in_bytes",
        reclaimable: ["total_inactive_file ", "total_active_file "],
    };

    const VERSION_2: Version = Version {
        limit: "memory.max",
        usage: "memory.current",
        reclaimable: ["inactive_file ", "active_file "],
    };

    /// The limits from this process's group up to the root, by "/proc/self/cgroup".
    fn limits(mount: &Path, groups: &str) -> Vec<Limit> {
        let mut limits = Vec::new();
        for line in groups.lines() {
            let mut parts = line.splitn(3, ':').skip(1);
            let (Some(controllers), Some(path)) = (parts.next(), parts.next()) else { continue };
            if controllers.is_empty() {
                limits.extend(limits_of(mount, path, &VERSION_2));
            } else if controllers.split(',').any(|name| name == "memory") {
                limits.extend(limits_of(&mount.join("memory"), path, &VERSION_1));
            }
        }
        limits
    }

    fn limits_of(mount: &Path, path: &str, version: &Version) -> Vec<Limit> {
        let mut folder: PathBuf = mount.join(path.trim_start_matches('/'));
        let mut limits = Vec::new();
        // In a container the path may be the host's while the mount begins at the container's own
        // group: folders that are not there are passed over, and the mount itself is always asked.
        while folder.starts_with(mount) {
            limits.extend(limit_of(&folder, version));
            if !folder.pop() {
                break;
            }
        }
        limits
    }

    fn limit_of(folder: &Path, version: &Version) -> Option<Limit> {
        let number = |name: &str| fs::read_to_string(folder.join(name)).ok()?.trim().parse().ok();
        // No limit is "max" in version 2 and a number beyond every machine in version 1.
        let bytes: u64 = number(version.limit)?;
        let usage: u64 = number(version.usage).unwrap_or(0);
        let stat = fs::read_to_string(folder.join("memory.stat")).unwrap_or_default();
        let reclaimable: u64 = version
            .reclaimable
            .iter()
            .filter_map(|name| stat.lines().find_map(|line| line.strip_prefix(name)))
            .filter_map(|value| value.trim().parse::<u64>().ok())
            .sum();
        let held = usage.saturating_sub(reclaimable);
        Some(Limit { bytes, left_bytes: bytes.saturating_sub(held) })
    }
}

#[cfg(not(target_os = "linux"))]
mod system {
    use sysinfo::{MemoryRefreshKind, RefreshKind, System};

    use super::Memory;

    pub(super) fn memory() -> Memory {
        let kind = RefreshKind::nothing().with_memory(MemoryRefreshKind::everything());
        let system = System::new_with_specifics(kind);
        Memory {
            total_bytes: system.total_memory(),
            available_bytes: system.available_memory(),
            limit_bytes: None,
            swap_total_bytes: system.total_swap(),
            swap_free_bytes: system.free_swap(),
        }
    }

    pub(super) fn resident_bytes() -> Option<u64> {
        None
    }
}

#[cfg(test)]
#[cfg(target_os = "linux")]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;

    const GIB: u64 = 1 << 30;
    const TABLE: &str = "MemTotal:       16777216 kB\nMemFree:        1048576 kB\n\
        MemAvailable:   12582912 kB\nSwapTotal:      2097152 kB\nSwapFree:       1048576 kB\n";

    fn machine(files: &[(&str, &str)]) -> Memory {
        let root = tempfile::tempdir().unwrap();
        for (name, text) in files.iter().chain(&[("proc/meminfo", TABLE)]) {
            let path = root.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        system::read(root.path())
    }

    #[test]
    fn without_a_limit_the_machine_counts() {
        let memory = machine(&[
            ("proc/self/cgroup", "0::/user.slice\n"),
            ("sys/fs/cgroup/user.slice/memory.max", "max\n"),
        ]);
        assert_eq!(memory.total_bytes, 16 * GIB);
        assert_eq!(memory.available_bytes, 12 * GIB);
        assert_eq!(memory.limit_bytes, None);
        assert_eq!(memory.usable_bytes(), 16 * GIB);
        assert_eq!((memory.swap_total_bytes, memory.swap_free_bytes), (2 * GIB, GIB));
        assert_eq!(machine(&[]).limit_bytes, None);
    }

    #[test]
    fn the_tightest_group_of_version_2_counts() {
        let memory = machine(&[
            ("proc/self/cgroup", "0::/a/b\n"),
            ("sys/fs/cgroup/a/b/memory.max", "max\n"),
            ("sys/fs/cgroup/a/memory.max", "4294967296\n"),
            ("sys/fs/cgroup/a/memory.current", "3221225472\n"),
            ("sys/fs/cgroup/a/memory.stat", "anon 1\ninactive_file 1073741824\nactive_file 0\n"),
        ]);
        assert_eq!(memory.limit_bytes, Some(4 * GIB));
        assert_eq!(memory.available_bytes, 2 * GIB, "1 GiB in use is page cache");
        assert_eq!(memory.usable_bytes(), 4 * GIB);
    }

    #[test]
    fn version_1_counts_too_also_where_the_path_is_the_hosts() {
        let memory = machine(&[
            ("proc/self/cgroup", "5:cpu:/x\n4:memory:/docker/1234\n0::/\n"),
            ("sys/fs/cgroup/memory/memory.limit_in_bytes", "2147483648\n"),
            ("sys/fs/cgroup/memory/memory.usage_in_bytes", "1073741824\n"),
        ]);
        assert_eq!(memory.limit_bytes, Some(2 * GIB));
        assert_eq!(memory.available_bytes, GIB);
        let unlimited = machine(&[
            ("proc/self/cgroup", "4:memory:/\n"),
            ("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n"),
        ]);
        assert_eq!(unlimited.limit_bytes, None);
        assert_eq!(unlimited.available_bytes, 12 * GIB);
    }

    #[test]
    fn this_machine_says_what_proc_says() {
        let memory = memory();
        let table = fs::read_to_string(Path::new("/proc/meminfo")).unwrap();
        let total: u64 = table.split_whitespace().nth(1).unwrap().parse().unwrap();
        assert_eq!(memory.total_bytes, total * 1024);
        assert!(memory.available_bytes > 0 && memory.available_bytes <= memory.total_bytes);
    }

    #[test]
    fn the_chosen_word_is_in_brackets() {
        assert_eq!(chosen("always [madvise] never\n"), Some("madvise"));
        assert_eq!(chosen("nonsense"), None);
    }
}
