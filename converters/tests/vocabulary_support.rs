//! Checkpoint folders with real vocabularies, laid out from the shared material, and small hand-made ones.
//!
//! The real ones are those of `vocabulary_golden.py`, which asked llama.cpp's converter about the same files.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use nfl_converters::vocabulary::{self, Vocabulary, VocabularyError};
use nfl_models::Hint;
use serde_json::{Value, json};

use crate::checkpoint_support::{Draft, busy, material};

const LLAMA_3: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// The names of the real vocabularies.
pub(crate) const REAL: [&str; 10] = [
    "llama-spm",
    "phi-3",
    "falcon",
    "gpt-2",
    "qwen2",
    "llama-bpe",
    "mixtral",
    "granite",
    "phi-2",
    "mistral-v3",
];

/// Lays out one of them; `None` when the material is absent.
pub(crate) fn real(name: &str) -> Option<Draft> {
    let tokenizers = material("tokenizers")?;
    let checkpoints = material("checkpoints")?;
    let configs = checkpoints.join("configs");
    let llama_2 = tokenizers.join("llama2/tokenizer.model");
    let copies = |draft: Draft, root: &Path, names: &[&str]| {
        names.iter().fold(draft, |draft, name| copy(draft, &root.join(name), name))
    };
    let config = |name: &str| copy(Draft::empty(), &configs.join(name), "config.json");
    let small = [
        "config.json",
        "generation_config.json",
        "special_tokens_map.json",
        "tokenizer_config.json",
    ];
    Some(match name {
        "llama-spm" => copy(config("llama2_7b.json"), &llama_2, "tokenizer.model"),
        "phi-3" => {
            let draft = write(Draft::empty(), "config.json", &phi_3_config());
            let draft = copy(draft, &llama_2, "tokenizer.model");
            copies(
                draft,
                &tokenizers.join("phi-3-mini"),
                &["tokenizer.json", "tokenizer_config.json"],
            )
        }
        "falcon" => {
            let draft = write(Draft::empty(), "config.json", &falcon_config());
            let tokenizer_config = json!({"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<|endoftext|>", "add_prefix_space": false});
            let draft = write(draft, "tokenizer_config.json", &tokenizer_config);
            copies(draft, &tokenizers.join("falcon-tokenizer"), &["tokenizer.json"])
        }
        "gpt-2" => {
            let tokenizer_config = json!({"tokenizer_class": "GPT2Tokenizer"});
            let draft = write(config("gpt2.json"), "tokenizer_config.json", &tokenizer_config);
            let draft = copy(draft, &tokenizers.join("gpt2.vocab"), "vocab.json");
            copy(draft, &tokenizers.join("gpt2.merges.txt"), "merges.txt")
        }
        "qwen2" => {
            let root = tokenizers.join("qwen2.5-instruct");
            let draft = copies(Draft::empty(), &root, &small);
            copies(draft, &root, &["added_tokens.json", "vocab.json", "merges.txt"])
        }
        "llama-bpe" => llama_3(config("llama3_2_3b.json"), &tokenizers, false)?,
        "mixtral" => {
            let root = checkpoints.join("mixtral-8x7b-instruct");
            let draft = copies(Draft::empty(), &root, &small);
            let draft = copies(draft, &root, &["tokenizer.json"]);
            copy(draft, &tokenizers.join("mistral/tokenizer.model.v1"), "tokenizer.model")
        }
        "granite" => {
            let root = checkpoints.join("granite-3.1-1b-a400m");
            copies(copies(Draft::empty(), &root, &small), &root, &["tokenizer.json"])
        }
        "phi-2" => {
            let names = ["tokenizer.json", "tokenizer_config.json"];
            copies(config("phi-2.json"), &tokenizers.join("phi-2"), &names)
        }
        "mistral-v3" => {
            let draft =
                write(config("mistral_7b_v03.json"), "tokenizer_config.json", &mistral_config());
            let model = tokenizers.join("mistral/mistral_instruct_tokenizer_240323.model.v3");
            copy(draft, &model, "tokenizer.model")
        }
        other => panic!("no vocabulary {other}"),
    })
}

fn phi_3_config() -> Value {
    json!({"architectures": ["Phi3ForCausalLM"], "model_type": "phi3", "vocab_size": 32064, "bos_token_id": 1, "eos_token_id": 32000, "pad_token_id": 32000})
}

fn falcon_config() -> Value {
    json!({"architectures": ["FalconForCausalLM"], "model_type": "falcon", "vocab_size": 65024, "bos_token_id": 11, "eos_token_id": 11})
}

fn mistral_config() -> Value {
    json!({
        "bos_token": "<s>", "add_bos_token": true, "add_eos_token": false,
        "added_tokens_decoder": {"3": {"content": "[INST]", "special": true}, "32767": {"content": "a▁b", "special": false}},
        "chat_template": [{"name": "default", "template": "D"}, {"name": "tool use", "template": "T"}],
    })
}

/// Composes Llama 3's `tokenizer.json` from its vocabulary, merges, special tokens and expression; merges as texts
/// or as pairs.
pub(crate) fn llama_3(draft: Draft, tokenizers: &Path, merges_as_pairs: bool) -> Option<Draft> {
    let read = |name: &str| fs::read_to_string(tokenizers.join("llama3.2").join(name)).unwrap();
    let vocabulary: Value = serde_json::from_str(&read("encoder.json")).unwrap();
    let merges: Vec<Value> = read("vocab.bpe")
        .lines()
        .map(|line| match line.split_once(' ') {
            Some(pair) if merges_as_pairs => json!([pair.0, pair.1]),
            _ => json!(line),
        })
        .collect();
    let token = |content: &str| json!({"content": content, "single_word": false, "lstrip": false, "rstrip": false, "normalized": false, "special": true});
    let added: Vec<Value> = (128_000..)
        .zip(llama_3_names())
        .map(|(id, name)| {
            let mut token = token(&name);
            token["id"] = json!(id);
            token
        })
        .collect();
    let begin = "<|begin_of_text|>";
    let special = |type_id: u32| json!({"SpecialToken": {"id": begin, "type_id": type_id}});
    let text = |name: &str, type_id: u32| json!({"Sequence": {"id": name, "type_id": type_id}});
    let bytes = |use_regex: bool| json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": use_regex});
    let tokenizer = json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": added, "normalizer": null,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
            {"type": "Split", "pattern": {"Regex": LLAMA_3}, "behavior": "Isolated", "invert": false}, bytes(false),
        ]},
        "post_processor": {"type": "Sequence", "processors": [bytes(true), {
            "type": "TemplateProcessing",
            "single": [special(0), text("A", 0)],
            "pair": [special(0), text("A", 0), special(1), text("B", 1)],
            "special_tokens": {begin: {"id": begin, "ids": [128_000], "tokens": [begin]}},
        }]},
        "decoder": bytes(true),
        "model": {
            "type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false, "ignore_merges": true,
            "vocab": vocabulary, "merges": merges,
        },
    });
    let decoder: serde_json::Map<String, Value> =
        (128_000..).zip(llama_3_names()).map(|(id, name)| (id.to_string(), token(&name))).collect();
    let template = material("chat-templates/meta-llama-Llama-3.2-3B-Instruct.jinja")?;
    let tokenizer_config = json!({
        "bos_token": begin, "eos_token": "<|eot_id|>", "tokenizer_class": "PreTrainedTokenizerFast",
        "added_tokens_decoder": decoder, "chat_template": fs::read_to_string(template).unwrap(),
    });
    let draft = write(draft, "tokenizer.json", &tokenizer);
    Some(write(draft, "tokenizer_config.json", &tokenizer_config))
}

/// The texts of the ids from 128000 on.
fn llama_3_names() -> Vec<String> {
    let mut names: Vec<String> = [
        "<|begin_of_text|>",
        "<|end_of_text|>",
        "<|reserved_special_token_0|>",
        "<|reserved_special_token_1|>",
        "<|finetune_right_pad_id|>",
        "<|reserved_special_token_2|>",
        "<|start_header_id|>",
        "<|end_header_id|>",
        "<|eom_id|>",
        "<|eot_id|>",
        "<|python_tag|>",
    ]
    .map(str::to_owned)
    .to_vec();
    names.extend((3..248).map(|index| format!("<|reserved_special_token_{index}|>")));
    names
}

fn copy(draft: Draft, source: &Path, name: &str) -> Draft {
    let bytes = fs::read(source).unwrap();
    draft.with(name, &bytes)
}

/// Adds a JSON file.
pub(crate) fn write(draft: Draft, name: &str, value: &Value) -> Draft {
    draft.with(name, value.to_string().as_bytes())
}

/// A `tokenizer.json` of 256 bytes, two merges and seven special tokens (258 to 264), cut as GPT-2 does.
pub(crate) fn small_tokenizer() -> Value {
    let mut vocabulary: serde_json::Map<String, Value> = byte_alphabet()
        .into_iter()
        .zip(0..)
        .map(|(text, id): (String, u32)| (text, json!(id)))
        .collect();
    vocabulary.insert("he".to_owned(), json!(256));
    vocabulary.insert("Ġt".to_owned(), json!(257));
    let names = ["<s>", "</s>", "<unk>", "<pad>", "<sep>", "<cls>", "<mask>"];
    let added: Vec<Value> = (258..)
        .zip(names)
        .map(|(id, name): (u32, &str)| json!({"id": id, "content": name, "special": true, "normalized": false, "single_word": false, "lstrip": false, "rstrip": false}))
        .collect();
    json!({
        "added_tokens": added, "normalizer": null,
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true},
        "post_processor": null,
        "decoder": {"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true},
        "model": {"type": "BPE", "vocab": vocabulary, "merges": ["h e", "Ġ t"]},
    })
}

/// GPT-2's character for each byte.
fn byte_alphabet() -> Vec<String> {
    let mut shifted = 0x100..;
    (0..=u8::MAX)
        .map(|byte| {
            let printable = matches!(byte, b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff);
            let code = if printable { u32::from(byte) } else { shifted.next().unwrap() };
            char::from_u32(code).unwrap().to_string()
        })
        .collect()
}

/// A folder with a `tokenizer.json`.
pub(crate) fn with_tokenizer(tokenizer: &Value) -> Draft {
    write(Draft::empty(), "tokenizer.json", tokenizer)
}

pub(crate) fn read(draft: &Draft) -> Result<Vocabulary, VocabularyError> {
    vocabulary::read(draft.path(), None)
}

/// How long a refusal may take by the time of day, on a machine that does much else.
const WALL_MAX: Duration = Duration::from_secs(20);

/// The one way to be refused: within a second of work, with a message that contains `expected`, and with a hint.
#[track_caller]
pub(crate) fn refused(draft: &Draft, expected: &str) {
    let (start, wall) = (busy(), Instant::now());
    let error = read(draft).expect_err("must be refused");
    let took = busy().saturating_sub(start);
    assert!(took < Duration::from_secs(1), "{error}: {took:?}");
    // The tokenizer runs in a thread of its own, which `busy` does not see. The time of the whole
    // process would count the tests that run beside this one.
    assert!(wall.elapsed() < WALL_MAX, "{error}: {:?}", wall.elapsed());
    let message = error.to_string();
    assert!(message.contains(expected), "{message:?} lacks {expected:?}");
    assert!(!message.contains(char::is_control), "a control character: {message:?}");
    let hint = error.hint().unwrap_or_else(|| panic!("no hint: {message}"));
    assert!(!hint.ends_with('.') && !message.ends_with('.'), "{message:?} {hint:?}");
}
