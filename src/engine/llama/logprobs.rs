//! Log-probabilities of the model's own distribution, before biases, penalties and samplers.

use serde::{Deserialize, Serialize};

use super::{LlamaError, Token, check_finite};

/// The likeliest tokens that one request may be told of, for each token of its reply.
pub const TOP_LOGPROBS_MAX: usize = 128;

/// What the model thought of a token, in natural logarithms.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Logprobs {
    /// Of the token that was chosen.
    pub logprob: f32,
    /// The likeliest tokens, the likeliest first, tokens of equal probability by number.
    pub top: Vec<(Token, f32)>,
}

impl Logprobs {
    /// Of `chosen` in a row of logits, with so many of the likeliest tokens; an error where there is no distribution.
    pub fn of(logits: &[f32], chosen: Token, top: u32) -> Result<Self, LlamaError> {
        check_finite(logits)?;
        let found = RawRow::of(logits, top as usize).logprobs(logits[chosen as usize]);
        // Where every token is forbidden there is no distribution.
        if found.logprob.is_nan() { Err(LlamaError::NotFinite(chosen as usize)) } else { Ok(found) }
    }
}

/// The sum and the top of a row of logits.
#[derive(Debug)]
pub(super) struct RawRow {
    /// The logarithm of the sum of the exponentials of all logits.
    log_sum: f64,
    top: Vec<(Token, f32)>,
}

impl RawRow {
    pub(super) fn of(logits: &[f32], top: usize) -> Self {
        let top = likeliest(logits, top.min(TOP_LOGPROBS_MAX));
        Self { log_sum: log_sum_exp(logits), top }
    }

    /// With the logit of the token that was chosen.
    pub(super) fn logprobs(self, logit: f32) -> Logprobs {
        let relative = |logit: f32| (f64::from(logit) - self.log_sum) as f32;
        let top = self.top.iter().map(|&(token, logit)| (token, relative(logit))).collect();
        Logprobs { logprob: relative(logit), top }
    }
}

/// Sums that do not wait for each other.
const LANES: usize = 16;

/// log Σ exp(x), in f64: the tail of a large vocabulary is many small terms.
fn log_sum_exp(logits: &[f32]) -> f64 {
    let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    if largest == f32::NEG_INFINITY {
        return f64::NEG_INFINITY;
    }
    // Lanes, so that the sums do not wait for each other; each term as f32, which is exact to 1e-7.
    let mut sums = [0.0_f64; LANES];
    let (chunks, rest) = logits.as_chunks::<LANES>();
    for chunk in chunks {
        for (sum, &logit) in sums.iter_mut().zip(chunk) {
            *sum += f64::from((logit - largest).exp());
        }
    }
    let rest: f64 = rest.iter().map(|&logit| f64::from((logit - largest).exp())).sum();
    f64::from(largest) + (sums.iter().sum::<f64>() + rest).ln()
}

/// The largest `count` entries in falling order: one pass that compares each logit with the least
/// of those held, a sorted list.
fn likeliest(logits: &[f32], count: usize) -> Vec<(Token, f32)> {
    let mut held: Vec<(Token, f32)> = Vec::with_capacity(count + 1);
    if count == 0 {
        return held;
    }
    let mut least = f32::NEG_INFINITY;
    for (token, &logit) in logits.iter().enumerate() {
        let full = held.len() == count;
        // Of equals the first stays, so that the order does not depend on `count`.
        if (full && logit <= least) || logit == f32::NEG_INFINITY {
            continue;
        }
        let place = held.partition_point(|&(_, other)| other >= logit);
        if full {
            held.pop();
        }
        held.insert(place, (token as Token, logit));
        least = held[held.len() - 1].1;
    }
    held
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Numbers of no pattern, the same each time.
    fn noise(count: usize, mut state: u64) -> Vec<f32> {
        (0..count)
            .map(|_| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                ((state >> 40) as f32 / (1 << 24) as f32) * 40.0 - 20.0
            })
            .collect()
    }

    #[test]
    fn agrees_with_a_plain_softmax_in_double_precision() {
        for (size, seed) in [(1, 1), (2, 2), (17, 3), (32_000, 4), (151_936, 5)] {
            let mut logits = noise(size, seed);
            if size > 17 {
                logits[3] = f32::NEG_INFINITY;
                logits[size - 1] = logits[size / 2];
            }
            let sum: f64 = logits.iter().map(|&logit| f64::from(logit).exp()).sum();
            let expected = |logit: f32| (f64::from(logit).exp() / sum).ln();
            let mut sorted: Vec<usize> = (0..size).collect();
            sorted.sort_by(|&a, &b| logits[b].total_cmp(&logits[a]).then(a.cmp(&b)));
            let chosen = logits[size / 3];
            let found = RawRow::of(&logits, 20).logprobs(chosen);
            assert!((f64::from(found.logprob) - expected(chosen)).abs() < 2e-6);
            assert_eq!(found.top.len(), size.min(20));
            for (place, &(token, logprob)) in found.top.iter().enumerate() {
                assert_eq!(token as usize, sorted[place]);
                let want = expected(logits[sorted[place]]);
                assert!((f64::from(logprob) - want).abs() < 2e-6, "{logprob} {want}");
            }
        }
    }

    #[test]
    fn a_token_that_the_model_forbids_has_no_probability() {
        let logits = [f32::NEG_INFINITY, 1.0, 1.0];
        let found = RawRow::of(&logits, 5).logprobs(logits[0]);
        assert!(found.logprob == f32::NEG_INFINITY);
        assert_eq!(found.top.iter().map(|top| top.0).collect::<Vec<_>>(), [1, 2]);
    }
}
