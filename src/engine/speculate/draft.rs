//! A small model that guesses for a large one of the same vocabulary.

use thiserror::Error;

use super::drafter::{Pace, likeliest};
use crate::engine::llama::{Context, LlamaError, Token, Vocabulary};

/// Tokens at the end of a vocabulary that the other may lack: padding.
const SIZE_DIFFERENCE_MAX: usize = 128;

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
    pace: Pace,
    /// Why it no longer guesses.
    fault: Option<LlamaError>,
}

impl DraftModel {
    /// A draft model in its context, for a model with this vocabulary.
    pub fn new(context: Context, target: &Vocabulary) -> Result<Self, DraftError> {
        check(context.vocabulary(), target)?;
        Ok(Self { context, held: Vec::new(), pace: Pace::default(), fault: None })
    }

    /// Why it stopped guessing: an error of its own never costs the reply.
    pub fn fault(&self) -> Option<&LlamaError> {
        self.fault.as_ref()
    }

    pub(super) fn pace(&self) -> &Pace {
        &self.pace
    }

    pub(super) fn pace_mut(&mut self) -> &mut Pace {
        &mut self.pace
    }

    /// Tokens that it has yet to read before it can guess what follows these.
    pub(super) fn missing(&self, tokens: &[Token]) -> usize {
        tokens.len() - self.shared(tokens)
    }

    /// Reads what is new of the text, so that the next call of [`DraftModel::next`] guesses what follows. False when
    /// it cannot.
    pub(super) fn begin(&mut self, tokens: &[Token]) -> bool {
        if self.fault.is_some() || tokens.is_empty() {
            return false;
        }
        let result = self.read(tokens);
        self.fault = result.err();
        self.fault.is_none()
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
        self.pace.count(fresh.len() as f64);
        Ok(())
    }

    fn guess(&mut self) -> Result<(Token, f32), LlamaError> {
        let (token, share) = likeliest(self.context.logits_of_last()?);
        self.context.decode(&[token], 0)?;
        self.held.push(token);
        self.pace.count(1.0);
        Ok((token, share))
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
