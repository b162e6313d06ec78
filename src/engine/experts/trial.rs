//! Trying whether something pays: windows of tokens with and without it, and the better one kept.

/// Tokens of one window.
const WINDOW_TOKENS: u32 = 24;
/// Windows of a trial: without and with in turn.
const WINDOWS: usize = 4;
/// Tokens after which the question is asked again.
const REST_TOKENS: u32 = 512;
/// It must save this share of the time to be kept.
const GAIN_LEAST: f64 = 0.01;

/// A trial that is under way, or its verdict.
#[derive(Debug)]
pub struct Trial {
    /// Seconds of each window, without and with in turn.
    windows: Vec<f64>,
    seconds: f64,
    tokens: u32,
    verdict: Option<bool>,
    rest: u32,
}

impl Default for Trial {
    fn default() -> Self {
        let windows = Vec::with_capacity(WINDOWS);
        Self { windows, seconds: 0.0, tokens: 0, verdict: None, rest: 0 }
    }
}

impl Trial {
    /// Whether to do it for the next token.
    pub fn is_on(&self) -> bool {
        // With comes first: the first windows are the slowest, and a doubt is to its disadvantage.
        self.verdict.unwrap_or(self.windows.len().is_multiple_of(2))
    }

    /// A token has been computed, in this time.
    pub fn record(&mut self, seconds: f64) {
        if self.verdict.is_some() {
            self.rest += 1;
            if self.rest >= REST_TOKENS {
                *self = Self::default();
            }
            return;
        }
        self.seconds += seconds;
        self.tokens += 1;
        if self.tokens < WINDOW_TOKENS {
            return;
        }
        self.windows.push(self.seconds);
        (self.seconds, self.tokens) = (0.0, 0);
        if self.windows.len() == WINDOWS {
            let sum = |offset: usize| self.windows.iter().skip(offset).step_by(2).sum::<f64>();
            let (with, without) = (sum(0), sum(1));
            self.verdict = Some(with < without * (1.0 - GAIN_LEAST));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(with: f64, without: f64) -> bool {
        let mut trial = Trial::default();
        while trial.verdict.is_none() {
            let seconds = if trial.is_on() { with } else { without };
            trial.record(seconds);
        }
        trial.is_on()
    }

    #[test]
    fn the_faster_way_is_kept() {
        assert!(verdict(0.8, 1.0));
        assert!(!verdict(1.2, 1.0));
        assert!(!verdict(1.0, 1.0), "no gain, no effort");
    }

    #[test]
    fn the_question_is_asked_again() {
        let mut trial = Trial::default();
        for _ in 0..WINDOW_TOKENS * WINDOWS as u32 {
            trial.record(if trial.is_on() { 2.0 } else { 1.0 });
        }
        assert!(!trial.is_on());
        for _ in 0..REST_TOKENS {
            assert!(!trial.is_on());
            trial.record(1.0);
        }
        assert!(trial.is_on(), "a new trial begins");
    }
}
