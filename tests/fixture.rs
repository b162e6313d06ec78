//! What tests share: the binary, the real material beside the project, scratch directories, seeded checkpoints.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// What a run of `nfl` left behind.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) status: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
    pub(crate) took: Duration,
}

impl Ran {
    /// Runs a command to its end.
    pub(crate) fn of(mut command: Command) -> Self {
        let start = Instant::now();
        let output = command.output().unwrap();
        Self {
            status: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
            took: start.elapsed(),
        }
    }

    /// The run's stdout, or a panic that shows everything.
    pub(crate) fn expect_success(self) -> String {
        assert_eq!(self.status, 0, "stdout:\n{}\nstderr:\n{}", self.stdout, self.stderr);
        self.stdout
    }
}

/// The binary under test.
pub(crate) fn program() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_nfl"))
}

/// A command line of `nfl` with a quiet standard input, no colour, and none of the user's back-end modules.
pub(crate) fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(program());
    command.args(arguments).stdin(Stdio::null());
    command.env("NO_COLOR", "1").env("NFL_BACKENDS", "none");
    command
}

/// Runs `nfl` to its end.
pub(crate) fn nfl(arguments: &[&str]) -> Ran {
    Ran::of(command(arguments))
}

/// A file or folder of the real material, or None, said on stderr, where the material is not beside the project.
pub(crate) fn material(path: &str) -> Option<PathBuf> {
    let found = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/material").join(path);
    if !found.exists() {
        eprintln!("skipped: no material at {path}");
        return None;
    }
    Some(found)
}

/// Converts a checkpoint into `target` and returns the files, one a level, in the order asked.
pub(crate) fn convert(checkpoint: &Path, levels: &str, target: &Path) -> Vec<PathBuf> {
    let name = checkpoint.file_name().unwrap().to_str().unwrap();
    nfl(&["convert", text(checkpoint), "--level", levels, "--output", text(target), "--quiet"])
        .expect_success();
    levels
        .split(',')
        .map(|level| target.join(format!("{name}-{}.gguf", level.to_uppercase())))
        .collect()
}

/// A shell with a script and name spaces of its own (`unshare`'s flags), in the environment of `template`; the script's
/// $0 and the rest are to be added. It exits with 77 where it may not do what it must.
#[cfg(target_os = "linux")]
pub(crate) fn isolated(spaces: &[&str], script: &str, template: &Command) -> Command {
    let mut command = Command::new("unshare");
    command.args(["--user", "--map-root-user"]).args(spaces).args(["sh", "-c", script]);
    for (name, value) in template.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    command.stdin(Stdio::null());
    command
}

/// Runs it; None, said on stderr, where name spaces are not allowed.
#[cfg(target_os = "linux")]
pub(crate) fn ran_isolated(command: Command) -> Option<Ran> {
    if Command::new("unshare").arg("true").status().is_err() {
        eprintln!("skipped: no unshare");
        return None;
    }
    let ran = Ran::of(command);
    if ran.status == 77 || ran.stderr.contains("unshare") {
        eprintln!("skipped: no name space of one's own: {}", ran.stderr);
        return None;
    }
    Some(ran)
}

/// A path as text.
pub(crate) fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// Names in a folder, hidden ones included; none when it does not exist.
pub(crate) fn files_of(folder: &Path) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    let mut names: Vec<String> =
        entries.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}
