//! Conversions that must not succeed, or are stopped: each ends in its error, and nothing is left
//! behind.

use crate::convert_support::{Reference, material, on};
use crate::convert_variants::variants;
use nfl_converters::checkpoint::Checkpoint;
use nfl_converters::{ConvertError, Order, Step, convert, requantize};
use nfl_models::gguf::{Array, Gguf, GgufError, Metadata, TensorInfo, TensorPlan, Writer};
use nfl_models::{Hint, Level};
use std::fs::{self, File};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

/// A variant's checkpoint with a tokenizer, in a folder that goes with the guard.
struct Fixture {
    root: tempfile::TempDir,
    folder: PathBuf,
}

impl Fixture {
    fn new(name: &str) -> Option<Self> {
        let tokenizer = material("derived/stories260K-hf-llama/tokenizer.model")?;
        let root = tempfile::tempdir().unwrap();
        let all = variants();
        let variant = all.iter().find(|variant| variant.name == name).unwrap();
        let folder = variant.write(root.path());
        fs::copy(tokenizer, folder.join("tokenizer.model")).unwrap();
        Some(Self { root, folder })
    }

    fn output(&self) -> PathBuf {
        self.root.path().join("out")
    }

    fn order(&self, levels: &[Level]) -> Order {
        Order::new(levels.to_vec(), self.output(), "model")
    }

    fn convert(&self, levels: &[Level]) -> Result<(), ConvertError> {
        let checkpoint = Checkpoint::open(&self.folder)?;
        convert(&checkpoint, &self.order(levels), &Reference, &mut on).map(|_| ())
    }

    /// Names in the output folder.
    fn left(&self) -> Vec<String> {
        names(&self.output())
    }

    fn weights(&self) -> PathBuf {
        self.folder.join("model.safetensors")
    }

    /// Replaces a text in the header of the weights by one of the same length.
    fn rename(&self, from: &str, to: &str) {
        assert_eq!(from.len(), to.len());
        let mut bytes = fs::read(self.weights()).unwrap();
        let at = bytes.windows(from.len()).position(|part| part == from.as_bytes()).unwrap();
        bytes[at..at + to.len()].copy_from_slice(to.as_bytes());
        fs::write(self.weights(), bytes).unwrap();
    }

    fn configure(&self, from: &str, to: &str) {
        let path = self.folder.join("config.json");
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.contains(from), "{text}");
        fs::write(path, text.replace(from, to)).unwrap();
    }
}

fn names(folder: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(folder) else { return vec![] };
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

/// Stops a conversion at the first step that `stop` picks; nothing may be left.
fn interrupted_at(stop: impl Fn(&Step<'_>) -> bool) {
    let Some(fixture) = Fixture::new("biased") else { return };
    let checkpoint = Checkpoint::open(&fixture.folder).unwrap();
    let mut on_step = |step: Step<'_>| {
        if stop(&step) { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    let order = fixture.order(&[Level::F32, Level::Q8_0]);
    let error = convert(&checkpoint, &order, &Reference, &mut on_step).unwrap_err();
    assert!(matches!(error, ConvertError::Interrupted), "{error}");
    assert_eq!(fixture.left(), [""; 0]);
}

#[test]
fn an_interrupted_conversion_leaves_nothing() {
    interrupted_at(|step| matches!(step, Step::Started { .. }));
    interrupted_at(|step| matches!(step, Step::Progress { .. }));
    interrupted_at(|step| matches!(step, Step::Tensor { index: 7, .. }));
    interrupted_at(|step| matches!(step, Step::Progress { done, total } if done == total));
}

#[test]
fn an_output_that_exists_is_kept_unless_told_otherwise() {
    let Some(fixture) = Fixture::new("biased") else { return };
    fs::create_dir(fixture.output()).unwrap();
    let path = fixture.output().join("model-F16.gguf");
    fs::write(&path, "mine").unwrap();
    let error = fixture.convert(&[Level::Q8_0, Level::F16]).unwrap_err();
    assert!(matches!(&error, ConvertError::Exists { path: found } if *found == path), "{error}");
    assert_eq!(fs::read(&path).unwrap(), b"mine");
    assert_eq!(fixture.left(), ["model-F16.gguf"]);
    let checkpoint = Checkpoint::open(&fixture.folder).unwrap();
    let order = Order { overwrite: true, ..fixture.order(&[Level::F16]) };
    convert(&checkpoint, &order, &Reference, &mut on).unwrap();
    assert_eq!(&fs::read(&path).unwrap()[..4], b"GGUF");
}

#[test]
fn an_output_that_appears_meanwhile_is_kept() {
    let Some(fixture) = Fixture::new("biased") else { return };
    let checkpoint = Checkpoint::open(&fixture.folder).unwrap();
    let path = fixture.output().join("model-F16.gguf");
    let mut on_step = |step: Step<'_>| {
        if matches!(step, Step::Started { .. }) {
            fs::write(&path, "mine").unwrap();
        }
        ControlFlow::Continue(())
    };
    let order = fixture.order(&[Level::F16]);
    let error = convert(&checkpoint, &order, &Reference, &mut on_step).unwrap_err();
    assert!(matches!(error, ConvertError::Exists { .. }), "{error}");
    assert_eq!(fs::read(&path).unwrap(), b"mine");
    assert_eq!(fixture.left(), ["model-F16.gguf"]);
}

#[cfg(unix)]
#[test]
fn an_output_that_is_the_input_is_refused_even_when_overwriting() {
    let Some(fixture) = Fixture::new("biased") else { return };
    fixture.convert(&[Level::F32]).unwrap();
    let path = fixture.output().join("model-F32.gguf");
    let before = fs::read(&path).unwrap();
    let source = Gguf::open(&path).unwrap();
    // the same folder under another name
    let other = fixture.root.path().join("other");
    std::os::unix::fs::symlink(fixture.output(), &other).unwrap();
    for output in [fixture.output(), other] {
        let order = Order { overwrite: true, output, ..fixture.order(&[Level::F16, Level::F32]) };
        let error = requantize(&source, &order, &Reference, &mut on).unwrap_err();
        assert!(matches!(error, ConvertError::IsInput { .. }), "{error}");
    }
    assert_eq!(fs::read(&path).unwrap(), before);
    assert_eq!(fixture.left(), ["model-F32.gguf"]);
}

#[test]
fn a_source_that_shrinks_while_it_is_quantised_is_an_error() {
    // copied as it is stored, and read as values
    for level in [Level::F32, Level::Q8_0] {
        let Some(fixture) = Fixture::new("biased") else { return };
        fixture.convert(&[Level::F32]).unwrap();
        let path = fixture.output().join("model-F32.gguf");
        let source = Gguf::open(&path).unwrap();
        let mut on_step = |step: Step<'_>| {
            if matches!(step, Step::Started { .. }) {
                File::options().write(true).open(&path).unwrap().set_len(100).unwrap();
            }
            ControlFlow::Continue(())
        };
        let order = Order { name: "other".to_owned(), ..fixture.order(&[level]) };
        let error = requantize(&source, &order, &Reference, &mut on_step).unwrap_err();
        assert!(
            matches!(error, ConvertError::Gguf(GgufError::Shrunk { found: 100, .. })),
            "{error}"
        );
        assert!(error.hint().unwrap().contains("leave the file alone"));
        assert_eq!(fixture.left(), ["model-F32.gguf"]);
    }
}

#[test]
fn metadata_that_are_no_numbers_are_kept_as_they_are() {
    let root = tempfile::tempdir().unwrap();
    let (path, bits) = (root.path().join("nan.gguf"), 0x7fc0_1234);
    let mut metadata = Metadata::new();
    metadata.set("general.architecture", "llama");
    metadata.set("odd", vec![1.0, f32::from_bits(bits)]);
    Writer::new(File::create(&path).unwrap(), &metadata, vec![]).unwrap().finish().unwrap();
    let source = Gguf::open(&path).unwrap();
    let order = Order::new(vec![Level::F16], root.path().join("out"), "model");
    let receipts = requantize(&source, &order, &Reference, &mut on).unwrap();
    let written = Gguf::open(&receipts[0].path).unwrap();
    let Some(Array::F32(values)) = written.metadata().array("odd") else { panic!("no array") };
    assert_eq!(values[1].to_bits(), bits);
}

/// Overwrites one value in the middle of the data of the F32 checkpoint; the fourth tensor of 64 ×
/// 64 is `attn_output`.
fn poisoned(value: f32, level: Level) -> Option<(ConvertError, Vec<String>)> {
    let fixture = Fixture::new("biased")?;
    let mut bytes = fs::read(fixture.weights()).unwrap();
    let header = bytes[..8].try_into().map(u64::from_le_bytes).unwrap() as usize;
    let header: serde_json::Value = serde_json::from_slice(&bytes[8..8 + header]).unwrap();
    let entry = &header["model.layers.1.mlp.down_proj.weight"]["data_offsets"][0];
    let data = 8 + header.to_string().len();
    let at = data + entry.as_u64().unwrap() as usize + 4 * 1000;
    bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
    fs::write(fixture.weights(), bytes).unwrap();
    let error = fixture.convert(&[level]).unwrap_err();
    Some((error, fixture.left()))
}

#[test]
fn weights_that_are_not_finite_are_named() {
    for (value, level) in [(f32::NAN, Level::F32), (f32::NEG_INFINITY, Level::Q8_0)] {
        let Some((error, left)) = poisoned(value, level) else { return };
        assert_eq!(error.to_string(), format!("blk.1.ffn_down.weight: value 1000 is {value}"));
        assert_eq!(left, [""; 0]);
    }
}

#[test]
fn weights_beyond_f16_are_named() {
    for (value, level) in [(70_000.0, Level::F16), (1e10, Level::Q8_0)] {
        let Some((error, left)) = poisoned(value, level) else { return };
        let text = format!("blk.1.ffn_down.weight: values too large for {level}");
        assert_eq!(error.to_string(), text);
        assert_eq!(error.hint().unwrap(), "convert to F32 or BF16, whose range is wider");
        assert_eq!(left, [""; 0]);
    }
}

#[test]
fn tensors_must_be_those_of_the_architecture() {
    let cases = [
        ("1.mlp.up_proj.weight", "1.mlp.up_prox.weight", "tensor not known to this architecture"),
        ("1.mlp.up_proj.weight", "9.mlp.up_proj.weight", "1 missing (blk.1.ffn_up.weight)"),
        ("1.mlp.up_proj.weight", "0.mlp.up_proj.weight", "0.mlp.up_proj.weight"),
        ("layers.1.mlp.up_proj.bias", "layers.1.mlp.xp_proj.bias", "not known"),
        ("model.norm.weight", "model.nxrm.weight", "not known"),
    ];
    for (from, to, text) in cases {
        let Some(fixture) = Fixture::new("biased") else { return };
        fixture.rename(from, to);
        let error = fixture.convert(&[Level::F32]).unwrap_err();
        assert!(error.to_string().contains(text), "{from} → {to}: {error}");
        assert_eq!(fixture.left(), [""; 0]);
    }
}

#[test]
fn the_configuration_decides_what_must_be_there() {
    let cases = [
        ("biased", r#""intermediate_size":128"#, r#""intermediate_size":127"#, "misshaped"),
        ("biased", r#""vocab_size":512"#, r#""vocab_size":600"#, "misshaped"),
        ("biased", r#""num_hidden_layers":2"#, r#""num_hidden_layers":3"#, "missing"),
        ("biased", r#""num_attention_heads":4"#, r#""num_attention_heads":5"#, "divide among"),
        ("Test-Llama-3.2-1B-Instruct", "true", "false", "missing (output.weight)"),
        ("old-llama", r#""vocab_size""#, r#""attention_bias":true,"vocab_size""#, "missing"),
        ("Mixtral-8x7B-v0.1", r#"local_experts":8"#, r#"local_experts":9"#, "missing tensor"),
        ("Mixtral-8x7B-v0.1", r#"local_experts":8"#, r#"local_experts":7"#, "not known"),
        ("biased", "LlamaForCausalLM", "LamaForCausalLM", "unknown architecture: LamaForCausalLM"),
        ("biased", r#""num_hidden_layers":2"#, r#""num_hidden_layers":-2"#, "num_hidden_layers"),
        ("biased", r#""num_hidden_layers":2"#, r#""num_hidden_layers":2e9"#, "num_hidden_layers"),
    ];
    for (variant, from, to, text) in cases {
        let Some(fixture) = Fixture::new(variant) else { return };
        fixture.configure(from, to);
        let error = fixture.convert(&[Level::F32]).unwrap_err();
        assert!(error.to_string().contains(text), "{variant}: {to}: {error}");
        assert_eq!(fixture.left(), [""; 0], "{to}");
    }
}

#[test]
fn what_could_not_run_is_not_made() {
    let Some(fixture) = Fixture::new("biased") else { return };
    fixture.configure(r#""rms_norm_eps":1e-6"#, r#""rms_norm_eps":-1"#);
    let checkpoint = Checkpoint::open(&fixture.folder).unwrap();
    let order = fixture.order(&[Level::F32, Level::Q8_0]);
    for order in [Order { vocab_only: true, ..order.clone() }, order] {
        // nothing is begun: the very first file would show
        let mut on_step = |step: Step<'_>| {
            assert!(!matches!(step, Step::Started { .. }));
            ControlFlow::Continue(())
        };
        let error = convert(&checkpoint, &order, &Reference, &mut on_step).unwrap_err();
        let ConvertError::Refused(refusal) = &error else { panic!("{error}") };
        let text = "metadata llama.attention.layer_norm_rms_epsilon: -1 (must be zero or more)";
        assert_eq!(error.to_string(), format!("the result could not run: {text}"));
        assert_eq!(error.hint(), refusal.hint());
        assert!(error.hint().is_some());
        assert_eq!(fixture.left(), [""; 0]);
    }
}

#[test]
fn a_file_that_could_not_run_can_still_be_quantised() {
    let Some(fixture) = Fixture::new("biased") else { return };
    fixture.convert(&[Level::F32]).unwrap();
    let source = Gguf::open(&fixture.output().join("model-F32.gguf")).unwrap();
    let mut metadata = source.metadata().clone();
    metadata.set("llama.attention.layer_norm_rms_epsilon", -1.0_f32);
    let plan = |tensor: &TensorInfo| TensorPlan {
        name: tensor.name.clone(),
        dimensions: tensor.dimensions.clone(),
        tensor_type: tensor.tensor_type,
    };
    let broken = fixture.root.path().join("broken.gguf");
    let plans = source.tensors().iter().map(plan).collect();
    let mut writer = Writer::new(File::create(&broken).unwrap(), &metadata, plans).unwrap();
    for tensor in source.tensors() {
        writer.write(source.data(tensor)).unwrap();
        writer.finish_tensor().unwrap();
    }
    writer.finish().unwrap();
    let broken = Gguf::open(&broken).unwrap();
    assert!(nfl_models::preflight(&broken).is_err());
    requantize(&broken, &fixture.order(&[Level::Q8_0]), &Reference, &mut on).unwrap();
}

#[test]
fn names_of_outputs_are_file_names() {
    let Some(fixture) = Fixture::new("biased") else { return };
    let checkpoint = Checkpoint::open(&fixture.folder).unwrap();
    for name in ["", "..", "a/b", "/a", "a\\b", "a\0b"] {
        let order = Order { name: name.to_owned(), ..fixture.order(&[Level::F32]) };
        let error = convert(&checkpoint, &order, &Reference, &mut on).unwrap_err();
        assert!(matches!(error, ConvertError::Name { .. }), "{name}: {error}");
    }
    let error = fixture.convert(&[]).unwrap_err();
    assert!(matches!(error, ConvertError::NoLevels), "{error}");
}

#[test]
fn what_a_killed_conversion_left_is_swept_away_but_not_what_a_living_one_holds() {
    let Some(fixture) = Fixture::new("biased") else { return };
    fs::create_dir(fixture.output()).unwrap();
    let held = fixture.output().join(".nfl-model-F16.gguf.live.partial");
    let holder = File::create(&held).unwrap();
    holder.lock().unwrap();
    for stale in [".nfl-model-F16.gguf.dead.partial", ".nfl-other-F16.gguf.dead.partial"] {
        fs::write(fixture.output().join(stale), "half").unwrap();
    }
    fixture.convert(&[Level::F16]).unwrap();
    let mut left = fixture.left();
    left.sort();
    let expected =
        [".nfl-model-F16.gguf.live.partial", ".nfl-other-F16.gguf.dead.partial", "model-F16.gguf"];
    assert_eq!(left, expected);
}

/// Only for the two tests below, which run this test in a process of its own.
#[test]
fn child() {
    let Some(folder) = std::env::var_os("NFL_TEST_CONVERT") else { return };
    let root = PathBuf::from(folder);
    let stays = std::env::var_os("NFL_TEST_STAY").is_some();
    let checkpoint = Checkpoint::open(&root.join("biased")).unwrap();
    let order = Order::new(vec![Level::F32], root.join("out"), "model");
    let mut on_step = |step: Step<'_>| {
        if stays && matches!(step, Step::Tensor { .. }) {
            std::thread::sleep(Duration::from_mins(1));
        }
        ControlFlow::Continue(())
    };
    match convert(&checkpoint, &order, &Reference, &mut on_step) {
        Ok(_) => eprintln!("converted"),
        Err(error) => eprintln!("error: {error}; hint: {:?}", error.hint()),
    }
}

/// This executable, running `child` alone.
fn child_command(program: &str, root: &Path) -> Command {
    let mut command = Command::new(program);
    command.env("NFL_TEST_CONVERT", root);
    command
}

const CHILD: [&str; 3] = ["--exact", "convert_failures::child", "--nocapture"];

#[test]
fn a_killed_conversion_leaves_no_file_under_the_final_name() {
    let Some(fixture) = Fixture::new("biased") else { return };
    let executable = std::env::current_exe().unwrap();
    let mut child = child_command(executable.to_str().unwrap(), fixture.root.path())
        .env("NFL_TEST_STAY", "1")
        .args(CHILD)
        .spawn()
        .unwrap();
    let started = Instant::now();
    while fixture.left().is_empty() && started.elapsed() < Duration::from_secs(20) {
        std::thread::sleep(Duration::from_millis(10));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    let left = fixture.left();
    assert!(left.len() == 1 && left[0].ends_with(".partial"), "{left:?}");
    fixture.convert(&[Level::F32]).unwrap();
    assert_eq!(fixture.left(), ["model-F32.gguf"]);
}

/// A file system of 200 KiB, mounted for the child alone, on which the file of 600 KiB ends in the
/// middle.
#[test]
fn a_full_disk_leaves_nothing() {
    let Some(fixture) = Fixture::new("biased") else { return };
    fs::create_dir(fixture.output()).unwrap();
    let script =
        "mount -t tmpfs -o size=200k none \"$1\"/out || exit 77; \"$2\" $3; ls -A \"$1\"/out";
    let executable = std::env::current_exe().unwrap();
    let output = child_command("unshare", fixture.root.path())
        .args(["--user", "--map-root-user", "--mount", "sh", "-c", script, "sh"])
        .args([fixture.root.path(), &executable])
        .arg(CHILD.join(" "))
        .output();
    let Ok(output) = output.map_err(|error| eprintln!("skipped: unshare: {error}")) else { return };
    let (told, listed) =
        (String::from_utf8(output.stderr).unwrap(), String::from_utf8(output.stdout).unwrap());
    if !listed.contains("running 1 test") {
        eprintln!("skipped: no mount of one's own: {told}");
        return;
    }
    assert!(told.contains("error: cannot write") && told.contains("No space left"), "{told}");
    assert!(told.contains("make room"), "{told}");
    assert!(!listed.contains("partial") && !listed.contains("gguf"), "{listed}");
}
