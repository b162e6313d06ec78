//! What was said before: an index over prompt and reply that finds where the latest tokens occurred earlier.
//!
//! As in a compressor of the LZ77 kind: for three lengths of n-grams a hash table holds the latest place of each, and a
//! chain through all places leads to the one before. A token costs three insertions; a search follows short chains
//! and measures by comparison how far back each place agrees, so that collisions of hashes do no harm.

use std::collections::HashMap;

use crate::engine::llama::Token;

/// Lengths of the indexed n-grams in tokens, the longest first: long ones find the right place among many, the short
/// one finds any place at all.
const LENGTHS: [usize; 3] = [8, 4, 2];

/// Places looked at for one length.
const CHAIN_MAX: usize = 12;

/// Agreement beyond this many tokens says no more.
const MATCH_MAX: usize = 32;

/// "No earlier place" in a chain.
const NONE: u32 = u32::MAX;

/// A place whose past is that of now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Match {
    /// Where the continuation begins.
    pub(super) position: usize,
    /// How many tokens before it agree with the latest ones, at most 32.
    pub(super) length: usize,
}

/// Tokens in order, and where each n-gram of them ended last.
#[derive(Debug, Default)]
pub(super) struct History {
    tokens: Vec<Token>,
    tables: [Table; LENGTHS.len()],
}

#[derive(Debug, Default)]
struct Table {
    /// Hash of an n-gram to the place after its latest occurrence.
    latest: HashMap<u64, u32>,
    /// For each place the one before with the same hash.
    earlier: Vec<u32>,
}

impl History {
    /// The tokens so far.
    pub(super) fn tokens(&self) -> &[Token] {
        &self.tokens
    }

    /// Adds a token at the end.
    pub(super) fn push(&mut self, token: Token) {
        self.tokens.push(token);
        let place = self.tokens.len();
        for (table, length) in self.tables.iter_mut().zip(LENGTHS) {
            // Entry `place - 1` of a chain belongs to the place after token `place - 1`.
            let earlier = place.checked_sub(length).map_or(NONE, |start| {
                let hash = hash(&self.tokens[start..place]);
                table.latest.insert(hash, place as u32).unwrap_or(NONE)
            });
            table.earlier.push(earlier);
        }
    }

    /// The earlier place that agrees with the latest tokens the longest, the latest of equals; at least `length_min`
    /// tokens agree.
    pub(super) fn find(&self, length_min: usize) -> Option<Match> {
        let end = self.tokens.len();
        for (table, length) in self.tables.iter().zip(LENGTHS) {
            let mut place = end.checked_sub(1).map_or(NONE, |last| table.earlier[last]);
            let mut best: Option<Match> = None;
            for _ in 0..CHAIN_MAX {
                if place == NONE {
                    break;
                }
                let position = place as usize;
                let agreed = self.agreement(position);
                if agreed >= length.max(length_min) && best.is_none_or(|best| agreed > best.length)
                {
                    best = Some(Match { position, length: agreed });
                }
                if agreed >= MATCH_MAX {
                    break;
                }
                place = table.earlier[position - 1];
            }
            if best.is_some() {
                return best;
            }
        }
        None
    }

    /// How many tokens before a place agree with the latest ones.
    fn agreement(&self, position: usize) -> usize {
        let latest = self.tokens.iter().rev();
        let before = self.tokens[..position].iter().rev();
        latest.zip(before).take(MATCH_MAX).take_while(|(latest, before)| latest == before).count()
    }
}

fn hash(tokens: &[Token]) -> u64 {
    tokens.iter().fold(0xcbf2_9ce4_8422_2325, |hash, &token| {
        (hash ^ u64::from(token as u32)).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29)
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn history(tokens: &[Token]) -> History {
        let mut history = History::default();
        for &token in tokens {
            history.push(token);
        }
        history
    }

    #[test]
    fn the_longest_place_wins_and_the_latest_of_equals() {
        // 1 2 3 → 4 (three agree), later 9 2 3 → 5 (two agree), then 1 2 3 again.
        let found = history(&[1, 2, 3, 4, 9, 2, 3, 5, 1, 2, 3]).find(2);
        assert_eq!(found, Some(Match { position: 3, length: 3 }));
        let found = history(&[7, 2, 3, 4, 9, 2, 3, 5, 1, 2, 3]).find(2);
        assert_eq!(found, Some(Match { position: 7, length: 2 }));
        assert_eq!(history(&[7, 2, 3, 4, 9, 2, 3, 5, 1, 2, 3]).find(3), None);
        assert_eq!(history(&[]).find(1), None);
        assert_eq!(history(&[5]).find(1), None);
    }

    #[test]
    fn a_loop_is_found_in_itself() {
        let found = history(&[4, 4, 4, 4, 4]).find(2);
        assert_eq!(found, Some(Match { position: 4, length: 4 }));
    }

    proptest! {
        /// Whatever the chains leave out, what is found is true, and where an 8-gram or a single place exists it is
        /// found: against a search of every place.
        #[test]
        fn what_is_found_is_there(tokens in prop::collection::vec(0..6_i32, 0..120)) {
            let history = history(&tokens);
            let truth = (1..tokens.len()).map(|place| history.agreement(place)).max().unwrap_or(0);
            match history.find(2) {
                Some(found) => {
                    prop_assert_eq!(history.agreement(found.position), found.length);
                    prop_assert!(found.position < tokens.len());
                    prop_assert!(found.length >= 2 && found.length <= truth);
                }
                None => prop_assert!(truth < 2, "{} agree", truth),
            }
        }
    }
}
