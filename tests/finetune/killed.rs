//! Runs that are killed, at chosen and at random moments, go on to the same bytes.

use std::fs;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use super::{Bench, lines};
use crate::fixture;

/// A short run with all that a checkpoint must hold: noise, a look at examples after which it may end, several
/// micro-batches.
const FLAGS: [&str; 20] = [
    "--steps",
    "14",
    "--length",
    "64",
    "--save-every",
    "3",
    "--rank",
    "4",
    "--batch",
    "2",
    "--neftune",
    "5",
    "--eval-split",
    "0.05",
    "--eval-every",
    "4",
    "--patience",
    "3",
    "--rate",
    "2e-3",
];

fn adapter(bench: &Bench, folder: &str) -> Vec<u8> {
    fs::read(bench.path(&format!("{folder}/adapter_model.safetensors"))).unwrap()
}

#[test]
fn a_killed_run_goes_on_to_the_same_adapter() {
    let Some(bench) = Bench::new() else { return };
    bench.run("whole", &FLAGS).expect_success();
    let arguments = bench.arguments("parts", &FLAGS);
    let metrics = bench.path("parts/metrics.jsonl");
    for last in [2, 5, 8] {
        let mut all: Vec<&str> = arguments.iter().map(String::as_str).collect();
        if last > 2 {
            all.push("--resume");
        }
        let mut run = fixture::command(&all).spawn().unwrap();
        let step =
            || lines(Path::new(&metrics)).last().map_or(0, |line| line["step"].as_u64().unwrap());
        while step() < last && run.try_wait().unwrap().is_none() {
            thread::sleep(Duration::from_millis(5));
        }
        run.kill().unwrap();
        run.wait().unwrap();
    }
    let refused = bench.run("parts", &[&FLAGS[..], &["--alpha", "8", "--resume"]].concat());
    assert_eq!(refused.status, 1, "{}", refused.stderr);
    assert!(refused.stderr.contains("the numbers of the run are others"), "{}", refused.stderr);
    let refused = bench.run("parts", &FLAGS);
    assert!(refused.stderr.contains("add --resume"), "{}", refused.stderr);
    bench.run("parts", &[&FLAGS[..], &["--resume"]].concat()).expect_success();
    assert!(adapter(&bench, "parts") == adapter(&bench, "whole"));
    // The numbers of every step are there once, and they are the same.
    let numbers = |folder: &str| {
        let lines = lines(Path::new(&bench.path(&format!("{folder}/metrics.jsonl"))));
        lines
            .iter()
            .map(|line| format!("{} {} {}", line["step"], line["loss"], line["eval_loss"]))
            .collect::<Vec<_>>()
    };
    assert_eq!(numbers("parts"), numbers("whole"));
}

/// Kills runs at random moments; every run that comes to its end must have made the same adapter.
fn kill_at_random(kills: usize) {
    let Some(bench) = Bench::new() else { return };
    let started = Instant::now();
    bench.run("whole", &FLAGS).expect_success();
    let took = started.elapsed();
    let whole = adapter(&bench, "whole");
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    let mut finished = 0;
    let arguments = bench.arguments("parts", &[&FLAGS[..], &["--resume"]].concat());
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    for _ in 0..kills {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let share = (state >> 40) as f64 / (1u64 << 24) as f64;
        let mut run =
            fixture::command(&arguments).stderr(std::process::Stdio::null()).spawn().unwrap();
        thread::sleep(took.mul_f64(share));
        run.kill().unwrap();
        if run.wait().unwrap().success() {
            assert!(adapter(&bench, "parts") == whole);
            fs::remove_dir_all(bench.path("parts")).unwrap();
            finished += 1;
        }
    }
    fixture::nfl(&arguments).expect_success();
    assert!(adapter(&bench, "parts") == whole);
    eprintln!("{kills} kills, {finished} runs were faster");
}

#[test]
fn runs_killed_at_random_moments_come_to_the_same_adapter() {
    kill_at_random(4);
}

#[test]
#[ignore = "takes minutes: cargo test --release -- --ignored fifty_kills"]
fn fifty_kills_at_random_moments_change_nothing() {
    kill_at_random(50);
}
