//! The tokenizer of a generated checkpoint: copied, or made up as a SentencePiece model.
//!
//! `tokenizer.model` is a protocol buffer (`sentencepiece_model.proto` of google/sentencepiece).
//! The few fields that a reader needs are written by hand: the wire format is a tag, a length and
//! the bytes.

use std::fs;
use std::path::Path;

use serde_json::json;

use super::{SeededError, write_json};
use crate::checkpoint::Folder;
use crate::vocabulary;

/// One of these must be there.
const NEEDED: [&str; 4] = ["tokenizer.model", "tokenizer.json", "vocab.json", "encoder.json"];

/// `<unk>`, `<s>`, `</s>` and the 256 bytes.
const FIXED: u64 = 3 + 256;
/// What SentencePiece writes for a space.
const SPACE: &str = "\u{2581}";

/// Copies a tokenizer's files.
pub(super) fn copy(source: &Path, target: &Path) -> Result<(), SeededError> {
    let folder = Folder::open(source)?;
    let mut is_complete = false;
    for name in vocabulary::FILES {
        if let Some(path) = folder.file(name)? {
            fs::copy(&path, target.join(name)).map_err(|error| SeededError::io(&path, error))?;
            is_complete |= NEEDED.contains(&name);
        }
    }
    if !is_complete {
        return Err(SeededError::NoTokenizer { path: source.to_path_buf() });
    }
    Ok(())
}

/// Writes a vocabulary of `size` tokens that can spell any text by bytes.
pub(super) fn make_up(size: u64, target: &Path) -> Result<(), SeededError> {
    if size < FIXED {
        let expected = format!("at least {FIXED} for a made-up vocabulary with all bytes");
        return Err(SeededError::Number { what: "vocab_size", found: size, expected });
    }
    let path = target.join("tokenizer.model");
    fs::write(&path, model(size)).map_err(|error| SeededError::io(&path, error))?;
    let config = json!({
        "tokenizer_class": "LlamaTokenizer", "add_bos_token": true, "add_eos_token": false,
        "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"
    });
    write_json(&target.join("tokenizer_config.json"), &config)?;
    let defaults = json!({"bos_token_id": 1, "eos_token_id": 2});
    write_json(&target.join("generation_config.json"), &defaults)
}

/// SentencePiece's kinds of pieces, by their numbers in the protocol buffer.
#[derive(Clone, Copy)]
enum Kind {
    Normal = 1,
    Unknown = 2,
    Control = 3,
    Byte = 6,
}

fn model(size: u64) -> Vec<u8> {
    let mut model = Vec::new();
    let mut piece = |text: &str, score: f32, kind: Kind| {
        let mut message = Vec::new();
        bytes_field(&mut message, 1, text.as_bytes());
        message.push(2 << 3 | 5);
        message.extend(score.to_le_bytes());
        number_field(&mut message, 3, kind as u64);
        bytes_field(&mut model, 1, &message);
    };
    piece("<unk>", 0.0, Kind::Unknown);
    piece("<s>", 0.0, Kind::Control);
    piece("</s>", 0.0, Kind::Control);
    for byte in 0..=u8::MAX {
        piece(&format!("<0x{byte:02X}>"), 0.0, Kind::Byte);
    }
    for (rank, text) in pieces().take((size - FIXED) as usize).enumerate() {
        piece(&text, -(rank as f32), Kind::Normal);
    }

    let mut trainer = Vec::new();
    number_field(&mut trainer, 3, 2); // model_type: BPE
    number_field(&mut trainer, 4, size); // vocab_size
    number_field(&mut trainer, 35, 1); // byte_fallback
    number_field(&mut trainer, 40, 0); // unk_id
    number_field(&mut trainer, 41, 1); // bos_id
    number_field(&mut trainer, 42, 2); // eos_id
    number_field(&mut trainer, 43, -1_i64 as u64); // pad_id: none
    bytes_field(&mut model, 2, &trainer);

    let mut normalizer = Vec::new();
    bytes_field(&mut normalizer, 1, b"identity"); // name
    number_field(&mut normalizer, 3, 1); // add_dummy_prefix
    number_field(&mut normalizer, 4, 0); // remove_extra_whitespaces
    number_field(&mut normalizer, 5, 1); // escape_whitespaces
    bytes_field(&mut model, 3, &normalizer);
    model
}

/// The space, the printable ASCII characters, then all words over a to z by growing length, each
/// also after a space. Every word's beginning comes before it, so every piece can be merged.
fn pieces() -> impl Iterator<Item = String> {
    let characters = (b'!'..=b'~').map(|code| char::from(code).to_string());
    let first = std::iter::once(SPACE.to_owned()).chain(characters);
    let spaced = (b'a'..=b'z').map(|code| format!("{SPACE}{}", char::from(code)));
    first.chain(spaced).chain((2..).flat_map(words))
}

/// All words of `length` letters in alphabetical order, then all of them after a space.
fn words(length: u32) -> impl Iterator<Item = String> {
    let count = 26_u64.pow(length);
    ["", SPACE].into_iter().flat_map(move |start| {
        (0..count).map(move |number| {
            let letters = (0..length).rev().map(|place| {
                let letter = (number / 26_u64.pow(place) % 26) as u8;
                char::from(b'a' + letter)
            });
            start.chars().chain(letters).collect()
        })
    })
}

fn number_field(target: &mut Vec<u8>, field: u64, value: u64) {
    varint(target, field << 3);
    varint(target, value);
}

fn bytes_field(target: &mut Vec<u8>, field: u64, value: &[u8]) {
    varint(target, field << 3 | 2);
    varint(target, value.len() as u64);
    target.extend(value);
}

/// Seven bits a byte, the lowest first; the highest bit says that more follow.
fn varint(target: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        target.push(value as u8 | 0x80);
        value >>= 7;
    }
    target.push(value as u8);
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn pieces_are_unique_and_each_can_be_merged_from_earlier_ones() {
        let mut seen = HashSet::new();
        for piece in pieces().take(128_000) {
            let length = piece.chars().count();
            if length > 1 {
                let start: String = piece.chars().take(length - 1).collect();
                let end = piece.chars().next_back().unwrap().to_string();
                assert!(seen.contains(&start) && seen.contains(&end), "{piece}");
            }
            assert!(seen.insert(piece));
        }
    }

    #[test]
    fn numbers_are_written_as_protocol_buffers_do() {
        // The examples of the protocol buffers' encoding guide.
        let mut bytes = Vec::new();
        number_field(&mut bytes, 1, 150);
        assert_eq!(bytes, [0x08, 0x96, 0x01]);
        bytes.clear();
        bytes_field(&mut bytes, 2, b"testing");
        assert_eq!(bytes, b"\x12\x07testing");
        bytes.clear();
        varint(&mut bytes, -2_i64 as u64);
        assert_eq!(bytes, [0xFE, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0x01]);
    }
}
