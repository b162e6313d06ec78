//! Who gets a free slot, and which: the one that holds the longest beginning of the prompt.

use std::sync::Arc;

use super::slot::{Slot, Task, Work};
use super::{Emit, Scheduler};
use crate::engine::frames::{Event, Failure, Reason};
use crate::engine::llama::{Context, Steered, Token};

/// A saved state is read only when it saves this many tokens of computation.
const RESTORE_TOKENS_MIN: usize = 32;

impl Scheduler {
    /// Gives free slots to waiting requests, and ends those that were cancelled meanwhile. A step
    /// begins with it, too.
    pub fn admit(&mut self, emit: Emit<'_>) {
        for task in self.queue.take_cancelled() {
            self.finished += 1;
            end(task, Reason::Cancelled, emit);
        }
        for index in 0..self.slots.len() {
            let slot = &mut self.slots[index];
            if slot.task.as_ref().is_some_and(|task| task.cancelled)
                && let Some(task) = slot.task.take()
            {
                self.finished += 1;
                end(task, Reason::Cancelled, emit);
            }
        }
        while self.slots.iter().any(|slot| slot.task.is_none()) {
            let Some(task) = self.queue.pop() else { return };
            self.place(task);
        }
    }

    fn place(&mut self, mut task: Task) {
        let (index, restored) = match &task.work {
            // Logits of every position are wanted, so every position is computed.
            Work::Measure(_) => {
                let index = self.least_recent(None);
                self.vacate(index);
                (index, 0)
            }
            Work::Generate(_) => self.slot_for(&task.tokens, &task.steered),
        };
        let slot = &mut self.slots[index];
        if let Work::Generate(reply) = &mut task.work {
            reply.admit(slot.held.len(), restored);
        }
        task.progress.from = slot.held.len();
        slot.steered = Arc::clone(&task.steered);
        slot.used_at = self.clock;
        slot.task = Some(task);
    }

    /// A free slot that holds as much of the prompt's beginning as there is to have, and nothing
    /// else. Returns how many of its tokens came from a file.
    fn slot_for(&mut self, prompt: &[Token], steered: &Arc<Steered>) -> (usize, usize) {
        let shared = |slot: &Slot, context: &Context| {
            if slot.steered == *steered { slot.shared_beginning(prompt, context) } else { 0 }
        };
        // Of equals the free one: there nothing has to be copied.
        let (source, held) = (0..self.slots.len())
            .map(|index| (index, shared(&self.slots[index], &self.context)))
            .max_by_key(|(index, held)| (*held, self.slots[*index].task.is_none()))
            .unwrap_or((0, 0));
        if steered.is_none()
            && let Some((tokens, state)) = self.saved_beyond(prompt, held + RESTORE_TOKENS_MIN)
        {
            let index = self.least_recent(None);
            self.vacate(index);
            let slot = &mut self.slots[index];
            slot.restore(tokens, &state, &mut self.context);
            let restored = slot.shared_beginning(prompt, &self.context);
            slot.keep(restored, &mut self.context);
            if restored > held {
                return (index, restored);
            }
        }
        let source_slot = &self.slots[source];
        let is_free = source_slot.task.is_none();
        // A conversation that only begins like this one is left alone while there is other room.
        let belongs = is_free && held * 2 >= source_slot.held.len();
        if belongs {
            self.slots[source].keep(held, &mut self.context);
            return (source, 0);
        }
        // One that shares nothing is as good to give up as any.
        let index = self.least_recent((held > 0).then_some(source));
        if index == source {
            self.save(source);
            self.slots[source].keep(held, &mut self.context);
            return (source, 0);
        }
        self.vacate(index);
        let (from, to) = (self.slots[source].sequence, self.slots[index].sequence);
        if held > 0 && self.context.copy_beginning(from, to, held) {
            self.slots[index].held.extend_from_slice(&prompt[..held]);
        } else {
            self.slots[index].forget(&mut self.context);
        }
        (index, 0)
    }

    /// The saved state that shares more than `tokens` tokens with a prompt; one that cannot be read
    /// is no reason not to compute.
    fn saved_beyond(&mut self, prompt: &[Token], tokens: usize) -> Option<(Vec<Token>, Vec<u8>)> {
        self.states.as_mut()?.find(prompt, tokens)
    }

    /// The free slot that was used least recently, another than `except` if there is one.
    fn least_recent(&self, except: Option<usize>) -> usize {
        (0..self.slots.len())
            .filter(|&index| self.slots[index].task.is_none())
            .min_by_key(|&index| {
                let slot = &self.slots[index];
                (Some(index) == except, !slot.held.is_empty(), slot.used_at)
            })
            .unwrap_or(0)
    }

    /// Empties a free slot; what it held is saved when there is a place for it.
    fn vacate(&mut self, index: usize) {
        self.save(index);
        self.slots[index].forget(&mut self.context);
    }

    fn save(&mut self, index: usize) {
        if let Some(states) = &mut self.states {
            // A full disk costs the saving of time, not the reply; the states remember the error.
            let _ = self.slots[index].save(&mut self.context, states);
        }
    }
}

/// Tells that a request is over before its work was done.
pub(super) fn end(task: Task, reason: Reason, emit: Emit<'_>) {
    let call = task.call;
    match task.work {
        Work::Generate(reply) => reply.finish(reason, &mut |event| emit(call, event)),
        Work::Measure(_) => emit(call, Event::Failed(Failure::Cancelled)),
    }
}
