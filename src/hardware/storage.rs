//! The disk under a file: how far the kernel reads ahead, which decides how a model that is larger
//! than main memory behaves.

use std::path::Path;

/// A disk as the kernel sees it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Storage {
    /// Its name, such as "nvme0n1".
    pub name: Option<String>,
    /// Bytes that are read ahead of a sequential reader.
    pub read_ahead_bytes: Option<u64>,
    /// Whether it has moving parts.
    pub is_rotational: Option<bool>,
    /// The command that sets the read-ahead to `KIB`.
    pub knob: Option<String>,
}

/// The disk that a file or folder lies on; None where the system does not tell.
pub fn storage(path: &Path) -> Option<Storage> {
    system::storage(path)
}

#[cfg(target_os = "linux")]
mod system {
    use std::fs;
    use std::os::unix::fs::MetadataExt;
    use std::path::Path;

    use super::Storage;

    pub(super) fn storage(path: &Path) -> Option<Storage> {
        let device = fs::metadata(path).ok()?.dev();
        let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
        read(Path::new("/sys"), &format!("{major}:{minor}"))
    }

    /// Reads the files below `root`, which is another folder only in tests.
    pub(super) fn read(root: &Path, number: &str) -> Option<Storage> {
        let number_in = |path: &Path| fs::read_to_string(path).ok()?.trim().parse::<u64>().ok();
        // File systems without a disk of their own (btrfs, NFS) have only a backing device.
        let backing = root.join("class/bdi").join(number).join("read_ahead_kb");
        let Ok(block) = root.join("dev/block").join(number).canonicalize() else {
            let kilobytes = number_in(&backing)?;
            let knob = Some(format!("echo KIB | sudo tee {}", backing.display()));
            return Some(Storage {
                read_ahead_bytes: Some(kilobytes << 10),
                knob,
                ..Storage::default()
            });
        };
        // A partition has no queue; the disk that it is on is the folder above.
        let disk = if block.join("queue").is_dir() { block.as_path() } else { block.parent()? };
        let queue = Some(disk.join("queue")).filter(|queue| queue.is_dir())?;
        let name = disk.file_name()?.to_str()?.to_owned();
        Some(Storage {
            read_ahead_bytes: number_in(&queue.join("read_ahead_kb"))
                .map(|kilobytes| kilobytes << 10),
            is_rotational: number_in(&queue.join("rotational")).map(|value| value != 0),
            knob: Some(format!("echo KIB | sudo tee /sys/block/{name}/queue/read_ahead_kb")),
            name: Some(name),
        })
    }
}

#[cfg(not(target_os = "linux"))]
mod system {
    use std::path::Path;

    use super::Storage;

    pub(super) fn storage(_: &Path) -> Option<Storage> {
        None
    }
}

#[cfg(test)]
#[cfg(target_os = "linux")]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn the_disk_of_a_partition_is_found() {
        let root = tempfile::tempdir().unwrap();
        let disk = root.path().join("devices/nvme0n1");
        fs::create_dir_all(disk.join("queue")).unwrap();
        fs::create_dir_all(disk.join("nvme0n1p2")).unwrap();
        fs::write(disk.join("queue/read_ahead_kb"), "128\n").unwrap();
        fs::write(disk.join("queue/rotational"), "0\n").unwrap();
        let blocks = root.path().join("dev/block");
        fs::create_dir_all(&blocks).unwrap();
        std::os::unix::fs::symlink(disk.join("nvme0n1p2"), blocks.join("259:2")).unwrap();
        let found = system::read(root.path(), "259:2").unwrap();
        assert_eq!(found.name.as_deref(), Some("nvme0n1"));
        assert_eq!((found.read_ahead_bytes, found.is_rotational), (Some(128 << 10), Some(false)));

        let backing = root.path().join("class/bdi/0:42");
        fs::create_dir_all(&backing).unwrap();
        fs::write(backing.join("read_ahead_kb"), "4096\n").unwrap();
        let found = system::read(root.path(), "0:42").unwrap();
        assert_eq!((found.name, found.read_ahead_bytes), (None, Some(4 << 20)));
        assert_eq!(system::read(root.path(), "1:2"), None);
    }
}
