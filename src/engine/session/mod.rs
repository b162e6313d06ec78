//! One conversation on a context: what the key-value cache holds, and how a new prompt builds on
//! it.

mod generate;
#[cfg(test)]
mod material_tests;
mod score;

use std::sync::atomic::Ordering;
use std::time::Instant;

use super::frames::Failure;
use super::llama::{AbortFlag, Context, LlamaError, Token, TokenizeOptions};
use super::options::OptionError;

/// A context and the tokens that it holds.
#[derive(Debug)]
pub struct Session {
    context: Context,
    abort: AbortFlag,
    held: Vec<Token>,
}

impl Session {
    /// A session on a fresh context that was created with this flag.
    pub fn new(context: Context, abort: AbortFlag) -> Self {
        Self { context, abort, held: Vec::new() }
    }

    /// The context.
    pub fn context(&self) -> &Context {
        &self.context
    }

    /// The tokens of a text.
    pub fn tokenize(&self, text: &str, options: TokenizeOptions) -> Result<Vec<Token>, Failure> {
        Ok(self.context.vocabulary().tokenize(text, options)?)
    }

    /// Forgets the conversation.
    pub fn forget(&mut self) {
        self.context.clear();
        self.held.clear();
    }

    fn is_cancelled(&self) -> bool {
        self.abort.load(Ordering::Relaxed)
    }

    /// Computes tokens and keeps the account of what the cache holds, also when the computation is
    /// cut short.
    fn advance(&mut self, tokens: &[Token], outputs_from: usize) -> Result<(), LlamaError> {
        let result = self.context.decode(tokens, outputs_from);
        if result.is_ok() {
            self.held.extend_from_slice(tokens);
            return result;
        }
        let used = self.context.used_tokens();
        match used.checked_sub(self.held.len()) {
            Some(added) if added <= tokens.len() => self.held.extend_from_slice(&tokens[..added]),
            _ => self.forget(),
        }
        result
    }

    /// Reads a prompt up to logits after its last token. Returns how many of its tokens were in the
    /// cache already.
    fn read(
        &mut self,
        prompt: &[Token],
        progress: &mut dyn FnMut(f32),
    ) -> Result<usize, LlamaError> {
        let cached = self.keep_beginning_of(prompt);
        let chunk_tokens = self.context.micro_batch_tokens();
        let fresh = &prompt[cached..];
        let mut read = 0;
        for chunk in fresh.chunks(chunk_tokens) {
            read += chunk.len();
            let is_last = read == fresh.len();
            self.advance(chunk, chunk.len() - usize::from(is_last))?;
            if !is_last {
                progress(read as f32 / fresh.len() as f32);
            }
        }
        Ok(cached)
    }

    /// Cuts the cache back to what it shares with a prompt, without the prompt's last token, whose
    /// logits are needed.
    fn keep_beginning_of(&mut self, prompt: &[Token]) -> usize {
        let shared = self.held.iter().zip(prompt).take_while(|(held, new)| held == new).count();
        let kept = shared.min(prompt.len().saturating_sub(1));
        if kept == self.held.len() {
            return kept;
        }
        // A layer with a sliding window has dropped what lay before it; going back needs it again.
        let window = self.context.model().window_tokens() as usize;
        let reaches_back = window == 0
            || self
                .context
                .first_position()
                .is_some_and(|first| first <= kept.saturating_sub(window));
        if kept > 0
            && reaches_back
            && self.context.truncate(kept)
            && self.context.used_tokens() == kept
        {
            self.held.truncate(kept);
            return kept;
        }
        self.forget();
        0
    }
}

/// Milliseconds since a moment.
pub(crate) fn ms_since(start: Instant) -> f64 {
    start.elapsed().as_secs_f64() * 1000.0
}

impl From<LlamaError> for Failure {
    fn from(error: LlamaError) -> Self {
        match error {
            LlamaError::NotFinite(_) => Self::NotFinite(error.to_string()),
            LlamaError::Aborted | LlamaError::Cancelled => Self::Cancelled,
            LlamaError::Load { .. } | LlamaError::Context { .. } => Self::Load(error.to_string()),
            LlamaError::Path(_)
            | LlamaError::Pattern(_)
            | LlamaError::Token { .. }
            | LlamaError::NoTokenizer
            | LlamaError::TextTooLong(_) => Self::Request(error.to_string()),
            LlamaError::ContextFull { .. }
            | LlamaError::Batch { .. }
            | LlamaError::Decode { .. }
            | LlamaError::NoLogits(_)
            | LlamaError::Sampler => Self::Compute(error.to_string()),
        }
    }
}

impl From<OptionError> for Failure {
    fn from(error: OptionError) -> Self {
        Self::Request(error.to_string())
    }
}
