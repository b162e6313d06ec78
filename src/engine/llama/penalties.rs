//! Penalties on recent tokens, applied to the logits in place.
//!
//! They touch only the tokens that occurred lately; llama.cpp's own sampler looks every token of
//! the vocabulary up in a hash table instead.

use std::collections::VecDeque;

use super::Token;
use crate::engine::options::Sampling;

#[derive(Debug)]
pub(super) struct Penalties {
    window: usize,
    repeat: f32,
    frequency: f32,
    presence: f32,
    recent: VecDeque<Token>,
}

impl Penalties {
    pub(super) fn new(sampling: &Sampling, context_tokens: usize) -> Self {
        Self {
            window: sampling.penalty_tokens.map_or(context_tokens, |tokens| tokens as usize),
            repeat: sampling.repeat_penalty,
            frequency: sampling.frequency_penalty,
            presence: sampling.presence_penalty,
            recent: VecDeque::new(),
        }
    }

    pub(super) fn accept(&mut self, token: Token) {
        if self.recent.len() >= self.window {
            self.recent.pop_front();
        }
        self.recent.push_back(token);
    }

    pub(super) fn apply(&self, logits: &mut [f32]) {
        let mut seen: Vec<Token> = self.recent.iter().copied().collect();
        seen.sort_unstable();
        for run in seen.chunk_by(|left, right| left == right) {
            let place = usize::try_from(run[0]).ok().and_then(|token| logits.get_mut(token));
            let Some(logit) = place else { continue };
            // Dividing a negative logit would make the token likelier.
            if *logit <= 0.0 {
                *logit *= self.repeat;
            } else {
                *logit /= self.repeat;
            }
            *logit -= run.len() as f32 * self.frequency + self.presence;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn penalties_follow_the_published_rule() {
        let mut penalties = Penalties {
            window: 3,
            repeat: 2.0,
            frequency: 0.5,
            presence: 0.25,
            recent: VecDeque::new(),
        };
        for token in [3, 0, 1, 1] {
            penalties.accept(token);
        }
        let mut logits = [1.0, -2.0, 5.0, 7.0];
        penalties.apply(&mut logits);
        // Token 3 has left the window; 0 occurred once, 1 twice.
        for (logit, expected) in logits.iter().zip([1.0 / 2.0 - 0.75, -2.0 * 2.0 - 1.25, 5.0, 7.0])
        {
            assert!((logit - expected).abs() < 1e-6, "{logits:?}");
        }
    }
}
