//! A model's vocabulary: text to tokens and back.

use std::sync::Arc;

use llama_cpp_sys_2 as sys;

use super::infill::InfillTokens;
use super::{LlamaError, Model, Token};
use crate::engine::grammar::Pieces;

/// Bytes of most pieces; longer ones take a second call.
const PIECE_BYTES: usize = 64;

/// How text becomes tokens.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TokenizeOptions {
    /// Add what the model wants around a text (begin- and end-of-sequence tokens).
    pub add_special: bool,
    /// Read `<|…|>` and the like as the special tokens that they name.
    pub parse_special: bool,
}

/// The vocabulary of a model.
#[derive(Debug, Clone)]
pub struct Vocabulary {
    model: Arc<Model>,
    pointer: *const sys::llama_vocab,
    tokens: usize,
    has_tokenizer: bool,
}

// SAFETY: the vocabulary is a part of the model, which is alive and never changes.
unsafe impl Send for Vocabulary {}
// SAFETY: as above.
unsafe impl Sync for Vocabulary {}

impl Vocabulary {
    pub(super) fn of(model: &Arc<Model>) -> Self {
        // SAFETY: the model is alive; every model has a vocabulary, be it an empty one.
        let (pointer, tokens, kind) = unsafe {
            let pointer = sys::llama_model_get_vocab(model.as_ptr());
            (pointer, sys::llama_vocab_n_tokens(pointer), sys::llama_vocab_type(pointer))
        };
        Self {
            model: Arc::clone(model),
            pointer,
            tokens: usize::try_from(tokens).unwrap_or(0),
            has_tokenizer: kind != sys::LLAMA_VOCAB_TYPE_NONE,
        }
    }

    /// Tokens in the vocabulary.
    pub fn len(&self) -> usize {
        self.tokens
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.tokens == 0
    }

    /// The model that the vocabulary belongs to.
    pub fn model(&self) -> &Arc<Model> {
        &self.model
    }

    /// Checks that a token exists: llama.cpp throws at others.
    pub fn check(&self, token: Token) -> Result<(), LlamaError> {
        if usize::try_from(token).is_ok_and(|token| token < self.tokens) {
            return Ok(());
        }
        Err(LlamaError::Token { token, vocabulary_tokens: self.tokens })
    }

    /// The tokens of a text.
    pub fn tokenize(&self, text: &str, options: TokenizeOptions) -> Result<Vec<Token>, LlamaError> {
        if !self.has_tokenizer {
            return Err(LlamaError::NoTokenizer);
        }
        let length = i32::try_from(text.len()).map_err(|_| LlamaError::TextTooLong(text.len()))?;
        let mut tokens: Vec<Token> = vec![0; text.len() / 2 + 8];
        loop {
            let room = i32::try_from(tokens.len()).unwrap_or(i32::MAX);
            // SAFETY: text and tokens have the lengths that are passed.
            let count = unsafe {
                sys::llama_tokenize(
                    self.pointer,
                    text.as_ptr().cast(),
                    length,
                    tokens.as_mut_ptr(),
                    room,
                    options.add_special,
                    options.parse_special,
                )
            };
            match usize::try_from(count) {
                Ok(count) => {
                    tokens.truncate(count);
                    return Ok(tokens);
                }
                Err(_) if count == i32::MIN => return Err(LlamaError::TextTooLong(text.len())),
                Err(_) => tokens.resize(count.unsigned_abs() as usize, 0),
            }
        }
    }

    /// Appends the bytes of a token; special tokens are written out when `special`, else they are
    /// empty.
    pub fn append_piece(
        &self,
        token: Token,
        special: bool,
        target: &mut Vec<u8>,
    ) -> Result<(), LlamaError> {
        self.check(token)?;
        if !self.has_tokenizer {
            return Err(LlamaError::NoTokenizer);
        }
        let start = target.len();
        let mut room = PIECE_BYTES;
        loop {
            target.resize(start + room, 0);
            // SAFETY: `room` bytes follow `start`; the token exists.
            let length = unsafe {
                sys::llama_token_to_piece(
                    self.pointer,
                    token,
                    target[start..].as_mut_ptr().cast(),
                    i32::try_from(room).unwrap_or(i32::MAX),
                    0,
                    special,
                )
            };
            match usize::try_from(length) {
                Ok(length) => {
                    target.truncate(start + length);
                    return Ok(());
                }
                Err(_) => room = length.unsigned_abs() as usize,
            }
        }
    }

    /// The bytes of tokens, one after the other as a model writes them.
    pub fn pieces(&self, tokens: &[Token], special: bool) -> Result<Vec<u8>, LlamaError> {
        let mut bytes = Vec::with_capacity(tokens.len() * 4);
        for &token in tokens {
            self.append_piece(token, special, &mut bytes)?;
        }
        Ok(bytes)
    }

    /// The token that begins a sequence.
    pub fn begin(&self) -> Option<Token> {
        // SAFETY: the model is alive.
        self.existing(unsafe { sys::llama_vocab_bos(self.pointer) })
    }

    /// The token that ends a sequence.
    pub fn end(&self) -> Option<Token> {
        // SAFETY: the model is alive.
        self.existing(unsafe { sys::llama_vocab_eos(self.pointer) })
    }

    /// The token that ends a turn of a conversation.
    pub fn end_of_turn(&self) -> Option<Token> {
        // SAFETY: the model is alive.
        self.existing(unsafe { sys::llama_vocab_eot(self.pointer) })
    }

    /// Whether the model wants [`Vocabulary::begin`] in front.
    pub fn adds_begin(&self) -> bool {
        // SAFETY: the model is alive.
        unsafe { sys::llama_vocab_get_add_bos(self.pointer) }
    }

    /// Whether the model wants [`Vocabulary::end`] behind.
    pub fn adds_end(&self) -> bool {
        // SAFETY: the model is alive.
        unsafe { sys::llama_vocab_get_add_eos(self.pointer) }
    }

    /// Whether generation ends with this token.
    pub fn is_end_of_generation(&self, token: Token) -> bool {
        // SAFETY: the model is alive; unknown tokens are not in the set.
        unsafe { sys::llama_vocab_is_eog(self.pointer, token) }
    }

    /// The token between two texts that are compared.
    pub fn separator(&self) -> Option<Token> {
        // SAFETY: the model is alive.
        self.existing(unsafe { sys::llama_vocab_sep(self.pointer) })
    }

    /// Whether the model wants [`Vocabulary::separator`] between two texts.
    pub fn adds_separator(&self) -> bool {
        // SAFETY: the model is alive.
        unsafe { sys::llama_vocab_get_add_sep(self.pointer) }
    }

    /// The tokens for fill-in-the-middle.
    pub fn infill_tokens(&self) -> InfillTokens {
        // SAFETY: the model is alive.
        unsafe {
            InfillTokens {
                prefix: self.existing(sys::llama_vocab_fim_pre(self.pointer)),
                suffix: self.existing(sys::llama_vocab_fim_suf(self.pointer)),
                middle: self.existing(sys::llama_vocab_fim_mid(self.pointer)),
                repository: self.existing(sys::llama_vocab_fim_rep(self.pointer)),
                separator: self.existing(sys::llama_vocab_fim_sep(self.pointer)),
            }
        }
    }

    /// Tokens that steer the model: their texts are read as these tokens only where special tokens are parsed.
    pub fn control(&self) -> Vec<Token> {
        if !self.has_tokenizer {
            return Vec::new();
        }
        let mask = sys::LLAMA_TOKEN_ATTR_CONTROL | sys::LLAMA_TOKEN_ATTR_UNKNOWN;
        // SAFETY: the model is alive; the tokens exist.
        let attributes = |token: Token| unsafe { sys::llama_vocab_get_attr(self.pointer, token) };
        (0..self.tokens as Token).filter(|token| attributes(*token) & mask != 0).collect()
    }

    /// Tokens that the model's file wants never to be chosen.
    pub fn suppressed(&self) -> Vec<Token> {
        let mut count = 0;
        // SAFETY: the model is alive and owns the list.
        let pointer = unsafe { sys::llama_vocab_get_suppress_tokens(self.pointer, &raw mut count) };
        let count = usize::try_from(count).unwrap_or(0);
        if pointer.is_null() || count == 0 {
            return Vec::new();
        }
        // SAFETY: the list has `count` entries and lives as long as the model.
        let tokens = unsafe { std::slice::from_raw_parts(pointer, count) };
        tokens.iter().copied().filter(|token| self.check(*token).is_ok()).collect()
    }

    /// Whether text can be made tokens.
    pub fn has_tokenizer(&self) -> bool {
        self.has_tokenizer
    }

    /// The bytes of every token, sorted; made on the first call, shared by all that use the model.
    pub fn pieces_of_all(&self) -> Result<Arc<Pieces>, LlamaError> {
        let cell = self.model.pieces();
        if let Some(pieces) = cell.get() {
            return Ok(Arc::clone(pieces));
        }
        let mut all = Vec::with_capacity(self.tokens);
        let mut ends = Vec::new();
        for token in 0..self.tokens as Token {
            let mut piece = Vec::new();
            // Text of a special token is no text of a reply.
            self.append_piece(token, false, &mut piece)?;
            if self.is_end_of_generation(token) {
                ends.push(token as u32);
                piece.clear();
            }
            all.push(piece);
        }
        Ok(Arc::clone(cell.get_or_init(|| Arc::new(Pieces::new(&all, ends)))))
    }

    pub(super) fn as_ptr(&self) -> *const sys::llama_vocab {
        self.pointer
    }

    fn existing(&self, token: Token) -> Option<Token> {
        self.check(token).is_ok().then_some(token)
    }
}
