//! A SentencePiece vocabulary (`tokenizer.ggml.model` "llama") from `tokenizer.model`, or from a `tokenizer.json`
//! that was made from one.
//!
//! In both cases the tokens added later are laid over the pieces: `added_tokens.json`, then `added_tokens_decoder` of
//! `tokenizer_config.json`, then (Phi-3 only, or where `tokenizer.json` is the source) the added tokens of
//! `tokenizer.json`.

use std::collections::{HashMap, HashSet};
use std::path::Path;

use serde_json::Value;

use super::byte_pairs::BytePairs;
use super::error::VocabularyError;
use super::json::{AddedToken, TokenizerJson};
use super::limits::TOKENS_MAX;
use super::sentencepiece::{Algorithm, PieceKind, SentencePiece, byte_of};
use super::tokens::{ADDED_SCORE, TokenTable, TokenType, looks_special};

/// The score of rows of spaces in the models of Llama and Mistral: merged after everything else.
const SPACES_SCORE: f32 = -1e9;

/// How tokens that were added later are understood.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum AddedStyle {
    /// Tokens that look special are, and `▁` in the others is a space.
    General,
    /// Exactly what the files say.
    Phi3,
}

/// The pieces of a SentencePiece model by id, padded to `size`.
pub(super) fn from_model(
    path: &Path,
    model: SentencePiece,
    size: usize,
    warnings: &mut Vec<String>,
) -> Result<TokenTable, VocabularyError> {
    report_flags(path, &model, warnings)?;
    if let Some(piece) = model.pieces.get(size) {
        return Err(VocabularyError::BeyondRows {
            path: path.to_owned(),
            token: piece.text.clone(),
            id: size as u64,
            rows: size as u64,
        });
    }
    let mut table = TokenTable::padded(size, true);
    for (id, piece) in model.pieces.into_iter().enumerate() {
        // User-defined pieces become normal ones, as upstream's conversion has it.
        let token_type = match piece.kind {
            PieceKind::Normal | PieceKind::UserDefined => TokenType::Normal,
            PieceKind::Unknown => TokenType::Unknown,
            PieceKind::Control => TokenType::Control,
            PieceKind::Unused => TokenType::Unused,
            PieceKind::Byte => TokenType::Byte,
        };
        table.set(id, piece.text, token_type, piece.score);
    }
    Ok(table)
}

/// Says what llama.cpp will do otherwise than the model asks, and refuses what it cannot do at all.
fn report_flags(
    path: &Path,
    model: &SentencePiece,
    warnings: &mut Vec<String>,
) -> Result<(), VocabularyError> {
    let unsupported = |what: &str| VocabularyError::Unsupported {
        path: path.to_owned(),
        what: what.to_owned(),
        hint: "llama.cpp has no vocabulary of this kind; such a model cannot be converted yet",
    };
    match model.algorithm {
        Algorithm::Bpe => {}
        Algorithm::Unigram => warnings.push(
            "tokenizer.model is a unigram model: llama.cpp merges pieces by score, which can split \
             some words in another way"
                .to_owned(),
        ),
        Algorithm::Word => return Err(unsupported("a SentencePiece model of whole words")),
        Algorithm::Character => return Err(unsupported("a SentencePiece model of characters")),
    }
    if !model.escape_whitespaces || model.whitespace_as_suffix {
        return Err(unsupported("a SentencePiece model that does not begin words with ▁"));
    }
    if model.remove_extra_whitespaces {
        warnings
            .push("tokenizer.model asks to drop repeated spaces; llama.cpp keeps them".to_owned());
    }
    if model.has_character_map {
        warnings.push(
            "tokenizer.model normalises characters; llama.cpp takes them as they are".to_owned(),
        );
    }
    Ok(())
}

/// The vocabulary of a byte-pair model with byte fallback, as the SentencePiece model that it was made from.
///
/// The scores are lost in `tokenizer.json`, but the merges follow them. Upstream writes -1000 for every token, which
/// makes llama.cpp merge from left to right regardless of rank, so here the scores are restored. For the tokenizers
/// of Mixtral and Phi-3 this gives exactly those of their `tokenizer.model`.
pub(super) fn from_byte_pairs(
    json: &TokenizerJson,
    model: &BytePairs,
    size: usize,
    warnings: &mut Vec<String>,
) -> Result<TokenTable, VocabularyError> {
    check_splitting(json)?;
    let mut table = TokenTable::padded(size, true);
    let added: HashSet<&str> = json.added.iter().map(|token| token.content.as_str()).collect();
    let mut pieces: Vec<(usize, &str)> = Vec::with_capacity(model.vocabulary.len());
    for (text, id) in &model.vocabulary {
        let id = *id as usize;
        if id >= size {
            return Err(beyond(&json.path, text, id as u64, size));
        }
        let token_type = if byte_of(text).is_some() {
            TokenType::Byte
        } else if model.unknown.as_deref() == Some(text) {
            TokenType::Unknown
        } else {
            // The added tokens are laid over the table later, types and scores included.
            if !added.contains(text.as_str()) {
                pieces.push((id, text));
            }
            TokenType::Normal
        };
        table.set(id, text.clone(), token_type, 0.0);
    }
    for (id, score) in restore_scores(model, pieces) {
        table.set_score(id, score);
    }
    let missing = missing_merges(model);
    if missing > 0 {
        warnings.push(format!(
            "{missing} pairs of tokens form a third one without being a merge: llama.cpp merges them \
             too, so some words are split in another way"
        ));
    }
    Ok(table)
}

/// Refuses a byte-fallback model that cuts text before merging: SentencePiece has no such step.
fn check_splitting(json: &TokenizerJson) -> Result<(), VocabularyError> {
    let kind = json.pre_tokenizer.get("type").and_then(Value::as_str);
    let pattern = json.pre_tokenizer.pointer("/pattern/String").and_then(Value::as_str);
    match kind {
        None | Some("Metaspace") => Ok(()),
        // Gemma: spaces have become ▁ by then.
        Some("Split") if pattern == Some(" ") => Ok(()),
        Some(kind) => Err(VocabularyError::Unsupported {
            path: json.path.clone(),
            what: format!("byte fallback together with a pre-tokenizer ({kind:?})"),
            hint: "add tokenizer.model of the same model, if it has one",
        }),
    }
}

/// Whether the tokenizer puts a space before the text.
pub(super) fn prepends_space(json: &TokenizerJson) -> bool {
    fn prepends(step: &Value) -> bool {
        let text = |name: &str| step.get(name).and_then(Value::as_str);
        match text("type") {
            Some("Prepend") => text("prepend") == Some("▁"),
            Some("Metaspace") => {
                text("prepend_scheme").is_none_or(|scheme| scheme != "never")
                    && step.get("add_prefix_space").and_then(Value::as_bool).unwrap_or(true)
            }
            Some("Sequence") => ["normalizers", "pretokenizers"]
                .into_iter()
                .filter_map(|name| step.get(name)?.as_array())
                .flatten()
                .any(prepends),
            _ => false,
        }
    }
    prepends(&json.normalizer) || prepends(&json.pre_tokenizer)
}

/// The scores that the pieces had in the SentencePiece model, as far as the merges tell.
///
/// A trained model scores its pieces 0, -1, -2, … by id, and merges follow the scores. Only rows of spaces come late:
/// Llama's models have them at [`SPACES_SCORE`], together with the single space. Where merges follow another order,
/// that order gives the scores, and the characters that no merge makes come after.
fn restore_scores(model: &BytePairs, mut pieces: Vec<(usize, &str)>) -> Vec<(usize, f32)> {
    let made = order_of_making(model);
    let place_of = |text: &str| made.get(text).copied().unwrap_or(usize::MAX);
    pieces.sort_by_key(|(id, text)| (place_of(text), *id));
    let mergeable = pieces.partition_point(|(_, text)| made.contains_key(*text));
    let late = pieces[..mergeable].windows(2).position(|pair| pair[1].0 < pair[0].0);
    let late = late.map_or(mergeable, |place| place + 1);
    let is_spaces = |text: &str| text.chars().all(|character| character == '▁');
    let by_id = pieces[late..mergeable].iter().all(|(_, text)| is_spaces(text));
    let first = pieces.iter().map(|(id, _)| *id).min().unwrap_or(0);
    let scores = pieces.into_iter().enumerate().map(|(place, (id, text))| {
        let score = if !by_id {
            0.0 - place as f32
        } else if late < mergeable && is_spaces(text) {
            SPACES_SCORE
        } else {
            0.0 - (id - first) as f32
        };
        (id, score)
    });
    scores.collect()
}

/// For each piece that merges make, the place of the first such merge.
fn order_of_making(model: &BytePairs) -> HashMap<String, usize> {
    let mut made = HashMap::with_capacity(model.merges.len());
    for (order, (left, right)) in model.merges.iter().enumerate() {
        made.entry(format!("{left}{right}")).or_insert(order);
    }
    made
}

/// How many pairs of pieces form a piece without being listed as a merge.
fn missing_merges(model: &BytePairs) -> usize {
    let ids = model.ids();
    let merges: HashSet<(&str, &str)> =
        model.merges.iter().map(|(left, right)| (left.as_str(), right.as_str())).collect();
    let made: HashSet<String> =
        model.merges.iter().map(|(left, right)| format!("{left}{right}")).collect();
    let splits = made
        .iter()
        .flat_map(|piece| piece.char_indices().skip(1).map(|(place, _)| piece.split_at(place)));
    splits
        .filter(|(left, right)| {
            ids.contains_key(left) && ids.contains_key(right) && !merges.contains(&(*left, *right))
        })
        .count()
}

/// Lays added tokens over the table; ids from its end on are left out with a warning, as upstream does.
pub(super) fn lay_over(
    table: &mut TokenTable,
    added: &[AddedToken],
    style: AddedStyle,
    warnings: &mut Vec<String>,
) {
    for token in added {
        let id = match usize::try_from(token.id) {
            Ok(id) if id < table.len() => id,
            _ => {
                warnings.push(format!(
                    "added token {:?}: id {} has no embedding row and was left out",
                    token.content, token.id
                ));
                continue;
            }
        };
        let content = &token.content;
        if table.token_type(id) != TokenType::Unused && table.text(id) != content {
            warnings.push(format!("token {id}: {:?} was replaced by {content:?}", table.text(id)));
        }
        let general = style == AddedStyle::General;
        let special = token.special || (general && looks_special(content));
        let token_type = if special { TokenType::Control } else { TokenType::UserDefined };
        let text = if general && !special { content.replace('▁', " ") } else { content.clone() };
        table.set(id, text, token_type, ADDED_SCORE);
    }
}

/// Lays the tokens of `added_tokens.json` over the table: all user-defined, texts as they are.
pub(super) fn lay_over_plain(
    table: &mut TokenTable,
    added: &[(String, u64)],
    warnings: &mut Vec<String>,
) {
    for (text, id) in added {
        match usize::try_from(*id) {
            Ok(id) if id < table.len() => {
                table.set(id, text.clone(), TokenType::UserDefined, ADDED_SCORE);
            }
            _ => warnings.push(format!(
                "added token {text:?}: id {id} has no embedding row and was left out"
            )),
        }
    }
}

/// How many of the 256 bytes have no token; llama.cpp stops on text that needs one of them.
pub(super) fn missing_bytes(table: &TokenTable) -> usize {
    let known: HashSet<u8> = (0..table.len())
        .filter(|&id| table.token_type(id) == TokenType::Byte)
        .filter_map(|id| byte_of(table.text(id)))
        .collect();
    256 - known.len()
}

/// An id that the embedding has no row for.
pub(super) fn beyond(path: &Path, token: &str, id: u64, size: usize) -> VocabularyError {
    let (path, token, rows) = (path.to_owned(), token.to_owned(), size as u64);
    VocabularyError::BeyondRows { path, token, id, rows }
}

/// The number of ids when nothing says how many rows the embedding has: one more than the largest.
pub(super) fn size_of(
    path: &Path,
    ids: impl Iterator<Item = u64>,
) -> Result<usize, VocabularyError> {
    let size = ids.max().map_or(0, |largest| largest.saturating_add(1));
    if size > TOKENS_MAX as u64 {
        return Err(VocabularyError::TooLarge {
            path: path.to_owned(),
            what: "a vocabulary in tokens",
            found: size,
            limit: TOKENS_MAX as u64,
        });
    }
    Ok(size as usize)
}
