//! The cage of a live worker, as the system sees it from outside.

#![cfg(target_os = "linux")]

use std::fs;
use std::io;
use std::process::Command;

use crate::fixture;
use crate::run::{children_of, long_reply_of, small_model};

/// The value of a line "Name:\tvalue" in a table of `/proc`.
fn value<'a>(table: &'a str, name: &str) -> &'a str {
    let line = table.lines().find_map(|line| line.strip_prefix(name));
    line.unwrap_or_else(|| panic!("no {name} in\n{table}")).trim()
}

#[test]
fn a_live_worker_has_no_rights_no_secrets_and_leaves_no_core() {
    let Some(file) = small_model() else { return };
    let mut command = Command::new(fixture::program());
    command
        .env("HF_TOKEN", "a secret")
        .env("HTTPS_PROXY", "http://name:secret@proxy")
        .env("OMP_NUM_THREADS", "1");
    let (mut child, _) = long_reply_of(command, &file);
    let worker = format!("/proc/{}", children_of(child.id())[0]);
    let table = |name: &str| fs::read_to_string(format!("{worker}/{name}"));
    let status = table("status").unwrap();
    let limits = table("limits").unwrap();
    let environment = fs::read(format!("{worker}/environ"));
    let program = fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(value(&status, "NoNewPrivs:"), "1");
    assert_eq!(value(&status, "Seccomp:"), "2");
    let core: Vec<&str> = value(&limits, "Max core file size").split_whitespace().collect();
    assert_eq!(&core[..2], ["0", "0"]);
    match environment {
        Ok(environment) => {
            let environment = String::from_utf8_lossy(&environment);
            assert!(!environment.contains("secret"), "{environment}");
            assert!(environment.contains("OMP_NUM_THREADS=1"), "{environment}");
        }
        // Only root may look into a process that leaves no core.
        Err(error) => {
            assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
            assert!(!value(&status, "Uid:").starts_with("0\t"));
        }
    }
    assert_eq!(value(&program, "NoNewPrivs:"), "0", "only the worker is caged");
}

#[test]
fn verbose_runs_say_what_the_worker_is_kept_from() {
    let Some(file) = small_model() else { return };
    let arguments = ["run", fixture::text(&file), "Once", "--raw", "-n", "1", "--verbose"];
    let ran = fixture::nfl(&arguments);
    assert_eq!(ran.status, 0, "{}", ran.stderr);
    for part in ["cage ", "network: no sockets (seccomp)", "system calls: "] {
        assert!(ran.stderr.contains(part), "no {part:?} in\n{}", ran.stderr);
    }
}

/// Other ways to bring weights into memory need other system calls.
#[test]
fn every_way_to_load_a_model_works_in_the_cage() {
    let Some(file) = small_model() else { return };
    for option in ["--mlock", "--no-mmap", "--no-repack"] {
        let arguments = ["run", fixture::text(&file), "Once", "--raw", "-n", "3", option];
        fixture::nfl(&arguments).expect_success();
    }
}
