//! Offloading for real, without a graphics card: Vulkan in software (Mesa's lavapipe).
//!
//! Ignored unless asked for, because the back-end takes minutes to build and lavapipe minutes to compile its shaders:
//! `./install.sh test-vulkan` builds the module and runs these. Only what Debian 12's Mesa computes reliably is asked of
//! it: some layers, or all of them with the experts on the CPU, in F16 and Q8_0. Each run is a process of its own, and
//! one crash inside the driver is forgiven. What was allocated is held against what `nfl fit` had predicted.

use std::path::Path;

use serde_json::Value;

use crate::fit::assert_predicted;
use crate::fixture;

const MIXTURE: &str = "derived/stories260K-hf-mixtral-4x-top2";

/// A run of a model: what it said, and what llama.cpp said of the placement.
fn run(file: &Path, placement: &[&str], has_modules: bool) -> (String, String) {
    let fixed =
        ["run", "--raw", "--temperature", "0", "--tokens", "60", "--threads", "1", "--verbose"];
    // The placement last: what follows --cpu-moe would be taken for its number.
    let arguments = [&fixed[..], &[fixture::text(file), "Once upon a time"], placement].concat();
    let mut attempts = 0;
    loop {
        attempts += 1;
        let mut command = fixture::command(&arguments);
        if has_modules {
            command.env_remove("NFL_BACKENDS");
        }
        let output = command.output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        if output.status.success() {
            return (String::from_utf8_lossy(&output.stdout).into_owned(), stderr);
        }
        let is_crash = stderr.contains("the engine's process died");
        assert!(is_crash && attempts < 2, "{placement:?}: {stderr}");
        eprintln!("once more: {stderr}");
    }
}

/// What is said with the same modules and flags.
fn fit(file: &Path, placement: &[&str]) -> Value {
    let arguments = [&["fit", "--json", fixture::text(file)], placement].concat();
    let output = fixture::command(&arguments).env_remove("NFL_BACKENDS").output().unwrap();
    serde_json::from_slice(&output.stdout).unwrap()
}

fn check(file: &Path, placement: &[&str], told: &[&str]) {
    let (expected, words) = run(file, &["--gpu-layers", "0"], false);
    assert!(!words.contains("Vulkan"), "the judge must be the CPU: {words}");
    let (said, words) = run(file, placement, true);
    assert_eq!(said, expected, "{placement:?} on {}", file.display());
    for words_of_placement in told {
        assert!(words.contains(words_of_placement), "{placement:?}: {words}");
    }
    let plan = fit(file, placement);
    assert_eq!(plan["compute_source"]["from"], "llama.cpp", "{plan}");
    assert_predicted(&plan, &words);
}

#[test]
#[ignore = "needs the Vulkan module and lavapipe: ./install.sh test-vulkan"]
fn vulkan_is_found_by_the_doctor() {
    let output =
        fixture::command(&["doctor", "--json"]).env_remove("NFL_BACKENDS").output().unwrap();
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let devices = report["devices"].as_array().unwrap();
    let gpu =
        devices.iter().find(|device| device["kind"] == "gpu").unwrap_or_else(|| panic!("{report}"));
    assert_eq!(gpu["backend"], "Vulkan");
    assert!(gpu["description"].as_str().unwrap().contains("llvmpipe"), "{gpu}");
    assert!(gpu["memory_bytes"].as_u64().unwrap() > 0);
}

/// Without llama.cpp's answer, and without the slack that is left for that.
#[test]
#[ignore = "needs the Vulkan module and lavapipe: ./install.sh test-vulkan"]
fn vulkan_formula_is_near_what_is_reserved() {
    let Some(source) = fixture::material(MIXTURE) else { return };
    let folder = tempfile::tempdir().unwrap();
    for file in fixture::convert(&source, "f16,q8_0", folder.path()) {
        let reserved = fit(&file, &["--ctx", "2048"]);
        let described = [
            "fit",
            "--json",
            "--ctx",
            "2048",
            "--gpu",
            "4GiB",
            "--ram",
            "4GiB",
            fixture::text(&file),
        ];
        let formula: Value =
            serde_json::from_str(&fixture::nfl(&described).expect_success()).unwrap();
        assert_eq!(formula["compute_source"]["from"], "formula");
        for device in 0..2 {
            let bytes = |plan: &Value| plan["devices"][device]["compute_bytes"].as_f64().unwrap();
            let ratio = bytes(&formula) / bytes(&reserved);
            assert!((0.95..1.05).contains(&ratio), "device {device}: {ratio}");
        }
    }
}

#[test]
#[ignore = "needs the Vulkan module and lavapipe: ./install.sh test-vulkan"]
fn vulkan_says_what_the_cpu_says() {
    let Some(source) = fixture::material(MIXTURE) else { return };
    let folder = tempfile::tempdir().unwrap();
    for file in fixture::convert(&source, "f16,q8_0", folder.path()) {
        check(&file, &["--gpu-layers", "0"], &["offloaded 0/6 layers"]);
        check(
            &file,
            &["--gpu-layers", "2"],
            &["offloaded 2/6 layers", "Vulkan0 model buffer size"],
        );
        check(
            &file,
            &["--gpu-layers", "99", "--cpu-moe"],
            &["offloaded 6/6 layers", "Vulkan0 KV buffer size", "Vulkan_Host model buffer size"],
        );
    }
}
