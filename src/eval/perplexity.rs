//! Perplexity of a text, measured as llama.cpp's `llama-perplexity` does, so that figures can be compared.
//!
//! The text's tokens are cut into chunks of the context's length; each chunk stands alone, begins with the model's
//! begin-of-sequence token where the model wants one, and its second half is scored. Perplexity is
//! exp(−Σ ln p(token | tokens before it in its chunk) / n). Source: `tools/perplexity/perplexity.cpp` of llama.cpp; the
//! definition is Jelinek et al., "Perplexity: a measure of the difficulty of speech recognition tasks" (1977).

use nfl_models::Hint;
use thiserror::Error;

use crate::engine::process::{Engine, EngineError};

/// A measured perplexity.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Perplexity {
    /// exp of the mean negative log-likelihood, per token.
    pub value: f64,
    /// Standard error of `value`.
    pub error: f64,
    /// Tokens that were scored.
    pub tokens: usize,
    /// Chunks that the text was cut into.
    pub chunks: usize,
}

/// Why there is no figure.
#[derive(Debug, Error)]
pub enum PerplexityError {
    /// Too little text.
    #[error("the text has {tokens} tokens; a context of {context_tokens} needs at least {needed}")]
    TooShort {
        /// Tokens of the text.
        tokens: usize,
        /// Tokens of a chunk.
        context_tokens: usize,
        /// Tokens that are needed.
        needed: usize,
    },
    /// The engine failed.
    #[error(transparent)]
    Engine(#[from] EngineError),
}

impl Hint for PerplexityError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::TooShort { .. } => Some("give a longer text or a smaller context".to_owned()),
            Self::Engine(error) => error.hint(),
        }
    }
}

/// The first token of a chunk whose probability counts: those before it have little to go by.
pub(super) fn first_scored(context_tokens: usize) -> usize {
    context_tokens / 2 + 1
}

/// The tokens of a text in chunks, each as it stands alone.
pub(super) fn chunks(
    engine: &Engine,
    text: &str,
    context_tokens: usize,
) -> Result<Vec<Vec<i32>>, PerplexityError> {
    let mut tokens = engine.tokenize(text, true, false)?;
    // Two chunks at least, as upstream asks: one alone says little.
    let needed = 2 * context_tokens;
    if tokens.len() < needed || context_tokens < 4 {
        return Err(PerplexityError::TooShort { tokens: tokens.len(), context_tokens, needed });
    }
    let begin =
        engine.info().begin.as_ref().filter(|_| engine.info().adds_begin).map(|token| token.id);
    let chunks = tokens.chunks_exact_mut(context_tokens).map(|chunk| {
        if let Some(begin) = begin {
            chunk[0] = begin;
        }
        chunk.to_vec()
    });
    Ok(chunks.collect())
}

/// Measures `text` in chunks of `context_tokens` tokens (at most the engine's context).
pub fn measure(
    engine: &mut Engine,
    text: &str,
    context_tokens: usize,
) -> Result<Perplexity, PerplexityError> {
    let chunks = chunks(engine, text, context_tokens)?;
    let first_scored = first_scored(context_tokens);
    let (mut sum, mut sum_of_squares, mut count) = (0.0, 0.0, 0_usize);
    for chunk in &chunks {
        for score in engine.score(chunk, first_scored)? {
            sum -= score;
            sum_of_squares += score * score;
            count += 1;
        }
    }
    let mean = sum / count as f64;
    let variance = (sum_of_squares / count as f64 - mean * mean).max(0.0);
    let value = mean.exp();
    let error = (variance / (count as f64 - 1.0)).sqrt() * value;
    Ok(Perplexity { value, error, tokens: count, chunks: chunks.len() })
}
