//! `nfl doctor` against what the system itself says, and with back-end modules that are broken.

use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::fixture;

/// The doctor's JSON with another folder of modules.
fn doctor(folder: &Path) -> Value {
    let output =
        fixture::command(&["doctor", "--json"]).env("NFL_BACKENDS", folder).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
#[cfg(target_os = "linux")]
fn the_doctor_says_what_proc_says() {
    let folder = tempfile::tempdir().unwrap();
    let report = doctor(folder.path());
    let table = fs::read_to_string("/proc/meminfo").unwrap();
    let bytes = |name: &str| {
        let line = table.lines().find(|line| line.starts_with(name)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
    };
    let memory = &report["memory"];
    assert_eq!(memory["total_bytes"], bytes("MemTotal:"));
    assert_eq!(memory["swap_total_bytes"], bytes("SwapTotal:"));
    assert!(memory["available_bytes"].as_u64().unwrap() <= bytes("MemTotal:"));

    let cpu = &report["cpu"];
    let processors = std::thread::available_parallelism().unwrap().get();
    assert_eq!(cpu["logical_processors"], processors);
    assert!((1..=processors as u64).contains(&cpu["threads"].as_u64().unwrap()));
    let table = fs::read_to_string("/proc/cpuinfo").unwrap();
    let has = |flag: &str| table.split_whitespace().any(|word| word == flag);
    for (ours, linux) in [("AVX2", "avx2"), ("AVX-512", "avx512f"), ("NEON", "asimd")] {
        let features = cpu["features"].as_array().unwrap();
        assert_eq!(features.iter().any(|name| name == ours), has(linux), "{ours}");
    }
    let devices = report["devices"].as_array().unwrap();
    assert!(devices.iter().any(|device| device["kind"] == "cpu"), "{devices:?}");
    assert_eq!(report["engine"]["refusal"], Value::Null);
    for finding in report["findings"].as_array().unwrap() {
        let status = finding["status"].as_str().unwrap();
        assert!(["ok", "note", "missing"].contains(&status), "{finding}");
        assert!(!finding["text"].as_str().unwrap().is_empty(), "{finding}");
    }
}

#[test]
#[cfg(target_os = "linux")]
fn broken_modules_cost_a_line_and_no_more() {
    let folder = tempfile::tempdir().unwrap();
    // A sound library that is no module: one that this process has mapped.
    let maps = fs::read_to_string("/proc/self/maps").unwrap();
    let library = maps.lines().find(|line| line.contains("/libm.so") || line.contains("/libm-"));
    let library = fs::read(library.unwrap().split_whitespace().last().unwrap()).unwrap();
    for (name, bytes) in [
        ("libggml-cuda.so", &b"nothing"[..]),
        ("libggml-vulkan.so", &library[..library.len() / 2]),
        ("libggml-hip.so", &library[..]),
    ] {
        fs::write(folder.path().join(name), bytes).unwrap();
    }
    let report = doctor(folder.path());
    let modules = report["modules"]["files"].as_array().unwrap();
    assert_eq!(modules.len(), 3);
    for module in modules {
        assert_eq!(module["status"], "refused", "{module}");
        assert!(module["refusal"].as_str().unwrap().len() > 10, "{module}");
        assert!(module["advice"].as_str().unwrap().contains("./install.sh"), "{module}");
    }
    let findings = report["findings"].as_array().unwrap();
    let missing = findings.iter().filter(|finding| finding["status"] == "missing");
    let about_modules = missing.filter(|finding| finding["topic"] == "module").count();
    assert_eq!(about_modules, 3);

    // The worker meets the same files and computes on the CPU.
    let Some(source) = fixture::material("oracle/stories260K-F16.gguf") else { return };
    let ran = fixture::command(&["run", "--raw", "--tokens", "2", fixture::text(&source), "Once"])
        .env("NFL_BACKENDS", folder.path())
        .output()
        .unwrap();
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
}

#[test]
fn a_path_that_is_not_there_is_wrong_usage() {
    let ran = fixture::nfl(&["doctor", "/nowhere/at/all"]);
    assert_eq!(ran.status, 2);
    assert!(ran.stderr.contains("/nowhere/at/all"), "{}", ran.stderr);
}

/// What the kernel offers is what holds a live worker, which says so itself.
#[test]
#[cfg(target_os = "linux")]
fn the_cage_is_told_as_a_worker_finds_it() {
    let Some(source) = fixture::material("oracle/stories260K-F16.gguf") else { return };
    let cage = &doctor(Path::new("none"))["cage"];
    let ran = fixture::nfl(&["run", fixture::text(&source), "Once", "--raw", "-n", "1", "-v"]);
    assert_eq!(ran.status, 0, "{}", ran.stderr);
    let says = |words: &str| ran.stderr.contains(words);
    match cage["landlock"].as_u64() {
        Some(abi) => assert!(says(&format!("(Landlock, ABI {abi})")), "{}", ran.stderr),
        None => assert!(says("not kept: files"), "{}", ran.stderr),
    }
    assert_eq!(cage["seccomp"].as_bool().unwrap(), says("(seccomp)"), "{}", ran.stderr);
    for missing in cage["missing"].as_array().unwrap() {
        assert!(says(missing.as_str().unwrap()), "{missing}\n{}", ran.stderr);
    }
    let table = fixture::nfl(&["doctor"]).expect_success();
    assert!(table.lines().any(|line| line.contains(" cage ")), "{table}");
}
