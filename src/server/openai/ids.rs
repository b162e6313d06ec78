//! Names for answers that nobody can guess.

use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};

/// Characters behind the prefix.
const CHARACTERS: usize = 24;

const ALPHABET: &[u8; 32] = b"abcdefghijkmnpqrstuvwxyz23456789";

/// A fresh name: the prefix and 120 random bits. The randomness is that of the keys that the standard library draws for
/// its hash tables; a number that grows makes each name another one.
pub(super) fn fresh(prefix: &str) -> String {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let half = |which: u64| u128::from(RandomState::new().hash_one((which, count)));
    let mut bits = half(0) << 64 | half(1);
    let mut name = String::with_capacity(prefix.len() + CHARACTERS);
    name.push_str(prefix);
    for _ in 0..CHARACTERS {
        name.push(char::from(ALPHABET[(bits & 31) as usize]));
        bits >>= 5;
    }
    name
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn no_name_comes_twice() {
        let names: HashSet<String> = (0..1000).map(|_| fresh("resp_")).collect();
        assert_eq!(names.len(), 1000);
        assert!(names.iter().all(|name| name.starts_with("resp_") && name.len() == 29));
    }
}
