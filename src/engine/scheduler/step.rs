//! One step: a batch is filled, computed, and what came of it goes to the requests.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::reply::Reply;
use super::slot::{Slot, Work};
use super::{Emit, Scheduler, ms_since};
use crate::engine::frames::{Event, Failure, Reason};
use crate::engine::llama::{Context, HiddenStates, LlamaError, Steered, Token};
use crate::engine::speculate::Others;

/// What a batch holds of one slot.
#[derive(Debug, Clone, Copy)]
struct Part {
    slot: usize,
    /// The position of its first token.
    start: usize,
    tokens: usize,
    /// The place of its first token in the batch.
    place: usize,
    /// Its first row of logits.
    row: usize,
    rows: usize,
    /// Whether the tokens are of the prompt.
    is_prompt: bool,
    /// What else the batch holds of replies.
    others: Others,
}

impl Scheduler {
    /// Admits what waits, computes one batch and tells what happened. Does nothing when idle.
    pub fn step(&mut self, emit: Emit<'_>) {
        self.admit(emit);
        let steered = self.steered_next();
        let parts = self.fill(&steered);
        if parts.is_empty() {
            return;
        }
        self.clock += 1;
        // A reply that is alone gets the bits it would get without guesses. Among others its bits depend on who else is
        // there, with guesses or without, and the faster kernels may have all.
        let is_alone = matches!(parts[..], [only] if !only.is_prompt);
        self.context.set_steady(self.batch_invariant || is_alone);
        self.context.leave_hidden_states(self.states_wanted(&parts));
        let started = Instant::now();
        match self.steer(steered).and_then(|()| self.context.compute(&mut self.batch)) {
            Ok(()) => {
                let computed = started.elapsed();
                let read = parts.iter().filter(|part| part.is_prompt).map(|part| part.tokens);
                self.pace.observe(read.sum(), ms_since(started));
                for part in parts {
                    self.take(part, computed, emit);
                }
            }
            Err(LlamaError::Aborted) => {
                for part in parts {
                    let slot = &mut self.slots[part.slot];
                    let added = tokens_of(slot, part);
                    let guessed = added.len() > 1 && !part.is_prompt;
                    slot.settle(&added, &mut self.context);
                    if guessed {
                        slot.keep(part.start.min(slot.held.len()), &mut self.context);
                    }
                }
            }
            Err(error) => {
                for part in parts {
                    self.fail(part.slot, Failure::from(error.clone()), emit);
                }
            }
        }
    }

    /// The adapters of the next step: those of the slot that waited longest. llama.cpp sets them for
    /// a whole batch, so that requests with others wait for theirs.
    fn steered_next(&self) -> Arc<Steered> {
        let busy = self.slots.iter().filter(|slot| slot.task.is_some());
        let longest = busy.min_by_key(|slot| slot.used_at);
        longest.map_or_else(|| Arc::clone(&self.steered), |slot| Arc::clone(&slot.steered))
    }

    /// Whether a reply follows what the model computes. Only tokens with logits leave a state: another one would change how
    /// the last layer of a prompt is computed, and with it the last bits of what is chosen from.
    fn states_wanted(&self, parts: &[Part]) -> HiddenStates {
        let follows = |part: &Part| match self.slots[part.slot].task.as_ref().map(|task| &task.work)
        {
            Some(Work::Generate(reply)) => reply.follows(),
            _ => false,
        };
        if parts.iter().any(follows) { HiddenStates::Outputs } else { HiddenStates::None }
    }

    fn steer(&mut self, steered: Arc<Steered>) -> Result<(), LlamaError> {
        if self.steered == steered {
            return Ok(());
        }
        if let Some(adapters) = &self.adapters {
            adapters.apply(&mut self.context, &steered)?;
        }
        self.steered = steered;
        Ok(())
    }

    /// Fills the batch with what wants these adapters: the next token of each reply, then prompts in
    /// the order they came.
    fn fill(&mut self, steered: &Arc<Steered>) -> Vec<Part> {
        self.batch.clear();
        let mut parts = Vec::new();
        let mut rows_left = self.context.outputs_max();
        let mut replies: Vec<usize> =
            (0..self.slots.len()).filter(|&index| self.slots[index].is_generating()).collect();
        replies.retain(|&index| self.slots[index].steered == *steered);
        // More replies than rows of logits take turns.
        replies.sort_by_key(|&index| self.slots[index].used_at);
        replies.truncate(rows_left.min(self.context.batch_tokens()));
        let mut prompts: Vec<usize> = (0..self.slots.len())
            .filter(|&index| {
                let slot = &self.slots[index];
                slot.task.as_ref().is_some_and(|task| slot.held.len() < task.tokens.len())
                    && !slot.is_generating()
                    && slot.steered == *steered
            })
            .collect();
        prompts.sort_by_key(|&index| self.slots[index].task.as_ref().map(|task| task.started));
        rows_left -= replies.len();
        let mut tokens = replies.len();
        for &slot in &replies {
            // A prompt's chunk makes the step long anyway, and its cost says nothing about guesses.
            let limit = if prompts.is_empty() { rows_left } else { 0 };
            let others = Others { replies: replies.len() - 1, tokens: tokens - 1 };
            let added = self.guess(slot, limit, others);
            if added.is_empty() {
                continue;
            }
            rows_left -= added.len() - 1;
            tokens += added.len() - 1;
            let part = self.add(slot, &added, 0, false);
            parts.push(Part { others, ..part });
        }
        let mut budget = self.prompt_budget(replies.len(), &prompts);
        for slot in prompts {
            let Some((chunk, outputs_from)) = self.chunk(slot, budget, rows_left) else { continue };
            budget -= chunk.len();
            rows_left -= chunk.len() - outputs_from;
            parts.push(self.add(slot, &chunk, outputs_from, true));
        }
        parts
    }

    /// The next token of a reply and the guesses behind it.
    fn guess(&mut self, slot: usize, limit: usize, others: Others) -> Vec<Token> {
        let room = self.context.context_tokens().saturating_sub(self.slots[slot].held.len() + 1);
        let batch = self.context.batch_tokens().saturating_sub(others.tokens + 1);
        if let Some(task) = &mut self.slots[slot].task
            && let Work::Generate(reply) = &mut task.work
        {
            reply.guess(limit.min(room).min(batch), others);
        }
        next_tokens(&self.slots[slot])
    }

    /// Tokens of prompts that this step may read.
    fn prompt_budget(&self, replies: usize, prompts: &[usize]) -> usize {
        let is_measured = |&slot: &usize| {
            let task = self.slots[slot].task.as_ref();
            task.is_some_and(|task| matches!(task.work, Work::Measure(_)))
        };
        // Whole batches, which llama.cpp divides itself, as its own measuring tools hand them over.
        let width = match prompts {
            [only] if self.slots.len() == 1 && is_measured(only) => self.context.batch_tokens(),
            _ => self.context.micro_batch_tokens(),
        };
        let most = width.saturating_sub(replies).max(1);
        let room = self.context.batch_tokens().saturating_sub(replies);
        self.pace.chunk(most, self.slots.len(), replies, prompts.len()).min(room)
    }

    /// The next tokens of a slot's prompt, and from which of them on logits are wanted; None when
    /// there is no room for any.
    fn chunk(&self, slot: usize, budget: usize, rows_left: usize) -> Option<(Vec<Token>, usize)> {
        let slot = &self.slots[slot];
        let task = slot.task.as_ref()?;
        let start = slot.held.len();
        let rest = &task.tokens[start..];
        let silent = match &task.work {
            Work::Measure(measure) => measure.first().saturating_sub(start),
            Work::Generate(_) => rest.len() - 1,
        };
        let length = rest.len().min(budget).min(silent + rows_left);
        (length > 0).then(|| (rest[..length].to_vec(), silent.min(length)))
    }

    fn add(&mut self, slot: usize, tokens: &[Token], outputs_from: usize, is_prompt: bool) -> Part {
        let start = self.slots[slot].held.len();
        let (place, row) = (self.batch.len(), self.batch.outputs());
        self.batch.push(self.slots[slot].sequence, start, tokens, outputs_from);
        let rows = tokens.len() - outputs_from;
        let (tokens, others) = (tokens.len(), Others::default());
        Part { slot, start, tokens, place, row, rows, is_prompt, others }
    }

    /// Hands the computed part to its request.
    fn take(&mut self, part: Part, computed: Duration, emit: Emit<'_>) {
        let slot = &mut self.slots[part.slot];
        let added = tokens_of(slot, part);
        slot.held.extend_from_slice(&added);
        slot.used_at = self.clock;
        let outcome = match slot.task.as_ref().map(|task| &task.work) {
            Some(Work::Generate(_)) if part.is_prompt => go_on(slot, part, &mut self.context, emit),
            Some(Work::Generate(_)) => check(slot, part, computed, &mut self.context, emit),
            Some(Work::Measure(_)) => measure(slot, part, &mut self.context, emit),
            None => return,
        };
        match outcome {
            Ok(None) => {}
            Ok(Some(reason)) => {
                if let Some(task) = slot.task.take() {
                    self.finished += 1;
                    finish(task, reason, self.context.vocabulary().len(), emit);
                }
            }
            Err(failure) => self.fail(part.slot, failure, emit),
        }
    }

    /// A request that cannot go on; its slot starts afresh.
    fn fail(&mut self, slot: usize, failure: Failure, emit: Emit<'_>) {
        let slot = &mut self.slots[slot];
        slot.forget(&mut self.context);
        if let Some(task) = slot.task.take() {
            self.finished += 1;
            emit(task.call, Event::Failed(failure));
        }
    }
}

/// The tokens that a part put into the batch.
fn tokens_of(slot: &Slot, part: Part) -> Vec<Token> {
    let Some(task) = &slot.task else { return Vec::new() };
    if part.is_prompt {
        return task.tokens[part.start..part.start + part.tokens].to_vec();
    }
    next_tokens(slot)
}

/// The token to compute next of a reply, and the guesses behind it.
fn next_tokens(slot: &Slot) -> Vec<Token> {
    match slot.task.as_ref().map(|task| &task.work) {
        Some(Work::Generate(reply)) => {
            reply.next_token().into_iter().chain(reply.guesses().iter().copied()).collect()
        }
        _ => Vec::new(),
    }
}

/// More of a reply's prompt is read; behind its last token the first of the reply is chosen. Returns why it ends, if it
/// does.
fn go_on(
    slot: &mut Slot,
    part: Part,
    context: &mut Context,
    emit: Emit<'_>,
) -> Result<Option<Reason>, Failure> {
    let Some(task) = &mut slot.task else { return Ok(None) };
    let Work::Generate(reply) = &mut task.work else { return Ok(None) };
    let call = task.call;
    if slot.held.len() < task.tokens.len() {
        if let Some(share) = task.progress.advance(slot.held.len(), task.tokens.len()) {
            emit(call, Event::Progress(share));
        }
        return Ok(None);
    }
    tell_states(reply, part, &task.tokens[part.start..], context);
    emit(call, reply.prompt_done(&task.tokens));
    if reply.wants_nothing() {
        return Ok(Some(Reason::Length));
    }
    let reason = reply.choose(context.logits(part.row)?, &mut |event| emit(call, event))?;
    reply.begun();
    if reason.is_some() { Ok(reason) } else { Ok(ended_by_room(slot, context)) }
}

/// A reply's tokens are chosen row by row, as long as each is the one that was guessed. Returns why it ends, if it does.
fn check(
    slot: &mut Slot,
    part: Part,
    computed: Duration,
    context: &mut Context,
    emit: Emit<'_>,
) -> Result<Option<Reason>, Failure> {
    let tokens = next_tokens(slot);
    let Some(task) = &mut slot.task else { return Ok(None) };
    let Work::Generate(reply) = &mut task.work else { return Ok(None) };
    let call = task.call;
    let (mut reason, mut rows) = (None, 0);
    while rows < part.rows {
        reply.computed();
        let logits = context.logits(part.row + rows)?;
        rows += 1;
        reason = reply.choose(logits, &mut |event| emit(call, event))?;
        if reason.is_some() || tokens.get(rows) != reply.next_token().as_ref() {
            break;
        }
    }
    tell_states(reply, part, &tokens[..rows], context);
    reply.step_done(part.rows - 1, part.others, computed);
    // Guesses that did not hold leave the cache.
    slot.keep(part.start + rows, context);
    if reason.is_some() { Ok(reason) } else { Ok(ended_by_room(slot, context)) }
}

/// Tells a reply that follows what the model computes of the first tokens of its part, those that have logits, and of the
/// states that they left.
fn tell_states(reply: &mut Reply, part: Part, tokens: &[Token], context: &mut Context) {
    if !reply.follows() {
        return;
    }
    for (index, &token) in tokens.iter().enumerate().skip(part.tokens - part.rows) {
        // Without a state, guesses begin anew behind it.
        if let Ok(state) = context.hidden_state(part.place + index) {
            reply.follow(part.start + index, token, state);
        }
    }
}

/// Whether a reply ends because its context is full and may not forget.
fn ended_by_room(slot: &mut Slot, context: &mut Context) -> Option<Reason> {
    if slot.held.len() < context.context_tokens() {
        return None;
    }
    let shifts = matches!(
        slot.task.as_ref().map(|task| &task.work),
        Some(Work::Generate(reply)) if reply.shifts()
    );
    let has_room = shifts && slot.make_room(context);
    (!has_room).then_some(Reason::ContextFull)
}

/// Rows of logits go to a measurement.
fn measure(
    slot: &mut Slot,
    part: Part,
    context: &mut Context,
    emit: Emit<'_>,
) -> Result<Option<Reason>, Failure> {
    let Some(task) = &mut slot.task else { return Ok(None) };
    let Work::Measure(measure) = &mut task.work else { return Ok(None) };
    for row in 0..part.rows {
        let position = part.start + part.tokens - part.rows + row;
        measure.take(&task.tokens, position, context.logits(part.row + row)?)?;
    }
    if slot.held.len() == task.tokens.len() {
        return Ok(Some(Reason::Length));
    }
    if let Some(share) = task.progress.advance(slot.held.len(), task.tokens.len()) {
        emit(task.call, Event::Progress(share));
    }
    Ok(None)
}

/// Tells that a request's work is done.
fn finish(task: super::Task, reason: Reason, vocabulary_tokens: usize, emit: Emit<'_>) {
    let call = task.call;
    match task.work {
        Work::Generate(reply) => reply.finish(reason, &mut |event| emit(call, event)),
        Work::Measure(measure) => emit(call, measure.finish(vocabulary_tokens)),
    }
}
