//! Tokenizers that nobody vouches for: each ends in a clear error, with a hint, within a second.

use std::fs::{self, File};

use nfl_converters::vocabulary;
use nfl_converters::vocabulary::limits::VOCABULARY_JSON_BYTES_MAX;
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::checkpoint_support::Draft;
use crate::vocabulary_support::{read, refused, small_tokenizer, with_tokenizer, write};

/// The small tokenizer with one value changed.
fn changed(pointer: &str, value: Value) -> Draft {
    let mut tokenizer = small_tokenizer();
    *tokenizer.pointer_mut(pointer).unwrap() = value;
    with_tokenizer(&tokenizer)
}

#[test]
fn a_folder_without_a_tokenizer_says_what_is_missing() {
    refused(&Draft::empty(), "no tokenizer");
    refused(&Draft::empty().with("tekken.json", b"{}"), "no tokenizer");
    let tiktoken = b"IQ== 0\nIg== 1\n";
    refused(&Draft::empty().with("tokenizer.model", tiktoken), "tiktoken");
    let both = with_tokenizer(&small_tokenizer()).with("tokenizer.model", tiktoken);
    assert!(read(&both).unwrap().warnings[0].contains("tiktoken"));
    let pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 499723\n";
    refused(&Draft::empty().with("tokenizer.model", pointer), "no SentencePiece model");
    refused(&Draft::empty().with("tokenizer.json", pointer), "tokenizer.json");
}

#[test]
fn r30_a_tokenizer_of_a_gigabyte_is_not_read() {
    for name in ["tokenizer.json", "tokenizer.model", "vocab.json", "tokenizer_config.json"] {
        let draft = write(Draft::empty(), "config.json", &json!({"model_type": "gpt2"}));
        File::create(draft.path().join(name)).unwrap().set_len(1 << 30).unwrap();
        refused(&draft, "1073741824");
    }
    const { assert!(VOCABULARY_JSON_BYTES_MAX < 1 << 30) };
}

#[test]
fn r30_runaway_expressions_are_refused() {
    for expression in ["(.|.|.)*[^\\s\\S]", "(\\S+\\S+)+[^\\s\\S]", "(.*.*.*.*)*[^\\s\\S]"] {
        let split = json!({"type": "Split", "pattern": {"Regex": expression}, "behavior": "Isolated", "invert": false});
        refused(&changed("/pre_tokenizer", split), "check text could not be tokenized");
    }
    let nested = format!("{}a{}", "(".repeat(8000), ")".repeat(8000));
    let repeated = "(((((a{1,999}){1,999}){1,999}){1,999}){1,999}){1,999}".to_owned();
    for expression in [nested, repeated] {
        let split = json!({"type": "Split", "pattern": {"Regex": expression}, "behavior": "Isolated", "invert": false});
        refused(&changed("/pre_tokenizer", split), "tokenizer.json: ");
    }
    let doubling = json!({"type": "Replace", "pattern": {"String": "a"}, "content": "aa"});
    let doubling = json!({"type": "Sequence", "normalizers": vec![doubling; 24]});
    refused(&changed("/normalizer", doubling), "times as long");
    let template =
        json!({"type": "TemplateProcessing", "single": [], "pair": [], "special_tokens": {}});
    let templates = json!({"type": "Sequence", "processors": [template.clone(), template]});
    refused(&changed("/post_processor", templates), "more than one template");
    refused(
        &changed("/pre_tokenizer", json!({"type": "Nobody"})),
        "check text could not be tokenized",
    );
}

#[test]
fn an_unknown_pre_tokenizer_is_an_error_and_no_guess() {
    let split = json!({"type": "Split", "pattern": {"Regex": "\\w+"}, "behavior": "Isolated", "invert": false});
    refused(&changed("/pre_tokenizer", split), "pre-tokenizer not recognised (check ");
    refused(&changed("/pre_tokenizer", Value::Null), "pre-tokenizer not recognised");
    refused(&changed("/normalizer", json!({"type": "Lowercase"})), "pre-tokenizer not recognised");
}

#[test]
fn damaged_vocabularies_are_refused() {
    let mut tokenizer = small_tokenizer();
    tokenizer["model"]["vocab"]["twice"] = json!(5);
    refused(&with_tokenizer(&tokenizer), "id 5 belongs to both");
    refused(&changed("/added_tokens/0/id", json!(5)), "id 5 belongs to both");
    refused(&changed("/added_tokens/0/id", json!(259)), "id 259 belongs to both");
    refused(
        &changed("/model/merges", json!(["h e", "x y"])),
        "merge 1 (\"x y\") leads nowhere: \"xy\"",
    );
    refused(&changed("/model/merges", json!([["nobody", "e"]])), "\"nobody\" is no token");
    refused(&changed("/model/merges", json!([["h"]])), "two pieces");
    refused(&changed("/model/merges", json!([["h", "e", "y"]])), "two pieces");
    refused(&changed("/model/merges", json!([])), "no merges");
    refused(&changed("/model/merges", json!([1])), "a merge");
    refused(&changed("/model/vocab", json!({})), "empty vocabulary");
    refused(&changed("/model/vocab", json!({"a": -1})), "tokenizer.json");
    refused(&changed("/model/vocab", json!({"a": 4_294_967_296_u64})), "tokenizer.json");
    refused(&changed("/model/vocab", json!([["a", -1.5]])), "tokenizer.json");
    refused(&changed("/model/type", json!("Unigram")), "a model of type \"Unigram\"");
    refused(&changed("/added_tokens/0/content", json!("a\u{0}b")), "token 258 contains a NUL");
    refused(&changed("/added_tokens/0/content", json!("x".repeat(1 << 20))), "1048576 bytes");
    refused(
        &changed("/added_tokens/0/content", json!("x".repeat(5 << 20))),
        "added tokens in bytes",
    );
    refused(&changed("/added_tokens/0/id", json!(u64::MAX)), "a vocabulary in tokens");
    refused(&changed("/normalizer", json!("x".repeat(3 << 20))), "normalizer, pre-tokenizer");
}

#[test]
fn ids_beyond_the_embedding_are_refused() {
    let rows = |rows: u64| {
        write(with_tokenizer(&small_tokenizer()), "config.json", &json!({"vocab_size": rows}))
    };
    refused(&rows(264), "token \"<mask>\" has id 264, the model has 264 embedding rows");
    refused(&rows(0), "has 0 embedding rows");
    refused(&rows(u64::MAX), "a vocabulary in tokens");
    assert!(vocabulary::read(rows(264).path(), Some(265)).is_ok());
    assert!(vocabulary::read(rows(265).path(), Some(264)).is_err());
}

#[test]
fn deep_and_broken_json_is_refused() {
    let deep = "[".repeat(100_000);
    for name in ["tokenizer.json", "tokenizer_config.json", "config.json"] {
        let draft = with_tokenizer(&small_tokenizer());
        let text = format!("{{\"model\":{deep}");
        refused(&draft.with(name, text.as_bytes()), name);
        refused(&with_tokenizer(&small_tokenizer()).with(name, b"\xff{}"), name);
        refused(&with_tokenizer(&small_tokenizer()).with(name, b"[]"), name);
    }
    let draft = with_tokenizer(&small_tokenizer());
    let decoder = json!({"added_tokens_decoder": {"one": {"content": "x"}}});
    refused(&write(draft, "tokenizer_config.json", &decoder), "\"one\" is no id");
}

#[cfg(unix)]
#[test]
fn what_is_no_regular_file_is_not_opened() {
    use std::os::unix::fs::symlink;

    for name in ["tokenizer.model", "tokenizer.json", "config.json"] {
        let draft = Draft::empty();
        symlink("/dev/zero", draft.path().join(name)).unwrap();
        refused(&draft, "not a regular file");
        let draft = Draft::empty();
        fs::create_dir(draft.path().join(name)).unwrap();
        refused(&draft, "not a regular file");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Whatever stands in the files, the answer is a vocabulary or an error.
    #[test]
    fn any_bytes_get_an_answer(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let draft = Draft::empty().with("tokenizer.model", &bytes);
        let _ = read(&draft);
        let draft = Draft::empty().with("tokenizer.json", &bytes);
        let _ = read(&draft);
    }

    /// A real file with one byte changed is read or refused.
    #[test]
    fn a_changed_byte_gets_an_answer(place in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let mut bytes = small_tokenizer().to_string().into_bytes();
        let place = place.index(bytes.len());
        bytes[place] = byte;
        let _ = read(&Draft::empty().with("tokenizer.json", &bytes));
    }
}
