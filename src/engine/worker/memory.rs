//! Memory of this process, as the system counts it: how much of the model's files is mapped, and
//! how much is resident.

use std::fs;
use std::path::{Path, PathBuf};

use crate::engine::experts::counters::major_faults;
use crate::engine::frames::MemoryUse;

/// Reads Linux's tables; everything is None elsewhere.
pub(super) fn memory_use(files: &[PathBuf]) -> MemoryUse {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let (mapped_bytes, mapped_resident_bytes) = match fs::read_to_string("/proc/self/smaps") {
        Ok(table) => {
            let (mapped, resident) = mapped(&table, files);
            (Some(mapped), Some(resident))
        }
        Err(_) => (None, None),
    };
    MemoryUse {
        mapped_bytes,
        mapped_resident_bytes,
        resident_bytes: kilobytes(&status, "VmRSS:"),
        anonymous_bytes: kilobytes(&status, "RssAnon:"),
        major_faults: major_faults(),
        experts: None,
    }
}

/// Bytes mapped from these files, and how many of them are resident.
fn mapped(table: &str, files: &[PathBuf]) -> (u64, u64) {
    let (mut size, mut resident) = (0, 0);
    let mut counts = false;
    for line in table.lines() {
        if let Some(path) = mapping(line) {
            counts = files.iter().any(|file| file == Path::new(path));
        } else if counts {
            size += kilobytes(line, "Size:").unwrap_or(0);
            resident += kilobytes(line, "Rss:").unwrap_or(0);
        }
    }
    (size, resident)
}

/// The path of a line that opens a mapping ("7f00-7f01 r--p 0 08:01 42   /path"), empty when it has
/// none.
fn mapping(line: &str) -> Option<&str> {
    let (range, rest) = line.split_once(' ')?;
    let (start, end) = range.split_once('-')?;
    let is_hex = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    if !is_hex(start) || !is_hex(end) {
        return None;
    }
    // Permissions, offset, device and inode come first; the path may contain spaces.
    let mut path = rest;
    for _ in 0..4 {
        path = path.trim_start().split_once(' ').map_or("", |(_, rest)| rest);
    }
    Some(path.trim_start())
}

/// The value of a line "Name:   123 kB", in bytes.
fn kilobytes(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "\
7f0000000000-7f0000100000 r--s 00000000 08:01 42         /models/my model.gguf
Size:               1024 kB
Rss:                 512 kB
7f0000100000-7f0000101000 rw-p 00000000 00:00 0 
Size:                  4 kB
Rss:                   4 kB
7f0000200000-7f0000280000 r--s 00100000 08:01 42         /models/my model.gguf
Size:                512 kB
Rss:                   0 kB
ffffffffff600000-ffffffffff601000 --xp 00000000 00:00 0  [vsyscall]
Size:                  4 kB
";

    #[test]
    fn mappings_of_the_model_are_summed() {
        let files = [PathBuf::from("/models/my model.gguf")];
        assert_eq!(mapped(TABLE, &files), (1536 << 10, 512 << 10));
        assert_eq!(mapped(TABLE, &[PathBuf::from("/other")]), (0, 0));
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn this_process_uses_memory() {
        let memory = memory_use(&[]);
        assert!(memory.resident_bytes > Some(1 << 20), "{memory:?}");
        assert_eq!(memory.mapped_bytes, Some(0));
    }
}
