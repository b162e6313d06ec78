//! How much memory there is: what the machine has left, or the control group that this process
//! lives in, whichever is less.
//!
//! The files are opened once: a caged worker may not open them later.

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

/// A limit beyond this is none (version 1 writes the largest multiple of a page).
const UNLIMITED_BYTES: u64 = 1 << 60;

/// Where the numbers come from.
#[derive(Debug)]
pub struct Memory {
    machine: Option<Source>,
    groups: Vec<Group>,
}

/// One control group with a limit.
#[derive(Debug)]
struct Group {
    limit: Source,
    usage: Source,
    statistics: Source,
    /// What the statistics of a group with all below it are called.
    prefix: &'static str,
}

/// A file that is read again and again.
#[derive(Debug)]
struct Source(Mutex<File>);

impl Memory {
    /// Opens what this system has.
    pub fn open() -> Self {
        Self::open_at(Path::new("/proc"), Path::new("/sys/fs/cgroup"))
    }

    fn open_at(proc: &Path, root: &Path) -> Self {
        let membership = fs::read_to_string(proc.join("self/cgroup")).unwrap_or_default();
        let groups = folders(&membership, root)
            .into_iter()
            .filter_map(|folder| Group::version_2(&folder).or_else(|| Group::version_1(&folder)));
        Self { machine: Source::open(&proc.join("meminfo")), groups: groups.collect() }
    }

    /// Bytes that may still be taken: free, or cache of files. None when the system tells nothing.
    pub fn available_bytes(&self) -> Option<u64> {
        self.least(|bytes, _| bytes)
    }

    /// What of it to take beside `held_bytes` that are taken already, leaving some for others: more
    /// on the machine, which belongs to everyone, than in a group of our own.
    pub fn spare_bytes(&self, held_bytes: u64) -> Option<u64> {
        self.least(|bytes, is_machine| {
            let (least, share) = if is_machine { (256 << 20, 16) } else { (48 << 20, 64) };
            bytes.saturating_sub(((bytes + held_bytes) / share).max(least))
        })
    }

    fn least(&self, of: impl Fn(u64, bool) -> u64) -> Option<u64> {
        let machine = self.machine.as_ref().and_then(|file| available(&file.text()));
        let groups = self.groups.iter().filter_map(Group::available_bytes);
        groups.map(|bytes| of(bytes, false)).chain(machine.map(|bytes| of(bytes, true))).min()
    }
}

impl Group {
    fn version_2(folder: &Path) -> Option<Self> {
        Some(Self {
            limit: Source::open(&folder.join("memory.max"))?,
            usage: Source::open(&folder.join("memory.current"))?,
            statistics: Source::open(&folder.join("memory.stat"))?,
            prefix: "",
        })
    }

    fn version_1(folder: &Path) -> Option<Self> {
        Some(Self {
            limit: Source::open(&folder.join("memory.limit_in_bytes"))?,
            usage: Source::open(&folder.join("memory.usage_in_bytes"))?,
            statistics: Source::open(&folder.join("memory.stat"))?,
            prefix: "total_",
        })
    }

    /// Of cached files, the kernel gives up half without a fight; the rest is in use.
    fn available_bytes(&self) -> Option<u64> {
        let limit = self.limit.number().filter(|limit| *limit < UNLIMITED_BYTES)?;
        let usage = self.usage.number()?;
        let cache = file_cache(&self.statistics.text(), self.prefix);
        Some((limit + cache / 2).saturating_sub(usage).min(limit))
    }
}

impl Source {
    fn open(path: &Path) -> Option<Self> {
        File::open(path).ok().map(|file| Self(Mutex::new(file)))
    }

    fn text(&self) -> String {
        let mut file = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut text = String::new();
        let read = file.seek(SeekFrom::Start(0)).and_then(|_| file.read_to_string(&mut text));
        if read.is_err() { String::new() } else { text }
    }

    fn number(&self) -> Option<u64> {
        self.text().trim().parse().ok()
    }
}

/// The folders of a process's memory groups, the innermost first: both versions write lines such as
/// `4:memory:/group` and `0::/group`. In a container the path may be the host's, and the group is
/// then the root that is mounted.
fn folders(membership: &str, root: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for line in membership.lines() {
        let mut fields = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (fields.next(), fields.next()) else { continue };
        let base = if controllers.is_empty() {
            root.to_path_buf()
        } else if controllers.split(',').any(|name| name == "memory") {
            root.join("memory")
        } else {
            continue;
        };
        let inner = base.join(path.trim_start_matches('/'));
        let start = if inner.is_dir() { inner } else { base.clone() };
        found.extend(start.ancestors().take_while(|at| at.starts_with(&base)).map(Path::to_owned));
    }
    found
}

/// `MemAvailable` of /proc/meminfo, in bytes.
fn available(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

/// Bytes of files in memory that the kernel can drop.
fn file_cache(statistics: &str, prefix: &str) -> u64 {
    let value = |name: &str| {
        let line = statistics
            .lines()
            .find_map(|line| line.strip_prefix(prefix)?.strip_prefix(name)?.strip_prefix(' '))?;
        line.trim().parse::<u64>().ok()
    };
    value("active_file").unwrap_or(0) + value("inactive_file").unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(path: PathBuf, text: &str) {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    #[test]
    fn the_smaller_of_machine_and_groups_counts() {
        let folder = tempfile::tempdir().unwrap();
        let (proc, root) = (folder.path().join("proc"), folder.path().join("cgroup"));
        write(proc.join("meminfo"), "MemTotal: 9000 kB\nMemAvailable:    8000 kB\n");
        write(proc.join("self/cgroup"), "4:memory:/a/b\n3:cpu:/a\n0::/\n");
        assert_eq!(Memory::open_at(&proc, &root).available_bytes(), Some(8000 << 10));
        let outer = root.join("memory/a");
        write(outer.join("memory.limit_in_bytes"), "5000000\n");
        write(outer.join("memory.usage_in_bytes"), "4000000\n");
        let statistics = "active_file 1\ntotal_inactive_file 300000\ntotal_active_file 200000\n";
        write(outer.join("memory.stat"), statistics);
        let inner = root.join("memory/a/b");
        write(inner.join("memory.limit_in_bytes"), "9223372036854771712\n");
        write(inner.join("memory.usage_in_bytes"), "1\n");
        write(inner.join("memory.stat"), "");
        let memory = Memory::open_at(&proc, &root);
        assert_eq!(memory.available_bytes(), Some(1_250_000));
        // The files are read anew.
        write(outer.join("memory.usage_in_bytes"), "5000000\n");
        assert_eq!(memory.available_bytes(), Some(250_000));
        assert_eq!(memory.spare_bytes(0), Some(0));
    }

    #[test]
    fn version_2_and_containers_are_understood() {
        let folder = tempfile::tempdir().unwrap();
        let (proc, root) = (folder.path().join("proc"), folder.path().join("cgroup"));
        write(proc.join("self/cgroup"), "0::/kubepods/not/visible/here\n");
        write(root.join("memory.max"), "1000000\n");
        write(root.join("memory.current"), "900000\n");
        write(root.join("memory.stat"), "active_file 50000\ninactive_file 20000\n");
        assert_eq!(Memory::open_at(&proc, &root).available_bytes(), Some(135_000));
        write(root.join("memory.max"), "max\n");
        assert_eq!(Memory::open_at(&proc, &root).available_bytes(), None);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn this_machine_has_memory() {
        assert!(Memory::open().available_bytes() > Some(1 << 20));
    }
}
