//! `nfl run` as a person and as a script see it, on a real trained model.

use std::io::{Read, Write};
use std::path::PathBuf;
use std::process::Stdio;
use std::time::{Duration, Instant};

use crate::fixture;

const GREEDY: [&str; 8] =
    ["run", "--raw", "--temperature", "0", "--tokens", "60", "--threads", "1"];

/// What llama.cpp says after "Once upon a time" on the files whose greedy text is the golden one.
fn golden_continuation() -> String {
    let path = fixture::material("oracle/greedy60.txt").unwrap();
    let text = std::fs::read_to_string(path).unwrap();
    text.trim_start().strip_prefix("Once upon a time").unwrap().to_owned()
}

fn continue_story(file: &std::path::Path) -> String {
    let arguments = [&GREEDY[..], &[fixture::text(file), "Once upon a time"]].concat();
    fixture::nfl(&arguments).expect_success()
}

#[test]
fn every_layout_tells_the_golden_story() {
    let golden = || golden_continuation();
    for checkpoint in [
        "stories260K-hf-llama",
        "stories260K-hf-llama-ffn256",
        "stories260K-hf-mixtral-4x-top2",
        "stories260K-hf-mixtral-split4-top4",
    ] {
        let Some(source) = fixture::material(&format!("derived/{checkpoint}")) else { return };
        let folder = tempfile::tempdir().unwrap();
        for file in fixture::convert(&source, "f32,f16", folder.path()) {
            assert_eq!(continue_story(&file).trim_end(), golden().trim_end(), "{}", file.display());
        }
    }
}

/// Files whose greedy text is the golden one by `ORACLE.tsv`, quantised ones included.
#[test]
fn files_of_the_oracle_tell_the_story_that_it_says() {
    let Some(table) = fixture::material("oracle/ORACLE.tsv") else { return };
    let table = std::fs::read_to_string(table).unwrap();
    let mut checked = 0;
    for line in table.lines().skip(1) {
        let cells: Vec<&str> = line.split('\t').collect();
        let file = fixture::material(cells[0]).unwrap();
        let story = continue_story(&file);
        match cells[4].strip_prefix("differs:") {
            None => assert_eq!(story.trim_end(), golden_continuation().trim_end(), "{}", cells[0]),
            Some(beginning) => {
                let expected = beginning
                    .trim()
                    .trim_end_matches('|')
                    .strip_prefix("Once upon a time")
                    .unwrap();
                assert!(story.starts_with(expected), "{}: {story:?}", cells[0]);
            }
        }
        checked += 1;
    }
    assert!(checked >= 18, "only {checked} files");
}

pub(crate) fn small_model() -> Option<PathBuf> {
    fixture::material("oracle/stories260K-F16.gguf")
}

#[test]
fn a_pipe_is_the_prompt_and_only_the_reply_is_on_stdout() {
    let Some(file) = small_model() else { return };
    let arguments = [&GREEDY[..], &[fixture::text(&file), "--verbose"]].concat();
    let mut child = fixture::command(&arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(b"Once upon a time").unwrap();
    let output = child.wait_with_output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{stderr}");
    let story = String::from_utf8(output.stdout).unwrap();
    assert_eq!(story.trim_end(), golden_continuation().trim_end());
    for part in ["load ", "prompt ", "decode ", "tokens/s", "mapped", "resident"] {
        assert!(stderr.contains(part), "no {part:?} in\n{stderr}");
    }
}

#[test]
fn the_same_seed_tells_the_same_story_and_stop_strings_end_it() {
    let Some(file) = small_model() else { return };
    let tell = |extra: &[&str]| {
        let arguments =
            ["run", fixture::text(&file), "Once upon a time", "--raw", "--tokens", "40"];
        fixture::nfl(&[&arguments[..], extra].concat()).expect_success()
    };
    let seeded = tell(&["--seed", "7", "--temperature", "1.5"]);
    assert_eq!(seeded, tell(&["--seed", "7", "--temperature", "1.5"]));
    assert_ne!(seeded, tell(&["--seed", "8", "--temperature", "1.5"]));
    let stopped = tell(&["--temperature", "0", "--stop", "the park"]);
    assert_eq!(stopped, ", there was a little girl named Lily. She loved to play outside in \n");
}

#[test]
fn wrong_usage_is_status_2_and_failures_are_status_1() {
    let Some(file) = small_model() else { return };
    let file = fixture::text(&file);
    for (arguments, status, words) in [
        (vec!["run"], 2, "MODEL"),
        (vec!["run", file, "x", "--temperature", "-1"], 2, "temperature: -1"),
        (vec!["run", file, "x", "--top-p", "2"], 2, "top-p: 2"),
        (vec!["run", file, "x", "--tokens", "0"], 2, "tokens to generate"),
        (vec!["run", "/nowhere/x.gguf", "x"], 1, "/nowhere/x.gguf"),
        (vec!["run", file, "x", "--context", "2000000000"], 1, "2000000000"),
        (vec!["run", file, "x", "--system", "y"], 1, "no chat template"),
        (vec!["frobnicate"], 2, "frobnicate"),
        (vec!["convert", ".", "--level", "q4_k_n"], 2, "q4_k_n"),
    ] {
        let ran = fixture::nfl(&arguments);
        assert_eq!(ran.status, status, "{arguments:?}: {}", ran.stderr);
        assert!(ran.stderr.contains(words), "{arguments:?}: {}", ran.stderr);
        assert!(ran.stdout.is_empty(), "{arguments:?} printed {}", ran.stdout);
        assert!(ran.took < Duration::from_secs(5), "{arguments:?} took {:?}", ran.took);
    }
}

#[test]
fn a_prompt_beyond_the_context_is_refused_with_numbers() {
    let Some(file) = small_model() else { return };
    let long = "Once upon a time there was a dog. ".repeat(200);
    let ran = fixture::nfl(&["run", fixture::text(&file), &long, "--raw"]);
    assert_eq!(ran.status, 1);
    assert!(ran.stderr.contains("the context has room for 128"), "{}", ran.stderr);
    assert!(ran.stderr.contains("hint:"), "{}", ran.stderr);
}

/// The children of a process, of whichever thread of it, by /proc.
#[cfg(target_os = "linux")]
pub(crate) fn children_of(process: u32) -> Vec<u32> {
    let tasks = std::fs::read_dir(format!("/proc/{process}/task")).unwrap();
    tasks
        .flat_map(|task| {
            let list = std::fs::read_to_string(task.unwrap().path().join("children"));
            let ids = list.unwrap_or_default();
            ids.split_whitespace().map(|id| id.parse().unwrap()).collect::<Vec<u32>>()
        })
        .collect()
}

fn signal(process: u32, name: &str) {
    let status =
        std::process::Command::new("kill").args([name, &process.to_string()]).status().unwrap();
    assert!(status.success());
}

/// Starts a reply that takes a while and waits until its first words are there.
#[cfg(target_os = "linux")]
fn long_reply(file: &std::path::Path) -> (std::process::Child, String) {
    long_reply_of(std::process::Command::new(fixture::program()), file)
}

/// The same by a command of which only the arguments are missing.
#[cfg(target_os = "linux")]
pub(crate) fn long_reply_of(
    mut command: std::process::Command,
    file: &std::path::Path,
) -> (std::process::Child, String) {
    let arguments = [
        "run",
        fixture::text(file),
        "Once upon a time",
        "--raw",
        "--context",
        "8192",
        "--ignore-eos",
        "--threads",
        "1",
    ];
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut words = [0; 16];
    child.stdout.as_mut().unwrap().read_exact(&mut words).unwrap();
    (child, String::from_utf8_lossy(&words).into_owned())
}

#[test]
#[cfg(target_os = "linux")]
fn killing_the_worker_costs_the_reply_and_is_reported() {
    let Some(file) = small_model() else { return };
    let (child, _) = long_reply(&file);
    let workers = children_of(child.id());
    assert_eq!(workers.len(), 1, "one worker a model");
    signal(workers[0], "-KILL");
    let killed = Instant::now();
    let output = child.wait_with_output().unwrap();
    assert!(killed.elapsed() < Duration::from_secs(2));
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(stderr.contains("signal 9") && stderr.contains("hint:"), "{stderr}");
}

#[test]
#[cfg(target_os = "linux")]
fn ctrl_c_stops_the_reply_with_status_130_and_leaves_no_worker() {
    let Some(file) = small_model() else { return };
    let (child, _) = long_reply(&file);
    let workers = children_of(child.id());
    signal(child.id(), "-INT");
    let stopped = Instant::now();
    let output = child.wait_with_output().unwrap();
    assert!(stopped.elapsed() < Duration::from_secs(2));
    assert_eq!(output.status.code(), Some(130), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(
        !std::path::Path::new(&format!("/proc/{}", workers[0])).exists(),
        "the worker lives on"
    );
}

#[test]
#[cfg(target_os = "linux")]
fn a_killed_program_takes_its_worker_along() {
    let Some(file) = small_model() else { return };
    let (mut child, _) = long_reply(&file);
    let worker = children_of(child.id())[0];
    signal(child.id(), "-KILL");
    child.wait().unwrap();
    let gone = || !std::path::Path::new(&format!("/proc/{worker}")).exists();
    let deadline = Instant::now() + Duration::from_secs(2);
    while !gone() && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(10));
    }
    assert!(gone(), "the worker outlived its program");
}

#[test]
fn a_kept_state_spares_the_next_run_the_prompt() {
    let Some(file) = small_model() else { return };
    let home = tempfile::tempdir().unwrap();
    let story = "Once upon a time there was a dog who liked to run in the park. ".repeat(8);
    let tell = |prompt: &str| {
        let options = ["--tokens", "10", "--ctx", "512", "--keep-state", "--verbose"];
        let arguments = [&GREEDY[..4], &options, &[fixture::text(&file), prompt]].concat();
        let mut command = fixture::command(&arguments);
        let output = command.env("NFL_HOME", home.path()).output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{stderr}");
        let line = stderr.lines().find(|line| line.starts_with("prompt ")).unwrap();
        let numbers: Vec<u32> = line
            .split(|c: char| !c.is_ascii_digit())
            .filter_map(|word| word.parse().ok())
            .collect();
        (numbers[0], numbers[1])
    };
    let (all, cached) = tell(&story);
    assert_eq!(cached, 0);
    let (longer, cached) = tell(&format!("{story}The dog"));
    assert!(cached + 1 >= all && cached < longer, "{cached} of {longer}, {all} before");
}

#[test]
fn a_full_context_may_move_on() {
    let Some(file) = small_model() else { return };
    let options = ["--ctx", "128", "--ignore-eos", "--verbose"];
    let arguments =
        [&GREEDY[..4], &["--tokens", "300"], &options, &[fixture::text(&file), "Once"]].concat();
    let ended = fixture::nfl(&arguments);
    assert!(ended.stderr.contains("the context of 128 tokens is full"), "{}", ended.stderr);
    let moved = fixture::nfl(&[&arguments[..], &["--context-shift"]].concat());
    assert!(
        moved.stderr.contains("299 tokens in") || moved.stderr.contains("300 tokens in"),
        "{}",
        moved.stderr
    );
}

/// The oracle is PyTorch's softmax of the same weights (`tests/golden/embeddings.py`).
#[test]
fn logprobs_are_those_of_transformers() {
    let Some(file) = fixture::material("derived/stories260K-llama-F32.gguf") else { return };
    let golden: serde_json::Value =
        serde_json::from_str(include_str!("golden/embeddings.json")).unwrap();
    let golden = &golden["logprobs"];
    let (prompt, steps) = (golden["prompt"].as_str().unwrap(), golden["top"].as_array().unwrap());
    let count = steps.len().to_string();
    let arguments = ["run", fixture::text(&file), prompt, "--raw", "--tokens", &count];
    let options = ["--temperature", "0", "--logprobs", "4"];
    let ran = fixture::nfl(&[&arguments[..], &options, &["--json"]].concat()).expect_success();
    let reply: serde_json::Value = serde_json::from_str(&ran).unwrap();
    assert_eq!(
        (&reply["reason"], &reply["generated_tokens"]),
        (&"length".into(), &steps.len().into())
    );
    let tokens = reply["logprobs"].as_array().unwrap();
    assert_eq!(tokens.len(), steps.len());
    let mut text = String::new();
    for (token, top) in tokens.iter().zip(steps) {
        assert_eq!(token["id"], top[0][0]);
        text.push_str(token["token"].as_str().unwrap());
        for (found, expected) in
            token["top"].as_array().unwrap().iter().zip(top.as_array().unwrap())
        {
            assert_eq!(found["id"], expected[0]);
            let (found, expected) =
                (found["logprob"].as_f64().unwrap(), expected[1].as_f64().unwrap());
            assert!((found - expected).abs() < 1e-2, "{found} {expected}");
        }
    }
    assert_eq!(reply["text"].as_str().unwrap(), text);
    // For people: the reply, an empty line, a line a token.
    let table = fixture::nfl(&[&arguments[..], &options].concat()).expect_success();
    let (reply, table) = table.split_once("\n\n").unwrap();
    assert_eq!(reply, text);
    assert_eq!(table.lines().count(), steps.len());
    assert!(table.lines().all(|line| line.matches(" %").count() == 5), "{table}");
    let ran = fixture::nfl(&[&arguments[..], &["--logprobs", "129"]].concat());
    assert!(ran.status == 2 && ran.stderr.contains("128 are the most"), "{}", ran.stderr);
}

#[test]
fn a_layer_for_guesses_that_is_not_there_is_not_asked() {
    let Some(file) = fixture::material("oracle/stories260K-F16.gguf") else { return };
    let asked = |more: &[&str]| {
        let arguments = [&GREEDY[..], &[fixture::text(&file), "Once upon a time"], more].concat();
        fixture::nfl(&arguments)
    };
    let ran = asked(&["--spec", "mtp"]);
    assert_eq!((ran.status, ran.stdout.as_str()), (1, ""));
    assert!(ran.stderr.contains("llama.nextn_predict_layers"), "{}", ran.stderr);
    let ran = asked(&["--spec", "mtp", "--draft", fixture::text(&file)]);
    assert_eq!(ran.status, 2);
    assert!(ran.stderr.contains("--spec draft"), "{}", ran.stderr);
}
