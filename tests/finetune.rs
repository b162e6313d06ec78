//! `nfl finetune` on real weights: what it learns, how it goes on after a kill, and what it refuses.

use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};

use crate::fixture;

/// A model, examples to learn and examples to look at, in a folder of their own.
struct Bench {
    folder: tempfile::TempDir,
    model: PathBuf,
}

impl Bench {
    fn new() -> Option<Self> {
        let model = fixture::material("derived/stories260K-llama-F32.gguf")?;
        let plays = fixture::material("finetune/text/tinyshakespeare.txt")?;
        let plays = fs::read_to_string(plays).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let lines = |part: &str| {
            let scenes: Vec<&str> = part.split("\n\n").collect();
            let scenes = scenes.chunks(4).map(|scene| scene.join("\n\n"));
            scenes.map(|text| json!({"text": text}).to_string() + "\n").collect::<String>()
        };
        fs::write(folder.path().join("train.jsonl"), lines(&plays[..60_000])).unwrap();
        fs::write(folder.path().join("held-out.jsonl"), lines(&plays[1_000_000..1_006_000]))
            .unwrap();
        Some(Self { folder, model })
    }

    fn path(&self, name: &str) -> String {
        fixture::text(&self.folder.path().join(name)).to_owned()
    }

    /// The command line of a run into the folder `output` with more flags.
    fn arguments(&self, output: &str, flags: &[&str]) -> Vec<String> {
        let model = fixture::text(&self.model).to_owned();
        let (data, output) = (self.path("train.jsonl"), self.path(output));
        let mut all = vec!["finetune".to_owned(), "--qlora".to_owned(), model];
        all.extend(["--data".to_owned(), data, "--output".to_owned(), output]);
        all.extend(flags.iter().map(|flag| (*flag).to_owned()));
        all
    }

    fn run(&self, output: &str, flags: &[&str]) -> fixture::Ran {
        let arguments = self.arguments(output, flags);
        fixture::nfl(&arguments.iter().map(String::as_str).collect::<Vec<_>>())
    }

    /// What the model says, with an adapter or without.
    fn text(&self, flags: &[&str]) -> String {
        let model = fixture::text(&self.model);
        let mut all = vec!["run", model, "Once upon a time", "--raw", "--temperature", "0"];
        all.extend(["--tokens", "48"]);
        all.extend(flags);
        fixture::nfl(&all).expect_success()
    }
}

fn lines(path: &Path) -> Vec<Value> {
    let text = fs::read_to_string(path).unwrap_or_default();
    text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

#[test]
fn a_model_of_stories_learns_plays() {
    let Some(bench) = Bench::new() else { return };
    let base = bench.text(&[]);
    let (held_out, log) = (bench.path("held-out.jsonl"), bench.path("log.jsonl"));
    let flags = ["--eval", &held_out, "--log", &log, "--steps", "30", "--length", "256"];
    bench.run("run", &[&flags[..], &["--rate", "5e-3"]].concat()).expect_success();

    let lines = lines(Path::new(&log));
    let steps: Vec<&Value> = lines.iter().filter(|line| line["loss"].is_number()).collect();
    assert_eq!(steps.len(), 30);
    for (number, line) in steps.iter().enumerate() {
        assert_eq!(line["step"], number + 1);
        assert!(line["tokens_per_second"].as_f64().unwrap() > 0.0);
    }
    let losses: Vec<f64> = lines.iter().filter_map(|line| line["eval_loss"].as_f64()).collect();
    let [before, .., after] = losses[..] else { panic!("{losses:?}") };
    assert!(before > 4.0 && after < before - 1.0, "held-out loss {before} before, {after} after");

    // The adapter changes what is said; without it the base is what it was.
    let (folder, file) = (bench.path("run"), bench.path("run/adapter.gguf"));
    let learned = bench.text(&["--adapter", &folder]);
    assert_ne!(learned, base);
    assert_eq!(bench.text(&["--adapter", &file]), learned);
    assert_eq!(bench.text(&["--adapter", &format!("{folder}=0")]), base);
    assert_eq!(bench.text(&[]), base);
    // Merged it says the same without the adapter.
    let (model, merged) = (fixture::text(&bench.model), bench.path("merged.gguf"));
    let flags = ["--level", "f32", "--eval", &held_out, "--output", &merged];
    let ran = fixture::nfl(&[&["merge", model, "--adapter", &folder][..], &flags].concat());
    assert!(ran.stderr.contains("KL divergence"), "{}", ran.stderr);
    ran.expect_success();
    let other = Bench { model: merged.into(), ..bench };
    assert_eq!(other.text(&[]), learned);
    let names = fixture::files_of(&other.folder.path().join("run"));
    assert_eq!(names, ["adapter.gguf", "adapter_config.json", "adapter_model.safetensors"]);
}

#[test]
fn a_killed_run_goes_on_to_the_same_adapter() {
    let Some(bench) = Bench::new() else { return };
    let flags = ["--steps", "14", "--length", "128", "--save-every", "3", "--rank", "4"];
    bench.run("whole", &flags).expect_success();
    let whole = fs::read(bench.path("whole/adapter_model.safetensors")).unwrap();

    let log = bench.path("log.jsonl");
    let arguments = bench.arguments("parts", &[&flags[..], &["--log", &log]].concat());
    for last in [2, 5, 8] {
        let mut all: Vec<&str> = arguments.iter().map(String::as_str).collect();
        if last > 2 {
            all.push("--resume");
        }
        let mut run = fixture::command(&all).spawn().unwrap();
        let step =
            || lines(Path::new(&log)).last().map_or(0, |line| line["step"].as_u64().unwrap());
        while step() < last && run.try_wait().unwrap().is_none() {
            thread::sleep(Duration::from_millis(5));
        }
        run.kill().unwrap();
        run.wait().unwrap();
    }
    let other =
        bench.run("parts", &["--steps", "15", "--length", "128", "--rank", "4", "--resume"]);
    assert_eq!(other.status, 1, "{}", other.stderr);
    assert!(
        other.stderr.contains("other data, another model or other numbers"),
        "{}",
        other.stderr
    );
    bench.run("parts", &[&flags[..], &["--resume"]].concat()).expect_success();
    assert!(fs::read(bench.path("parts/adapter_model.safetensors")).unwrap() == whole);
}

#[test]
fn what_cannot_be_learned_is_refused_in_words() {
    let Some(bench) = Bench::new() else { return };
    let talk = r#"{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}"#;
    for (data, problem) in [
        ("\n", "no example"),
        ("{\"text\": \"a\"}\n{\"txt\": \"a\"}\n", "line 2"),
        ("{\"prompt\": \"Once upon a time\", \"completion\": \"", "line 1"),
        (talk, "no chat template"),
    ] {
        fs::write(bench.path("train.jsonl"), data).unwrap();
        let ran = bench.run("refused", &["--steps", "2"]);
        assert_eq!(ran.status, 1, "{data}: {}", ran.stderr);
        assert!(ran.stderr.contains(problem), "{data}: {}", ran.stderr);
        assert_eq!(fixture::files_of(&bench.folder.path().join("refused")), [""; 0]);
    }
}
