//! A slot: one sequence of the context, the tokens that it holds, and the request that uses it.

use std::sync::Arc;
use std::time::Instant;

use super::measure::Measure;
use super::reply::Reply;
use super::states::{StateError, States};
use crate::engine::llama::{Context, Sequence, Steered, Token};

/// The least step of progress that is told.
const PROGRESS_STEP: f32 = 0.01;

#[derive(Debug)]
pub(super) struct Slot {
    pub(super) sequence: Sequence,
    /// What the cache holds of the sequence, token by token.
    pub(super) held: Vec<Token>,
    pub(super) task: Option<Task>,
    /// The step that used it last.
    pub(super) used_at: u64,
    /// Whether tokens were cut out of the middle: what is left was computed in their sight, so no
    /// prompt may build on it.
    pub(super) is_shifted: bool,
    /// With which adapters its tokens were computed.
    pub(super) steered: Arc<Steered>,
    /// How many of the held tokens the last saved state has.
    saved: usize,
}

/// A request on its way.
#[derive(Debug)]
pub(super) struct Task {
    pub(super) call: u64,
    /// The prompt, or the tokens to measure.
    pub(super) tokens: Vec<Token>,
    /// The adapters that it wants.
    pub(super) steered: Arc<Steered>,
    /// When it came.
    pub(super) started: Instant,
    pub(super) work: Work,
    pub(super) progress: Progress,
    pub(super) cancelled: bool,
}

impl Task {
    pub(super) fn new(call: u64, tokens: Vec<Token>, started: Instant, work: Work) -> Self {
        let (steered, progress) = (Arc::default(), Progress::default());
        Self { call, tokens, steered, started, work, progress, cancelled: false }
    }
}

/// The share of a prompt that is read: told when it has grown enough.
#[derive(Debug, Default)]
pub(super) struct Progress {
    told: f32,
    /// Tokens that were there when the request got its slot.
    pub(super) from: usize,
}

impl Progress {
    /// The share to tell now that `read` of `all` tokens are read, if any.
    pub(super) fn advance(&mut self, read: usize, all: usize) -> Option<f32> {
        let share = (read - self.from) as f32 / (all - self.from).max(1) as f32;
        if share - self.told < PROGRESS_STEP {
            return None;
        }
        self.told = share;
        Some(share)
    }
}

/// What is done with the logits.
#[derive(Debug)]
pub(super) enum Work {
    /// Tokens are chosen and go on the end.
    Generate(Box<Reply>),
    /// They are scored or handed out.
    Measure(Box<Measure>),
}

impl Slot {
    pub(super) fn new(sequence: usize) -> Self {
        Self {
            sequence: sequence as Sequence,
            held: Vec::new(),
            task: None,
            used_at: 0,
            is_shifted: false,
            steered: Arc::default(),
            saved: 0,
        }
    }

    /// Whether it is making a reply, its prompt read.
    pub(super) fn is_generating(&self) -> bool {
        self.task.as_ref().is_some_and(
            |task| matches!(&task.work, Work::Generate(reply) if reply.next_token().is_some()),
        )
    }

    /// Forgets its tokens.
    pub(super) fn forget(&mut self, context: &mut Context) {
        if !context.truncate(self.sequence, 0) || context.used_tokens(self.sequence) > 0 {
            // No kind of memory refuses to forget a whole sequence.
            debug_assert!(false, "sequence {} is not empty", self.sequence);
        }
        self.held.clear();
        self.is_shifted = false;
        self.saved = 0;
    }

    /// Cuts back to the first tokens; forgets everything when the memory cannot.
    pub(super) fn keep(&mut self, tokens: usize, context: &mut Context) {
        if tokens == self.held.len() {
            return;
        }
        let kept = tokens > 0
            && context.truncate(self.sequence, tokens)
            && context.used_tokens(self.sequence) == tokens;
        if kept {
            self.held.truncate(tokens);
            self.saved = self.saved.min(tokens);
        } else {
            self.forget(context);
        }
    }

    /// Brings the account in line with the cache after a computation that was cut short.
    pub(super) fn settle(&mut self, added: &[Token], context: &mut Context) {
        let used = context.used_tokens(self.sequence);
        match used.checked_sub(self.held.len()) {
            Some(count) if count <= added.len() => self.held.extend_from_slice(&added[..count]),
            _ => self.forget(context),
        }
    }

    /// How many of a prompt's first tokens it holds in a state that can be built on, the prompt's
    /// last token not counted: its logits are needed.
    pub(super) fn shared_beginning(&self, prompt: &[Token], context: &Context) -> usize {
        if self.is_shifted {
            return 0;
        }
        let shared = self.held.iter().zip(prompt).take_while(|(held, new)| held == new).count();
        let shared = shared.min(prompt.len().saturating_sub(1));
        // A layer with a sliding window has dropped what lay before it; going back needs it again.
        let window = context.model().window_tokens() as usize;
        let reaches_back = shared == self.held.len()
            || window == 0
            || context
                .first_position(self.sequence)
                .is_some_and(|first| first <= shared.saturating_sub(window));
        if reaches_back { shared } else { 0 }
    }

    /// Cuts the older half of what it holds out, all but the token that begins a text. False when
    /// the memory cannot.
    pub(super) fn make_room(&mut self, context: &mut Context) -> bool {
        let kept = usize::from(self.held.first().copied() == context.vocabulary().begin());
        let count = (self.held.len() - kept) / 2;
        if count == 0 || !context.cut_out(self.sequence, kept, count) {
            return false;
        }
        self.held.drain(kept..kept + count);
        self.is_shifted = true;
        true
    }

    /// Saves what it holds unless that was done already or is not worth it. Returns whether a state
    /// was written.
    pub(super) fn save(
        &mut self,
        context: &mut Context,
        states: &mut States,
    ) -> Result<bool, StateError> {
        // What other adapters computed is of no use under the same prompt.
        if !self.steered.is_none()
            || self.is_shifted
            || self.held.len() <= self.saved
            || !States::is_worth(self.held.len())
        {
            return Ok(false);
        }
        let state = context.save(self.sequence);
        states.save(&self.held, &state)?;
        self.saved = self.held.len();
        Ok(true)
    }

    /// Fills it with a saved state; empty when that fails.
    pub(super) fn restore(&mut self, tokens: Vec<Token>, state: &[u8], context: &mut Context) {
        self.forget(context);
        if context.restore(self.sequence, state)
            && context.used_tokens(self.sequence) == tokens.len()
        {
            self.saved = tokens.len();
            self.held = tokens;
        } else {
            self.forget(context);
        }
    }
}
