//! Checkpoints that are damaged or made to deceive: each ends in a clear error with a hint, within
//! a second. Numbers in the names are those of the project's list of attack cases.

use std::fs::{self, File};
use std::process::Command;

use nfl_converters::checkpoint::{Checkpoint, CheckpointError, Config, HeaderError, parse_header};
use nfl_models::Hint;

use crate::checkpoint_support::{Draft, material, one_tensor, refused, safetensors};

/// A checkpoint whose only weight file is `bytes` is refused with `text`.
#[track_caller]
fn weights_refused(bytes: &[u8], text: &str) {
    refused(Draft::new().with("model.safetensors", bytes).path(), text);
}

/// A header over 16 bytes of data is refused with `text`.
#[track_caller]
fn header_refused(header: &str, text: &str) {
    weights_refused(&safetensors(header, &[0; 16]), text);
}

#[test]
fn case_16_a_file_that_shrinks_is_noticed_before_a_read() {
    let draft = Draft::new().with("model.safetensors", &one_tensor("w", 4096));
    let checkpoint = Checkpoint::open(draft.path()).unwrap();
    let tensor = checkpoint.tensor("w").unwrap();
    let mut values = vec![1.0; 4096];
    checkpoint.read_f32(tensor, 0, &mut values).unwrap();
    let file = File::options().write(true).open(draft.path().join("model.safetensors")).unwrap();
    file.set_len(100).unwrap();
    let error = checkpoint.read_f32(tensor, 0, &mut values).unwrap_err();
    assert!(matches!(error, CheckpointError::Shrunk { found: 100, .. }), "{error}");
    assert!(error.hint().is_some());
}

#[test]
fn case_21_sparse_giants_are_refused_by_their_header() {
    for length in [0_u64, 1000, 100_000_000] {
        let draft = Draft::new().with("model.safetensors", &length.to_le_bytes());
        let path = draft.path().join("model.safetensors");
        let file = File::options().write(true).open(path).unwrap();
        if file.set_len(4 << 40).is_err() {
            eprintln!("skipped: this file system has no sparse files of 4 TB");
            return;
        }
        refused(draft.path(), "header: ");
    }
}

#[test]
fn case_24_header_lengths_that_cannot_be() {
    for length in [1_u64 << 63, u64::MAX, u64::MAX - 7, 100_000_001] {
        let mut bytes = one_tensor("w", 4);
        bytes[..8].copy_from_slice(&length.to_le_bytes());
        weights_refused(&bytes, "header length: ");
    }
    let mut bytes = one_tensor("w", 4);
    let beyond = bytes.len() as u64 - 7;
    bytes[..8].copy_from_slice(&beyond.to_le_bytes());
    weights_refused(&bytes, "header length: ");
    bytes[..8].copy_from_slice(&(beyond - 1).to_le_bytes());
    weights_refused(&bytes, "header: ");
}

#[test]
fn case_24_a_file_cut_at_any_byte() {
    let whole = one_tensor("w", 4);
    assert!(parse_header(&whole).is_ok());
    for length in 0..whole.len() {
        let error = parse_header(&whole[..length]).unwrap_err();
        assert!(error.hint().unwrap().contains("download"), "{length}: {error}");
    }
    weights_refused(b"", "0 bytes, too short");
    weights_refused(&whole[..whole.len() - 1], "15 bytes of data where the tensors take 16");
}

#[test]
fn case_25_nesting_without_end() {
    let deep = "[".repeat(100_000);
    let entry = r#""dtype":"F32","shape":[4],"data_offsets":[0,16]"#;
    header_refused(&deep, "invalid type");
    header_refused(&format!("{{\"w\":{deep}"), "header: ");
    header_refused(&format!("{{\"w\":{{\"shape\":{deep}"), "header: ");
    header_refused(&format!("{{\"__metadata__\":{{\"a\":{deep}"), "header: ");
    header_refused(&format!("{{\"w\":{{{entry},\"more\":{deep}"), "header: ");

    let objects = "{\"a\":".repeat(100_000);
    refused(Draft::empty().with("config.json", deep.as_bytes()).path(), "no model.safetensors");
    for text in [deep, objects] {
        let draft = Draft::empty().with("model.safetensors", &one_tensor("w", 4));
        refused(draft.with("config.json", text.as_bytes()).path(), "recursion limit");
        let index = format!("{{\"weight_map\":{text}");
        let draft = Draft::new().with("model.safetensors.index.json", index.as_bytes());
        refused(draft.path(), "index.json: ");
    }
}

#[test]
fn case_25_names_that_stand_twice() {
    let entry = r#"{"dtype":"F32","shape":[4],"data_offsets":[0,16]}"#;
    header_refused(&format!(r#"{{"w":{entry},"w":{entry}}}"#), "two tensors of one name: \"w\"");
    // The same name in two spellings of JSON.
    header_refused(&format!(r#"{{"w":{entry},"\u0077":{entry}}}"#), "two tensors of one name");
    header_refused(r#"{"__metadata__":{},"__metadata__":{}}"#, "duplicate field");
    let draft = Draft::new()
        .with("a.safetensors", &one_tensor("w", 4))
        .with("b.safetensors", &one_tensor("w", 4))
        .with_index(&[("w", "a.safetensors"), ("v", "b.safetensors")]);
    refused(draft.path(), "tensor in two files: \"w\"");
    let index = br#"{"weight_map":{"w":"a.safetensors","w":"b.safetensors"}}"#;
    refused(Draft::new().with("model.safetensors.index.json", index).path(), "stands twice");
}

#[test]
fn case_25_headers_that_are_no_object_of_tensors() {
    for header in ["[]", "null", "1", "\"x\"", "true", "", "{", "{}}", "{\"w\":1}", "{\"w\":[]}"] {
        header_refused(header, "header: ");
    }
    header_refused(r#"{"__metadata__":{"a":1}}"#, "header: ");
    header_refused(r#"{"w":{"dtype":"F32","shape":[4]}}"#, "missing field");
    header_refused(
        r#"{"w":{"dtype":"Q4_2","shape":[4],"data_offsets":[0,16]}}"#,
        "unknown variant",
    );
    let mut bytes = one_tensor("w", 4);
    bytes[10] = 0xFF;
    weights_refused(&bytes, "not UTF-8");
    let name = "n".repeat(1025);
    header_refused(
        &format!(r#"{{"{name}":{{"dtype":"F32","shape":[4],"data_offsets":[0,16]}}}}"#),
        "longer than 1024",
    );
    // A name that would clear the terminal is printed escaped.
    let name = r"\u001b[2J";
    header_refused(
        &format!(r#"{{"{name}":{{"dtype":"F32","shape":[3],"data_offsets":[0,16]}}}}"#),
        "u{1b}",
    );
}

#[test]
fn case_26_offsets_that_overlap_or_leave_gaps() {
    let two = |a: &str, b: &str| {
        format!(
            r#"{{"a":{{"dtype":"F32","shape":[2],"data_offsets":{a}}},
                "b":{{"dtype":"F32","shape":[2],"data_offsets":{b}}}}}"#
        )
    };
    assert!(parse_header(&safetensors(&two("[0,8]", "[8,16]"), &[0; 16])).is_ok());
    assert!(parse_header(&safetensors(&two("[8,16]", "[0,8]"), &[0; 16])).is_ok());
    header_refused(&two("[0,8]", "[0,8]"), "overlap");
    header_refused(&two("[0,8]", "[4,12]"), "overlap");
    header_refused(&two("[0,8]", "[9,17]"), "gap");
    header_refused(&two("[1,9]", "[9,17]"), "gap after 0");
    header_refused(&two("[0,8]", "[16,8]"), "data_offsets 16..8");
    header_refused(&two("[0,8]", "[8,0]"), "data_offsets 8..0");
    header_refused(&two("[0,8]", "[8,18446744073709551615]"), "does not take");
    header_refused(&two("[0,8]", "[-8,0]"), "header: ");
    header_refused(&two("[0,8]", "[8,16,24]"), "header: ");
    let longer = safetensors(&two("[0,8]", "[8,16]"), &[0; 17]);
    weights_refused(&longer, "17 bytes of data where the tensors take 16");
}

#[test]
fn case_27_shapes_that_do_not_take_their_bytes() {
    let shape = |shape: &str, dtype: &str| {
        format!(r#"{{"w":{{"dtype":"{dtype}","shape":{shape},"data_offsets":[0,16]}}}}"#)
    };
    assert!(parse_header(&safetensors(&shape("[2,1,2]", "F32"), &[0; 16])).is_ok());
    for (dimensions, dtype) in [
        ("[3]", "F32"),
        ("[4]", "F16"),
        ("[0]", "F32"),
        ("[]", "F32"),
        ("[9223372036854775808,4]", "F32"),
        ("[4294967296,4294967296]", "I8"),
        ("[0,18446744073709551615,2]", "F32"),
        ("[33]", "F4"),
    ] {
        header_refused(&shape(dimensions, dtype), "does not take 16 bytes");
    }
    for dimensions in ["[-4]", "[4.0]", "[\"4\"]", "4", "[18446744073709551616]"] {
        header_refused(&shape(dimensions, "F32"), "header: ");
    }
    header_refused(&shape("[1,1,1,1,1,1,1,1,4]", "F32"), "8 dimensions");
    let many = format!("[{}4]", "1,".repeat(1_000_000));
    header_refused(&shape(&many, "F32"), "8 dimensions");
}

#[test]
fn case_28_names_in_the_index_that_lead_out() {
    for name in [
        "../../etc/passwd",
        "/etc/passwd",
        "..",
        ".",
        "",
        "sub/model.safetensors",
        "..\\..\\x",
        "C:\\x",
        "a\u{0}b",
        "\u{1b}[2J",
    ] {
        refused(Draft::new().with_index(&[("w", name)]).path(), "not a plain file name");
    }
    let long = "x".repeat(300);
    refused(Draft::new().with_index(&[("w", &long)]).path(), "not a plain file name");
    refused(Draft::new().with_index(&[("w", "pytorch_model.bin")]).path(), "pickle");
    refused(Draft::new().with_index(&[]).path(), "weight_map: empty");
    refused(
        Draft::new().with_index(&[("w", "a.safetensors"), ("v", "b.safetensors")]).path(),
        "2 of 2 weight files absent",
    );
}

#[test]
fn case_28_an_index_that_disagrees_with_its_files() {
    let draft = || Draft::new().with("a.safetensors", &one_tensor("w", 4));
    refused(
        draft().with_index(&[("w", "a.safetensors"), ("v", "a.safetensors")]).path(),
        "\"v\" is not in \"a.safetensors\"",
    );
    refused(
        draft().with_index(&[("v", "a.safetensors")]).path(),
        "\"v\" is not in \"a.safetensors\"",
    );
    let two = r#"{"w":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},
                  "v":{"dtype":"F32","shape":[2],"data_offsets":[8,16]}}"#;
    let draft = Draft::new()
        .with("a.safetensors", &safetensors(two, &[0; 16]))
        .with_index(&[("w", "a.safetensors")]);
    refused(draft.path(), "\"v\" of \"a.safetensors\" is not in weight_map");
    let files: Vec<String> = (0..10_001).map(|n| format!("{n}.safetensors")).collect();
    let entries: Vec<(&str, &str)> = files.iter().map(|n| (n.as_str(), n.as_str())).collect();
    refused(Draft::new().with_index(&entries).path(), "weight files: 10001, more than the limit");
}

#[cfg(unix)]
#[test]
fn case_28_links_pipes_and_devices() {
    use std::os::unix::fs::symlink;

    let elsewhere = Draft::new().with("secret.safetensors", &one_tensor("w", 4));
    let secret = elsewhere.path().join("secret.safetensors");
    for target in [secret.as_path(), "/dev/zero".as_ref(), "/proc/self/mem".as_ref()] {
        let draft = Draft::new();
        symlink(target, draft.path().join("model.safetensors")).unwrap();
        refused(draft.path(), "link out of the checkpoint");
    }
    let draft = Draft::new();
    symlink("gone", draft.path().join("model.safetensors")).unwrap();
    refused(draft.path(), "link to a file that is absent");
    let draft = Draft::new();
    symlink("model.safetensors", draft.path().join("model.safetensors")).unwrap();
    refused(draft.path(), "model.safetensors: ");
    let draft = Draft::new();
    fs::create_dir(draft.path().join("model.safetensors")).unwrap();
    refused(draft.path(), "not a regular file");

    // A pipe under every name that is opened: opening it would wait for a writer.
    for pipe in
        ["model.safetensors", "config.json", "model.safetensors.index.json", "a.safetensors"]
    {
        let draft = Draft::new().with("model.safetensors", &one_tensor("w", 4));
        let draft = match pipe {
            "a.safetensors" => draft.with_index(&[("w", pipe)]),
            _ => draft,
        };
        let path = draft.path().join(pipe);
        drop(fs::remove_file(&path));
        assert!(Command::new("mkfifo").arg(&path).status().unwrap().success());
        refused(draft.path(), "not a regular file");
        symlink(pipe, draft.path().join("link")).unwrap();
        let folder = nfl_converters::checkpoint::Folder::open(draft.path()).unwrap();
        assert!(folder.read_bytes("link", 10).is_err());
    }
}

#[cfg(unix)]
#[test]
fn case_28_the_layout_of_a_hugging_face_cache_is_accepted() {
    use std::os::unix::fs::symlink;

    let cache = Draft::empty()
        .with("models--org--tiny/blobs/0a", b"{}")
        .with("models--org--tiny/blobs/0b", &one_tensor("w", 4))
        .with("models--org--tiny/snapshots/abc/README.md", b"");
    let root = cache.path().join("models--org--tiny");
    let snapshot = root.join("snapshots/abc");
    symlink("../../blobs/0a", snapshot.join("config.json")).unwrap();
    symlink("../../blobs/0b", snapshot.join("model.safetensors")).unwrap();
    let checkpoint = Checkpoint::open(&snapshot).unwrap();
    assert_eq!(checkpoint.name(), "tiny");
    assert!(checkpoint.tensor("w").is_some());

    // Beside the blobs nothing is reachable, nor through a `blobs` that is a link itself.
    fs::remove_file(snapshot.join("model.safetensors")).unwrap();
    fs::write(root.join("outside"), one_tensor("w", 4)).unwrap();
    symlink("../../outside", snapshot.join("model.safetensors")).unwrap();
    refused(&snapshot, "link out of the checkpoint");
    fs::remove_file(snapshot.join("model.safetensors")).unwrap();
    fs::rename(root.join("blobs"), cache.path().join("moved")).unwrap();
    symlink(cache.path().join("moved"), root.join("blobs")).unwrap();
    symlink("../../blobs/0b", snapshot.join("model.safetensors")).unwrap();
    refused(&snapshot, "link out of the checkpoint");
}

#[cfg(unix)]
#[test]
fn links_within_the_directory_are_accepted() {
    use std::os::unix::fs::symlink;

    let draft = Draft::new().with("real/weights", &one_tensor("w", 4));
    symlink("real/weights", draft.path().join("model.safetensors")).unwrap();
    let elsewhere = Draft::empty();
    let name = elsewhere.path().join("my-model");
    symlink(draft.path(), &name).unwrap();
    let checkpoint = Checkpoint::open(&name).unwrap();
    assert_eq!(checkpoint.name(), "my-model");
}

#[test]
fn case_29_pickles_are_refused() {
    let pickle = b"\x80\x02}q\x00.";
    for name in ["pytorch_model.bin", "pytorch_model.bin.index.json", "model.pt", "weights.pth"] {
        refused(Draft::new().with(name, pickle).path(), "pickle");
    }
    let draft = Draft::new().with("pytorch_model.bin", pickle);
    refused(&draft.path().join("pytorch_model.bin"), "pickle");
    weights_refused(pickle, "not a safetensors file but a Python pickle");
    if let Some(folder) = material("formats/burn-pt") {
        for name in ["mnist.pt", "src_pytorch_tests_reader_test_data_bfloat16.pt"] {
            refused(&folder.join(name), "pickle");
            let bytes = fs::read(folder.join(name)).unwrap();
            refused(Draft::new().with("pytorch_model.bin", &bytes).path(), "pickle");
            weights_refused(&bytes, "not a safetensors file but ");
        }
    }
    // Beside safetensors a pickle does not matter.
    let draft = Draft::new()
        .with("pytorch_model.bin", pickle)
        .with("model.safetensors", &one_tensor("w", 4));
    assert!(Checkpoint::open(draft.path()).is_ok());
}

#[test]
fn files_that_only_have_the_name_are_told_apart() {
    let pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 4967215360\n";
    for (bytes, text) in [
        (&pointer[..], "a Git LFS pointer"),
        (b"<!DOCTYPE html><html>", "a web page"),
        (b"GGUF\x03\x00\x00\x00\x00\x00\x00\x00", "a GGUF file"),
    ] {
        weights_refused(bytes, text);
        let error = parse_header(bytes).unwrap_err();
        assert!(matches!(error, HeaderError::Other { .. }));
    }
}

#[test]
fn case_31_numbers_of_config_json_that_cannot_be() {
    let draft = || Draft::empty().with("model.safetensors", &one_tensor("w", 4));
    for (text, message) in [
        ("[]", "config.json: the whole file: a list of 0, expected an object"),
        ("-1", "expected an object"),
        ("{\"text_config\": 7}", "config.json: text_config: 7, expected an object"),
        ("{\"quantization_config\": []}", "config.json: quantization_config: a list of 0"),
        ("", "config.json: "),
        ("{", "config.json: "),
    ] {
        refused(draft().with("config.json", text.as_bytes()).path(), message);
    }
    refused(draft().with("config.json", b"\xff\xfe{}").path(), "not UTF-8");
    refused(draft().path(), "no config.json");
    // A number beyond f64 is refused where JSON is read or, when serde_json keeps numbers as text (a feature that other
    // packages of a build may turn on), where it is used.
    let beyond = serde_json::from_str(r#"{"rope_theta": 1e999}"#);
    let used = beyond.map(|value| Config::from_value(value).unwrap().f64("rope_theta"));
    assert!(!matches!(used, Ok(Ok(_))), "{used:?}");
    let layers = |text: &str| {
        let text = format!("{{\"num_hidden_layers\": {text}}}");
        let config = Config::from_value(serde_json::from_str(&text).unwrap()).unwrap();
        config.within("num_hidden_layers", 1..=512).unwrap_err().to_string()
    };
    for number in ["-1", "0", "513", "18446744073709551615", "1e300", "32.5", "\"32\"", "[32]"] {
        assert!(layers(number).starts_with("config.json: num_hidden_layers: "), "{number}");
    }
}

#[test]
fn case_31_a_giant_config_json_is_not_read() {
    let draft = Draft::new().with("model.safetensors", &one_tensor("w", 4));
    for (name, bytes) in [("config.json", 1 << 30), ("model.safetensors.index.json", 1 << 40)] {
        let file = File::create(draft.path().join(name)).unwrap();
        file.set_len(bytes).unwrap();
        refused(draft.path(), "more than the limit");
    }
}

#[test]
fn a_path_that_is_no_checkpoint_says_what_to_give() {
    let draft = Draft::new().with("model.safetensors", &one_tensor("w", 4));
    let file = draft.path().join("model.safetensors");
    assert_eq!(Checkpoint::open(&file).unwrap().directory(), draft.path().canonicalize().unwrap());
    refused(&draft.path().join("none"), "no such checkpoint");
    let draft = draft.with("other.safetensors", &one_tensor("w", 4));
    refused(&draft.path().join("other.safetensors"), "not a checkpoint directory");
    let draft = Draft::empty().with("model.safetensors", &one_tensor("w", 4));
    refused(&draft.path().join("model.safetensors"), "not a checkpoint directory");
    refused(Draft::empty().path(), "no config.json");
    refused(Draft::new().path(), "no model.safetensors");
    refused(Draft::new().with("m.gguf", b"GGUF").path(), "already in GGUF");
    refused(Draft::new().with("adapter_model.safetensors", b"").path(), "LoRA adapter");
    refused(Draft::empty().with("m.gguf", b"GGUF").path().join("m.gguf").as_path(), "already");
}
