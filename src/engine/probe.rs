//! What llama.cpp finds on this machine, found out in processes of their own.
//!
//! Drivers crash, hang and print. So each back-end module is loaded by a child process that tells
//! what it saw in one line of JSON: one that dies or takes too long costs its own line of the report.

use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nfl_models::Hint;
use serde::{Deserialize, Serialize};

use super::llama::{Backend, Device, LogLevel, devices};
use super::process::Death;
use crate::settings;

/// The argument that turns the program into a probe; a module's path may follow.
pub const ARGUMENT: &str = "__probe";

/// How long a driver may take to say what it drives.
const PATIENCE: Duration = Duration::from_secs(30);

/// Bytes of a child's answer that are read.
const ANSWER_BYTES_MAX: u64 = 1 << 20;

/// Lines of a back-end's log that are kept.
const LINES_MAX: usize = 16;

/// What one process found.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Findings {
    /// ggml's name of the module's back-end, when it was loaded.
    pub backend: Option<String>,
    /// Why the module was refused.
    pub refusal: Option<String>,
    /// What to do about that.
    pub hint: Option<String>,
    /// The devices: of the module, or without one of the program itself.
    pub devices: Vec<Device>,
    /// What the back-end said while it looked for devices.
    pub log: Vec<String>,
    /// What ggml's code for the processor was compiled to use.
    pub compiled_features: Vec<String>,
}

/// Runs the probe in this process, for its parent.
pub fn main() -> ExitCode {
    let module = std::env::args_os().nth(2).map(PathBuf::from);
    let answer = serde_json::to_vec(&look(module)).unwrap_or_default();
    match io::stdout().write_all(&answer) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

fn look(module: Option<PathBuf>) -> Findings {
    let has_module = module.is_some();
    let backend = Backend::with_module(module);
    let mut findings = Findings {
        compiled_features: backend.compiled_features(),
        devices: devices(backend),
        ..Findings::default()
    };
    for module in backend.modules() {
        match &module.outcome {
            Ok(loaded) => findings.backend = Some(loaded.backend.clone()),
            Err(error) => {
                findings.refusal = Some(error.to_string());
                findings.hint = error.hint();
            }
        }
    }
    if has_module {
        findings.devices.retain(|device| Some(&device.backend) == findings.backend.as_ref());
    }
    let said = backend.lines_since(backend.beginning());
    let told = said.iter().filter(|line| line.level > LogLevel::Debug);
    findings.log = told.map(|line| line.text.trim().to_owned()).take(LINES_MAX).collect();
    findings
}

/// Asks a child process of `program` about a module, or without one about the program itself.
pub fn probe(program: &Path, module: Option<&Path>) -> Findings {
    ask(program, module, PATIENCE).unwrap_or_else(|refusal| Findings {
        refusal: Some(refusal),
        hint: Some(match module {
            Some(_) => "update the driver, or remove the module to do without it".to_owned(),
            None => "build nfl on this machine: ./install.sh".to_owned(),
        }),
        ..Findings::default()
    })
}

fn ask(program: &Path, module: Option<&Path>, patience: Duration) -> Result<Findings, String> {
    let mut child = Command::new(program)
        .arg(ARGUMENT)
        .args(module)
        .env_clear()
        .envs(settings::worker_environment())
        .env("GGML_NO_BACKTRACE", "1")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|error| error.to_string())?;
    let answer = child.stdout.take().map(|output| {
        thread::spawn(move || {
            let mut answer = Vec::new();
            let _ = output.take(ANSWER_BYTES_MAX).read_to_end(&mut answer);
            answer
        })
    });
    let deadline = Instant::now() + patience;
    let status = loop {
        match child.try_wait() {
            Ok(Some(status)) => break status,
            Ok(None) if Instant::now() < deadline => thread::sleep(Duration::from_millis(2)),
            _ => {
                let _ = child.kill();
                let _ = child.wait();
                return Err(format!("no answer within {} s", patience.as_secs()));
            }
        }
    };
    if !status.success() {
        return Err(format!("the process that looked for devices died: {}", Death::from(status)));
    }
    let answer = answer.and_then(|reader| reader.join().ok()).unwrap_or_default();
    serde_json::from_slice(&answer).map_err(|error| format!("the answer makes no sense: {error}"))
}

#[cfg(test)]
#[cfg(unix)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn answer_of(script: &str, patience: Duration) -> Result<Findings, String> {
        let folder = tempfile::tempdir().unwrap();
        let program = folder.path().join("program");
        fs::write(&program, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        ask(&program, None, patience)
    }

    #[test]
    fn a_driver_that_crashes_hangs_or_prints_costs_one_line() {
        let soon = Duration::from_secs(20);
        let error = answer_of("kill -SEGV $$", soon).unwrap_err();
        assert!(error.contains("segmentation fault"), "{error}");
        let error = answer_of("echo hello", soon).unwrap_err();
        assert!(error.contains("makes no sense"), "{error}");
        let started = Instant::now();
        let error = answer_of("exec sleep 60", Duration::from_millis(50)).unwrap_err();
        assert!(error.contains("no answer"), "{error}");
        assert!(started.elapsed() < Duration::from_secs(10));
    }

    #[test]
    fn an_answer_is_read() {
        let findings = Findings { backend: Some("Vulkan".to_owned()), ..Findings::default() };
        let json = serde_json::to_string(&findings).unwrap();
        let read = answer_of(&format!("cat <<'END'\n{json}\nEND"), Duration::from_secs(20));
        assert_eq!(read, Ok(findings));
    }
}
