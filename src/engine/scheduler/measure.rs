//! Measuring: how likely given tokens are, and the logits themselves, for perplexity and for tests.

use crate::engine::frames::{Event, FRAME_BYTES_MAX, Failure};
use crate::engine::llama::{LlamaError, Logprobs, Token, check_finite};

/// What is gathered from the logits after each position from one on.
#[derive(Debug)]
pub(super) struct Measure {
    first: usize,
    gathers: Gathers,
}

#[derive(Debug)]
enum Gathers {
    Scores(Vec<f64>),
    Logprobs { top: u32, found: Vec<Logprobs> },
    Logits { positions: Vec<usize>, found: usize, values: Vec<f32> },
}

impl Measure {
    /// Scores of the tokens from index `from` (at least 1) on.
    pub(super) fn scores(from: usize) -> Self {
        Self { first: from.saturating_sub(1), gathers: Gathers::Scores(Vec::new()) }
    }

    /// What the model thinks of the tokens from index `from` (at least 1) on, with so many of the likeliest.
    pub(super) fn logprobs(from: usize, top: u32) -> Self {
        let gathers = Gathers::Logprobs { top, found: Vec::new() };
        Self { first: from.saturating_sub(1), gathers }
    }

    /// Logits, rows of `row` numbers, after the positions, which ascend; tokens behind the last one
    /// are dropped.
    pub(super) fn logits(
        tokens: &mut Vec<Token>,
        positions: Vec<usize>,
        row: usize,
    ) -> Result<Self, Failure> {
        let ascending = positions.windows(2).all(|pair| pair[0] < pair[1]);
        let (first, last) = match (positions.first(), positions.last()) {
            (Some(&first), Some(&last)) if ascending && last < tokens.len() => (first, last),
            _ => {
                let message =
                    format!("logits: positions must be there and ascend below {}", tokens.len());
                return Err(Failure::Request(message));
            }
        };
        let bytes = positions.len().saturating_mul(row).saturating_mul(size_of::<f32>());
        if bytes > FRAME_BYTES_MAX / 2 {
            let message = format!("logits: {bytes} bytes, {} are the most", FRAME_BYTES_MAX / 2);
            return Err(Failure::Request(message));
        }
        tokens.truncate(last + 1);
        Ok(Self { first, gathers: Gathers::Logits { positions, found: 0, values: Vec::new() } })
    }

    /// The first position whose logits are wanted; all behind it are, too.
    pub(super) fn first(&self) -> usize {
        self.first
    }

    /// Takes the logits after a position.
    pub(super) fn take(
        &mut self,
        tokens: &[Token],
        position: usize,
        logits: &[f32],
    ) -> Result<(), LlamaError> {
        match &mut self.gathers {
            Gathers::Scores(scores) => {
                // The last token is computed for nothing but the same batches as llama.cpp's own tool has.
                if let Some(&next) = tokens.get(position + 1) {
                    scores.push(log_probability(logits, next as usize)?);
                }
            }
            Gathers::Logprobs { top, found } => {
                if let Some(&next) = tokens.get(position + 1) {
                    found.push(Logprobs::of(logits, next, *top)?);
                }
            }
            Gathers::Logits { positions, found, values } => {
                if positions.get(*found) == Some(&position) {
                    *found += 1;
                    values.extend_from_slice(logits);
                }
            }
        }
        Ok(())
    }

    /// What was gathered.
    pub(super) fn finish(self, vocabulary_tokens: usize) -> Event {
        match self.gathers {
            Gathers::Scores(scores) => Event::Scores(scores),
            Gathers::Logprobs { found, .. } => Event::Logprobs(found),
            Gathers::Logits { values, .. } => Event::Logits { vocabulary_tokens, values },
        }
    }
}

/// The natural logarithm of the softmax at one entry, summed in double precision; an error where it
/// would be no number. A token that the model forbids has minus infinity.
fn log_probability(logits: &[f32], entry: usize) -> Result<f64, LlamaError> {
    check_finite(logits)?;
    let largest = f64::from(logits.iter().copied().fold(f32::NEG_INFINITY, f32::max));
    let sum: f64 = logits.iter().map(|&logit| (f64::from(logit) - largest).exp()).sum();
    let score = f64::from(logits[entry]) - largest - sum.ln();
    // Where every token is forbidden there is no distribution.
    if score.is_nan() { Err(LlamaError::NotFinite(entry)) } else { Ok(score) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probabilities_sum_to_one_at_any_height() {
        for height in [-1e30_f32, 0.0, 80.0, 1e30] {
            let logits = [height, height, height, height];
            assert!((log_probability(&logits, 2).unwrap() + 4.0_f64.ln()).abs() < 1e-12);
        }
        let logits = [1.0, 2.0, 3.0];
        let sum: f64 = (0..3).map(|entry| log_probability(&logits, entry).unwrap().exp()).sum();
        assert!((sum - 1.0).abs() < 1e-12);
    }

    #[test]
    fn logits_that_are_no_numbers_have_no_score() {
        for value in [f32::NAN, -f32::NAN, f32::INFINITY] {
            let logits = [1.0, 2.0, value, 3.0];
            // Wherever the scored token stands, the sum is spoilt.
            for entry in 0..logits.len() {
                let error = log_probability(&logits, entry).unwrap_err();
                assert_eq!(error, LlamaError::NotFinite(2));
                assert!(matches!(Failure::from(error), Failure::NotFinite(_)));
            }
        }
        let forbidden = [1.0, f32::NEG_INFINITY];
        assert_eq!(log_probability(&forbidden, 0), Ok(0.0));
        assert_eq!(log_probability(&forbidden, 1), Ok(f64::NEG_INFINITY));
        let nothing = [f32::NEG_INFINITY; 3];
        assert_eq!(log_probability(&nothing, 1), Err(LlamaError::NotFinite(1)));
    }
}
