//! The watchdog: what guessing has won and lost, and what may still be risked.
//!
//! Every step with guesses is booked: the time that its tokens would have taken one by one, less the time that it took.
//! A step may risk only what the account holds: a share of the time of this reply, a share of the time of its prompt, and
//! what guessing has won before. So whatever the text is, the loss stays below the shares: by construction, for each
//! prefix of the reply, and not only in the end. The construction rests on one belief: that a step of two tokens costs no
//! more than two steps.

/// Share of the time of generating that may be lost.
const SHARE: f64 = 0.01;

/// Share of the time of reading the prompt that may be lost in the reply.
const PROMPT_SHARE: f64 = 0.019;

/// The most that the prompt's share gives, in single tokens.
const PROMPT_TOKENS_MAX: f64 = 1.5;

/// The most that earlier replies' winnings lend to a new one, in single tokens.
const CARRIED_TOKENS_MAX: f64 = 0.6;

/// Share of what a reply has won that its later guesses may lose again: the rest stays won.
const WINNINGS_SHARE: f64 = 0.5;

/// The account of one reply, in single tokens: what a step of one token costs at that time.
#[derive(Debug, Clone, Default)]
pub(super) struct Ledger {
    /// What may be lost without anything having been won.
    grant: f64,
    /// Won by steps that won.
    won: f64,
    /// Lost by steps that lost.
    lost: f64,
}

impl Ledger {
    /// The account of a reply whose prompt took as long as so many single tokens, and what earlier replies won.
    pub(super) fn new(prompt: f64, carried: f64) -> Self {
        let prompt = (prompt * PROMPT_SHARE).clamp(0.0, PROMPT_TOKENS_MAX);
        Self { grant: prompt + carried.clamp(0.0, CARRIED_TOKENS_MAX), won: 0.0, lost: 0.0 }
    }

    /// Books a step: what its tokens are worth, and what it cost, in single tokens.
    pub(super) fn book(&mut self, tokens: f64, cost: f64) {
        self.grant += SHARE * cost;
        let gain = tokens - cost;
        self.won += gain.max(0.0);
        self.lost += (-gain).max(0.0);
    }

    /// What a step may lose, in single tokens.
    pub(super) fn allowance(&self) -> f64 {
        (self.grant + self.won * WINNINGS_SHARE - self.lost).max(0.0)
    }

    /// Won less lost, in single tokens.
    pub(super) fn balance(&self) -> f64 {
        self.won - self.lost
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reply_earns_what_it_may_risk() {
        let mut ledger = Ledger::default();
        assert!(ledger.allowance() < f64::EPSILON);
        for _ in 0..100 {
            ledger.book(1.0, 1.0);
        }
        assert!((ledger.allowance() - 1.0).abs() < 1e-9);
        ledger.book(1.0, 1.6);
        assert!(ledger.allowance() < 0.45);
        ledger.book(5.0, 2.0);
        assert!(ledger.allowance() > 1.8, "half of what was won");
        assert!((ledger.balance() - 2.4).abs() < 1e-9);
    }

    #[test]
    fn grants_have_a_ceiling() {
        assert!((Ledger::new(1e9, 1e9).allowance() - 2.1).abs() < 1e-9);
        assert!(Ledger::new(-1.0, -1.0).allowance() < f64::EPSILON);
    }
}
