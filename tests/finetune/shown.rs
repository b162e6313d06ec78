//! What a person sees: a preview of what is learned, a live view on a terminal, TensorBoard's events.

use std::fs;
use std::io::{Read, Write};
use std::process::{Command, Stdio};

use super::Bench;
use crate::fixture;

#[test]
fn a_preview_shows_what_is_learned() {
    let Some(bench) = Bench::new() else { return };
    let line = r#"{"prompt": "Once upon a time", "completion": " there was a cat."}"#;
    fs::write(bench.path("train.jsonl"), format!("{line}\n{line}\n")).unwrap();
    let (model, data) = (fixture::text(&bench.model).to_owned(), bench.path("train.jsonl"));
    let ran = fixture::nfl(&["finetune", "--qlora", &model, "--data", &data, "--preview", "5"]);
    let said = ran.stderr.clone();
    // The tokenizer writes a space in front of every text.
    assert_eq!(ran.expect_success(), "<s> Once upon a time[ there was a cat.</s>]\n");
    assert!(said.contains("line 1: ") && !said.contains("line 2"), "{said}");
}

#[test]
fn samples_are_what_the_model_says_with_the_adapter() {
    let Some(bench) = Bench::new() else { return };
    let flags = ["--steps", "4", "--length", "128", "--rate", "5e-3", "--warmup", "0"];
    let heard = ["--sample", "Once upon a time", "--sample-every", "2"];
    let ran = bench.run("run", &[&flags[..], &heard].concat());
    let said = ran.stderr.clone();
    ran.expect_success();
    let samples: Vec<&str> = said.split("sample   step ").skip(1).collect();
    assert_eq!(samples.len(), 2, "{said}");
    // The last one is what the finished adapter says.
    let text = bench.text(&["--adapter", &bench.path("run")]);
    let expected = format!("4: Once upon a time{}", text.trim_end());
    assert!(samples[1].starts_with(&expected), "{expected}\n{said}");
    assert!(!samples[0].contains(text.trim_end()), "{said}");
    let names = fixture::files_of(&bench.folder.path().join("run"));
    assert!(!names.iter().any(|name| name.starts_with("sample")), "{names:?}");
}

#[test]
#[cfg(target_os = "linux")]
fn a_terminal_shows_the_curve_while_it_grows() {
    let Some(bench) = Bench::new() else { return };
    let words = bench.arguments(
        "run",
        &["--steps", "30", "--length", "64", "--rank", "4", "--eval-split", "0.05"],
    );
    let quoted: Vec<String> = words.iter().map(|word| format!("'{word}'")).collect();
    let line = format!(
        "stty rows 40 columns 100; '{}' {}",
        fixture::text(fixture::program()),
        quoted.join(" ")
    );
    let mut command = Command::new("script");
    command.args(["-qfec", &line, "/dev/null"]).env("TERM", "xterm").env("NFL_BACKENDS", "none");
    let spawned = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
    let Ok(mut terminal) = spawned else {
        eprintln!("skipped: no script");
        return;
    };
    let (mut keys, mut screen) = (terminal.stdin.take().unwrap(), terminal.stdout.take().unwrap());
    let (mut seen, mut asked) = (Vec::new(), 0);
    let mut part = [0; 4096];
    while let Ok(count @ 1..) = screen.read(&mut part) {
        seen.extend(&part[..count]);
        // A terminal answers the question where its cursor is.
        let questions = seen.windows(4).filter(|bytes| bytes == b"\x1b[6n").count();
        for _ in asked..questions {
            keys.write_all(b"\x1b[1;1R").unwrap();
        }
        asked = questions;
    }
    assert!(terminal.wait().unwrap().success(), "{}", String::from_utf8_lossy(&seen));
    let text = String::from_utf8_lossy(&seen);
    assert!(asked > 0 && text.contains("tokens/s") && text.contains("adapter"), "{text}");
    assert!(text.chars().any(|c| ('\u{2801}'..='\u{28ff}').contains(&c)), "no curve: {text}");
}
