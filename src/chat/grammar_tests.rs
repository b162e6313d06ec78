//! Grammars of replies, followed letter by letter.

use std::sync::Arc;

use crate::engine::grammar::{Grammar, Matcher, Pieces, TokenNames};

/// A vocabulary of bytes; special tokens exist under any number and have no text.
struct Bytes;

impl TokenNames for Bytes {
    fn token(&self, text: &str) -> Result<u32, String> {
        Err(format!("there is no token {text}"))
    }

    fn check(&self, number: u32) -> Result<u32, String> {
        Ok(number)
    }
}

/// How much of a text a grammar goes over until it may end there; None when it may end nowhere, not even before.
pub(in crate::chat) fn accepted(grammar: &str, text: &str) -> Option<usize> {
    let grammar = Grammar::new(grammar, &Bytes).unwrap();
    let pieces: Vec<Vec<u8>> = (0..=255).map(|byte| vec![byte]).collect();
    let mut matcher = Matcher::new(grammar, Arc::new(Pieces::new(&pieces, Vec::new()))).unwrap();
    let mut end = matcher.may_end().then_some(0);
    for (index, byte) in text.bytes().enumerate() {
        if !matcher.accept_bytes(&[byte]).unwrap() {
            break;
        }
        if matcher.may_end() {
            end = Some(index + 1);
        }
    }
    end
}
