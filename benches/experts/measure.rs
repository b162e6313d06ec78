//! Running a program in a memory control group with a cold page cache, and counting what the kernel did for it.

use std::fs;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

/// What one run cost.
pub(crate) struct Run {
    pub(crate) tokens_per_second: f64,
    /// Since the first byte of the reply.
    pub(crate) read_bytes: u64,
    pub(crate) major_faults: u64,
}

/// A memory control group, of either version; removed when dropped.
pub(crate) struct Group {
    folder: PathBuf,
}

impl Group {
    pub(crate) fn new(limit_bytes: u64) -> Result<Self, String> {
        let version_1 = Path::new("/sys/fs/cgroup/memory");
        let (root, limit) = if version_1.is_dir() {
            (version_1, "memory.limit_in_bytes")
        } else {
            (Path::new("/sys/fs/cgroup"), "memory.max")
        };
        let folder = root.join(format!("nfl-experts-{}", std::process::id()));
        fs::create_dir_all(&folder).map_err(|error| named(&folder, &error))?;
        write(&folder.join(limit), &limit_bytes.to_string())?;
        Ok(Self { folder })
    }

    /// The processes in it.
    fn processes(&self) -> Vec<u32> {
        let list = fs::read_to_string(self.folder.join("cgroup.procs")).unwrap_or_default();
        list.lines().filter_map(|line| line.parse().ok()).collect()
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // The kernel needs a moment until the last process is gone.
        for _ in 0..50 {
            if fs::remove_dir(&self.folder).is_ok() {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// The read-ahead of the drive that holds a file; put back when dropped.
pub(crate) struct ReadAhead {
    file: PathBuf,
    before: String,
}

impl ReadAhead {
    pub(crate) fn set(on: &Path, kilobytes: u32) -> Result<Self, String> {
        let device = fs::metadata(on).map_err(|error| named(on, &error))?.dev();
        let (major, minor) = (device >> 8 & 0xFFF, device & 0xFF | device >> 12 & 0xFFF00);
        let file = PathBuf::from(format!("/sys/dev/block/{major}:{minor}/bdi/read_ahead_kb"));
        let before = fs::read_to_string(&file).map_err(|error| named(&file, &error))?;
        write(&file, &kilobytes.to_string())?;
        Ok(Self { file, before })
    }
}

impl Drop for ReadAhead {
    fn drop(&mut self) {
        let _ = fs::write(&self.file, &self.before);
    }
}

/// Runs a command in a group, with nothing of any file in memory.
pub(crate) fn run(command: &Command, group: &Group) -> Result<Run, String> {
    Command::new("sync").status().map_err(|error| format!("sync: {error}"))?;
    write(Path::new("/proc/sys/vm/drop_caches"), "1")?;
    // A shell enters the group before it becomes the program.
    let mut inside = Command::new("/bin/sh");
    inside.args(["-c", "echo $$ > \"$0\" && exec \"$@\""]).arg(group.folder.join("cgroup.procs"));
    inside.arg(command.get_program()).args(command.get_args());
    inside.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = inside.spawn().map_err(|error| format!("/bin/sh: {error}"))?;
    let mut output = child.stdout.take().expect("it is piped");
    let mut log = child.stderr.take().expect("it is piped");
    let logs = std::thread::spawn(move || {
        let mut text = String::new();
        let _ = log.read_to_string(&mut text);
        text
    });
    let mut buffer = [0; 4096];
    let (mut first, mut last) = (None, Counts::default());
    while let Ok(1..) = output.read(&mut buffer) {
        last = Counts::of(group);
        first.get_or_insert(last);
    }
    let status = child.wait().map_err(|error| error.to_string())?;
    let text = logs.join().unwrap_or_default();
    if !status.success() {
        return Err(format!("{}: {status}\n{text}", command.get_program().display()));
    }
    let first = first.unwrap_or_default();
    Ok(Run {
        tokens_per_second: rate(&text).ok_or_else(|| format!("no speed in:\n{text}"))?,
        read_bytes: last.read_bytes - first.read_bytes,
        major_faults: last.major_faults - first.major_faults,
    })
}

/// What the processes of a group have done so far.
#[derive(Clone, Copy, Default)]
struct Counts {
    read_bytes: u64,
    major_faults: u64,
}

impl Counts {
    fn of(group: &Group) -> Self {
        let mut sum = Self::default();
        for process in group.processes() {
            let text = |name: &str| {
                fs::read_to_string(format!("/proc/{process}/{name}")).unwrap_or_default()
            };
            let read = text("io");
            let read =
                read.lines().find_map(|line| line.strip_prefix("read_bytes: ")?.parse().ok());
            let stat = text("stat");
            let faults = stat
                .rsplit_once(')')
                .and_then(|(_, rest)| rest.split_ascii_whitespace().nth(9)?.parse::<u64>().ok());
            sum.read_bytes += read.unwrap_or(0_u64);
            sum.major_faults += faults.unwrap_or(0);
        }
        sum
    }
}

/// The speed of generation that a program tells: nfl's line "decode", llama.cpp's "eval time".
fn rate(log: &str) -> Option<f64> {
    let line = log.lines().find(|line| {
        line.starts_with("decode") || line.contains(" eval time") && !line.contains("prompt eval")
    })?;
    let before = line.split(" tokens per second").next()?.split(" tokens/s").next()?;
    before.split_ascii_whitespace().next_back()?.parse().ok()
}

fn write(path: &Path, text: &str) -> Result<(), String> {
    fs::write(path, text).map_err(|error| named(path, &error))
}

fn named(path: &Path, error: &dyn std::fmt::Display) -> String {
    format!("{}: {error}", path.display())
}
