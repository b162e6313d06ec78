//! Scoring: how likely given tokens are, for perplexity and for tests.

use super::Session;
use crate::engine::frames::{FRAME_BYTES_MAX, Failure};
use crate::engine::llama::{LlamaError, Token, check_finite};

/// What is done with the logits after a position.
type EachRow<'a> = dyn FnMut(usize, &[f32]) -> Result<(), LlamaError> + 'a;

impl Session {
    /// The natural logarithm of the probability of each token from index `from` (at least 1) on,
    /// given all before it. The conversation in the cache is forgotten.
    pub fn score(
        &mut self,
        tokens: &[Token],
        from: usize,
        progress: &mut dyn FnMut(f32),
    ) -> Result<Vec<f64>, Failure> {
        if from == 0 || from > tokens.len() {
            let length = tokens.len();
            return Err(Failure::Request(format!("score: from {from} of {length} tokens")));
        }
        self.check_tokens(tokens)?;
        let mut scores = Vec::with_capacity(tokens.len() - from);
        // The last token is computed for nothing but the same batches as llama.cpp's own tool has.
        self.visit(tokens, from - 1, progress, &mut |position, logits| {
            if let Some(&next) = tokens.get(position + 1) {
                scores.push(log_probability(logits, next as usize)?);
            }
            Ok(())
        })?;
        Ok(scores)
    }

    /// The logits after each of the positions, which ascend. The conversation in the cache is
    /// forgotten.
    pub fn logits(&mut self, tokens: &[Token], positions: &[usize]) -> Result<Vec<f32>, Failure> {
        self.check_tokens(tokens)?;
        let ascending = positions.windows(2).all(|pair| pair[0] < pair[1]);
        let Some((&first, &last)) = positions.first().zip(positions.last()) else {
            return Ok(Vec::new());
        };
        if !ascending || last >= tokens.len() {
            let message = format!("logits: positions must ascend below {}", tokens.len());
            return Err(Failure::Request(message));
        }
        let row = self.context.vocabulary().len();
        let bytes = positions.len().saturating_mul(row).saturating_mul(size_of::<f32>());
        if bytes > FRAME_BYTES_MAX / 2 {
            let message = format!("logits: {bytes} bytes, {} are the most", FRAME_BYTES_MAX / 2);
            return Err(Failure::Request(message));
        }
        let mut values = Vec::with_capacity(positions.len() * row);
        let mut wanted = positions.iter().peekable();
        self.visit(&tokens[..=last], first, &mut |_| {}, &mut |position, logits| {
            if wanted.next_if_eq(&&position).is_some() {
                values.extend_from_slice(logits);
            }
            Ok(())
        })?;
        Ok(values)
    }

    /// Computes all tokens afresh and hands out the logits after each position from `from` on.
    fn visit(
        &mut self,
        tokens: &[Token],
        from: usize,
        progress: &mut dyn FnMut(f32),
        each: &mut EachRow<'_>,
    ) -> Result<(), LlamaError> {
        self.forget();
        let (batch_tokens, rows_max) = (self.context.batch_tokens(), self.context.outputs_max());
        let mut start = 0;
        while start < tokens.len() {
            let silent = from.saturating_sub(start);
            let length = (tokens.len() - start).min(batch_tokens).min(silent + rows_max);
            self.advance(&tokens[start..start + length], silent)?;
            for row in 0..length.saturating_sub(silent) {
                each(start + silent + row, self.context.logits(row)?)?;
            }
            start += length;
            progress(start as f32 / tokens.len() as f32);
        }
        Ok(())
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
