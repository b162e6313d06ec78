//! The part of the check that concerns the vocabulary.

use std::collections::{HashMap, HashSet};

use super::{Refusal, Warning};
use crate::gguf::{Array, Metadata, TensorInfo, Text, Value};
use crate::inventory::Role;

const MODEL_KEY: &str = "tokenizer.ggml.model";
const TOKENS_KEY: &str = "tokenizer.ggml.tokens";
const SCORES_KEY: &str = "tokenizer.ggml.scores";
const TYPES_KEY: &str = "tokenizer.ggml.token_type";
const MERGES_KEY: &str = "tokenizer.ggml.merges";
const BOS_KEY: &str = "tokenizer.ggml.bos_token_id";
const EOS_KEY: &str = "tokenizer.ggml.eos_token_id";
const SEPARATOR_KEY: &str = "tokenizer.ggml.seperator_token_id";
const ADD_BOS_KEY: &str = "tokenizer.ggml.add_bos_token";
const ADD_EOS_KEY: &str = "tokenizer.ggml.add_eos_token";

/// Every key that holds the id of a token. (The format misspells the separator's.)
const ID_KEYS: [&str; 17] = [
    BOS_KEY,
    EOS_KEY,
    SEPARATOR_KEY,
    "tokenizer.ggml.eot_token_id",
    "tokenizer.ggml.eom_token_id",
    "tokenizer.ggml.unknown_token_id",
    "tokenizer.ggml.padding_token_id",
    "tokenizer.ggml.mask_token_id",
    "tokenizer.ggml.fim_pre_token_id",
    "tokenizer.ggml.fim_suf_token_id",
    "tokenizer.ggml.fim_mid_token_id",
    "tokenizer.ggml.fim_pad_token_id",
    "tokenizer.ggml.fim_rep_token_id",
    "tokenizer.ggml.fim_sep_token_id",
    "tokenizer.ggml.prefix_token_id",
    "tokenizer.ggml.suffix_token_id",
    "tokenizer.ggml.middle_token_id",
];

/// The id by which files say that there is no such token: -1 as an unsigned number.
const NO_TOKEN: u64 = u32::MAX as u64;

pub(super) fn check(
    metadata: &Metadata,
    tensors: &[TensorInfo],
    warnings: &mut Vec<Warning>,
) -> Result<(), Refusal> {
    let model = metadata.text(MODEL_KEY).unwrap_or("");
    let tokens: &[Text] = match metadata.get(TOKENS_KEY) {
        // Models without a vocabulary exist; llama.cpp has a clear error for those that lack
        // theirs.
        None => return Ok(()),
        Some(Value::Array(Array::String(tokens))) => tokens,
        Some(_) => {
            return Err(Refusal::Type { key: TOKENS_KEY.to_owned(), wanted: "list of strings" });
        }
    };
    embedding_rows(tokens.len(), tensors)?;
    for key in [SCORES_KEY, TYPES_KEY] {
        let Some(value) = metadata.get(key) else { continue };
        let wrong = || Refusal::Type { key: key.to_owned(), wanted: "list" };
        let found = value.as_array().ok_or_else(wrong)?.len();
        if found < tokens.len() {
            return Err(Refusal::ShortList { key, found, tokens: tokens.len() });
        }
    }
    let known = distinct(tokens, warnings)?;
    if model == "gpt2" {
        merges(metadata, &known)?;
    }
    if model == "llama" {
        let missing = (0..=255_u8).filter(|byte| {
            let named = format!("<0x{byte:02X}>");
            !known.contains(named.as_bytes()) && !known.contains(&[*byte][..])
        });
        match missing.count() {
            0 => {}
            missing => warnings.push(Warning::NoByteTokens { missing }),
        }
    }
    special_tokens(metadata, model, tokens.len(), warnings)
}

fn embedding_rows(tokens: usize, tensors: &[TensorInfo]) -> Result<(), Refusal> {
    let tokens = tokens as u64;
    let tensor = Role::TokenEmbedding.tensor_name(None);
    match tensors.iter().find(|each| each.name == tensor).map(TensorInfo::rows) {
        Some(rows) if rows != tokens => Err(Refusal::VocabularySize { tokens, rows, tensor }),
        _ => Ok(()),
    }
}

/// The texts as llama.cpp sees them: cut at a zero byte. It asserts that no two are the same.
fn distinct<'a>(
    tokens: &'a [Text],
    warnings: &mut Vec<Warning>,
) -> Result<HashSet<&'a [u8]>, Refusal> {
    let (mut first_zero, mut zeros, mut empty) = (None, 0, Vec::new());
    let mut places: HashMap<&[u8], usize> = HashMap::with_capacity(tokens.len());
    for (token, text) in tokens.iter().enumerate() {
        let bytes = text.as_bytes();
        let zero = bytes.iter().position(|&byte| byte == 0);
        if zero.is_some() {
            first_zero.get_or_insert(token);
            zeros += 1;
        }
        let seen = &bytes[..zero.unwrap_or(bytes.len())];
        if seen.is_empty() {
            empty.push(token);
            continue;
        }
        if let Some(first) = places.insert(seen, token) {
            let text = String::from_utf8_lossy(&seen[..seen.len().min(64)]).into_owned();
            return Err(Refusal::DuplicateToken { first, second: token, text });
        }
    }
    for second in empty {
        // The name that llama.cpp gives to an empty token.
        let text = format!("[EMPTY_{second}]");
        if let Some(&first) = places.get(text.as_bytes()) {
            return Err(Refusal::DuplicateToken { first, second, text });
        }
    }
    if let Some(first) = first_zero {
        warnings.push(Warning::ZeroBytes { first, count: zeros });
    }
    Ok(places.into_keys().collect())
}

/// Each merge must give a token: llama.cpp would take the merged text apart into bytes, most of
/// which are no tokens in this vocabulary, and drop it from the prompt without a word.
fn merges(metadata: &Metadata, known: &HashSet<&[u8]>) -> Result<(), Refusal> {
    let merges = match metadata.get(MERGES_KEY) {
        None => return Ok(()),
        Some(Value::Array(Array::String(merges))) => merges,
        Some(_) => {
            return Err(Refusal::Type { key: MERGES_KEY.to_owned(), wanted: "list of strings" });
        }
    };
    let mut merged = Vec::new();
    for (index, merge) in merges.iter().enumerate() {
        let bytes = merge.as_bytes();
        // The first byte may itself be a space.
        let space = bytes.iter().skip(1).position(|&byte| byte == b' ').map(|place| place + 1);
        let gives = space.is_some_and(|space| {
            merged.clear();
            merged.extend_from_slice(&bytes[..space]);
            merged.extend_from_slice(&bytes[space + 1..]);
            known.contains(merged.as_slice())
        });
        if !gives {
            let text = String::from_utf8_lossy(&bytes[..bytes.len().min(64)]).into_owned();
            return Err(Refusal::Merge { index, text });
        }
    }
    Ok(())
}

fn special_tokens(
    metadata: &Metadata,
    model: &str,
    tokens: usize,
    warnings: &mut Vec<Warning>,
) -> Result<(), Refusal> {
    for key in ID_KEYS {
        if let Some(id) = metadata.u64(key)
            && id >= tokens as u64
            && id != NO_TOKEN
        {
            warnings.push(Warning::SpecialToken { key, id, tokens });
        }
    }
    // The ids that llama.cpp assumes for each kind of vocabulary: begin, end, separator.
    let (bos, eos, separator) = match model {
        "llama" | "plamo2" => (Some(1), Some(2), None),
        "bert" => (Some(101), None, Some(102)),
        "gpt2" | "gemma4" | "hybriddna" | "whitespace" => (Some(11), Some(11), None),
        "t5" => (None, Some(1), None),
        _ => (None, None, None),
    };
    let exists = |key: &str, default: Option<u64>| {
        let within = |id: &u64| *id < tokens as u64;
        metadata.u64(key).filter(within).or(default.filter(within)).is_some()
    };
    let add_bos = metadata.bool(ADD_BOS_KEY).unwrap_or(matches!(model, "llama" | "bert"));
    let add_eos = metadata.bool(ADD_EOS_KEY).unwrap_or(model == "t5");
    if (add_bos || model == "bert") && !exists(BOS_KEY, bos) && tokenizes(model) {
        return Err(Refusal::NoSuchToken { key: ADD_BOS_KEY });
    }
    if add_eos && !exists(EOS_KEY, eos) && tokenizes(model) {
        return Err(Refusal::NoSuchToken { key: ADD_EOS_KEY });
    }
    if model == "bert" && !exists(SEPARATOR_KEY, separator) {
        return Err(Refusal::NoSuchToken { key: SEPARATOR_KEY });
    }
    Ok(())
}

/// Whether llama.cpp adds special tokens for this kind of vocabulary; RWKV's it never asks.
fn tokenizes(model: &str) -> bool {
    !matches!(model, "" | "none" | "no_vocab" | "rwkv" | "test")
}
