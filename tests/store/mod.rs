//! The store as a person and as scripts meet it: names instead of files, nothing copied, nothing lost.

mod foreign;
mod hands;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use nfl_models::gguf::{Gguf, Metadata, TensorPlan, Writer};
use serde_json::Value;
use sha2::{Digest, Sha256};
use tempfile::TempDir;

use crate::fixture::{self, Ran, text};

/// The trained model that tells the golden story.
const STORY: &str = "derived/stories260K-llama-F32.gguf";

/// A home folder of the tests' own, a user's folder beside it, and room for files.
pub(super) struct Home {
    folder: TempDir,
}

impl Home {
    pub(super) fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(super) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = fixture::command(arguments);
        command.env("NFL_HOME", self.path("home")).env("HOME", self.path("user"));
        for variable in ["OLLAMA_MODELS", "HF_HOME", "HF_HUB_CACHE", "XDG_CACHE_HOME"] {
            command.env_remove(variable);
        }
        command.current_dir(self.folder.path());
        command
    }

    pub(super) fn run(&self, arguments: &[&str]) -> Ran {
        Ran::of(self.command(arguments))
    }

    pub(super) fn succeed(&self, arguments: &[&str]) -> String {
        self.run(arguments).expect_success()
    }

    /// The hint of a command that fails.
    pub(super) fn hint(&self, arguments: &[&str]) -> String {
        let ran = self.run(arguments);
        assert_ne!(ran.status, 0, "{arguments:?}");
        ran.stderr.split("hint: ").nth(1).unwrap_or_else(|| panic!("{}", ran.stderr)).to_owned()
    }

    pub(super) fn json(&self, arguments: &[&str]) -> Value {
        serde_json::from_str(&self.succeed(arguments)).unwrap()
    }

    /// A copy of the trained model, or None where there is no material.
    pub(super) fn story(&self, name: &str) -> Option<PathBuf> {
        let path = self.path(name);
        fs::write(&path, fs::read(fixture::material(STORY)?).unwrap()).unwrap();
        Some(path)
    }

    /// Whether the model tells the golden story.
    pub(super) fn tells(&self, model: &str) -> bool {
        let golden = fixture::material("oracle/greedy60.txt").unwrap();
        let golden = fs::read_to_string(golden).unwrap();
        let run = ["run", model, "Once upon a time", "--raw", "--temperature", "0"];
        let told = self.succeed(&[&run[..], &["--tokens", "60", "--threads", "1"]].concat());
        format!("Once upon a time{told}").trim() == golden.trim()
    }

    /// Content by file name, after it was made sure that each is called after it.
    pub(super) fn blobs(&self) -> Vec<String> {
        let folder = self.path("home/blobs");
        let names = fixture::files_of(&folder);
        for name in names.iter().filter(|name| name.starts_with("sha256-")) {
            let content = fs::read(folder.join(name)).unwrap();
            assert_eq!(*name, format!("sha256-{}", hex(&content)));
        }
        names
    }
}

pub(super) fn hex(content: &[u8]) -> String {
    nfl::store::Digest::from_bytes(Sha256::digest(content).into()).hex()
}

#[test]
fn a_file_gets_a_name_and_costs_nothing() {
    let home = Home::new();
    let Some(file) = home.story("stories-F32.gguf") else { return };
    home.succeed(&["import", "stories-F32.gguf"]);
    home.succeed(&["import", text(&file), "--name", "Me/Story:Big"]);
    assert!(home.tells("stories:f32") && home.tells("me/story:big"));
    let list = home.json(&["list", "--json"]);
    let models = list["models"].as_array().unwrap();
    assert_eq!(models.len(), 2);
    assert_eq!(models[0]["name"], "Me/Story:Big");
    assert_eq!(models[1]["level"], "F32");
    assert_eq!(models[1]["parameters"], 292_800);
    assert_eq!(models[1]["capabilities"], serde_json::json!(["completion"]));
    assert!(models[1]["last_used"].is_string());
    assert_eq!(models[0]["bytes"], fs::metadata(&file).unwrap().len());
    assert_eq!(home.blobs(), [format!("sha256-{}", hex(&fs::read(&file).unwrap()))]);
    // Other commands know the names as well.
    for command in [
        &["show", "stories:f32"][..],
        &["fit", "stories:f32"],
        &["bench", "stories:f32", "--prompt", "4", "--tokens", "4", "--repeat", "1"],
        &["quantize", "stories:f32", "--level", "q8_0", "--output", "out"],
    ] {
        home.succeed(command);
    }
    assert!(home.hint(&["import", "stories-F32.gguf"]).contains("--overwrite"));
    assert_eq!(home.hint(&["run", "story:f32", "x"]).trim(), "there is stories:f32");
    assert!(home.hint(&["show", "gemma3"]).contains("nfl pull gemma3"));
}

#[test]
fn names_are_given_and_taken() {
    let home = Home::new();
    let Some(file) = home.story("a.gguf") else { return };
    home.succeed(&["import", text(&file), "--name", "a", "--link", "copy"]);
    home.succeed(&["cp", "a", "localhost:5000/me/b:x"]);
    assert!(home.hint(&["cp", "a", "localhost:5000/me/b:x"]).contains("nfl rm"));
    home.succeed(&["cp", "a", "localhost:5000/me/b:x", "--overwrite"]);
    assert!(home.path("home/models/localhost+5000/me/b/x.json").exists());
    let freed = home.json(&["rm", "a", "--json"]);
    assert_eq!(freed["freed_bytes"], 0);
    assert!(home.tells("localhost:5000/me/b:x"));
    // One that is wrong, and nothing is removed.
    assert_eq!(home.run(&["rm", "localhost:5000/me/b:x", "a"]).status, 1);
    let freed = home.json(&["rm", "localhost:5000/me/b:x", "--json"]);
    assert_eq!(freed["freed_bytes"], fs::metadata(&file).unwrap().len());
    assert_eq!(home.blobs(), [""; 0]);
    assert!(file.exists());
    for hostile in ["../../x", "a/../../b", "nul", "a:b:c", "hf.co/a/b.json:x"] {
        let ran = home.run(&["cp", "a", hostile]);
        assert_eq!(ran.status, 2, "{hostile}: {}", ran.stderr);
    }
}

#[test]
fn a_file_that_is_used_in_place_is_watched() {
    let home = Home::new();
    let Some(file) = home.story("a.gguf") else { return };
    home.succeed(&["import", text(&file), "--name", "a", "--link", "in-place"]);
    assert!(home.tells("a"));
    assert_eq!(home.blobs(), [""; 0]);
    fs::write(&file, fs::read(&file).unwrap()).unwrap();
    assert!(home.hint(&["run", "a", "x"]).contains("--overwrite"));
    home.succeed(&["import", text(&file), "--name", "a", "--link", "in-place", "--overwrite"]);
    assert!(home.tells("a"));
    fs::remove_file(&file).unwrap();
    let ran = home.run(&["run", "a", "x"]);
    assert!(ran.stderr.contains("is gone since it was imported"), "{}", ran.stderr);
}

/// The first half of the tensors in one file, the second in another, as llama-gguf-split writes them.
pub(super) fn split(model: &Path, folder: &Path) -> PathBuf {
    let gguf = Gguf::open(model).unwrap();
    let tensors = gguf.tensors();
    let middle = tensors.len() / 2;
    let path = |number: usize| folder.join(format!("story-F32-{number:05}-of-00002.gguf"));
    for (number, part) in [&tensors[..middle], &tensors[middle..]].into_iter().enumerate() {
        let mut metadata = Metadata::new();
        if number == 0 {
            for (key, value) in gguf.metadata().iter() {
                metadata.set(key, value.clone());
            }
        }
        metadata.set("split.no", number as u16);
        metadata.set("split.count", 2_u16);
        metadata.set("split.tensors.count", tensors.len() as i32);
        let plan = |tensor: &nfl_models::gguf::TensorInfo| TensorPlan {
            name: tensor.name.clone(),
            dimensions: tensor.dimensions.clone(),
            tensor_type: tensor.tensor_type,
        };
        let file = fs::File::create(path(number + 1)).unwrap();
        let mut writer = Writer::new(file, &metadata, part.iter().map(plan).collect()).unwrap();
        for tensor in part {
            writer.write(gguf.data(tensor)).unwrap();
            writer.finish_tensor().unwrap();
        }
        writer.finish().unwrap();
    }
    path(2)
}

#[test]
fn a_split_model_runs_from_its_blobs() {
    let home = Home::new();
    let Some(file) = home.story("a.gguf") else { return };
    let second = split(&file, home.folder.path());
    home.succeed(&["import", text(&second), "--link", "copy"]);
    fs::remove_file(&second).unwrap();
    assert!(home.tells("story:f32"));
    assert_eq!(home.blobs().len(), 2);
    // A store can be moved.
    fs::rename(home.path("home"), home.path("moved")).unwrap();
    fs::rename(home.path("moved"), home.path("home")).unwrap();
    let modelfile = home.succeed(&["show", "story:f32", "--modelfile"]);
    fs::write(home.path("M"), modelfile).unwrap();
    home.succeed(&["create", "again", "-f", "M"]);
    assert_eq!(home.blobs().len(), 2);
    assert!(home.tells("again"));
    home.succeed(&["rm", "again", "story:f32"]);
    assert_eq!((home.blobs().len(), fixture::files_of(&home.path("home/views")).len()), (0, 0));
}

const PIRATE: &str = "FROM ./a.gguf\nPARAMETER temperature 0\nPARAMETER num_predict 9\nPARAMETER stop Lily\n\
    PARAMETER stop \"a b \"\nSYSTEM \"\"\"You are\n\"a\" pirate.\"\"\"\nTEMPLATE {{ .System }} {{ .Prompt }}\n\
    MESSAGE user Ahoy?\nMESSAGE assistant Ahoy!\nLICENSE MIT\nREQUIRES 0.1.0\n";

#[test]
fn a_modelfile_goes_round() {
    let home = Home::new();
    if home.story("a.gguf").is_none() {
        return;
    }
    fs::write(home.path("Modelfile"), PIRATE).unwrap();
    let pirate = home.json(&["create", "pirate", "--json"]);
    fs::write(home.path("M"), home.succeed(&["show", "pirate", "--modelfile"])).unwrap();
    let again = home.json(&["create", "again", "-f", "M", "--json"]);
    assert_eq!(pirate["digest"], again["digest"]);
    fs::write(home.path("N"), "FROM pirate\nPARAMETER top_k 3\nSYSTEM Nobody.\n").unwrap();
    home.succeed(&["create", "heir", "-f", "N"]);
    let shown = home.json(&["show", "heir", "--json"]);
    let model = &shown["model"];
    assert_eq!(model["system"], "Nobody.");
    assert_eq!(model["template"], "{{ .System }} {{ .Prompt }}");
    assert_eq!(model["parameters_set"]["top_k"], 3);
    assert_eq!(model["parameters_set"]["stop"], serde_json::json!(["Lily", "a b "]));
    assert_eq!(model["messages"][1]["content"], "Ahoy!");
    // Its temperature, its stop and its number of tokens hold.
    let first = home.succeed(&["run", "pirate", "Once upon a time"]);
    assert_eq!(first, home.succeed(&["run", "pirate", "Once upon a time"]));
    let more = home.succeed(&["run", "pirate", "Once upon a time", "--tokens", "60"]);
    assert!(more.len() > first.len() && !more.contains("Lily"), "{more:?}");
    // Replacing a model frees what only the old one had.
    let blobs = home.blobs().len();
    fs::write(home.path("N"), "FROM pirate\nSYSTEM Somebody.\n").unwrap();
    home.succeed(&["create", "heir", "-f", "N"]);
    assert_eq!(home.blobs().len(), blobs - 1);
    fs::create_dir(home.path("empty")).unwrap();
    for (text, problem) in [
        ("FROM nobody", "no such model"),
        ("FROM ./nobody.gguf", "nobody.gguf"),
        ("FROM pirate\nFROM heir", "two models"),
        ("FROM pirate\nPARAMETER heat 1", "line 2"),
        ("FROM pirate\nADAPTER ./a.gguf", "it is a model"),
        ("FROM ./empty", "no weights"),
    ] {
        fs::write(home.path("N"), text).unwrap();
        let ran = home.run(&["create", "x", "-f", "N"]);
        assert_eq!(ran.status, 1, "{text}");
        assert!(ran.stderr.contains(problem), "{text}: {}", ran.stderr);
    }
    assert_eq!(home.run(&["show", "x"]).status, 1);
}

/// A LoRA adapter for the trained model that changes what it says.
fn adapter(path: &Path) {
    let mut metadata = Metadata::new();
    metadata.set("general.type", "adapter");
    metadata.set("general.architecture", "llama");
    metadata.set("adapter.type", "lora");
    metadata.set("adapter.lora.alpha", 4.0_f32);
    let plan = |end: &str, dimensions: [u64; 2]| TensorPlan {
        name: format!("blk.1.attn_q.weight.{end}"),
        dimensions: dimensions.to_vec(),
        tensor_type: nfl_models::TensorType::F32,
    };
    let plans = vec![plan("lora_a", [64, 4]), plan("lora_b", [4, 64])];
    let mut writer = Writer::new(fs::File::create(path).unwrap(), &metadata, plans).unwrap();
    for seed in [1_u32, 7] {
        let value = |index: u32| ((index * 37 + seed) % 23) as f32 / 11.0 - 1.0;
        let bytes: Vec<u8> = (0..256).flat_map(|index| value(index).to_le_bytes()).collect();
        writer.write(&bytes).unwrap();
        writer.finish_tensor().unwrap();
    }
    writer.finish().unwrap();
}

#[test]
fn an_adapter_goes_with_its_model() {
    let home = Home::new();
    if home.story("a.gguf").is_none() {
        return;
    }
    adapter(&home.path("lora.gguf"));
    fs::write(home.path("Modelfile"), "FROM ./a.gguf\nADAPTER ./lora.gguf\n").unwrap();
    home.succeed(&["create", "adapted"]);
    let story = |model: &str, more: &[&str]| {
        let run =
            ["run", model, "Once upon a time", "--raw", "--temperature", "0", "--threads", "1"];
        home.succeed(&[&run[..], &["--tokens", "40"], more].concat())
    };
    let adapted = story("adapted", &[]);
    assert_eq!(adapted, story("./a.gguf", &["--adapter", "lora.gguf"]));
    assert_ne!(adapted, story("./a.gguf", &[]));
}

#[test]
fn a_checkpoint_becomes_a_model() {
    let home = Home::new();
    let Some(checkpoint) = fixture::material("derived/stories260K-hf-llama") else { return };
    fs::write(home.path("Modelfile"), format!("FROM {}\n", checkpoint.display())).unwrap();
    home.succeed(&["create", "story", "--level", "f32", "--quiet"]);
    assert!(home.tells("story"));
    assert_eq!(fixture::files_of(&home.path("home/partial")), [""; 0]);
    assert_eq!(home.blobs().len(), 1);
}
