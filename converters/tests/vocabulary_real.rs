//! Real vocabularies against independent judges: llama.cpp's converter and the vocabularies of its repository.

use std::fmt::Write;
use std::fs;
use std::path::Path;

use nfl_converters::vocabulary::{self, VocabularySource};
use nfl_models::gguf::{Array, Gguf, Metadata, Value};
use sha2::{Digest, Sha256};

use crate::checkpoint_support::{Draft, material};
use crate::vocabulary_support::{REAL, llama_3, read, real};

/// The entries of a converted file that belong to the tokenizer.
fn tokenizer_entries(metadata: &Metadata) -> Metadata {
    let entries = metadata.iter().filter(|(key, _)| key.starts_with("tokenizer."));
    entries.map(|(key, value)| (key, value.clone())).collect()
}

#[test]
fn converted_checkpoints_have_the_oracles_entries_in_its_order() {
    let names = ["llama", "llama-ffn256", "mixtral-4x-top2", "mixtral-split4-top4"];
    for name in names {
        let Some(source) = material(&format!("derived/stories260K-hf-{name}")) else { return };
        let oracle = format!("oracle/convert_hf_to_gguf/ref-stories260K-hf-{name}-f32.gguf");
        let Some(oracle) = material(&oracle) else { return };
        let expected = tokenizer_entries(Gguf::open(&oracle).unwrap().metadata());
        let vocabulary = vocabulary::read(&source, Some(512)).unwrap();
        assert_eq!(vocabulary.metadata, expected, "{name}");
        assert_eq!((vocabulary.size, vocabulary.source), (512, VocabularySource::SentencePiece));
    }
}

/// A value as a GGUF file holds it, after its type.
fn pack(value: &Value, bytes: &mut Vec<u8>) {
    let text = |text: &[u8], bytes: &mut Vec<u8>| {
        bytes.extend((text.len() as u64).to_le_bytes());
        bytes.extend(text);
    };
    bytes.extend(value.type_id().to_le_bytes());
    match value {
        Value::String(string) => text(string.as_bytes(), bytes),
        Value::U32(number) => bytes.extend(number.to_le_bytes()),
        Value::Bool(flag) => bytes.push(u8::from(*flag)),
        Value::Array(array) => {
            bytes.extend(array.type_id().to_le_bytes());
            bytes.extend((array.len() as u64).to_le_bytes());
            for element in array.values() {
                match element {
                    Value::String(string) => text(string.as_bytes(), bytes),
                    Value::F32(number) => bytes.extend(number.to_le_bytes()),
                    Value::I32(number) => bytes.extend(number.to_le_bytes()),
                    other => panic!("no tokenizer entry has {other:?}"),
                }
            }
        }
        other => panic!("no tokenizer entry has {other:?}"),
    }
}

fn fingerprint(metadata: &Metadata) -> String {
    let mut bytes = Vec::new();
    for (key, value) in metadata.iter() {
        bytes.extend((key.len() as u64).to_le_bytes());
        bytes.extend(key.as_bytes());
        pack(value, &mut bytes);
    }
    Sha256::digest(bytes).iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").unwrap();
        text
    })
}

#[test]
fn real_vocabularies_equal_upstreams_to_the_bit() {
    let golden: Vec<(&str, &str)> = include_str!("vocabulary_golden.tsv")
        .lines()
        .map(|line| line.split_once('\t').unwrap())
        .collect();
    assert_eq!(golden.iter().map(|(name, _)| *name).collect::<Vec<_>>(), REAL);
    for (name, expected) in golden {
        let Some(draft) = real(name) else { return };
        let vocabulary = read(&draft).unwrap();
        assert_eq!(fingerprint(&vocabulary.metadata), expected, "{name}");
    }
}

#[test]
fn merges_as_pairs_are_merges_as_texts() {
    let Some(tokenizers) = material("tokenizers") else { return };
    let [texts, pairs] = [false, true]
        .map(|as_pairs| read(&llama_3(Draft::new(), &tokenizers, as_pairs).unwrap()).unwrap());
    assert_eq!(texts.metadata, pairs.metadata);
    assert_eq!(texts.metadata.text("tokenizer.ggml.pre"), Some("llama-bpe"));
    assert_eq!((texts.size, texts.source), (128_256, VocabularySource::ByteLevel));
}

/// `tokenizer.json` with byte fallback says as much as the `tokenizer.model` that it was made from, scores included.
#[test]
fn byte_fallback_equals_sentencepiece() {
    for name in ["mixtral", "phi-3"] {
        let Some(draft) = real(name) else { return };
        let with_model = read(&draft).unwrap();
        fs::remove_file(draft.path().join("tokenizer.model")).unwrap();
        let without = read(&draft).unwrap();
        assert_eq!(with_model.source, VocabularySource::SentencePiece);
        assert_eq!(without.source, VocabularySource::ByteFallback);
        assert_eq!(with_model.metadata, without.metadata, "{name}");
    }
}

fn llama_cpp_vocabulary(name: &str) -> Option<Metadata> {
    let path = material(&format!("tokenizers/llama.cpp-vocab/ggml-vocab-{name}.gguf"))?;
    Some(tokenizer_entries(Gguf::open(Path::new(&path)).unwrap().metadata()))
}

/// The vocabularies in llama.cpp's repository, some of them older than its converter. Explained differences:
/// - falcon: bos and eos stand in the other order (eos then came first);
/// - llama-spm: made from a folder with `tokenizer_config.json` (unknown, add_bos, add_eos); ours has the padding id
///   of its `config.json`;
/// - phi-3: unused ids had type 2, and the folder was an earlier revision (other template, add_bos).
#[test]
fn llama_cpps_own_vocabularies_agree() {
    let cases: [(&str, &[&str]); 4] = [
        ("gpt-2", &[]),
        ("falcon", &[]),
        ("llama-spm", &["unknown_token_id", "padding_token_id", "add_bos_token", "add_eos_token"]),
        ("phi-3", &["token_type", "add_bos_token", "chat_template"]),
    ];
    for (name, explained) in cases {
        let (Some(draft), Some(theirs)) = (real(name), llama_cpp_vocabulary(name)) else { return };
        let ours = read(&draft).unwrap().metadata;
        let keys = ours.iter().chain(theirs.iter()).map(|(key, _)| key);
        for key in keys.filter(|key| !explained.iter().any(|name| key.ends_with(name))) {
            assert!(ours.get(key) == theirs.get(key), "{name}: {key} differs");
        }
        if name == "phi-3" {
            let key = "tokenizer.ggml.token_type";
            let types = |metadata: &Metadata| match metadata.array(key) {
                Some(Array::I32(types)) => types.clone(),
                other => panic!("{other:?}"),
            };
            let (ours, theirs) = (types(&ours), types(&theirs));
            let differing: Vec<usize> =
                (0..ours.len()).filter(|&id| ours[id] != theirs[id]).collect();
            assert_eq!(differing, (32_011..32_064).collect::<Vec<_>>());
            assert!(differing.iter().all(|&id| (ours[id], theirs[id]) == (5, 2)));
        }
    }
}
