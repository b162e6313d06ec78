//! Random tokens for measurements: the same on every machine, and no two prompts that begin alike,
//! so that nothing of one is in the context when the next is read.

/// A stream of tokens (SplitMix64: Steele, Lea and Flood, "Fast splittable pseudorandom number
/// generators", OOPSLA 2014).
#[derive(Debug, Clone)]
pub(super) struct Tokens {
    /// How many different tokens there are.
    vocabulary: u32,
    prompts: u32,
    state: u64,
}

impl Tokens {
    pub(super) fn new(vocabulary: u32) -> Self {
        Self { vocabulary: vocabulary.max(1), prompts: 0, state: 0 }
    }

    /// So many tokens, the first of which no earlier call had (until the vocabulary is used up).
    pub(super) fn fresh(&mut self, count: u32) -> Vec<i32> {
        let mut tokens: Vec<i32> = (0..count).map(|_| self.next()).collect();
        if let Some(first) = tokens.first_mut() {
            *first = (self.prompts % self.vocabulary) as i32;
            self.prompts += 1;
        }
        tokens
    }

    fn next(&mut self) -> i32 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^= mixed >> 31;
        (mixed % u64::from(self.vocabulary)) as i32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prompts_are_in_the_vocabulary_and_begin_differently() {
        let mut tokens = Tokens::new(100);
        let prompts: Vec<Vec<i32>> = (0..50).map(|_| tokens.fresh(8)).collect();
        assert!(prompts.iter().flatten().all(|token| (0..100).contains(token)));
        let mut firsts: Vec<i32> = prompts.iter().map(|prompt| prompt[0]).collect();
        firsts.dedup();
        assert_eq!(firsts.len(), prompts.len());
        assert_ne!(prompts[0][1..], prompts[1][1..]);
        assert_eq!(tokens.fresh(0), Vec::<i32>::new());
    }
}
