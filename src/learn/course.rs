//! The order in which samples come: random, and the same for the same seed.

use crate::training::decoder::Batch;
use crate::training::samples::{Sample, pack};

/// Random numbers (SplitMix64, Steele et al. 2014, <https://doi.org/10.1145/2660193.2660195>).
pub(super) struct Random(u64);

impl Random {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut value = self.0;
        value = (value ^ (value >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        value = (value ^ (value >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        value ^ (value >> 31)
    }

    /// From 0 to 1, without 1.
    pub(super) fn unit(&mut self) -> f32 {
        (self.next() >> 40) as f32 / (1u64 << 24) as f32
    }

    fn shuffle<T>(&mut self, all: &mut [T]) {
        for place in (1..all.len()).rev() {
            let other = (self.next() % (place as u64 + 1)) as usize;
            all.swap(place, other);
        }
    }
}

/// Micro-batches without end: the samples in a new order each time around, packed anew.
pub(super) struct Course<'a> {
    samples: &'a [Sample],
    /// Tokens of a micro-batch at the most.
    length: usize,
    seed: u64,
    round: u64,
    batches: std::vec::IntoIter<Batch>,
}

impl<'a> Course<'a> {
    /// A course through samples, of which there must be one at least, behind its first `passed` micro-batches.
    pub(super) fn new(samples: &'a [Sample], length: usize, seed: u64, passed: u64) -> Self {
        let mut course = Self { samples, length, seed, round: 0, batches: Vec::new().into_iter() };
        for _ in 0..passed {
            course.next();
        }
        course
    }

    pub(super) fn next(&mut self) -> Batch {
        loop {
            if let Some(batch) = self.batches.next() {
                return batch;
            }
            let mut samples = self.samples.to_vec();
            Random::new(self.seed ^ (self.round << 32)).shuffle(&mut samples);
            self.round += 1;
            self.batches = pack(&samples, self.length).into_iter();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_round_has_all_samples_and_a_course_can_be_entered_anywhere() {
        let samples: Vec<Sample> = (0..9).map(|first| Sample::text(vec![first, 90, 91])).collect();
        let mut course = Course::new(&samples, 6, 7, 0);
        let batches: Vec<Batch> = (0..10).map(|_| course.next()).collect();
        let firsts = |round: &[Batch]| {
            let tokens = round.iter().flat_map(|batch| batch.tokens.iter().step_by(3).copied());
            tokens.collect::<Vec<u32>>()
        };
        let (one, other) = (firsts(&batches[..5]), firsts(&batches[5..]));
        assert_ne!(one, other);
        for mut round in [one, other] {
            round.sort_unstable();
            assert_eq!(round, (0..9).collect::<Vec<u32>>());
        }
        let mut entered = Course::new(&samples, 6, 7, 7);
        assert_eq!(entered.next().tokens, batches[7].tokens);
    }
}
