//! Token ids after conversion equal the published vectors, for every kind of vocabulary that the converter reads.

use std::fs;
use std::path::Path;

use nfl::engine::llama::{Backend, Model, TokenizeOptions};
use nfl::engine::options::ModelOptions;

use crate::fixture;

const SEPARATOR: &str = "\n__ggml_vocab_test__\n";

/// Converts the vocabulary in `checkpoint` and compares every case of `vectors` (`<vectors>.inp`, `.out`).
fn check(checkpoint: &Path, vectors: &str) {
    let Some(inputs) =
        fixture::material(&format!("tokenizers/llama.cpp-vocab/ggml-vocab-{vectors}.gguf.inp"))
    else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let target = fixture::text(folder.path());
    let arguments = [
        "convert",
        fixture::text(checkpoint),
        "--vocab-only",
        "--level",
        "f16",
        "--name",
        "vocabulary",
    ];
    fixture::nfl(&[&arguments[..], &["--output", target, "--quiet"]].concat()).expect_success();
    let options = ModelOptions { vocabulary_only: true, ..ModelOptions::default() };
    let file = folder.path().join("vocabulary-vocab.gguf");
    let model = Model::load(Backend::get(), &file, &options, &mut |_| true).unwrap();
    let vocabulary = model.vocabulary();
    let texts = fs::read_to_string(&inputs).unwrap();
    let expected = fs::read_to_string(inputs.with_extension("out")).unwrap();
    let texts: Vec<&str> = texts.split(SEPARATOR).collect();
    let expected: Vec<&str> = expected.lines().collect();
    assert!(
        texts.len() >= 40 && texts.len() <= expected.len(),
        "{} texts, {} lines",
        texts.len(),
        expected.len()
    );
    for (text, line) in texts.iter().zip(expected) {
        let ids: Vec<i32> = line.split_whitespace().map(|id| id.parse().unwrap()).collect();
        assert_eq!(
            vocabulary.tokenize(text, TokenizeOptions::default()).unwrap(),
            ids,
            "{vectors}: {text:?}"
        );
    }
}
