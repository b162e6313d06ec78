//! How likely a guess is right, learned from what became of earlier guesses.
//!
//! Guesses fall into classes by how much speaks for them; each class counts, and forgets slowly, so that a text that
//! changes its character is noticed. A count begins with a prior that a few outcomes outweigh.

/// Outcomes that the prior of a class weighs as much as.
const PRIOR_WEIGHT: f64 = 4.0;

/// Share of a class's memory that an outcome in it leaves.
const MEMORY: f64 = 1.0 - 1.0 / 48.0;

/// Share of what a class has learned that a token without a guess leaves: a verdict expires, and is tried again.
const EXPIRY: f64 = 1.0 - 1.0 / 512.0;

/// Agreement, in tokens, from which each class of a copied guess begins, with the prior probability that the next token
/// is the copied one.
const COPIED: [(usize, f64); 9] = [
    (1, 0.2),
    (2, 0.35),
    (3, 0.5),
    (4, 0.6),
    (5, 0.7),
    (7, 0.8),
    (10, 0.88),
    (15, 0.92),
    (23, 0.95),
];

/// Prior of a copy that goes on behind a token that differed.
const RESUMED: f64 = 0.5;

/// Probability that the draft model or the prediction layer gives, from which each class of its guesses begins, with the prior.
const DRAFTED: [(f32, f64); 5] = [(0.0, 0.3), (0.3, 0.5), (0.5, 0.65), (0.7, 0.8), (0.9, 0.93)];

/// What speaks for a guess.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Evidence {
    /// This many tokens before it agree with the place that it is copied from.
    Copied(usize),
    /// It is the first one copied behind a token that differed.
    Resumed,
    /// A draft model gives it this probability.
    Drafted(f32),
    /// The model's own prediction layer gives it this probability.
    Predicted(f32),
}

#[derive(Debug, Clone, Copy)]
struct Count {
    prior: f64,
    right: f64,
    wrong: f64,
}

impl Count {
    fn new(prior: f64) -> Self {
        Self { prior, right: 0.0, wrong: 0.0 }
    }

    fn probability(&self) -> f64 {
        (self.right + self.prior * PRIOR_WEIGHT) / (self.right + self.wrong + PRIOR_WEIGHT)
    }
}

/// Probabilities by class.
#[derive(Debug, Clone)]
pub(super) struct Acceptance {
    copied: [Count; COPIED.len()],
    resumed: Count,
    drafted: [Count; DRAFTED.len()],
    predicted: [Count; DRAFTED.len()],
}

impl Default for Acceptance {
    fn default() -> Self {
        Self {
            copied: COPIED.map(|(_, prior)| Count::new(prior)),
            resumed: Count::new(RESUMED),
            drafted: DRAFTED.map(|(_, prior)| Count::new(prior)),
            predicted: DRAFTED.map(|(_, prior)| Count::new(prior)),
        }
    }
}

impl Acceptance {
    /// How likely a guess is right.
    pub(super) fn probability(&self, evidence: Evidence) -> f64 {
        match evidence {
            Evidence::Copied(length) => self.copied[class(length, &COPIED)].probability(),
            Evidence::Resumed => self.resumed.probability(),
            Evidence::Drafted(share) => self.drafted[class(share, &DRAFTED)].probability(),
            Evidence::Predicted(share) => self.predicted[class(share, &DRAFTED)].probability(),
        }
    }

    /// Counts a guess whose forerunners were right.
    pub(super) fn learn(&mut self, evidence: Evidence, is_right: bool) {
        let count = match evidence {
            Evidence::Copied(length) => &mut self.copied[class(length, &COPIED)],
            Evidence::Resumed => &mut self.resumed,
            Evidence::Drafted(share) => &mut self.drafted[class(share, &DRAFTED)],
            Evidence::Predicted(share) => &mut self.predicted[class(share, &DRAFTED)],
        };
        count.right = count.right * MEMORY + f64::from(u8::from(is_right));
        count.wrong = count.wrong * MEMORY + f64::from(u8::from(!is_right));
    }

    /// Forgets a little: called for each token that no guess was made for.
    pub(super) fn fade(&mut self) {
        let computed = self.drafted.iter_mut().chain(&mut self.predicted);
        for count in self.copied.iter_mut().chain([&mut self.resumed]).chain(computed) {
            count.right *= EXPIRY;
            count.wrong *= EXPIRY;
        }
    }
}

fn class<T: PartialOrd + Copy>(value: T, classes: &[(T, f64)]) -> usize {
    classes.iter().take_while(|(least, _)| value >= *least).count().saturating_sub(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_agreement_promises_more() {
        let acceptance = Acceptance::default();
        let promised: Vec<f64> =
            (1..40).map(|length| acceptance.probability(Evidence::Copied(length))).collect();
        assert!(promised.is_sorted(), "{promised:?}");
        assert!(promised[0] < 0.3 && promised[38] > 0.9);
    }

    #[test]
    fn outcomes_outweigh_the_prior_and_are_forgotten() {
        let mut acceptance = Acceptance::default();
        let evidence = Evidence::Copied(12);
        for _ in 0..40 {
            acceptance.learn(evidence, false);
        }
        assert!(acceptance.probability(evidence) < 0.15);
        assert!(acceptance.probability(Evidence::Copied(30)) > 0.9, "other classes keep theirs");
        for _ in 0..3000 {
            acceptance.fade();
        }
        assert!(acceptance.probability(evidence) > 0.8);
        for _ in 0..200 {
            acceptance.learn(Evidence::Drafted(0.95), true);
        }
        assert!(acceptance.probability(Evidence::Drafted(1.0)) > 0.98);
    }
}
