//! The bytes of all tokens, sorted, so that a grammar tests common beginnings once.

use super::GrammarError;

/// What constraints need of a vocabulary.
#[derive(Debug)]
pub struct Pieces {
    bytes: Vec<u8>,
    /// Where the bytes of each token end; those of the first begin at 0.
    ends: Vec<u32>,
    /// Tokens with bytes, in the order of these.
    sorted: Vec<u32>,
    /// How many bytes each of them has in common with the one before.
    common: Vec<u16>,
    /// Tokens that end a text.
    end_tokens: Vec<u32>,
    longest: usize,
}

/// The tokens that may follow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenMask {
    words: Vec<u64>,
}

impl TokenMask {
    /// No token at all, of so many.
    pub fn empty(tokens: usize) -> Self {
        Self { words: vec![0; tokens.div_ceil(64)] }
    }

    /// Whether a token may follow.
    pub fn allows(&self, token: usize) -> bool {
        self.words.get(token / 64).is_some_and(|word| word >> (token % 64) & 1 == 1)
    }

    /// How many tokens may follow.
    pub fn count(&self) -> usize {
        self.words.iter().map(|word| word.count_ones() as usize).sum()
    }

    /// Lets a token follow.
    pub fn insert(&mut self, token: usize) {
        if let Some(word) = self.words.get_mut(token / 64) {
            *word |= 1 << (token % 64);
        }
    }
}

impl Pieces {
    /// From the bytes of each token; empty for tokens that are no text. `end_tokens` end a text.
    pub fn new(pieces: &[Vec<u8>], end_tokens: Vec<u32>) -> Self {
        let mut bytes = Vec::with_capacity(pieces.iter().map(Vec::len).sum());
        let mut ends = Vec::with_capacity(pieces.len());
        for piece in pieces {
            bytes.extend_from_slice(piece);
            ends.push(bytes.len() as u32);
        }
        let mut sorted: Vec<u32> =
            (0..pieces.len() as u32).filter(|token| !pieces[*token as usize].is_empty()).collect();
        sorted.sort_unstable_by(|a, b| pieces[*a as usize].cmp(&pieces[*b as usize]));
        let mut common = Vec::with_capacity(sorted.len());
        let mut previous: &[u8] = &[];
        for &token in &sorted {
            let piece = &pieces[token as usize];
            let same = previous.iter().zip(piece).take_while(|(a, b)| a == b).count();
            common.push(u16::try_from(same).unwrap_or(u16::MAX));
            previous = piece;
        }
        let longest = pieces.iter().map(Vec::len).max().unwrap_or(0);
        Self { bytes, ends, sorted, common, end_tokens, longest }
    }

    /// Tokens of the vocabulary.
    pub fn tokens(&self) -> usize {
        self.ends.len()
    }

    /// Bytes of the longest token.
    pub fn longest(&self) -> usize {
        self.longest
    }

    /// The bytes of a token; none for tokens that are no text or do not exist.
    pub fn of(&self, token: usize) -> &[u8] {
        let Some(&end) = self.ends.get(token) else { return &[] };
        let start = token.checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.bytes[start as usize..end as usize]
    }

    /// The tokens that end a text.
    pub fn end_tokens(&self) -> &[u32] {
        &self.end_tokens
    }

    /// Whether a token ends a text.
    pub fn is_end(&self, token: usize) -> bool {
        self.end_tokens.iter().any(|end| *end as usize == token)
    }

    /// Adds the tokens that an automaton lives through to a mask: `step` goes from a state over a
    /// byte, None when that is not allowed.
    pub(super) fn walk(
        &self,
        start: u32,
        step: &mut dyn FnMut(u32, u8) -> Result<Option<u32>, GrammarError>,
        mask: &mut TokenMask,
    ) -> Result<(), GrammarError> {
        // The state after each byte of the token at hand.
        let mut path = vec![start];
        // How many bytes of the token at hand were too many.
        let mut dead = usize::MAX;
        for (&token, &common) in self.sorted.iter().zip(&self.common) {
            let common = usize::from(common);
            if common >= dead {
                continue;
            }
            dead = usize::MAX;
            path.truncate(common + 1);
            let piece = self.of(token as usize);
            for (place, &byte) in piece.iter().enumerate().skip(path.len() - 1) {
                let Some(next) = step(path[place], byte)? else {
                    dead = place + 1;
                    break;
                };
                path.push(next);
            }
            if dead == usize::MAX {
                mask.insert(token as usize);
            }
        }
        Ok(())
    }
}
