//! Hand-made vocabularies: every way in which the small files say what the tokens are for.

use std::fs;

use nfl_converters::vocabulary::{Vocabulary, VocabularySource};
use nfl_models::gguf::{Array, Metadata, Value as Entry};
use serde_json::{Value, json};

use crate::checkpoint_support::Draft;
use crate::vocabulary_support::{read, refused, small_tokenizer, with_tokenizer, write};

fn texts(metadata: &Metadata, key: &str) -> Vec<String> {
    let texts = metadata.array(key).and_then(Array::as_texts).unwrap_or_default();
    texts.iter().map(ToString::to_string).collect()
}

fn types(vocabulary: &Vocabulary) -> &[i32] {
    match vocabulary.metadata.array("tokenizer.ggml.token_type") {
        Some(Array::I32(types)) => types,
        other => panic!("{other:?}"),
    }
}

fn token(vocabulary: &Vocabulary, id: usize) -> String {
    texts(&vocabulary.metadata, "tokenizer.ggml.tokens")[id].clone()
}

/// Sixty random post-processors and configurations, judged by `gguf-py`; see `vocabulary_golden.py`.
#[test]
fn special_tokens_are_upstreams() {
    let cases: Vec<Value> = serde_json::from_str(include_str!("vocabulary_special.json")).unwrap();
    assert_eq!(cases.len(), 60);
    for (index, case) in cases.iter().enumerate() {
        let mut tokenizer = small_tokenizer();
        let names = ["<s>", "</s>", "<unk>", "<pad>", "<sep>", "<cls>", "<mask>"];
        let map: serde_json::Map<String, Value> = (258..)
            .zip(names)
            .map(|(id, name): (u32, _)| {
                (name.to_owned(), json!({"id": name, "ids": [id], "tokens": [name]}))
            })
            .collect();
        let mut post_processor = case["post_processor"].clone();
        let is_template = |part: &Value| part["type"] == "TemplateProcessing";
        if is_template(&post_processor) {
            post_processor["special_tokens"] = json!(map);
        }
        for part in
            post_processor.get_mut("processors").and_then(Value::as_array_mut).into_iter().flatten()
        {
            if is_template(part) {
                part["special_tokens"] = json!(map);
            }
        }
        tokenizer["post_processor"] = post_processor;
        let draft = with_tokenizer(&tokenizer);
        let draft = write(draft, "tokenizer_config.json", &case["tokenizer_config"]);
        let vocabulary = read(&write(draft, "config.json", &case["config"])).unwrap();
        let expected = case["entries"].as_array().unwrap();
        let is_expected = |key: &str| expected.iter().any(|entry| entry[0] == key);
        // Upstream leaves a missing beginning or end to llama.cpp's guess; here the configuration's name counts.
        let ends = ["tokenizer.ggml.bos_token_id", "tokenizer.ggml.eos_token_id"];
        let ours: Vec<Value> = vocabulary
            .metadata
            .iter()
            .filter(|(key, _)| key.ends_with("_token_id") || key.contains("ggml.add_"))
            .filter(|(key, _)| !ends.contains(key) || is_expected(key))
            .map(|(key, value)| match value {
                Entry::U32(id) => json!([key, id]),
                Entry::Bool(flag) => json!([key, flag]),
                other => panic!("{key}: {other:?}"),
            })
            .collect();
        assert_eq!(&ours, expected, "case {index}");
    }
}

#[test]
fn unused_rows_of_the_embedding_are_padded() {
    let draft =
        write(with_tokenizer(&small_tokenizer()), "config.json", &json!({"vocab_size": 270}));
    let vocabulary = read(&draft).unwrap();
    assert_eq!((vocabulary.size, vocabulary.source), (270, VocabularySource::ByteLevel));
    assert_eq!(token(&vocabulary, 265), "[PAD265]");
    assert_eq!(types(&vocabulary)[263..267], [3, 3, 5, 5]);
    assert_eq!(vocabulary.metadata.text("tokenizer.ggml.pre"), Some("gpt-2"));
    assert_eq!(texts(&vocabulary.metadata, "tokenizer.ggml.merges"), ["h e", "Ġ t"]);
    let mut holed = small_tokenizer();
    holed["added_tokens"][6]["id"] = json!(266);
    let vocabulary = read(&with_tokenizer(&holed)).unwrap();
    assert_eq!((vocabulary.size, token(&vocabulary, 265).as_str()), (267, "[PAD265]"));
    assert_eq!(token(&vocabulary, 266), "<mask>");
}

#[test]
fn added_tokens_have_the_type_that_their_flags_and_looks_give() {
    let mut tokenizer = small_tokenizer();
    let added = tokenizer["added_tokens"].as_array_mut().unwrap();
    let plain = json!({"special": false, "normalized": false, "single_word": false, "lstrip": false, "rstrip": false});
    for (id, content) in (265..).zip(["<|tool|>", "▁two▁words", "<think>", "Ġcoded"]) {
        let mut token = plain.clone();
        token["id"] = json!(id);
        token["content"] = json!(content);
        added.push(token);
    }
    let configured =
        json!({"added_tokens_decoder": {"267": {"content": "<think>", "special": true}}});
    let vocabulary =
        read(&write(with_tokenizer(&tokenizer), "tokenizer_config.json", &configured)).unwrap();
    assert_eq!(types(&vocabulary)[265..], [3, 4, 3, 4]);
    assert_eq!(token(&vocabulary, 266), " two words");
    // The tokenizer's decoder reads these characters as bytes, so the token comes out with a space.
    assert_eq!(token(&vocabulary, 268), " coded");
}

#[test]
fn merges_may_contain_spaces_only_as_pairs() {
    let mut tokenizer = small_tokenizer();
    let model = &mut tokenizer["model"];
    for (text, id) in [(" ", 265), ("  ", 266)] {
        model["vocab"][text] = json!(id);
    }
    model["merges"] = json!([["h", "e"], [" ", " "]]);
    let vocabulary = read(&with_tokenizer(&tokenizer)).unwrap();
    assert_eq!(texts(&vocabulary.metadata, "tokenizer.ggml.merges"), ["h e", "Ġ Ġ"]);
    assert!(vocabulary.warnings.iter().any(|warning| warning.contains("written as Ġ")));
    tokenizer["model"]["merges"] = json!(["h e", "   "]);
    refused(&with_tokenizer(&tokenizer), "a merge: two pieces");
}

#[test]
fn chat_templates_come_from_wherever_they_are() {
    let plain = || with_tokenizer(&small_tokenizer());
    let configured = |template: &Value| {
        write(plain(), "tokenizer_config.json", &json!({"chat_template": template, "x": 1}))
    };
    let template = |draft: &Draft| {
        let metadata = read(draft).unwrap().metadata;
        metadata.text("tokenizer.chat_template").map(str::to_owned)
    };
    assert_eq!(template(&plain()), None);
    assert_eq!(template(&configured(&json!("T"))).unwrap(), "T");
    assert_eq!(template(&plain().with("chat_template.jinja", b"J")).unwrap(), "J");
    assert_eq!(template(&configured(&json!("T")).with("chat_template.jinja", b"J")).unwrap(), "T");
    let json = json!({"chat_template": "K"});
    assert_eq!(template(&write(plain(), "chat_template.json", &json)).unwrap(), "K");

    let named = json!([
        {"name": "tool use", "template": "T"}, {"name": "default", "template": "D"},
        {"name": "rag", "template": "R"}, {"name": "", "template": "lost"},
    ]);
    let metadata = read(&configured(&named)).unwrap().metadata;
    let keys: Vec<&str> = metadata.iter().map(|(key, _)| key).collect();
    let expected = [
        "tokenizer.chat_template.tool_use",
        "tokenizer.chat_template.rag",
        "tokenizer.chat_templates",
        "tokenizer.chat_template",
    ];
    assert!(keys.ends_with(&expected), "{keys:?}");
    assert_eq!(texts(&metadata, "tokenizer.chat_templates"), ["tool_use", "rag"]);

    let files = plain()
        .with("chat_template.jinja", b"J")
        .with("additional_chat_templates/rag.jinja", b"R")
        .with("additional_chat_templates/notes.txt", b"N");
    let metadata = read(&files).unwrap().metadata;
    assert_eq!(metadata.text("tokenizer.chat_template.rag"), Some("R"));
    assert_eq!(texts(&metadata, "tokenizer.chat_templates"), ["rag"]);
}

#[test]
fn beginning_and_end_are_found_where_upstream_does_not_look() {
    let generation = json!({"bos_token_id": 258, "eos_token_id": [259, 260]});
    let draft = write(with_tokenizer(&small_tokenizer()), "generation_config.json", &generation);
    let metadata = read(&draft).unwrap().metadata;
    assert_eq!(metadata.u32("tokenizer.ggml.bos_token_id"), Some(258));
    assert_eq!(metadata.u32("tokenizer.ggml.eos_token_id"), Some(259));
    let draft =
        write(draft, "special_tokens_map.json", &json!({"eos_token": {"content": "<pad>"}}));
    assert_eq!(read(&draft).unwrap().metadata.u32("tokenizer.ggml.eos_token_id"), Some(261));
    let draft = write(
        draft,
        "config.json",
        &json!({"eos_token_id": 260, "pad_token_id": -1, "unk_token_id": 9999}),
    );
    let vocabulary = read(&draft).unwrap();
    assert_eq!(vocabulary.metadata.u32("tokenizer.ggml.eos_token_id"), Some(260));
    assert_eq!(vocabulary.metadata.get("tokenizer.ggml.padding_token_id"), None);
    assert_eq!(vocabulary.metadata.get("tokenizer.ggml.unknown_token_id"), None);
    assert_eq!(vocabulary.warnings.len(), 2, "{:?}", vocabulary.warnings);
}

#[test]
fn llamas_flags_and_exceptions_are_kept() {
    let config = |size: u64| json!({"architectures": ["LlamaForCausalLM"], "vocab_size": size});
    let draft = write(with_tokenizer(&small_tokenizer()), "config.json", &config(32_016));
    let draft = write(draft, "tokenizer_config.json", &json!({"add_prefix_space": false}));
    let metadata = read(&draft).unwrap().metadata;
    let (first, value) = metadata.iter().next().unwrap();
    assert_eq!((first, value), ("tokenizer.ggml.add_space_prefix", &Entry::Bool(false)));
    assert_eq!(metadata.u32("tokenizer.ggml.eot_token_id"), Some(32_010));
    let metadata = read(&write(draft, "config.json", &config(49_152))).unwrap().metadata;
    assert_eq!(metadata.bool("tokenizer.ggml.add_bos_token"), Some(false));
}

/// A vocabulary with byte fallback: 256 bytes, then pieces.
fn byte_fallback(pieces: &[&str], merges: &[&str]) -> Value {
    let bytes = (0..256).map(|byte| format!("<0x{byte:02X}>"));
    let pieces = pieces.iter().map(|&piece| piece.to_owned());
    let vocabulary: serde_json::Map<String, Value> = ["<unk>".to_owned()]
        .into_iter()
        .chain(bytes)
        .chain(pieces)
        .zip(0..)
        .map(|(text, id): (String, u32)| (text, json!(id)))
        .collect();
    json!({
        "added_tokens": [], "pre_tokenizer": null, "post_processor": null, "decoder": {"type": "Sequence", "decoders": []},
        "normalizer": {"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "▁"}]},
        "model": {"type": "BPE", "unk_token": "<unk>", "byte_fallback": true, "vocab": vocabulary, "merges": merges},
    })
}

#[test]
fn scores_follow_the_merges() {
    let scores = |tokenizer: &Value| match read(&with_tokenizer(tokenizer))
        .unwrap()
        .metadata
        .array("tokenizer.ggml.scores")
    {
        Some(Array::F32(scores)) => scores[257..].to_vec(),
        other => panic!("{other:?}"),
    };
    // By id, as trained; the bytes before have none.
    let trained = byte_fallback(&["ab", "abc", "a", "b", "c"], &["a b", "ab c"]);
    assert_eq!(scores(&trained), [0.0, -1.0, -2.0, -3.0, -4.0]);
    // In the order of the merges, where that is another one.
    let shuffled = byte_fallback(&["abc", "ab", "a", "b", "c"], &["a b", "ab c"]);
    assert_eq!(scores(&shuffled), [-1.0, 0.0, -2.0, -3.0, -4.0]);
    // Rows of spaces last, all alike.
    let spaced =
        byte_fallback(&["▁▁", "▁▁▁", "ab", "▁", "a", "b"], &["a b", "▁ ▁", "▁▁ ▁", "▁ ▁▁"]);
    assert_eq!(scores(&spaced), [-1e9, -1e9, -2.0, -1e9, -4.0, -5.0]);
}

#[test]
fn byte_fallback_says_what_sentencepiece_would_do_otherwise() {
    let incomplete = byte_fallback(&["ab", "bc", "abc", "a", "b", "c"], &["a b", "b c", "ab c"]);
    let vocabulary = read(&with_tokenizer(&incomplete)).unwrap();
    assert_eq!(vocabulary.source, VocabularySource::ByteFallback);
    assert!(
        vocabulary.warnings[0].starts_with("1 pairs of tokens form a third one"),
        "{:?}",
        vocabulary.warnings
    );
    let mut unprefixed = byte_fallback(&["ab", "a", "b"], &["a b"]);
    unprefixed["normalizer"] = Value::Null;
    let metadata = read(&with_tokenizer(&unprefixed)).unwrap().metadata;
    assert_eq!(metadata.bool("tokenizer.ggml.add_space_prefix"), Some(false));
    unprefixed["pre_tokenizer"] = json!({"type": "Digits", "individual_digits": true});
    refused(
        &with_tokenizer(&unprefixed),
        "byte fallback together with a pre-tokenizer (\"Digits\")",
    );
}

/// A vocabulary and merges, with whatever names them.
fn pair(class: Option<&str>) -> Draft {
    let tokenizer = small_tokenizer();
    let mut vocabulary = tokenizer["model"]["vocab"].clone();
    vocabulary["<|endoftext|>"] = json!(258);
    let draft = write(Draft::empty(), "vocab.json", &vocabulary);
    let draft = draft.with("merges.txt", "#version: 0.2\nh e\nĠ t\n\none two three\n".as_bytes());
    match class {
        Some(class) => write(draft, "tokenizer_config.json", &json!({"tokenizer_class": class})),
        None => draft,
    }
}

#[test]
fn vocabulary_and_merges_need_a_class() {
    refused(&pair(None), "do not say how text is split");
    refused(&pair(Some("BloomTokenizer")), "\"BloomTokenizer\"");
    let gpt_2 = read(&pair(Some("GPT2Tokenizer"))).unwrap();
    assert_eq!(gpt_2.source, VocabularySource::VocabularyAndMerges);
    assert_eq!(gpt_2.metadata.text("tokenizer.ggml.pre"), Some("gpt-2"));
    assert_eq!(types(&gpt_2)[256..], [1, 1, 3]);
    assert_eq!(gpt_2.warnings, ["merges: line 5 is no pair and was left out"]);
    let qwen = read(&write(pair(None), "config.json", &json!({"model_type": "qwen2"}))).unwrap();
    assert_eq!(qwen.metadata.text("tokenizer.ggml.pre"), Some("qwen2"));
    let draft = pair(Some("GPT2Tokenizer"));
    fs::remove_file(draft.path().join("merges.txt")).unwrap();
    refused(&draft, "missing beside its companion");
}
