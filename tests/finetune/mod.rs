//! `nfl finetune` on real weights: what it learns, how it goes on after an interruption, and what it refuses.

mod failing;
mod killed;
mod shown;

use std::fs;
use std::path::{Path, PathBuf};

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
    let peft = ["adapter.gguf", "adapter_config.json", "adapter_model.safetensors"];
    assert_eq!(names, [&peft[..], &["loss.svg", "recipe.toml"]].concat());
}

#[test]
fn a_recipe_makes_the_same_adapter_again() {
    let Some(bench) = Bench::new() else { return };
    let flags =
        ["--preset", "style", "--eval-split", "0.1", "--eval-every", "2", "--schedule", "linear"];
    let ran = bench
        .run("run", &[&flags[..], &["--steps", "5", "--length", "64", "--batch", "2"]].concat());
    let said = ran.stderr.clone();
    ran.expect_success();
    for part in [
        "data     ",
        " text\n",
        "look at  ",
        "half of them up to ",
        "are longer than 64 tokens",
        "step     5 of 5",
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }
    let (recipe, again) = (bench.path("run/recipe.toml"), bench.path("again"));
    fixture::nfl(&["finetune", "--recipe", &recipe, "--output", &again]).expect_success();
    let read = |name: &str| fs::read(bench.path(name)).unwrap();
    assert!(read("again/adapter_model.safetensors") == read("run/adapter_model.safetensors"));
    assert!(read("again/recipe.toml") == read("run/recipe.toml"));

    // A flag comes before the recipe; other examples than then are said.
    fs::write(
        bench.path("train.jsonl"),
        "{\"text\": \"Once upon a time\"}\n{\"text\": \"The end.\"}\n",
    )
    .unwrap();
    let other = fixture::nfl(&[
        "finetune",
        "--recipe",
        &recipe,
        "--output",
        &bench.path("other"),
        "--steps",
        "1",
    ]);
    assert!(other.stderr.contains("the examples are not those"), "{}", other.stderr);
    assert_eq!(lines(Path::new(&bench.path("other/metrics.jsonl"))).last().unwrap()["step"], 1);
}

#[test]
fn a_run_that_does_not_get_better_ends_with_its_best_adapter() {
    let Some(bench) = Bench::new() else { return };
    let held_out = bench.path("held-out.jsonl");
    let flags = ["--eval", &held_out, "--length", "128", "--eval-every", "1", "--rank", "2"];
    let greedy = ["--rate", "0.5", "--schedule", "constant", "--warmup", "3"];
    let patient = ["--patience", "2", "--steps", "40"];
    let ran = bench.run("run", &[&flags[..], &greedy, &patient].concat());
    let said = ran.stderr.clone();
    ran.expect_success();
    let losses: Vec<(u64, f64)> = lines(Path::new(&bench.path("run/metrics.jsonl")))
        .iter()
        .filter_map(|line| Some((line["step"].as_u64()?, line["eval_loss"].as_f64()?)))
        .collect();
    let best = losses.iter().min_by(|one, other| one.1.total_cmp(&other.1)).unwrap();
    assert_eq!(losses.last().unwrap().0, best.0 + 2, "{losses:?}");
    assert!(said.contains(&format!("best     that of step {}", best.0)), "{said}");

    // The adapter of the best step is the one that a run of so many steps makes.
    if best.0 > 0 {
        let steps = best.0.to_string();
        bench.run("short", &[&flags[..], &greedy, &["--steps", &steps]].concat()).expect_success();
        let read = |name: &str| fs::read(bench.path(name)).unwrap();
        assert!(read("run/adapter_model.safetensors") == read("short/adapter_model.safetensors"));
    }
}

#[test]
fn better_answers_become_likelier_than_worse_ones() {
    let Some(bench) = Bench::new() else { return };
    let pair = |name: &str, better: &str, worse: &str| {
        let prompt = format!("Once upon a time, there was a {name}. ");
        json!({"prompt": prompt, "chosen": better, "rejected": worse}).to_string() + "\n"
    };
    let names = ["cat", "dog", "girl", "boy", "bird"];
    let pairs = names.map(|name| {
        pair(name, "It was very sad and cried all day.", "It was happy and played in the park.")
    });
    fs::write(bench.path("train.jsonl"), pairs.concat()).unwrap();
    let refused = bench.run("refused", &["--steps", "1"]);
    assert!(refused.stderr.contains("add --dpo"), "{}", refused.stderr);
    let flags = ["--dpo", "--steps", "12", "--batch", "2", "--rate", "2e-3", "--eval-split", "0.2"];
    bench.run("run", &flags).expect_success();
    let lines = lines(Path::new(&bench.path("run/metrics.jsonl")));
    let looks: Vec<&Value> = lines.iter().filter(|line| line["eval_loss"].is_number()).collect();
    let [before, .., after] = looks[..] else { panic!("{lines:?}") };
    // Before the first step nothing is preferred: log 2.
    assert!(
        (before["eval_loss"].as_f64().unwrap() - std::f64::consts::LN_2).abs() < 1e-6,
        "{before}"
    );
    assert!(after["eval_loss"].as_f64().unwrap() < 0.5 && after["eval_accuracy"] == 1.0, "{after}");
}

#[test]
fn what_cannot_be_learned_is_refused_in_words() {
    let Some(bench) = Bench::new() else { return };
    let talk = ["b", "c"].map(|answer| {
        let messages = [
            json!({"role": "user", "content": "a"}),
            json!({"role": "assistant", "content": answer}),
        ];
        json!({ "messages": messages }).to_string() + "\n"
    });
    let talk = &talk.concat();
    for (data, problem) in [
        ("\n", "no example"),
        ("{\"text\": \"a\"}\n{\"txt\": \"a\"}\n", "1 of 2 examples make no sense\n  line 2"),
        ("{\"text\": \"a\"}\n", "would be left"),
        ("{\"prompt\": \"Once upon a time\", \"completion\": \"", "line 1"),
        (talk, "no chat template"),
    ] {
        fs::write(bench.path("train.jsonl"), data).unwrap();
        let ran = bench.run("refused", &["--steps", "2", "--eval-split", "0.5"]);
        assert_eq!(ran.status, 1, "{data}: {}", ran.stderr);
        assert!(ran.stderr.contains(problem), "{data}: {}", ran.stderr);
        assert_eq!(fixture::files_of(&bench.folder.path().join("refused")), [""; 0]);
    }
}
