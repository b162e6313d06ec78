//! Files whose structure lies: cut, overlapping, endless, doubled, split wrongly.

use std::path::{Path, PathBuf};

use super::{SHORT, Scene, check};
use crate::fixture::{command, nfl, text};

/// Where the first occurrence of a text ends.
fn after(bytes: &[u8], needle: &str) -> usize {
    let found = bytes.windows(needle.len()).position(|part| part == needle.as_bytes());
    found.unwrap_or_else(|| panic!("no {needle} in the file")) + needle.len()
}

fn put(bytes: &mut [u8], place: usize, value: impl AsRef<[u8]>) {
    let value = value.as_ref();
    bytes[place..place + value.len()].copy_from_slice(value);
}

/// Case 1.
#[test]
fn files_that_end_too_early() {
    let scene = Scene::dense();
    let whole = std::fs::read(scene.model()).unwrap();
    let infos = after(&whole, "output.weight");
    let data = whole.len() - 400_000;
    for length in [0, 1, 3, 4, 8, 23, 24, 40, 500, 5_000, infos, data, whole.len() - 1] {
        let file = scene.file("cut.gguf", &whole[..length]);
        scene.refuses(&format!("cut at {length}"), &file, "cut.gguf: ");
    }
}

/// A name that clears the screen reaches no terminal.
#[test]
fn names_with_escapes() {
    let scene = Scene::dense();
    let mut bytes = std::fs::read(scene.model()).unwrap();
    Lie::Text("\x1b[J.1.attn_q.weight").tell(&mut bytes, QUERY, 0);
    let path = scene.file("\x1b[J.gguf", &bytes);
    let run = super::finish("run", command(&[&["run", text(&path), "hi"], SHORT].concat()));
    assert!(run.status == 1 && !run.stderr.contains('\x1b'), "{}", run.stderr);
    let shown = check("show", &["show", text(&path), "--tensors"], Ok(())).stdout;
    assert!(!shown.contains('\x1b') && shown.contains("\u{fffd}[J.1.attn_q"), "{shown}");
    let output = scene.output();
    let quantize = ["quantize", text(&path), "--level", "q8_0", "-o", text(&output)];
    let stderr = check("quantize", &quantize, Ok(())).stderr;
    assert!(!stderr.contains('\x1b'), "{stderr}");
}

/// What is written over a place of a file.
enum Lie {
    U32(u32),
    U64(u64),
    Text(&'static str),
}

impl Lie {
    /// Overwrites what is `skip` bytes after a text.
    fn tell(&self, bytes: &mut [u8], needle: &str, skip: usize) {
        let place = after(bytes, needle) + skip;
        match self {
            Self::U32(value) => put(bytes, place, value.to_le_bytes()),
            Self::U64(value) => put(bytes, place, value.to_le_bytes()),
            Self::Text(text) => put(bytes, place - text.len(), text),
        }
    }
}

const QUERY: &str = "blk.1.attn_q.weight";
const ALIGNMENT: &str = "general.alignment";
/// From a tensor's name to its number of dimensions, its dimensions, its type and its offset.
const RANK: usize = 0;
const ROW: usize = 4;
const ROWS: usize = 12;
const TYPE: usize = 20;
const OFFSET: usize = 24;
/// From an entry's key to the type of its value, its value or the type of its elements, and to the length of its array.
const VALUE: usize = 4;
const LENGTH: usize = 8;

/// Cases 2 to 10, 15 and 23: a real model in which one number or name is another.
#[test]
fn files_with_one_lie() {
    use Lie::{Text, U32, U64};
    let scene = Scene::dense();
    let mut draft = scene.draft();
    draft.metadata.set(ALIGNMENT, 32_u32);
    let path = scene.path("lies.gguf");
    draft.write(&path);
    let honest = std::fs::read(&path).unwrap();
    scene.check("honest", "run", &path, Ok(()));
    scene.refuses("2", &scene.file("lies.gguf", &honest[..honest.len() - 1]), "ends at");
    for (needle, skip, lie, words) in [
        (QUERY, OFFSET, U64(u64::MAX - 31), "offset of tensor blk.1.attn_q.weight"),
        (QUERY, OFFSET, U64(0), "overlaps"),
        (QUERY, OFFSET, U64(1 << 40), "leaves a gap"),
        (QUERY, OFFSET, U64(4), "not aligned"),
        (QUERY, ROW, U64(1 << 62), "size of tensor blk.1.attn_q.weight"),
        (QUERY, ROWS, U64(u64::MAX), "size of tensor blk.1.attn_q.weight"),
        (QUERY, ROWS, U64(65), "offset of tensor"),
        (QUERY, RANK, U32(u32::MAX), "dimensions of a tensor: 4294967295"),
        (QUERY, TYPE, U32(4), "4 (Q4_2, which ggml has removed)"),
        (QUERY, TYPE, U32(255), "255 (unknown)"),
        (QUERY, 0, Text("blk.0.attn_q.weight"), "appears twice: blk.0.attn_q.weight"),
        ("ggml.bos_token_id", 0, Text("ggml.eos_token_id"), "appears twice: tokenizer.ggml.eos"),
        (ALIGNMENT, VALUE, U32(0), "general.alignment: 0"),
        (ALIGNMENT, VALUE, U32(3), "general.alignment: 3"),
        (ALIGNMENT, VALUE, U32(1 << 31), "general.alignment: 2147483648"),
        ("general.name", VALUE, U64(1 << 63), "string: 9223372036854775808"),
        ("ggml.scores", LENGTH, U64(1 << 40), "array: 1099511627776"),
        ("ggml.scores", LENGTH, U64(1 << 20), "file ends"),
        ("ggml.tokens", LENGTH, U64(1 << 22), "file ends"),
        ("ggml.tokens", VALUE, U32(9), "array of arrays: tokenizer.ggml.tokens"),
        ("general.name", 0, U32(13), "type of metadata value general.name: 13"),
        ("GGUF", 0, U32(1), "GGUF version: 1"),
        ("GGUF", 0, U32(9), "GGUF version: 9"),
        ("GGUF", 0, U32(3_u32.swap_bytes()), "big-endian"),
        ("GGUF", 4, U64(1 << 63), "number of tensors: 9223372036854775808"),
        ("GGUF", 12, U64(1 << 63), "number of metadata entries: 9223372036854775808"),
        ("GGUF", 20, U64(u64::MAX), "metadata key: 1844"),
    ] {
        let mut bytes = honest.clone();
        lie.tell(&mut bytes, needle, skip);
        scene.refuses(words, &scene.file("lies.gguf", &bytes), words);
    }
}

#[test]
fn what_is_no_gguf_file() {
    let scene = Scene::dense();
    for (bytes, words) in [
        (&b"PK\x03\x04pickle"[..], "PK"),
        (b"version https://git-lfs.github.com/spec/v1", "vers"),
        (b"<!DOCTYPE html><html>not found</html>", "<!DO"),
    ] {
        scene.refuses(words, &scene.file("other.gguf", bytes), words);
    }
    scene.refuses("a folder", &scene.checkpoint(), "not a regular file");
    scene.refuses("nothing", &scene.path("absent.gguf"), "absent.gguf");
    #[cfg(unix)]
    {
        // Opening a pipe waits for a writer; a device never ends.
        let pipe = scene.path("pipe.gguf");
        assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        scene.refuses("a pipe", &pipe, "not a regular file");
        scene.refuses("a device", Path::new("/dev/zero"), "not a regular file");
    }
}

/// Case 21: a file of 4 TB, most of it holes. Mapping it with all its pages, as llama.cpp does, would take hours.
#[test]
fn sparse_files_of_terabytes() {
    let scene = Scene::dense();
    let whole = std::fs::read(scene.model()).unwrap();
    for (name, bytes, run_only) in
        [("zeros", &[][..], false), ("a model, then zeros", &whole, true)]
    {
        let path = scene.file("sparse.gguf", bytes);
        let file = std::fs::File::options().write(true).open(&path).unwrap();
        if let Err(error) = file.set_len(4 << 40) {
            eprintln!("skipped: no sparse file of 4 TB here: {error}");
            return;
        }
        // No bound on memory: a mapping counts with its whole length.
        let run = [&["run", text(&path), "hi"], SHORT].concat();
        let words = if run_only { "after the last tensor" } else { "begins with" };
        let ran = super::finish(name, command(&run));
        super::judge(name, ran, Err(words));
        let ran = super::finish(name, command(&["show", text(&path)]));
        super::judge(name, ran, if run_only { Ok(()) } else { Err(words) });
    }
}

/// Writes a model as two shards and returns their paths.
fn split(scene: &Scene, name: &str) -> [PathBuf; 2] {
    let draft = scene.draft();
    let total = draft.tensors.len();
    let mut rest = draft.tensors;
    let second = rest.split_off(total / 2);
    let shard = |number: u16, tensors| {
        let mut metadata = draft.metadata.clone();
        metadata.set("split.no", nfl_models::gguf::Value::U16(number));
        metadata.set("split.count", nfl_models::gguf::Value::U16(2));
        metadata.set("split.tensors.count", total as i32);
        let path = scene.path(&format!("{name}-0000{}-of-00002.gguf", number + 1));
        super::Draft { metadata, tensors }.write(&path);
        path
    };
    [shard(0, rest), shard(1, second)]
}

/// Case 18.
#[test]
fn shards_that_do_not_make_a_model() {
    let scene = Scene::dense();
    let [first, second] = split(&scene, "m");
    let good = [first, second].map(|path| std::fs::read(path).unwrap());
    let whole = nfl(&[&["run", text(&scene.model()), "hi"], SHORT].concat()).expect_success();
    let restore =
        || ["m-00001-of-00002.gguf", "m-00002-of-00002.gguf"].map(|name| scene.path(name));
    for path in restore() {
        let run = [&["run", text(&path), "hi"], SHORT].concat();
        assert_eq!(check("18 any shard", &run, Ok(())).stdout, whole);
    }
    let with = |case: &str, first: Option<&[u8]>, second: Option<&[u8]>, words: &str| {
        let mut given = None;
        for (path, bytes) in restore().into_iter().zip([first, second]) {
            let _ = std::fs::remove_file(&path);
            if let Some(bytes) = bytes {
                std::fs::write(&path, bytes).unwrap();
                given.get_or_insert(path);
            }
        }
        scene.refuses(case, &given.unwrap(), words);
    };
    let [one, two] = &good;
    let changed = |bytes: &[u8], key: &str, value: u16| {
        let mut bytes = bytes.to_vec();
        let at = after(&bytes, key) + 4;
        put(&mut bytes, at, value.to_le_bytes());
        bytes
    };
    with("18 second missing", Some(one), None, "missing shard: ");
    with("18 first missing", None, Some(two), "missing shard: ");
    with("18 swapped", Some(two), Some(one), "under another name");
    with("18 twice the first", Some(one), Some(one), "split.no");
    with("18 wrong count", Some(one), Some(&changed(two, "split.count", 3)), "split.count");
    with(
        "18 too many",
        Some(&changed(one, "split.count", 65_535)),
        Some(two),
        "number of shards: 65535",
    );
    with(
        "18 wrong total",
        Some(&changed(one, "split.tensors.count", 9)),
        Some(two),
        "split.tensors.count",
    );
    let mut foreign = two.clone();
    let at = after(&foreign, "llama.context_length") + 4;
    put(&mut foreign, at, 1024_u32.to_le_bytes());
    with("18 another model's", Some(one), Some(&foreign), "belongs to another model");
    with("18 cut", Some(one), Some(&two[..two.len() - 1]), "ends at");
    let renamed = scene.file("model.gguf", one);
    scene.refuses("18 renamed", &renamed, "under another name: model.gguf");
}
