//! `nfl convert` and `nfl quantize` against llama.cpp's own tools: metadata, tensors, bytes.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use nfl_models::Level;
use nfl_models::gguf::Gguf;
use sha2::{Digest, Sha256};

use crate::fixture;

/// The four checkpoints of the real model, and where upstream's converter put their F32 files.
const CHECKPOINTS: [&str; 4] = [
    "stories260K-hf-llama",
    "stories260K-hf-llama-ffn256",
    "stories260K-hf-mixtral-4x-top2",
    "stories260K-hf-mixtral-split4-top4",
];

/// Quantised files that upstream's tools made of them, with the checkpoint and level of each.
const QUANTISED: [(&str, &str, &str); 9] = [
    ("stories260K-llama-ffn256-Q4_0", CHECKPOINTS[1], "Q4_0"),
    ("stories260K-llama-ffn256-Q4_K_M", CHECKPOINTS[1], "Q4_K_M"),
    ("stories260K-llama-ffn256-Q8_0", CHECKPOINTS[1], "Q8_0"),
    ("stories260K-mixtral-4x-top2-Q4_0", CHECKPOINTS[2], "Q4_0"),
    ("stories260K-mixtral-4x-top2-Q4_K_M", CHECKPOINTS[2], "Q4_K_M"),
    ("stories260K-mixtral-4x-top2-Q8_0", CHECKPOINTS[2], "Q8_0"),
    ("stories260K-mixtral-split4-top4-Q4_0", CHECKPOINTS[3], "Q4_0"),
    ("stories260K-mixtral-split4-top4-Q4_K_M", CHECKPOINTS[3], "Q4_K_M"),
    ("stories260K-mixtral-split4-top4-Q8_0", CHECKPOINTS[3], "Q8_0"),
];

/// What `golden/quantize.py` wrote: for each checkpoint and level the digest of llama.cpp's file, or None where
/// llama-quantize refuses.
fn golden() -> BTreeMap<(String, String), Option<String>> {
    include_str!("golden/quantize.tsv")
        .lines()
        .map(|line| {
            let cells: Vec<&str> = line.split('\t').collect();
            let digest = (cells[2] == "ok").then(|| cells[3].to_owned());
            ((cells[0].to_owned(), cells[1].to_owned()), digest)
        })
        .collect()
}

/// The digest that `golden/quantize.py` defines.
fn digest(path: &Path) -> String {
    let gguf = Gguf::open(path).unwrap();
    let mut tensors: Vec<_> = gguf.tensors().iter().collect();
    tensors.sort_by(|a, b| a.name.cmp(&b.name));
    let mut total = Sha256::new();
    for tensor in tensors {
        let shape: Vec<String> = tensor.dimensions.iter().map(u64::to_string).collect();
        let kind = tensor.tensor_type.name();
        total.update(format!("{} {kind} {}\n", tensor.name, shape.join("x")).as_bytes());
        total.update(gguf.data(tensor));
    }
    total.finalize().iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").unwrap();
        text
    })
}

/// Metadata as comparable lines, in order, without what tells only where a file came from.
fn metadata(gguf: &Gguf) -> Vec<String> {
    let provenance = [
        "general.name",
        "general.size_label",
        "general.finetune",
        "general.basename",
        "general.type",
    ];
    gguf.metadata()
        .iter()
        .filter(|(key, _)| !provenance.contains(key))
        .map(|(key, value)| format!("{key} {} {value:?}", value.type_name()))
        .collect()
}

#[test]
fn f32_files_equal_upstreams_converter() {
    for checkpoint in CHECKPOINTS {
        let Some(source) = fixture::material(&format!("derived/{checkpoint}")) else { return };
        let reference =
            fixture::material(&format!("oracle/convert_hf_to_gguf/ref-{checkpoint}-f32.gguf"))
                .unwrap();
        let folder = tempfile::tempdir().unwrap();
        let ours = Gguf::open(&fixture::convert(&source, "f32", folder.path())[0]).unwrap();
        let theirs = Gguf::open(&reference).unwrap();
        assert_eq!(metadata(&ours), metadata(&theirs), "{checkpoint}");
        let list = |gguf: &Gguf| -> Vec<String> {
            gguf.tensors()
                .iter()
                .map(|tensor| {
                    format!("{} {} {:?}", tensor.name, tensor.tensor_type, tensor.dimensions)
                })
                .collect()
        };
        assert_eq!(list(&ours), list(&theirs), "{checkpoint}");
        for (our, their) in ours.tensors().iter().zip(theirs.tensors()) {
            assert!(
                ours.data(our) == theirs.data(their),
                "{checkpoint}: bytes of {} differ",
                our.name
            );
        }
    }
}

#[test]
fn every_level_equals_llama_quantize_byte_for_byte() {
    let golden = golden();
    for checkpoint in CHECKPOINTS {
        let Some(source) = fixture::material(&format!("derived/{checkpoint}")) else { return };
        check_levels(&source, checkpoint, &golden);
    }
}

/// Converts a checkpoint to every level in one pass, and its F32 file by `nfl quantize`, and compares both with llama.cpp's.
fn check_levels(
    source: &Path,
    checkpoint: &str,
    golden: &BTreeMap<(String, String), Option<String>>,
) {
    let expected = |level: &Level| {
        let key = (checkpoint.to_owned(), level.name().to_owned());
        golden.get(&key).unwrap_or_else(|| panic!("no golden digest of {key:?}")).clone()
    };
    let (possible, refused): (Vec<Level>, Vec<Level>) =
        Level::ALL.iter().partition(|level| expected(level).is_some());
    let list = possible.iter().map(|level| level.name()).collect::<Vec<_>>().join(",");
    let folder = tempfile::tempdir().unwrap();
    let converted = fixture::convert(source, &list, folder.path());
    let f32_file = folder.path().join(format!("{checkpoint}-F32.gguf"));
    let second = folder.path().join("quantize");
    let quantize = [
        "quantize",
        fixture::text(&f32_file),
        "--level",
        &list,
        "--output",
        fixture::text(&second),
    ];
    fixture::nfl(&[&quantize[..], &["--quiet"]].concat()).expect_success();
    for (level, file) in possible.iter().zip(&converted) {
        assert_eq!(Some(digest(file)), expected(level), "convert {checkpoint} to {level}");
        let requantised = second.join(file.file_name().unwrap());
        assert_eq!(Some(digest(&requantised)), expected(level), "quantize {checkpoint} to {level}");
    }
    for level in refused {
        let target = folder.path().join("refused");
        let arguments = [
            "convert",
            fixture::text(source),
            "--level",
            level.name(),
            "--output",
            fixture::text(&target),
        ];
        let ran = fixture::nfl(&arguments);
        assert_eq!(ran.status, 1, "{}", ran.stderr);
        assert!(
            ran.stderr.contains("importance matrix") && ran.stderr.contains("hint:"),
            "{}",
            ran.stderr
        );
        assert!(fixture::files_of(&target).is_empty(), "a refused level left files");
    }
}

/// The material's rows are short, so that most K-quants fall back there; these have rows that divide.
#[test]
fn every_level_of_seeded_checkpoints_equals_llama_quantize_byte_for_byte() {
    let golden = golden();
    for name in ["seeded-dense", "seeded-moe"] {
        let folder = tempfile::tempdir().unwrap();
        let config = format!("{}/tests/golden/{name}.json", env!("CARGO_MANIFEST_DIR"));
        let checkpoint = folder.path().join(name);
        let synthesize = ["synthesize", &config, "--output", fixture::text(&checkpoint)];
        let options = ["--seed", "7", "--dtype", "f16", "--quiet"];
        fixture::nfl(&[&synthesize[..], &options[..]].concat()).expect_success();
        check_levels(&checkpoint, name, &golden);
    }
}

#[test]
fn quantised_files_of_the_material_are_reproduced() {
    for (name, checkpoint, level) in QUANTISED {
        let Some(source) = fixture::material(&format!("derived/{checkpoint}")) else { return };
        let oracle = fixture::material(&format!("oracle/{name}.gguf")).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let ours = fixture::convert(&source, level, folder.path()).remove(0);
        assert_eq!(digest(&ours), digest(&oracle), "{name}");
    }
}

#[test]
fn a_level_that_does_not_fit_says_so_tensor_by_tensor() {
    let Some(source) = fixture::material("derived/stories260K-hf-llama") else { return };
    let folder = tempfile::tempdir().unwrap();
    let ran = fixture::nfl(&[
        "convert",
        fixture::text(&source),
        "--level",
        "q8_0",
        "--output",
        fixture::text(folder.path()),
    ]);
    assert_eq!(ran.status, 0, "{}", ran.stderr);
    for block in 0..5 {
        let line = format!(
            "Q8_0: blk.{block}.ffn_down.weight has rows of 172, which Q8_0 cannot hold; using F16"
        );
        assert!(ran.stderr.contains(&line), "no line {line:?} in\n{}", ran.stderr);
    }
}
