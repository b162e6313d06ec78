//! The model's own layer that guesses the token after the next (multi-token prediction, MTP).
//!
//! The layer reads each token together with the state that the model left at the token before it. So it is told of every
//! token that the model computed, with its state; it reads them when it is asked to guess, not before. Guesses behind
//! the first are made from the layer's own states; they leave its cache once the model's are known.
//!
//! Of a prompt only the last token leaves a state, so the layer looks back as far as the reply goes: states of the
//! other tokens would have the last layer computed for all of them, which takes time before it is known whether that
//! pays, and changes the last bits of the first row of logits.

use super::drafter::{Pace, likeliest};
use crate::engine::llama::{Batch, Context, LlamaError, PREDICTION_BATCH_TOKENS, Token};

/// Tokens that wait to be read at the most: a layer that was not asked for long begins again with the latest.
const WAITING_TOKENS_MAX: usize = 256;

/// What reading a token costs beside others, in guesses: they share the layer's weights, and make no logits.
const READING: f64 = 0.1;

/// A prediction layer in its context, following one reply.
#[derive(Debug)]
pub struct PredictionLayer {
    context: Context,
    batch: Batch,
    /// Tokens that are yet to be read, and the states that the model left before each.
    waiting: Vec<Token>,
    states: Vec<f32>,
    /// The state of the last token it was told of; empty before the first.
    last: Vec<f32>,
    /// The position in the model's cache that is told of next.
    position: usize,
    /// Tokens in its cache that the model computed.
    read: usize,
    /// The token behind those, when it was read before the model computed it.
    ahead: Option<Token>,
    /// The token that the next guess follows, and the state before it.
    next: Token,
    state: Vec<f32>,
    /// Tokens of the cache, guesses included.
    held: usize,
    pace: Pace,
    fault: Option<LlamaError>,
}

impl PredictionLayer {
    /// The layer of a model, in a context of [`Context::of_prediction`].
    pub fn new(context: Context) -> Self {
        Self {
            context,
            batch: Batch::default(),
            waiting: Vec::new(),
            states: Vec::new(),
            last: Vec::new(),
            position: 0,
            read: 0,
            ahead: None,
            next: 0,
            state: Vec::new(),
            held: 0,
            pace: Pace::default(),
            fault: None,
        }
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

    /// Tells of a token that the model computed at a position, and of the state that it left there. A position that does not
    /// follow begins another text.
    pub(super) fn follow(&mut self, position: usize, token: Token, state: &[f32]) {
        if position != self.position {
            self.forget();
        }
        self.position = position + 1;
        if self.ahead.take() == Some(token) {
            self.read += 1;
        } else if !self.last.is_empty() {
            self.waiting.push(token);
            self.states.extend_from_slice(&self.last);
        }
        self.last.clear();
        self.last.extend_from_slice(state);
        if self.waiting.len() > WAITING_TOKENS_MAX {
            // Half of them at once, so that the rest is not moved for every token.
            self.drop_waiting(WAITING_TOKENS_MAX / 2);
        }
    }

    /// What it has yet to read before it can guess, in guesses.
    pub(super) fn missing(&self) -> f64 {
        self.waiting.len() as f64 * READING
    }

    /// Reads what it was told of, so that the next call of [`PredictionLayer::next`] guesses what follows the last of these
    /// tokens, which the model has yet to compute. False when it knows too little.
    pub(super) fn begin(&mut self, tokens: &[Token]) -> bool {
        let Some(&next) = tokens.last() else { return false };
        if self.fault.is_some() || self.last.is_empty() {
            return false;
        }
        self.ahead = None;
        self.next = next;
        self.state.clone_from(&self.last);
        let result = self.catch_up();
        self.fault = result.err();
        self.fault.is_none()
    }

    /// The likeliest next token with its probability, and takes it as said; None when it cannot.
    pub(super) fn next(&mut self) -> Option<(Token, f32)> {
        if self.fault.is_some() || self.held >= self.context.context_tokens() {
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

    fn guess(&mut self) -> Result<(Token, f32), LlamaError> {
        self.batch.clear();
        self.batch.push_with_state(self.held, self.next, &self.state, true);
        self.context.compute(&mut self.batch)?;
        self.pace.count(1.0);
        if self.held == self.read {
            self.ahead = Some(self.next);
        }
        self.held += 1;
        let (token, share) = likeliest(self.context.logits_of_last()?);
        self.state.clear();
        self.state.extend_from_slice(self.context.hidden_state(0)?);
        self.next = token;
        Ok((token, share))
    }

    /// Takes guesses out of the cache and reads what waits.
    fn catch_up(&mut self) -> Result<(), LlamaError> {
        let room = self.context.context_tokens();
        if self.read + self.waiting.len() >= room {
            self.drop_waiting(self.waiting.len().saturating_sub(room / 2));
        }
        if self.held > self.read {
            if self.context.truncate(0, self.read) && self.context.used_tokens(0) == self.read {
                self.held = self.read;
            } else {
                self.drop_waiting(0);
            }
        }
        let length = self.states.len() / self.waiting.len().max(1);
        let chunk = PREDICTION_BATCH_TOKENS as usize;
        let states = self.states.chunks(length.max(1) * chunk);
        for (tokens, states) in self.waiting.chunks(chunk).zip(states) {
            self.batch.clear();
            for (index, (&token, state)) in tokens.iter().zip(states.chunks(length)).enumerate() {
                self.batch.push_with_state(self.held + index, token, state, false);
            }
            self.context.compute(&mut self.batch)?;
            self.held += tokens.len();
            self.pace.count(READING * tokens.len() as f64);
        }
        self.read = self.held;
        self.waiting.clear();
        self.states.clear();
        Ok(())
    }

    /// Forgets what it read, and the first of what waits.
    fn drop_waiting(&mut self, tokens: usize) {
        let length = self.states.len() / self.waiting.len().max(1);
        self.waiting.drain(..tokens);
        self.states.drain(..tokens * length);
        self.context.clear();
        (self.read, self.held, self.ahead) = (0, 0, None);
    }

    /// Forgets everything but its pace.
    pub(super) fn forget(&mut self) {
        self.drop_waiting(self.waiting.len());
        self.last.clear();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::engine::llama::tiny_mtp::{self, Kind, TOKENS};
    use crate::engine::llama::{AbortFlag, Backend, HiddenStates, Model};
    use crate::engine::options::{ContextOptions, ModelOptions};

    const CONTEXT_TOKENS: u32 = 512;

    /// A model that counts, and its layer.
    fn open(kind: Kind) -> (Context, PredictionLayer) {
        let folder = tempfile::tempdir().unwrap();
        let path = tiny_mtp::file(folder.path(), kind);
        let options = ModelOptions { prediction: true, ..ModelOptions::default() };
        let model = Model::load(Backend::get(), &path, &options, &mut |_| true).unwrap();
        let options = ContextOptions::with_threads(1);
        let abort = AbortFlag::default();
        let mut context =
            Context::new(&model, &options, CONTEXT_TOKENS, Arc::clone(&abort), None).unwrap();
        context.leave_hidden_states(HiddenStates::Outputs);
        let layer = Context::of_prediction(&model, &options, CONTEXT_TOKENS, abort).unwrap();
        (context, PredictionLayer::new(layer))
    }

    /// Computes tokens, all with logits, and tells the layer of them.
    fn compute(context: &mut Context, layer: &mut PredictionLayer, tokens: &[Token]) {
        let position = context.used_tokens(0);
        context.decode(tokens, 0).unwrap();
        for (index, &token) in tokens.iter().enumerate() {
            layer.follow(position + index, token, context.hidden_state(index).unwrap());
        }
    }

    /// Whatever was guessed, held, taken back or skipped: the layer reads each token with the state before it, so that one
    /// that is right by construction stays right. Long enough to fill its cache more than once.
    #[test]
    fn a_layer_that_is_right_stays_right() {
        for kind in [Kind::CountsByState, Kind::CountsByToken] {
            let (mut context, mut layer) = open(kind);
            let mut next = 5;
            compute(&mut context, &mut layer, &[next]);
            for round in 0..300 {
                next = (next + 1) % TOKENS;
                // Now and then no guess is wanted for long.
                if round % 50 < 40 {
                    assert!(layer.begin(&[next]), "{round}: {:?}", layer.fault());
                    for ahead in 1..=round % 5 {
                        let (guess, share) = layer.next().unwrap();
                        assert_eq!(guess, (next + ahead) % TOKENS, "{kind:?} in round {round}");
                        assert!(share > 0.0 && share <= 1.0);
                    }
                }
                if context.used_tokens(0) + 4 > CONTEXT_TOKENS as usize {
                    context.clear();
                }
                // Some of the guesses hold.
                let held: Vec<Token> = (0..=round % 3).map(|more| (next + more) % TOKENS).collect();
                next = held[held.len() - 1];
                compute(&mut context, &mut layer, &held);
            }
        }
    }

    #[test]
    fn nothing_is_guessed_before_something_was_computed() {
        let (_, mut layer) = open(Kind::CountsByState);
        assert!(!layer.begin(&[5]));
        assert!(layer.fault().is_none());
    }
}
