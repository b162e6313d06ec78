//! One question to a child process, answered in one line of JSON.
//!
//! Drivers and llama.cpp crash, hang and print. What need not happen in a process that lives on
//! happens in one that answers and ends: one that dies or takes too long costs its answer.

use std::ffi::OsStr;
use std::io::{Read, Write};
use std::path::Path;
use std::process::{Child, Command, ExitCode, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::process::Death;
use crate::settings;

/// Bytes of a child's answer that are read.
const ANSWER_BYTES_MAX: u64 = 1 << 20;

/// How often a child is asked whether it has ended.
const PAUSE: Duration = Duration::from_millis(2);

/// Answers the parent of this process.
pub(super) fn answer(answer: &impl Serialize) -> ExitCode {
    let text = serde_json::to_vec(answer).unwrap_or_default();
    match std::io::stdout().write_all(&text) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

/// What the parent of this process asks on standard input.
pub(super) fn question<Q: DeserializeOwned>() -> Option<Q> {
    let mut text = Vec::new();
    std::io::stdin().take(ANSWER_BYTES_MAX).read_to_end(&mut text).ok()?;
    serde_json::from_slice(&text).ok()
}

/// Starts `program` with the arguments, writes the question to its standard input and waits for
/// its answer; or says in words why there is none.
pub(super) fn ask<A: DeserializeOwned>(
    program: &Path,
    arguments: &[&OsStr],
    question: Vec<u8>,
    patience: Duration,
) -> Result<A, String> {
    let mut child = Command::new(program)
        .args(arguments)
        .env_clear()
        .envs(settings::worker_environment())
        .env("GGML_NO_BACKTRACE", "1")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|error| error.to_string())?;
    // In threads: a child that neither reads nor writes must not hold up the clock.
    if let Some(mut input) = child.stdin.take() {
        thread::spawn(move || input.write_all(&question));
    }
    let answer = child.stdout.take().map(|output| {
        thread::spawn(move || {
            let mut answer = Vec::new();
            let _ = output.take(ANSWER_BYTES_MAX).read_to_end(&mut answer);
            answer
        })
    });
    wait(&mut child, patience)?;
    let answer = answer.and_then(|reader| reader.join().ok()).unwrap_or_default();
    serde_json::from_slice(&answer).map_err(|error| format!("the answer makes no sense: {error}"))
}

/// Waits until the child has ended well, and no longer than `patience`.
fn wait(child: &mut Child, patience: Duration) -> Result<(), String> {
    let deadline = Instant::now() + patience;
    loop {
        match child.try_wait() {
            Ok(Some(status)) if status.success() => return Ok(()),
            Ok(Some(status)) => {
                return Err(format!("the process that was asked died: {}", Death::from(status)));
            }
            Ok(None) if Instant::now() < deadline => thread::sleep(PAUSE),
            _ => {
                let _ = child.kill();
                let _ = child.wait();
                return Err(format!("no answer within {} s", patience.as_secs()));
            }
        }
    }
}

#[cfg(test)]
#[cfg(unix)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn answer_of(script: &str, question: &str, patience: Duration) -> Result<Vec<u32>, String> {
        let folder = tempfile::tempdir().unwrap();
        let program = folder.path().join("program");
        fs::write(&program, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        ask(&program, &[], question.as_bytes().to_vec(), patience)
    }

    #[test]
    fn a_child_that_crashes_hangs_or_prints_costs_its_answer() {
        let soon = Duration::from_secs(20);
        let error = answer_of("kill -SEGV $$", "", soon).unwrap_err();
        assert!(error.contains("segmentation fault"), "{error}");
        let error = answer_of("echo hello", "", soon).unwrap_err();
        assert!(error.contains("makes no sense"), "{error}");
        let started = Instant::now();
        let long = "1".repeat(1 << 20); // more than a pipe holds
        let error = answer_of("exec sleep 60", &long, Duration::from_millis(50)).unwrap_err();
        assert!(error.contains("no answer"), "{error}");
        assert!(started.elapsed() < Duration::from_secs(10));
    }

    #[test]
    fn what_is_asked_is_what_is_answered() {
        let read = answer_of("cat", "[1, 2, 3]", Duration::from_secs(20));
        assert_eq!(read, Ok(vec![1, 2, 3]));
    }
}
