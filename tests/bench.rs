//! `nfl bench` as a script sees it; that its figures are true is a matter of `benches/llama-bench.sh`.

use std::time::Duration;

use serde_json::Value;

use crate::fixture;
use crate::run::small_model;

/// Small enough for a test; the material's model was trained on 128 tokens.
const SMALL: [&str; 8] = ["--prompt", "16", "--tokens", "8", "--repeat", "3", "--threads", "1"];

fn bench(arguments: &[&str]) -> Value {
    let json = fixture::nfl(&[&["bench", "--json"], arguments].concat()).expect_success();
    serde_json::from_str(&json).unwrap()
}

/// The figures agree with their samples and are speeds.
fn check(figures: &Value, rounds: usize) {
    let number = |name: &str| figures[name].as_f64().unwrap();
    let samples: Vec<f64> =
        figures["samples"].as_array().unwrap().iter().map(|each| each.as_f64().unwrap()).collect();
    assert_eq!(samples.len(), rounds);
    let within = |value: f64| number("min") <= value && value <= number("max");
    assert!(samples.iter().copied().all(within) && within(number("median")), "{figures}");
    assert!(number("min") > 0.0 && number("max") < 1e9, "{figures}");
}

#[test]
fn one_file_is_one_object_with_medians() {
    let Some(file) = small_model() else { return };
    let object = bench(&[&[fixture::text(&file)], &SMALL[..]].concat());
    check(&object["prefill_tokens_per_second"], 3);
    check(&object["decode_tokens_per_second"], 3);
    assert_eq!(object["prompt_tokens"], 16);
    assert_eq!(object["generated_tokens"], 8);
    assert_eq!(object["threads"], 1);
    assert_eq!(object["parameters"].as_u64(), Some(292_800));
    assert_eq!(object["build"]["nfl"], env!("CARGO_PKG_VERSION"));
}

#[test]
fn depths_and_parts_are_measured_as_asked() {
    let Some(file) = small_model() else { return };
    let arguments = [&[fixture::text(&file)], &SMALL[..], &["--depth", "0,64"]].concat();
    let object = bench(&arguments);
    let depths = object["tests"].as_array().unwrap();
    assert_eq!(depths.len(), 2);
    assert_eq!(depths[1]["depth"], 64);
    for depth in depths {
        check(&depth["prefill_tokens_per_second"], 3);
        check(&depth["decode_tokens_per_second"], 3);
    }
    assert_eq!(depths[0]["decode_tokens_per_second"], object["decode_tokens_per_second"]);
    let arguments = [&arguments[..], &["--batch", "1,3"]].concat();
    let batches = bench(&arguments)["tests"].take();
    let tests = batches.as_array().unwrap().iter();
    let of: Vec<_> = tests.map(|test| (test["depth"].as_u64(), test["batch"].as_u64())).collect();
    let both = |depth| [(Some(depth), Some(1)), (Some(depth), Some(3))];
    assert_eq!(of, [both(0), both(64)].concat());
    for test in batches.as_array().unwrap() {
        check(&test["prefill_tokens_per_second"], 3);
        check(&test["decode_tokens_per_second"], 3);
    }
    let decode = bench(&[fixture::text(&file), "--prompt", "0", "--tokens", "4", "--repeat", "1"]);
    assert!(decode["prefill_tokens_per_second"].is_null());
    check(&decode["decode_tokens_per_second"], 1);
}

#[test]
fn two_sides_are_compared() {
    let Some(file) = small_model() else { return };
    let arguments = [&[fixture::text(&file)], &SMALL[..], &["--vs", "--no-mmap --threads 2"]];
    let compared = bench(&arguments.concat());
    let sides = compared["sides"].as_array().unwrap();
    assert_eq!((sides.len(), &sides[1]["options"]), (2, &Value::from("--no-mmap --threads 2")));
    assert_eq!(sides[1]["threads"], 2);
    let ratio = &compared["ratios"][0]["decode"][0];
    let median = |side: usize| sides[side]["decode_tokens_per_second"]["median"].as_f64().unwrap();
    let difference = ratio["of_medians"].as_f64().unwrap() - median(1) / median(0);
    assert!(difference.abs() < 1e-9, "{compared}");

    let table = fixture::nfl(&[&["bench"], &arguments.concat()[..]].concat()).expect_success();
    let lines: Vec<&str> = table.lines().collect();
    assert_eq!(lines.len(), 5, "{table}");
    assert!(lines[0].starts_with("model ") && lines[0].contains("tokens/s"), "{table}");
    assert!(lines[3].contains("--no-mmap --threads 2") && lines[3].contains("prefill 16"));
}

#[test]
fn what_cannot_be_measured_is_said() {
    let Some(file) = small_model() else { return };
    let file = fixture::text(&file);
    for (arguments, status, words) in [
        (vec!["bench"], 2, "MODEL"),
        (vec!["bench", file, "--prompt", "0", "--tokens", "0"], 2, "nothing to measure"),
        (vec!["bench", file, "--repeat", "0"], 2, "--repeat"),
        (vec!["bench", file, "--batch", "1,0"], 2, "--batch"),
        (vec!["bench", file, "--vs", "--frobnicate"], 2, "--frobnicate"),
        (vec!["bench", "/nowhere/x.gguf"], 1, "/nowhere/x.gguf"),
        (vec!["bench", file, "--depth", "1000000000"], 1, "8192 is the most"),
    ] {
        let ran = fixture::nfl(&arguments);
        assert_eq!(ran.status, status, "{arguments:?}: {}", ran.stderr);
        assert!(ran.stderr.contains(words), "{arguments:?}: {}", ran.stderr);
        assert!(ran.stdout.is_empty(), "{arguments:?} printed {}", ran.stdout);
        assert!(ran.took < Duration::from_secs(5), "{arguments:?} took {:?}", ran.took);
    }
}
