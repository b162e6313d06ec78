//! Token ids after conversion equal the published vectors, for every kind of vocabulary that the converter reads.
//!
//! The vectors are llama.cpp's (`.inp`, `.out`: 47 texts and the ids of the vocabulary's own library). Each vocabulary goes
//! the whole way: a small checkpoint with its files, `nfl convert`, the engine's tokenizer.

use std::fs;
use std::path::{Path, PathBuf};

use nfl::engine::llama::{Backend, Model, TokenizeOptions};
use nfl::engine::options::ModelOptions;
use serde_json::{Value, json};

use crate::fixture;

const SEPARATOR: &str = "\n__ggml_vocab_test__\n";

/// Llama 3's expression for splitting text into words.
const LLAMA_3_WORDS: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// A vocabulary: the name of its vectors, its rows, and its files (from the material, under the name in a checkpoint).
struct Case {
    vectors: &'static str,
    rows: u64,
    files: &'static [(&'static str, &'static str)],
}

const CASES: [Case; 5] = [
    Case {
        vectors: "llama-spm",
        rows: 32_000,
        files: &[("llama2/tokenizer.model", "tokenizer.model")],
    },
    Case {
        vectors: "phi-3",
        rows: 32_064,
        files: &[
            ("phi-3-mini/tokenizer.json", "tokenizer.json"),
            ("phi-3-mini/tokenizer_config.json", "tokenizer_config.json"),
        ],
    },
    Case {
        vectors: "falcon",
        rows: 65_024,
        files: &[("falcon-tokenizer/tokenizer.json", "tokenizer.json")],
    },
    Case {
        vectors: "gpt-2",
        rows: 50_257,
        files: &[("gpt2.vocab", "vocab.json"), ("gpt2.merges.txt", "merges.txt")],
    },
    Case {
        vectors: "qwen2",
        rows: 151_936,
        files: &[
            ("qwen2.5-instruct/vocab.json", "vocab.json"),
            ("qwen2.5-instruct/merges.txt", "merges.txt"),
            ("qwen2.5-instruct/added_tokens.json", "added_tokens.json"),
            ("qwen2.5-instruct/special_tokens_map.json", "special_tokens_map.json"),
            ("qwen2.5-instruct/tokenizer_config.json", "tokenizer_config.json"),
        ],
    },
];

#[test]
fn ids_equal_the_vectors_of_five_published_vocabularies() {
    for case in CASES {
        if fixture::material("tokenizers").is_none() {
            return;
        }
        let folder = tempfile::tempdir().unwrap();
        for (source, name) in case.files {
            let source = fixture::material(&format!("tokenizers/{source}")).unwrap();
            fs::copy(source, folder.path().join(name)).unwrap();
        }
        if case.vectors == "gpt-2" {
            let settings = json!({"tokenizer_class": "GPT2Tokenizer"});
            write(folder.path(), "tokenizer_config.json", &settings);
        }
        check(&case, folder.path());
    }
}

#[test]
fn ids_equal_the_vectors_of_llama_3() {
    let Some(source) = fixture::material("tokenizers/llama3.2") else { return };
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), "tokenizer.json", &llama_3(&source));
    let settings = json!({"tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": "<|begin_of_text|>", "eos_token": "<|eot_id|>"});
    write(folder.path(), "tokenizer_config.json", &settings);
    check(&Case { vectors: "llama-bpe", rows: 128_256, files: &[] }, folder.path());
}

fn write(folder: &Path, name: &str, value: &Value) {
    fs::write(folder.join(name), value.to_string()).unwrap();
}

/// Llama 3's `tokenizer.json`, composed of its published vocabulary, merges, special tokens and expression.
fn llama_3(source: &Path) -> Value {
    let vocabulary: Value =
        serde_json::from_slice(&fs::read(source.join("encoder.json")).unwrap()).unwrap();
    let merges = fs::read_to_string(source.join("vocab.bpe")).unwrap();
    let merges: Vec<&str> = merges.lines().collect();
    let named = [
        (0, "<|begin_of_text|>"),
        (1, "<|end_of_text|>"),
        (4, "<|finetune_right_pad_id|>"),
        (6, "<|start_header_id|>"),
        (7, "<|end_header_id|>"),
        (8, "<|eom_id|>"),
        (9, "<|eot_id|>"),
        (10, "<|python_tag|>"),
    ];
    let mut reserved = 0..;
    let special: Vec<Value> = (0..256)
        .map(|index| {
            let content = match named.iter().find(|(at, _)| *at == index) {
                Some((_, name)) => (*name).to_owned(),
                None => format!("<|reserved_special_token_{}|>", reserved.next().unwrap()),
            };
            json!({"id": 128_000 + index, "content": content, "single_word": false,
                "lstrip": false, "rstrip": false, "normalized": false, "special": true})
        })
        .collect();
    let bytes = json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true,
        "use_regex": false});
    let words = json!({"type": "Split", "pattern": {"Regex": LLAMA_3_WORDS},
        "behavior": "Isolated", "invert": false});
    json!({
        "version": "1.0", "truncation": null, "padding": null, "normalizer": null,
        "added_tokens": special,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [words, bytes]},
        "post_processor": null,
        "decoder": {"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true,
            "use_regex": true},
        "model": {"type": "BPE", "dropout": null, "unk_token": null,
            "continuing_subword_prefix": null, "end_of_word_suffix": null, "fuse_unk": false,
            "byte_fallback": false, "ignore_merges": true, "vocab": vocabulary, "merges": merges},
    })
}

/// A small checkpoint with this vocabulary, converted.
fn converted(case: &Case, tokenizer: &Path, folder: &Path) -> PathBuf {
    let config = json!({"architectures": ["LlamaForCausalLM"], "model_type": "llama",
        "hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 1,
        "num_attention_heads": 2, "num_key_value_heads": 2, "vocab_size": case.rows,
        "max_position_embeddings": 512, "rms_norm_eps": 1e-5, "rope_theta": 10000.0,
        "tie_word_embeddings": true});
    write(folder, "config.json", &config);
    let checkpoint = folder.join(case.vectors);
    fixture::nfl(&[
        "synthesize",
        fixture::text(&folder.join("config.json")),
        "--output",
        fixture::text(&checkpoint),
        "--tokenizer",
        fixture::text(tokenizer),
        "--quiet",
    ])
    .expect_success();
    fixture::convert(&checkpoint, "f16", folder).remove(0)
}

/// Compares every case of the vectors with what the engine makes of the converted file.
fn check(case: &Case, tokenizer: &Path) {
    let name = case.vectors;
    let vectors = format!("tokenizers/llama.cpp-vocab/ggml-vocab-{name}.gguf.inp");
    let inputs = fixture::material(&vectors).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let file = converted(case, tokenizer, folder.path());
    let options = ModelOptions { vocabulary_only: true, ..ModelOptions::default() };
    let model = Model::load(Backend::get(), &file, &options, &mut |_| true).unwrap();
    let vocabulary = model.vocabulary();
    let texts = fs::read_to_string(&inputs).unwrap();
    let expected = fs::read_to_string(inputs.with_extension("out")).unwrap();
    let texts: Vec<&str> = texts.split(SEPARATOR).collect();
    let expected: Vec<&str> = expected.lines().collect();
    // The last separator ends the file: nothing follows it.
    let cases = expected.len();
    assert!(cases >= 46 && texts.len() >= cases, "{name}: {} texts, {cases} lines", texts.len());
    for (text, line) in texts.iter().zip(expected) {
        let ids: Vec<i32> = line.split_whitespace().map(|id| id.parse().unwrap()).collect();
        let ours = vocabulary.tokenize(text, TokenizeOptions::default()).unwrap();
        assert_eq!(ours, ids, "{name}: {text:?}");
    }
}
