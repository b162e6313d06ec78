//! Checkpoints that lie, through `nfl convert`.

use std::path::Path;

use super::{DENSE, EXPERTS, Scene};

/// `nfl convert` of the scene's checkpoint, in which some files have been replaced, must fail with these words.
#[track_caller]
fn refused(case: &str, files: &[(&str, &[u8])], words: &str) {
    let scene = Scene::dense();
    for (name, bytes) in files {
        std::fs::write(scene.checkpoint().join(name), bytes).unwrap();
    }
    scene.check(case, "convert", &scene.checkpoint(), Err(words));
}

/// The weights of the scene's checkpoint, changed.
#[track_caller]
fn weights_refused(case: &str, change: impl FnOnce(&mut Vec<u8>), words: &str) {
    let mut bytes = std::fs::read(Scene::dense().checkpoint().join(WEIGHTS)).unwrap();
    change(&mut bytes);
    refused(case, &[(WEIGHTS, &bytes)], words);
}

const WEIGHTS: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";

/// Cases 24 to 27.
#[test]
fn weight_files() {
    let length =
        |value: u64| move |bytes: &mut Vec<u8>| bytes[..8].copy_from_slice(&value.to_le_bytes());
    weights_refused("24 endless header", length(1 << 63), "header length: 9223372036854775808");
    weights_refused("24 header beyond the file", length(90_000_000), "header length: 90000000");
    weights_refused(
        "24 cut",
        |bytes| bytes.truncate(bytes.len() - 1),
        "bytes of data where the tensors take",
    );
    weights_refused("24 empty", Vec::clear, "0 bytes, too short");
    weights_refused("25 no object", |bytes| bytes[8] = b'[', "header: ");
    // The header is padded, so that it can be replaced by one of the same length.
    weights_refused("25 depth", |bytes| header(bytes, &"[".repeat(100_000)), "header: ");
    weights_refused("26 overlap", |bytes| edit(bytes, "[0,", "[4,"), "gap");
    weights_refused("27 shape", |bytes| edit(bytes, "[512,64]", "[512,63]"), "does not take");
    weights_refused("27 type", |bytes| edit(bytes, "\"F32\"", "\"F99\""), "unknown variant");
    weights_refused(
        "name",
        |bytes| edit(bytes, "model.norm.weight", "model.xorm.weight"),
        "model.xorm.weight",
    );
}

/// Puts another header before the data.
fn header(bytes: &mut Vec<u8>, text: &str) {
    let end = 8 + u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    bytes.splice(8..end, text.bytes());
    bytes[..8].copy_from_slice(&(text.len() as u64).to_le_bytes());
}

/// Replaces a text in the header by one of the same length.
fn edit(bytes: &mut [u8], from: &str, to: &str) {
    let place = bytes.windows(from.len()).position(|part| part == from.as_bytes()).unwrap();
    bytes[place..place + to.len()].copy_from_slice(to.as_bytes());
}

/// Case 22: in the middle of the weights, at every kind of level.
#[test]
fn weights_that_are_not_finite() {
    let scene = Scene::dense();
    let path = scene.checkpoint().join(WEIGHTS);
    let mut bytes = std::fs::read(&path).unwrap();
    for value in [f32::NAN, f32::NEG_INFINITY] {
        let middle = bytes.len() / 8 * 4;
        bytes[middle..middle + 4].copy_from_slice(&value.to_le_bytes());
        std::fs::write(&path, &bytes).unwrap();
        scene.check("22", "convert", &scene.checkpoint(), Err(&format!(" is {value}")));
    }
}

/// Case 28, by name.
#[test]
fn an_index_that_leads_out() {
    for name in ["../../etc/passwd", "/etc/passwd", "..\\x", "C:\\x"] {
        let index = format!("{{\"weight_map\":{{\"w\":{name:?}}}}}");
        refused(name, &[(INDEX, index.as_bytes())], "not a plain file name");
    }
    refused("absent", &[(INDEX, b"{\"weight_map\":{\"w\":\"a.safetensors\"}}")], "absent");
    refused("pickle", &[(INDEX, b"{\"weight_map\":{\"w\":\"a.bin\"}}")], "pickle");
    refused(
        "depth",
        &[(INDEX, format!("{{\"weight_map\":{}", "[".repeat(100_000)).as_bytes())],
        "index.json",
    );
}

/// Case 28, by kind of file.
#[cfg(unix)]
#[test]
fn weights_that_are_no_file() {
    use std::os::unix::fs::symlink;

    let scene = Scene::dense();
    let weights = scene.checkpoint().join(WEIGHTS);
    let outside = scene.path("outside.safetensors");
    std::fs::rename(&weights, &outside).unwrap();
    for target in [outside.as_path(), Path::new("/dev/zero")] {
        symlink(target, &weights).unwrap();
        scene.check("28 link", "convert", &scene.checkpoint(), Err("link out of the checkpoint"));
        std::fs::remove_file(&weights).unwrap();
    }
    for name in [WEIGHTS, "config.json", "tokenizer.model", "tokenizer_config.json"] {
        let path = scene.checkpoint().join(name);
        let kept = std::fs::read(&path).ok();
        let _ = std::fs::remove_file(&path);
        assert!(std::process::Command::new("mkfifo").arg(&path).status().unwrap().success());
        scene.check("28 pipe", "convert", &scene.checkpoint(), Err("not a regular file"));
        std::fs::remove_file(&path).unwrap();
        let restored = kept.or_else(|| std::fs::read(&outside).ok()).unwrap();
        std::fs::write(&path, restored).unwrap();
    }
    scene.check("honest again", "convert", &scene.checkpoint(), Ok(()));
}

/// Case 29.
#[test]
fn pickles() {
    let scene = Scene::dense();
    std::fs::remove_file(scene.checkpoint().join(WEIGHTS)).unwrap();
    std::fs::write(scene.checkpoint().join("pytorch_model.bin"), b"\x80\x02}q\x00.").unwrap();
    scene.check("29", "convert", &scene.checkpoint(), Err("pickle"));
    refused("29 in disguise", &[(WEIGHTS, b"\x80\x02}q\x00.")], "pickle");
}

/// Case 30: a tokenizer of gigabytes is not read, a regular expression that explodes is not run.
#[test]
fn tokenizers() {
    let scene = Scene::dense();
    let file = |name: &str| scene.checkpoint().join(name);
    std::fs::File::create(file("tokenizer.model")).unwrap().set_len(1 << 30).unwrap();
    scene.check("30 sentencepiece", "convert", &scene.checkpoint(), Err("tokenizer.model"));
    std::fs::remove_file(file("tokenizer.model")).unwrap();
    scene.check("30 none", "convert", &scene.checkpoint(), Err("tokenizer"));
    std::fs::File::create(file("tokenizer.json")).unwrap().set_len(1 << 30).unwrap();
    scene.check("30 json", "convert", &scene.checkpoint(), Err("tokenizer.json"));
    std::fs::write(file("tokenizer.json"), "[".repeat(100_000)).unwrap();
    scene.check("30 depth", "convert", &scene.checkpoint(), Err("tokenizer.json"));
    let explodes = r#"{"version":"1.0","added_tokens":[],"normalizer":null,"pre_tokenizer":{"type":"Split",
        "pattern":{"Regex":"((a+)+)+$"},"behavior":"Isolated","invert":false},"post_processor":null,"decoder":null,
        "model":{"type":"BPE","vocab":{"a":0,"b":1},"merges":[]}}"#;
    std::fs::write(file("tokenizer.json"), explodes).unwrap();
    scene.check("30 expression", "convert", &scene.checkpoint(), Err("token"));
}

/// Case 31.
#[test]
fn configurations() {
    let config = |from: &str, to: &str| {
        let text = format!("{DENSE}}}");
        assert!(text.contains(from), "{from}");
        text.replace(from, to)
    };
    let layers = |number: &str| {
        config("\"num_hidden_layers\":2", &format!("\"num_hidden_layers\":{number}"))
    };
    for number in ["-2", "0", "1e300", "4000000000", "2.5", "\"2\"", "null"] {
        refused(number, &[("config.json", layers(number).as_bytes())], "num_hidden_layers");
    }
    for (from, to, words) in [
        ("\"num_attention_heads\":4", "\"num_attention_heads\":0", "num_attention_heads"),
        ("\"num_key_value_heads\":2", "\"num_key_value_heads\":0", "num_key_value_heads"),
        ("\"hidden_size\":64", "\"hidden_size\":18446744073709551615", "hidden_size"),
        ("\"vocab_size\":512", "\"vocab_size\":4000000000", "vocab"),
        ("\"rms_norm_eps\":1e-5", "\"rms_norm_eps\":[1]", "rms_norm_eps"),
        ("LlamaFor", "\\u001b[2JFor", "unknown architecture"),
    ] {
        refused(to, &[("config.json", config(from, to).as_bytes())], words);
    }
    let experts = format!("{DENSE}{EXPERTS}}}").replace("experts\":4", "experts\":1000000000");
    let experts = experts.replace("LlamaFor", "MixtralFor");
    refused("31 experts", &[("config.json", experts.as_bytes())], "num_local_experts");
    refused(
        "31 depth",
        &[("config.json", "{\"a\":".repeat(100_000).as_bytes())],
        "recursion limit",
    );
    refused("31 empty", &[("config.json", b"")], "config.json");
}
