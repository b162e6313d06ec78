//! Files whose structure is right and whose contents would make llama.cpp abort, hang or compute nonsense.

use std::path::PathBuf;

use nfl_models::gguf::{Text, Value};

use super::{Draft, SHORT, Scene, check};
use crate::fixture::{command, text};

/// `run` refuses with these words before llama.cpp sees the file, `show` shows the file with the same words, and
/// `quantize`, to which they matter less, ends in one way or the other.
#[track_caller]
fn refused(scene: &Scene, case: &str, change: impl FnOnce(&mut Draft), words: &str) {
    let path = made(scene, change);
    let ran = scene.check(case, "run", &path, Err(words));
    assert!(!ran.stderr.contains("engine's process died"), "{case}: {}", ran.stderr);
    let ran = scene.check(case, "show", &path, Ok(()));
    let line = ran.stdout.lines().find(|line| line.starts_with("cannot run: "));
    assert!(line.is_some_and(|line| line.contains(words)), "{case}: {}", ran.stdout);
    let output = scene.output();
    let quantize = ["quantize", text(&path), "--level", "q8_0", "--output", text(&output)];
    let ran = super::finish(case, super::confined(&quantize));
    let expected = if ran.status == 0 { Ok(()) } else { Err("") };
    super::judge(case, ran, expected);
    let files = crate::fixture::files_of(&output);
    assert!(files.iter().all(|name| name == "made-Q8_0.gguf"), "{case}: {files:?}");
    assert_eq!(files.len(), usize::from(expected.is_ok()), "{case}: {files:?}");
    let _ = std::fs::remove_dir_all(output);
}

/// The scene's model with a change.
fn made(scene: &Scene, change: impl FnOnce(&mut Draft)) -> PathBuf {
    let mut draft = scene.draft();
    change(&mut draft);
    let path = scene.path("made.gguf");
    draft.write(&path);
    path
}

/// An entry of the metadata, a value for it, and what is said about it.
type Entry = (&'static str, Value, &'static str);

fn entries_refused(scene: &Scene, entries: Vec<Entry>) {
    for (key, value, words) in entries {
        refused(scene, words, |draft| draft.metadata.set(key, value), words);
    }
}

fn number(value: u32) -> Value {
    value.into()
}

/// Cases 11 and 14, and what runs only beside a model (19, 20).
#[test]
fn entries_that_make_no_model() {
    let epsilon = "llama.attention.layer_norm_rms_epsilon";
    let entries = vec![
        ("llama.block_count", number(0), "llama.block_count: 0"),
        ("llama.block_count", number(4_000_000_000), "llama.block_count: 4000000000"),
        ("llama.embedding_length", number(0), "llama.embedding_length: 0"),
        ("llama.context_length", number(2_000_000_000), "llama.context_length: 2000000000"),
        ("llama.attention.head_count", number(0), "head_count: 0"),
        ("llama.attention.head_count_kv", number(0), "head_count_kv: 0"),
        ("llama.attention.head_count_kv", number(3), "head_count_kv: 3"),
        (epsilon, (-1_f32).into(), "epsilon: -1"),
        ("llama.rope.dimension_count", number(15), "rope.dimension_count: 15"),
        ("llama.rope.scaling.type", Value::from("cubic"), "rope.scaling.type: cubic"),
        ("tokenizer.ggml.scores", vec![0_f32; 9].into(), "scores: 9 entries"),
        ("tokenizer.ggml.tokens", vec![1_i32; 512].into(), "no list of strings"),
        ("general.architecture", Value::from("clip"), "image projector"),
        ("general.type", Value::from("adapter"), "adapter"),
    ];
    let scene = Scene::dense();
    entries_refused(&scene, entries);
    let no_architecture = |draft: &mut Draft| drop(draft.metadata.remove("general.architecture"));
    refused(&scene, "nothing", no_architecture, "no architecture");
    let used = "llama.expert_used_count";
    let list = |second: u32| Value::from(vec![2, second]);
    let entries = vec![
        ("llama.expert_count", number(1_000_000_000), "llama.expert_count: 1000000000"),
        (used, number(99), "99 (there are 4 experts)"),
        (used, number(0), "at least 1 of 4"),
        (used, list(3), "must be one for all blocks"),
        (used, list(4_000_000_000), "4000000000 (there are 4"),
        ("llama.expert_group_count", number(3), "must divide the 4 experts"),
    ];
    entries_refused(&Scene::with_experts(), entries);
}

/// Errors that llama.cpp itself finds come back as such, not as a death.
#[test]
fn what_llama_cpp_refuses_by_itself() {
    let scene = Scene::dense();
    for (key, value, words) in [
        ("general.architecture", Value::from("nonesuch"), "nonesuch"),
        ("llama.block_count", number(3), "blk.2."),
        ("llama.block_count", number(1), "wrong number of tensors"),
        ("llama.feed_forward_length", number(96), "wrong shape"),
        ("tokenizer.ggml.model", Value::from("nonesuch"), "nonesuch"),
    ] {
        let path = made(&scene, |draft| draft.metadata.set(key, value));
        let run = [&["run", text(&path), "hi"], SHORT].concat();
        let ran = super::finish(words, command(&run));
        assert_eq!((ran.status, ran.stdout.as_str()), (1, ""), "{words}: {}", ran.stderr);
        let stderr = ran.stderr;
        assert!(stderr.starts_with("error: ") && stderr.contains(words), "{words}: {stderr}");
        assert!(!stderr.contains("died"), "{words}: {stderr}");
    }
}

fn token(draft: &mut Draft, index: usize, token: impl Into<Text>) {
    let mut tokens = draft.tokens();
    tokens[index] = token.into();
    draft.metadata.set("tokenizer.ggml.tokens", tokens);
}

/// Cases 12 and 13: vocabularies that a model may not have.
#[test]
fn vocabularies_that_cannot_be() {
    let scene = Scene::dense();
    let fewer = |draft: &mut Draft| {
        let tokens = draft.tokens()[..511].to_vec();
        draft.metadata.set("tokenizer.ggml.tokens", tokens);
    };
    refused(&scene, "11 fewer tokens", fewer, "511 tokens, 512 rows");
    let twins = |draft: &mut Draft| {
        let twin = format!("{}\0x", draft.tokens()[300]);
        token(draft, 301, twin);
    };
    refused(&scene, "12 the same before a zero", twins, "tokens 300 and 301 are the same");
    let merges = |draft: &mut Draft| {
        draft.metadata.set("tokenizer.ggml.model", "gpt2");
        draft.metadata.set("tokenizer.ggml.merges", vec![Text::from("to nowhere")]);
    };
    refused(&scene, "13 merges", merges, "merge 0 gives no token: \"to nowhere\"");
}

/// Case 12: strange texts that a model may have run, and are shown harmless.
#[test]
fn strange_texts() {
    let scene = Scene::dense();
    let tokens: [(&str, Text); 4] = [
        ("zero byte", "zz9\0b\0".into()),
        ("not UTF-8", Text::from_bytes([0xC0, 0xFF, 0x80])),
        ("a megabyte", "long".repeat(1 << 18).into()),
        ("empty", "".into()),
    ];
    for (case, text) in tokens {
        strange(&scene, case, |draft| token(draft, 300, text));
    }
    for (key, value) in [
        ("tokenizer.ggml.eos_token_id", Value::from(9_999_u32)),
        ("general.name", "\x1b]0;title\x07".into()),
        ("general.name", Value::String(Text::from_bytes([0xFF]))),
        ("general.\x1b[2J", "key".into()),
    ] {
        strange(&scene, key, |draft| draft.metadata.set(key, value));
    }
}

fn strange(scene: &Scene, case: &str, change: impl FnOnce(&mut Draft)) {
    let path = made(scene, change);
    scene.check(case, "run", &path, Ok(()));
    for options in [&["--metadata", "--tensors"][..], &["--json"]] {
        let ran = check(case, &[&["show", text(&path)], options].concat(), Ok(()));
        let is_bad = |c: char| c.is_control() && c != '\n';
        assert!(!ran.stdout.contains(is_bad), "{case}: {:?}", ran.stdout);
    }
}

/// Case 22: weights that are no numbers never end in a reply, whatever chooses the tokens, and are not quantised.
#[test]
fn weights_that_are_not_finite() {
    for (name, scene) in [("dense", Scene::dense()), ("experts", Scene::with_experts())] {
        for tensor in ["blk.0.attn_q.weight", "output.weight", "blk.1.ffn_gate_inp.weight"] {
            for value in [f32::NAN, f32::INFINITY] {
                let case = format!("22 {name}, {tensor}: {value}");
                poisoned(&scene, &case, tensor, value);
            }
        }
    }
}

fn poisoned(scene: &Scene, case: &str, tensor: &str, value: f32) {
    let mut draft = scene.draft();
    if !draft.tensors.iter().any(|(plan, _)| plan.name == tensor) {
        return;
    }
    // The row of one token: everything else is as it was.
    (64..128).for_each(|place| draft.poison(tensor, place, value));
    let path = scene.path("poisoned.gguf");
    draft.write(&path);
    for sampling in [
        &["--temperature", "0"][..],
        &["--temperature", "1"],
        &["--temperature", "1", "--top-k", "0"],
        &["--temperature", "0.5", "--repeat-penalty", "1.3"],
    ] {
        let run = [&["run", text(&path), "hi"], SHORT, sampling].concat();
        check(case, &run, Err("values that are not numbers"));
    }
    scene.check(case, "quantize", &path, Err(tensor));
}
