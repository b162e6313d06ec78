//! The order in which examples come: random, and the same for the same seed.

use crate::training::random::Random;

/// Micro-batches without end: all examples in a new order each time around, put into micro-batches anew.
pub(super) struct Course<'a, B> {
    /// Examples, one at least.
    examples: usize,
    /// Makes micro-batches of the numbers of examples.
    pack: &'a dyn Fn(&[usize]) -> Vec<B>,
    seed: u64,
    round: u64,
    batches: std::vec::IntoIter<B>,
}

impl<'a, B> Course<'a, B> {
    /// A course through examples, behind its first `passed` micro-batches.
    pub(super) fn new(
        examples: usize,
        pack: &'a dyn Fn(&[usize]) -> Vec<B>,
        seed: u64,
        passed: u64,
    ) -> Self {
        let mut course = Self { examples, pack, seed, round: 0, batches: Vec::new().into_iter() };
        for _ in 0..passed {
            course.next();
        }
        course
    }

    pub(super) fn next(&mut self) -> B {
        loop {
            if let Some(batch) = self.batches.next() {
                return batch;
            }
            let mut order: Vec<usize> = (0..self.examples).collect();
            Random::new(self.seed ^ (self.round << 32)).shuffle(&mut order);
            self.round += 1;
            self.batches = (self.pack)(&order).into_iter();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_round_has_all_examples_and_a_course_can_be_entered_anywhere() {
        let pack = |order: &[usize]| order.chunks(2).map(<[usize]>::to_vec).collect();
        let mut course = Course::new(9, &pack, 7, 0);
        let batches: Vec<Vec<usize>> = (0..10).map(|_| course.next()).collect();
        let (one, other) = (batches[..5].concat(), batches[5..].concat());
        assert_ne!(one, other);
        for mut round in [one, other] {
            round.sort_unstable();
            assert_eq!(round, (0..9).collect::<Vec<usize>>());
        }
        assert_eq!(Course::new(9, &pack, 7, 7).next(), batches[7]);
    }
}
