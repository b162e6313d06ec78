//! What a step costs by the number of its tokens, learned from the steps themselves.
//!
//! The time of a step is a scale (the machine's pace at this depth of the context, which drifts) times a shape (how many
//! times the cost of a single token a step of so many tokens costs, which is the model's and hardly changes). Both
//! follow every step; a step that the machine was interrupted in moves them no further than any other.

use std::time::Duration;

/// Tokens of a step up to which the shape is learned.
pub(super) const TOKENS_MAX: usize = super::STEP_TOKENS_MAX;

/// Cost of a second token and of each further one, in single tokens, before anything was measured: what is hoped for. A
/// processor that reads the weights once for all tokens of a step reaches it.
const HOPED_SECOND: f64 = 0.3;
const HOPED_FURTHER: f64 = 0.05;

/// How far one step moves the scale and the shape.
const SCALE_STEP: f64 = 0.15;
const SHAPE_STEP: f64 = 0.25;

/// The most that one step counts as slower or faster than expected.
pub(super) const SURPRISE_MAX: f64 = 1.6;

/// The cost of steps.
#[derive(Debug, Clone)]
pub(super) struct Cost {
    /// Seconds of a step of one token; None before the first.
    scale: Option<f64>,
    /// Multiples of the scale, by tokens less one; None where nothing was measured.
    shape: [Option<f64>; TOKENS_MAX],
}

impl Default for Cost {
    fn default() -> Self {
        Self { scale: None, shape: [None; TOKENS_MAX] }
    }
}

impl Cost {
    /// Learns from a step of so many tokens.
    pub(super) fn learn(&mut self, tokens: usize, elapsed: Duration) {
        let seconds = elapsed.as_secs_f64();
        if tokens == 0 || tokens > TOKENS_MAX || seconds <= 0.0 {
            return;
        }
        let Some(scale) = self.scale else {
            // Steps of several tokens say nothing before the pace is known.
            if tokens == 1 {
                self.scale = Some(seconds);
                self.shape[0] = Some(1.0);
            }
            return;
        };
        let Some(shape) = self.shape[tokens - 1] else {
            self.shape[tokens - 1] = Some((seconds / scale).max(1.0));
            return;
        };
        let surprise = (seconds / (scale * shape)).clamp(1.0 / SURPRISE_MAX, SURPRISE_MAX);
        self.scale = Some(scale * surprise.powf(SCALE_STEP));
        if tokens > 1 {
            self.shape[tokens - 1] = Some((shape * surprise.powf(SHAPE_STEP)).max(1.0));
        }
    }

    /// Seconds of a step of one token; None before the first was seen.
    pub(super) fn single(&self) -> Option<f64> {
        self.scale
    }

    /// Times the cost of a single token that a step of so many is expected to cost: measured, or between the neighbours
    /// that were, or hoped for.
    pub(super) fn expected(&self, tokens: usize) -> f64 {
        let (below, above) = self.neighbours(tokens);
        let (place, cost) = below;
        if let Some((next, next_cost)) = above {
            let share = (tokens - place) as f64 / (next - place).max(1) as f64;
            return cost + share * (next_cost - cost).max(0.0);
        }
        let second = if place <= 1 && tokens > 1 { HOPED_SECOND } else { 0.0 };
        cost + second + HOPED_FURTHER * (tokens - place) as f64
    }

    /// Times the cost of a single token that a step of so many costs at the most, as far as is known: beyond what was
    /// measured a token costs no more than those before it did on average, and one alone where nothing was measured.
    pub(super) fn worst(&self, tokens: usize) -> f64 {
        let ((place, cost), above) = self.neighbours(tokens);
        let each = if place > 1 { (cost - 1.0) / (place - 1) as f64 } else { 1.0 };
        let beyond = cost + each * (tokens - place) as f64;
        above.map_or(beyond, |(_, next_cost)| beyond.min(next_cost.max(cost)))
    }

    /// The nearest measured numbers of tokens at or below, and at or above.
    fn neighbours(&self, tokens: usize) -> ((usize, f64), Option<(usize, f64)>) {
        let at = |index: usize| self.shape[index].map(|cost| (index + 1, cost));
        let tokens = tokens.clamp(1, TOKENS_MAX);
        let below = (0..tokens).rev().find_map(at).unwrap_or((1, 1.0));
        (below, (tokens - 1..TOKENS_MAX).find_map(at))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(ms: f64) -> Duration {
        Duration::from_secs_f64(ms / 1000.0)
    }

    #[test]
    fn hopes_give_way_to_measurements() {
        let mut cost = Cost::default();
        cost.learn(4, ms(9.0));
        assert_eq!(cost.single(), None, "no pace is known yet");
        cost.learn(1, ms(10.0));
        assert!(cost.expected(4) < 1.5 && (cost.worst(4) - 4.0).abs() < 1e-9);
        cost.learn(8, ms(30.0));
        assert!((cost.expected(8) - 3.0).abs() < 1e-9);
        assert!(cost.expected(4) > 1.5 && cost.expected(4) < 3.0, "between the measured ones");
        assert!((cost.worst(4) - 3.0).abs() < 1e-9, "no more than a larger step");
        assert!(cost.expected(9) > 3.0 && cost.worst(9) > cost.expected(9));
    }

    #[test]
    fn the_pace_drifts_and_one_interruption_does_not_matter() {
        let mut cost = Cost::default();
        for _ in 0..20 {
            cost.learn(1, ms(10.0));
            cost.learn(4, ms(20.0));
        }
        cost.learn(1, ms(1000.0));
        let single = cost.single().unwrap();
        assert!(single < 0.0108, "{single}");
        // Deeper in the context everything takes twice as long; only steps of four are seen.
        for _ in 0..60 {
            cost.learn(4, ms(40.0));
        }
        let four = cost.single().unwrap() * cost.expected(4);
        assert!((four - 0.04).abs() < 0.001, "{four}");
    }
}
