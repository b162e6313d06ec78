//! What guesses by computing: a draft model, or the model's own prediction layer.

use std::time::Duration;

use super::acceptance::Evidence;
use super::draft::DraftModel;
use super::mtp::PredictionLayer;
use crate::engine::llama::{Token, argmax};

/// How far one step moves the pace.
const PACE_STEP: f64 = 0.2;

/// Guesses one token after the other, each for a price.
#[derive(Debug)]
pub(super) enum Drafter {
    Model(Box<DraftModel>),
    Layer(Box<PredictionLayer>),
}

impl Drafter {
    /// For another reply: what it followed is over.
    pub(super) fn for_another(mut self) -> Self {
        if let Self::Layer(layer) = &mut self {
            layer.forget();
        }
        self
    }

    /// Seconds of a guess, once known.
    pub(super) fn seconds_per_guess(&self) -> Option<f64> {
        match self {
            Self::Model(model) => model.pace().seconds(),
            Self::Layer(layer) => layer.pace().seconds(),
        }
    }

    /// What it has yet to read before it can guess what follows these tokens, in guesses.
    pub(super) fn missing(&self, tokens: &[Token]) -> f64 {
        match self {
            Self::Model(model) => model.missing(tokens) as f64,
            Self::Layer(layer) => layer.missing(),
        }
    }

    /// Learns how long its computations since the last call took.
    pub(super) fn learn(&mut self, elapsed: Duration) {
        match self {
            Self::Model(model) => model.pace_mut().learn(elapsed),
            Self::Layer(layer) => layer.pace_mut().learn(elapsed),
        }
    }

    /// Makes the next call of [`Drafter::next`] guess what follows these tokens; false when it cannot.
    pub(super) fn begin(&mut self, tokens: &[Token]) -> bool {
        match self {
            Self::Model(model) => model.begin(tokens),
            Self::Layer(layer) => layer.begin(tokens),
        }
    }

    /// The likeliest next token and what speaks for it, and takes it as said; None when it cannot.
    pub(super) fn next(&mut self) -> Option<(Token, Evidence)> {
        match self {
            Self::Model(model) => {
                model.next().map(|(token, share)| (token, Evidence::Drafted(share)))
            }
            Self::Layer(layer) => {
                layer.next().map(|(token, share)| (token, Evidence::Predicted(share)))
            }
        }
    }
}

/// What computing takes, learned from computations whose sizes are counted in guesses.
#[derive(Debug, Default)]
pub(super) struct Pace {
    computed: f64,
    seconds: Option<f64>,
}

impl Pace {
    /// Counts what was computed, in guesses.
    pub(super) fn count(&mut self, guesses: f64) {
        self.computed += guesses;
    }

    fn seconds(&self) -> Option<f64> {
        self.seconds
    }

    /// Learns how long it took all that was counted since the last call.
    fn learn(&mut self, elapsed: Duration) {
        let computed = std::mem::take(&mut self.computed);
        if computed > 0.0 {
            let seconds = elapsed.as_secs_f64() / computed;
            let pace = self.seconds.get_or_insert(seconds);
            *pace += PACE_STEP * (seconds - *pace);
        }
    }
}

/// The likeliest token of a row of logits with its probability.
pub(super) fn likeliest(logits: &[f32]) -> (Token, f32) {
    let best = argmax(logits);
    let largest = logits.get(best).copied().unwrap_or(f32::NEG_INFINITY);
    let sum: f32 = logits.iter().map(|logit| (logit - largest).exp()).sum();
    (best as Token, 1.0 / sum)
}
