//! A small model that guesses for a large one of the same vocabulary.

use std::time::Duration;

use thiserror::Error;

use crate::engine::llama::{Context, LlamaError, Token, Vocabulary, argmax};

/// Tokens at the end of a vocabulary that the other may lack: padding.
const SIZE_DIFFERENCE_MAX: usize = 128;

/// Tokens that a draft model reads before its pace is believed.
const PACE_STEP: f64 = 0.2;

/// Why a model cannot guess for another.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum DraftError {
    /// Vocabularies of different sizes.
    #[error("the draft model's vocabulary has {draft} tokens, the model's {target}")]
    Size {
        /// Tokens of the draft model.
        draft: usize,
        /// Tokens of the model.
        target: usize,
    },
    /// A token that means something else.
    #[error("token {token} is {draft:?} to the draft model and {target:?} to the model")]
    Token {
        /// The token.
        token: Token,
        /// What the draft model writes for it.
        draft: String,
        /// What the model writes for it.
        target: String,
    },
    /// One begins texts with a token that the other does not know as such.
    #[error("the draft model and the model begin or end a text differently")]
    Ends,
    /// llama.cpp refused.
    #[error(transparent)]
    Llama(#[from] LlamaError),
}

/// A model that guesses, with its own context.
#[derive(Debug)]
pub struct DraftModel {
    context: Context,
    /// The tokens in its cache.
    held: Vec<Token>,
    /// Tokens computed since the pace was last told.
    computed: usize,
    seconds_per_token: Option<f64>,
    /// Why it no longer guesses.
    fault: Option<LlamaError>,
}

impl DraftModel {
    /// A draft model in its context, for a model with this vocabulary.
    pub fn new(context: Context, target: &Vocabulary) -> Result<Self, DraftError> {
        check(context.vocabulary(), target)?;
        Ok(Self { context, held: Vec::new(), computed: 0, seconds_per_token: None, fault: None })
    }

    /// Why it stopped guessing: an error of its own never costs the reply.
    pub fn fault(&self) -> Option<&LlamaError> {
        self.fault.as_ref()
    }

    /// Seconds of a token, once known.
    pub(super) fn seconds_per_token(&self) -> Option<f64> {
        self.seconds_per_token
    }

    /// Tokens that it has yet to read before it can guess what follows these.
    pub(super) fn missing(&self, tokens: &[Token]) -> usize {
        tokens.len() - self.shared(tokens)
    }

    /// Learns how long its computations since the last call took.
    pub(super) fn learn(&mut self, elapsed: Duration) {
        let computed = std::mem::take(&mut self.computed);
        if computed == 0 {
            return;
        }
        let seconds = elapsed.as_secs_f64() / computed as f64;
        let pace = self.seconds_per_token.get_or_insert(seconds);
        *pace += PACE_STEP * (seconds - *pace);
    }

    /// Reads what is new of the text, so that the next call of [`DraftModel::next`] guesses what follows.
    pub(super) fn begin(&mut self, tokens: &[Token]) {
        if self.fault.is_some() || tokens.is_empty() {
            return;
        }
        let result = self.read(tokens);
        self.fault = result.err();
    }

    /// The likeliest next token with its probability, and takes it as said; None when it cannot.
    pub(super) fn next(&mut self) -> Option<(Token, f32)> {
        if self.fault.is_some() {
            return None;
        }
        if self.held.len() >= self.context.context_tokens() {
            return None;
        }
        match self.guess() {
            Ok(guess) => Some(guess),
            Err(error) => {
                self.fault = Some(error);
                None
            }
        }
    }

    fn shared(&self, tokens: &[Token]) -> usize {
        let shared = self.held.iter().zip(tokens).take_while(|(held, token)| held == token).count();
        // The last token is computed again when it is held: its logits are needed.
        shared.min(tokens.len().saturating_sub(1))
    }

    fn read(&mut self, tokens: &[Token]) -> Result<(), LlamaError> {
        let shared = self.shared(tokens);
        if shared < self.held.len() {
            if self.context.truncate(0, shared) && self.context.used_tokens(0) == shared {
                self.held.truncate(shared);
            } else {
                self.context.clear();
                self.held.clear();
            }
        }
        let fresh = &tokens[self.held.len()..];
        let mut read = 0;
        for chunk in fresh.chunks(self.context.micro_batch_tokens()) {
            read += chunk.len();
            self.context.decode(chunk, chunk.len() - usize::from(read == fresh.len()))?;
            self.held.extend_from_slice(chunk);
        }
        self.computed += fresh.len();
        Ok(())
    }

    fn guess(&mut self) -> Result<(Token, f32), LlamaError> {
        let logits = self.context.logits_of_last()?;
        let best = argmax(logits);
        let largest = logits.get(best).copied().unwrap_or(f32::NEG_INFINITY);
        let sum: f32 = logits.iter().map(|logit| (logit - largest).exp()).sum();
        let token = best as Token;
        self.context.decode(&[token], 0)?;
        self.held.push(token);
        self.computed += 1;
        Ok((token, 1.0 / sum))
    }
}

/// Whether tokens mean the same to both.
fn check(draft: &Vocabulary, target: &Vocabulary) -> Result<(), DraftError> {
    if draft.len().abs_diff(target.len()) > SIZE_DIFFERENCE_MAX {
        return Err(DraftError::Size { draft: draft.len(), target: target.len() });
    }
    let ends = |vocabulary: &Vocabulary| {
        let begin = vocabulary.adds_begin().then(|| vocabulary.begin());
        (begin, vocabulary.end(), vocabulary.adds_end())
    };
    if ends(draft) != ends(target) {
        return Err(DraftError::Ends);
    }
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for token in 0..draft.len().min(target.len()) as Token {
        ours.clear();
        theirs.clear();
        draft.append_piece(token, true, &mut ours)?;
        target.append_piece(token, true, &mut theirs)?;
        if ours != theirs {
            let shown = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            return Err(DraftError::Token { token, draft: shown(&ours), target: shown(&theirs) });
        }
    }
    Ok(())
}
