//! Speculative decoding: tokens are guessed, and the model checks several guesses in one step.
//!
//! A step of several tokens costs less than as many steps of one, because the weights travel from memory once; so right
//! guesses are time won and wrong ones time lost. Guesses come from what was said before (`history`: prompt and reply),
//! from a small draft model of the same vocabulary (`draft`), or from a layer of the model itself that was trained to guess
//! further tokens (`mtp`). How many are made is a calculation: the probability
//! of each (`acceptance`) and the cost of a step by its tokens (`cost`) give the tokens per second of every length, and the
//! best is chosen, none included. A watchdog (`ledger`) bounds what may be lost, from the first token on.
//!
//! The speculator never looks at a clock: times come in with [`Outcome`], so the same outcomes give the same guesses.
//! It never decides about a token either: whoever drives it samples row after row, and a guess counts only when the sampler
//! chose the same.
//!
//! ```text
//! speculator.prompt(&tokens, elapsed, carried)
//! loop {
//!     guesses = speculator.propose(limit, others)       // maybe none
//!     decode [last token, guesses…] with a row each
//!     sample row after row until a token differs from its guess
//!     speculator.outcome(&Outcome { tokens: the sampled ones, … })
//! }
//! ```

mod acceptance;
mod cost;
mod draft;
mod drafter;
mod history;
mod ledger;
mod mtp;
#[cfg(test)]
mod simulation;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use acceptance::{Acceptance, Evidence};
use cost::Cost;
pub use draft::{DraftError, DraftModel};
use drafter::Drafter;
use history::History;
use ledger::Ledger;
pub use mtp::PredictionLayer;

use super::llama::Token;

/// The most tokens of a step with guesses, those of others included.
const STEP_TOKENS_MAX: usize = 32;

/// The most guesses of one step.
pub const GUESSES_MAX: usize = 24;

/// Tokens that must agree before anything is copied.
const AGREEMENT_MIN: usize = 2;

/// Agreement as which a copy counts that goes on behind a token that differed, from its second token on.
const RESUMED_AGREEMENT: usize = 4;

/// How much more a step with guesses must promise than one without.
const PROMISE_MIN: f64 = 1.03;

/// What the steps of one model taught, shared by its slots and kept from reply to reply.
#[derive(Debug, Clone, Default)]
pub struct Learned(Arc<Mutex<Lessons>>);

#[derive(Debug, Default)]
struct Lessons {
    cost: Cost,
    acceptance: Acceptance,
    /// Seconds that finished replies won.
    won: f64,
    /// What guesses by computing, while no reply uses it.
    drafter: Option<Drafter>,
}

impl Learned {
    /// Hands a draft model over: one reply at a time asks it.
    #[must_use]
    pub fn with_draft(self, draft: DraftModel) -> Self {
        self.lessons().drafter = Some(Drafter::Model(Box::new(draft)));
        self
    }

    /// Hands the model's prediction layer over, in place of a draft model: one reply at a time asks it.
    #[must_use]
    pub fn with_prediction(self, layer: PredictionLayer) -> Self {
        self.lessons().drafter = Some(Drafter::Layer(Box::new(layer)));
        self
    }

    /// As if long steps had cost no more than short ones, and guesses had won: for tests that want guesses whatever the
    /// clock says.
    #[cfg(test)]
    pub(in crate::engine) fn hope(&self) {
        let mut lessons = self.lessons();
        lessons.won = 1.0;
        for tokens in 1..=STEP_TOKENS_MAX {
            lessons.cost.learn(tokens, Duration::from_millis(100));
        }
    }

    fn lessons(&self) -> MutexGuard<'_, Lessons> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What else is in the batch of a step.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Others {
    /// Replies that other slots are generating.
    pub replies: usize,
    /// Tokens of other slots, their guesses included.
    pub tokens: usize,
}

/// What became of a step.
#[derive(Debug, Clone, Copy)]
pub struct Outcome<'a> {
    /// What was sampled: the guesses that held, in order, then one token more.
    pub tokens: &'a [Token],
    /// How many of the guesses were in the batch.
    pub guessed: usize,
    /// What else was in the batch.
    pub others: Others,
    /// How long the step took, from its guesses to its last sampled token.
    pub elapsed: Duration,
    /// How much of that went into the guesses.
    pub guessing: Duration,
}

/// How often guesses were made and held.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    /// Guesses that a step checked.
    pub drafted: u32,
    /// Guesses that held.
    pub accepted: u32,
}

/// Guesses the next tokens of one reply.
#[derive(Debug)]
pub struct Speculator {
    learned: Learned,
    copies: bool,
    drafter: Option<Drafter>,
    history: History,
    ledger: Ledger,
    guesses: Vec<Token>,
    evidence: Vec<Evidence>,
    /// How many of the guesses are proposed; the rest is only kept in mind.
    proposed: usize,
    /// Where the guesses were copied from.
    source: Option<usize>,
    /// Where a copy goes on although its last token differed.
    resumes: Option<usize>,
    /// Seconds of the prompt, until the pace is known.
    prompt_seconds: f64,
    is_open: bool,
    counters: Counters,
}

impl Speculator {
    /// A speculator for one reply: it `copies` from what was said before, and `drafts` with the draft model or the prediction
    /// layer when there is one that no other reply uses.
    pub fn new(learned: &Learned, copies: bool, drafts: bool) -> Self {
        let drafter = if drafts { learned.lessons().drafter.take() } else { None };
        Self {
            learned: learned.clone(),
            copies,
            drafter: drafter.map(Drafter::for_another),
            history: History::default(),
            ledger: Ledger::default(),
            guesses: Vec::new(),
            evidence: Vec::new(),
            proposed: 0,
            source: None,
            resumes: None,
            prompt_seconds: 0.0,
            is_open: false,
            counters: Counters::default(),
        }
    }

    /// Tells of tokens that were read, not generated: the prompt, and before it what an earlier reply may be quoted from.
    /// `elapsed` is the time of reading it: a small share of it may be risked.
    pub fn prompt(&mut self, tokens: &[Token], elapsed: Duration) {
        for &token in tokens {
            self.history.push(token);
        }
        self.prompt_seconds += elapsed.as_secs_f64();
    }

    /// Whether it wants to be told of each token that the model computes, and of the state that it left.
    pub fn follows(&self) -> bool {
        matches!(self.drafter, Some(Drafter::Layer(_)))
    }

    /// Tells of a token that the model computed at a position of its cache, and of the state that it left there. Only
    /// tokens that are part of the text, each before the outcome of its step.
    pub fn follow(&mut self, position: usize, token: Token, state: &[f32]) {
        if let Some(Drafter::Layer(layer)) = &mut self.drafter {
            layer.follow(position, token, state);
        }
    }

    /// Guesses that held and guesses made.
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// Seconds that guessing has won in this reply, below 0 when it lost, by the cost of single tokens.
    pub fn won_seconds(&self) -> f64 {
        self.ledger.balance() * self.learned.lessons().cost.single().unwrap_or(0.0)
    }

    /// Guesses for the next step, at most `limit`, besides what others have in its batch; often none.
    pub fn propose(&mut self, limit: usize, others: Others) -> &[Token] {
        self.guesses.clear();
        self.evidence.clear();
        self.source = None;
        let limit = limit.min(GUESSES_MAX).min(cost::TOKENS_MAX.saturating_sub(1 + others.tokens));
        self.copy();
        self.proposed = self.length(limit, others);
        if self.proposed == 0 && limit > 0 && self.drafter.is_some() {
            self.ask_drafter(limit, others);
        }
        &self.guesses[..self.proposed]
    }

    /// Learns what became of a step.
    pub fn outcome(&mut self, outcome: &Outcome<'_>) {
        let guessed = outcome.guessed.min(self.proposed);
        let held = outcome.tokens.len().saturating_sub(1).min(guessed);
        self.learn_guesses(outcome.tokens, guessed);
        self.book(outcome, guessed, held);
        self.counters.drafted += guessed as u32;
        self.counters.accepted += held as u32;
        self.resumes = self.resumption(outcome.tokens, held);
        for &token in outcome.tokens {
            self.history.push(token);
        }
    }

    /// Fills in what would be copied, the longest continuation that may be used, with what speaks for each token. It is
    /// kept even when none of it is proposed: whether it was right costs nothing to learn.
    fn copy(&mut self) {
        if !self.copies {
            return;
        }
        let lessons = self.learned.lessons();
        let tokens = self.history.tokens();
        let found = self
            .history
            .find(AGREEMENT_MIN)
            .map(|found| (found.position, Evidence::Copied(found.length)));
        let resumed = self
            .resumes
            .filter(|&position| position < tokens.len())
            .map(|position| (position, Evidence::Resumed));
        let best = match (found, resumed) {
            (Some(found), Some(resumed)) => {
                let promises =
                    |candidate: (usize, Evidence)| lessons.acceptance.probability(candidate.1);
                Some(if promises(found) >= promises(resumed) { found } else { resumed })
            }
            (found, resumed) => found.or(resumed),
        };
        drop(lessons);
        let Some((position, evidence)) = best else { return };
        self.source = Some(position);
        let base = match evidence {
            Evidence::Copied(length) => length,
            _ => RESUMED_AGREEMENT,
        };
        // A loop goes round: the copy may run into its own guesses.
        for index in 0..GUESSES_MAX {
            let token = match tokens.get(position + index) {
                Some(&token) => token,
                None => self.guesses[position + index - tokens.len()],
            };
            self.guesses.push(token);
            self.evidence.push(if index == 0 { evidence } else { Evidence::Copied(base + index) });
        }
    }

    /// Where a copy goes on behind a token that differed: a word was replaced, the text around it probably stands.
    fn resumption(&self, tokens: &[Token], held: usize) -> Option<usize> {
        let differs = self.guesses.get(held)? != tokens.get(held)?;
        let was_sure = matches!(self.evidence.get(held)?, Evidence::Copied(length) if *length >= RESUMED_AGREEMENT);
        self.source.filter(|_| differs && was_sure).map(|source| source + held + 1)
    }

    /// How many of the guesses promise the most tokens per second, within what may be lost.
    fn length(&mut self, limit: usize, others: Others) -> usize {
        let learned = self.learned.clone();
        let lessons = learned.lessons();
        let Some(single) = lessons.cost.single() else { return 0 };
        self.open(single, lessons.won);
        let step = Step::new(&lessons.cost, others);
        let allowance = self.ledger.allowance();
        let (mut right, mut gain) = (1.0, 0.0);
        let (mut best, mut best_rate) = (0, step.rate(0, 0.0, 0.0) * PROMISE_MIN);
        for (index, &evidence) in self.evidence.iter().take(limit).enumerate() {
            right *= lessons.acceptance.probability(evidence);
            gain += right;
            let length = index + 1;
            if step.risk(length) > allowance {
                break;
            }
            let rate = step.rate(length, gain, 0.0);
            if rate > best_rate {
                (best, best_rate) = (length, rate);
            }
        }
        best
    }

    /// Lets the drafter guess, as long as a further guess promises more tokens per second.
    fn ask_drafter(&mut self, limit: usize, others: Others) {
        self.guesses.clear();
        self.evidence.clear();
        self.source = None;
        let learned = self.learned.clone();
        let lessons = learned.lessons();
        let Some(single) = lessons.cost.single() else { return };
        self.open(single, lessons.won);
        let Some(drafter) = &mut self.drafter else { return };
        let step = Step::new(&lessons.cost, others);
        let allowance = self.ledger.allowance();
        let price = drafter.seconds_per_guess().map_or(0.0, |seconds| seconds / single);
        let catch_up = drafter.missing(self.history.tokens()) * price;
        if catch_up + price + step.risk(1) > allowance {
            return;
        }
        let (mut right, mut gain) = (1.0, 0.0);
        let (mut best, mut best_rate) = (0, step.rate(0, 0.0, 0.0) * PROMISE_MIN);
        if !drafter.begin(self.history.tokens()) {
            return;
        }
        for length in 1..=limit {
            if catch_up + price * length as f64 + step.risk(length) > allowance {
                break;
            }
            let Some((token, evidence)) = drafter.next() else { break };
            let probability = lessons.acceptance.probability(evidence);
            right *= probability;
            gain += right;
            self.guesses.push(token);
            self.evidence.push(evidence);
            let rate = step.rate(length, gain, price * length as f64);
            if rate > best_rate {
                (best, best_rate) = (length, rate);
            }
            // The next guess is hardly surer than this one.
            let hoped =
                step.rate(length + 1, gain + right * probability, price * (length + 1) as f64);
            if hoped < best_rate {
                break;
            }
        }
        self.proposed = best;
    }

    /// Opens the account of the reply as soon as the pace is known.
    fn open(&mut self, single: f64, won: f64) {
        if !self.is_open {
            self.ledger = Ledger::new(self.prompt_seconds / single, won / single);
            self.is_open = true;
        }
    }

    fn learn_guesses(&mut self, tokens: &[Token], guessed: usize) {
        let mut lessons = self.learned.lessons();
        // Every token judges the guess in its place, whether that was proposed or only in mind: learning so is free.
        let judged = tokens.iter().zip(&self.guesses).zip(&self.evidence);
        for ((token, guess), &evidence) in judged {
            lessons.acceptance.learn(evidence, guess == token);
            if guess != token {
                break;
            }
        }
        if guessed == 0 {
            lessons.acceptance.fade();
        }
    }

    fn book(&mut self, outcome: &Outcome<'_>, guessed: usize, held: usize) {
        let mut lessons = self.learned.lessons();
        let batch = 1 + outcome.others.tokens + guessed;
        let deciding = outcome.elapsed.saturating_sub(outcome.guessing);
        lessons.cost.learn(batch, deciding);
        if let Some(drafter) = &mut self.drafter {
            drafter.learn(outcome.guessing);
        }
        let Some(single) = lessons.cost.single() else { return };
        let without = lessons.cost.expected(batch - guessed);
        let slots = (1 + outcome.others.replies) as f64;
        // What a token of this reply is worth: its share of a step without guesses.
        let worth = without / slots;
        let extra = if guessed > 0 {
            // A step during which the machine did something else is not the guesses' fault.
            let most = lessons.cost.expected(batch) * cost::SURPRISE_MAX;
            let drafting = outcome.guessing.as_secs_f64() / single;
            (deciding.as_secs_f64() / single).min(most) + drafting - without
        } else {
            outcome.guessing.as_secs_f64() / single
        };
        self.ledger.book(worth * (1 + held) as f64, worth + extra);
    }
}

impl Drop for Speculator {
    fn drop(&mut self) {
        let won = self.won_seconds();
        let mut lessons = self.learned.lessons();
        lessons.won = (lessons.won + won).max(0.0);
        if let Some(drafter) = self.drafter.take() {
            lessons.drafter = Some(drafter);
        }
    }
}

/// What steps of several lengths give and cost, in single tokens.
struct Step<'a> {
    cost: &'a Cost,
    others: Others,
    without: f64,
}

impl<'a> Step<'a> {
    fn new(cost: &'a Cost, others: Others) -> Self {
        Self { cost, others, without: cost.expected(1 + others.tokens) }
    }

    /// Tokens per cost of a step with so many guesses, of which `gain` will probably hold, after `drafting`.
    fn rate(&self, guesses: usize, gain: f64, drafting: f64) -> f64 {
        let tokens = (1 + self.others.replies) as f64 + gain;
        tokens / (self.cost.expected(1 + self.others.tokens + guesses) + drafting)
    }

    /// What is lost when none of so many guesses holds.
    fn risk(&self, guesses: usize) -> f64 {
        (self.cost.worst(1 + self.others.tokens + guesses) - self.without).max(0.0)
    }
}
