//! The number of threads that computing should take: physical cores that this process may use.
//!
//! Two threads of one core share its arithmetic units, so more threads than cores slow a matrix
//! product down.

use std::collections::BTreeSet;
use std::fs;
use std::num::NonZero;
use std::path::Path;
use std::thread;

/// Processors that are looked at.
const PROCESSORS_MAX: usize = 4096;

/// Physical cores within the limits of the process (affinity and control group); all processors
/// where the system does not tell them apart.
pub fn default_threads() -> u32 {
    // Affinity and the quota of the control group are in this number already.
    let allowed = thread::available_parallelism().map_or(1, NonZero::get);
    let cores = physical_cores(Path::new("/sys/devices/system/cpu"), affinity().as_ref());
    let threads = cores.map_or(allowed, |cores| cores.min(allowed));
    u32::try_from(threads.max(1)).unwrap_or(1)
}

/// Processors that the scheduler may put this process on; None when unknown.
fn affinity() -> Option<BTreeSet<usize>> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let list = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"))?;
    Some(processor_list(list))
}

/// Reads "0-3,8,10-11".
fn processor_list(text: &str) -> BTreeSet<usize> {
    let mut processors = BTreeSet::new();
    for part in text.trim().split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        if let (Ok(first), Ok(last)) = (first.parse::<usize>(), last.parse::<usize>()) {
            processors.extend(first..=last.min(PROCESSORS_MAX));
        }
    }
    processors
}

/// Distinct sets of sibling threads among the allowed processors; None when the system has no such
/// table.
fn physical_cores(root: &Path, allowed: Option<&BTreeSet<usize>>) -> Option<usize> {
    let cores: BTreeSet<String> = allowed?
        .iter()
        .filter_map(|processor| {
            let siblings = root.join(format!("cpu{processor}/topology/thread_siblings_list"));
            Some(fs::read_to_string(siblings).ok()?.trim().to_owned())
        })
        .collect();
    (!cores.is_empty()).then_some(cores.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_processors_are_read() {
        assert_eq!(processor_list("\t0-2,5\n"), BTreeSet::from([0, 1, 2, 5]));
        assert_eq!(processor_list("7"), BTreeSet::from([7]));
        assert_eq!(processor_list(""), BTreeSet::new());
        assert!(processor_list("0-99999999999").len() <= PROCESSORS_MAX + 1);
    }

    #[test]
    fn siblings_count_once() {
        let root = tempfile::tempdir().unwrap();
        for (processor, siblings) in [(0, "0,2"), (1, "1,3"), (2, "0,2"), (3, "1,3")] {
            let folder = root.path().join(format!("cpu{processor}/topology"));
            fs::create_dir_all(&folder).unwrap();
            fs::write(folder.join("thread_siblings_list"), format!("{siblings}\n")).unwrap();
        }
        let cores = |allowed: &[usize]| {
            physical_cores(root.path(), Some(&allowed.iter().copied().collect()))
        };
        assert_eq!(cores(&[0, 1, 2, 3]), Some(2));
        assert_eq!(cores(&[0, 2]), Some(1));
        assert_eq!(cores(&[9]), None);
    }

    #[test]
    fn this_machine_has_at_least_one() {
        assert!(default_threads() >= 1);
    }
}
