//! How far two models with one vocabulary are apart: Σ p·ln(p/q) of what they expect next (Kullback and Leibler 1951), in
//! the mean over a text, which is cut as for its perplexity.

use super::perplexity::{PerplexityError, chunks, first_scored};
use crate::engine::process::Engine;

/// The mean divergence of `other` from `model`, in nats a token.
pub fn measure(
    model: &Engine,
    other: &Engine,
    text: &str,
    context_tokens: usize,
) -> Result<f64, PerplexityError> {
    let positions: Vec<usize> = (first_scored(context_tokens) - 1..context_tokens - 1).collect();
    let (mut sum, mut count) = (0.0, 0_usize);
    for chunk in chunks(model, text, context_tokens)? {
        let expected = model.logits(&chunk, &positions)?;
        let found = other.logits(&chunk, &positions)?;
        for (expected, found) in expected.iter().zip(&found) {
            sum += divergence(expected, found);
            count += 1;
        }
    }
    Ok(sum / count as f64)
}

/// Σ p·ln(p/q) of two rows of logits.
fn divergence(expected: &[f32], found: &[f32]) -> f64 {
    let (p, q) = (log_sum(expected), log_sum(found));
    let term = |(expected, found): (&f32, &f32)| {
        let (p, q) = (f64::from(*expected) - p, f64::from(*found) - q);
        p.exp() * (p - q)
    };
    expected.iter().zip(found).map(term).sum()
}

/// ln Σ exp of logits.
fn log_sum(logits: &[f32]) -> f64 {
    let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = logits.iter().map(|logit| f64::from(logit - largest).exp()).sum();
    f64::from(largest) + sum.ln()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_divergence_is_that_of_the_formula() {
        let row = |shares: [f32; 2]| shares.map(|share| share.ln() + 3.0);
        let (even, uneven) = (row([0.5, 0.5]), row([0.25, 0.75]));
        assert!(divergence(&even, &even).abs() < 1e-9);
        let expected = 0.5 * (0.5_f64 / 0.25).ln() + 0.5 * (0.5_f64 / 0.75).ln();
        assert!((divergence(&even, &uneven) - expected).abs() < 1e-6);
    }
}
