//! Who reads the pipe: of the threads that wait for answers, one at a time, for all of them.
//!
//! A thread of its own that reads would add a change of threads to every token. Here the one that
//! waits reads; what is not for it goes into the box of the one it is for. When it has its answer,
//! the next one that waits takes over.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use super::error::EngineError;
use crate::engine::frames::{Event, Reply};

/// The boxes of the calls that are under way.
#[derive(Debug, Default)]
pub(super) struct Mailbox {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    boxes: BTreeMap<u64, CallBox>,
    /// Whether somebody reads the pipe.
    is_read: bool,
    /// Why no more answers come.
    end: Option<EngineError>,
}

#[derive(Debug, Default)]
struct CallBox {
    events: VecDeque<Event>,
    /// Wakes the thread that waits for this call.
    wake: Arc<Condvar>,
    waits: bool,
}

impl Mailbox {
    /// Opens a box, before the call is sent.
    pub(super) fn open(&self, call: u64) -> Result<(), EngineError> {
        let mut state = self.lock();
        if let Some(end) = &state.end {
            return Err(end.clone());
        }
        state.boxes.insert(call, CallBox::default());
        Ok(())
    }

    /// Closes a box; what still comes for it is dropped.
    pub(super) fn close(&self, call: u64) {
        self.lock().boxes.remove(&call);
    }

    /// The calls that are under way.
    pub(super) fn calls(&self) -> Vec<u64> {
        self.lock().boxes.keys().copied().collect()
    }

    /// Why no more answers come, if so.
    pub(super) fn end(&self) -> Option<EngineError> {
        self.lock().end.clone()
    }

    /// No more answers come. The first reason stays.
    pub(super) fn set_end(&self, end: EngineError) -> EngineError {
        let mut state = self.lock();
        let end = state.end.get_or_insert(end).clone();
        for call_box in state.boxes.values() {
            call_box.wake.notify_all();
        }
        end
    }

    /// The next event of a call, read by this thread or by another one. `read` reads at least one
    /// reply, waiting for it; its error ends all calls.
    pub(super) fn next(
        &self,
        call: u64,
        read: &dyn Fn(&mut Vec<Reply>) -> Result<(), EngineError>,
    ) -> Result<Event, EngineError> {
        let mut replies = Vec::new();
        let mut state = self.lock();
        loop {
            let (end, is_read) = (state.end.clone(), state.is_read);
            let Some(call_box) = state.boxes.get_mut(&call) else {
                return Err(EngineError::Protocol("a call that is over".to_owned()));
            };
            if let Some(event) = call_box.events.pop_front() {
                state.hand_over();
                return Ok(event);
            }
            if let Some(end) = end {
                return Err(end);
            }
            if is_read {
                call_box.waits = true;
                let wake = Arc::clone(&call_box.wake);
                state = wake.wait(state).unwrap_or_else(PoisonError::into_inner);
                if let Some(call_box) = state.boxes.get_mut(&call) {
                    call_box.waits = false;
                }
                continue;
            }
            state.is_read = true;
            drop(state);
            let outcome = read(&mut replies);
            state = self.lock();
            state.is_read = false;
            for Reply { number, event } in replies.drain(..) {
                state.deliver(number, event);
            }
            if let Err(error) = outcome {
                drop(state);
                return Err(self.set_end(error));
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn deliver(&mut self, number: u64, event: Event) {
        if let Some(call_box) = self.boxes.get_mut(&number) {
            call_box.events.push_back(event);
            call_box.wake.notify_all();
        }
    }

    /// Wakes somebody who waits, to read in place of the one who has its answer.
    fn hand_over(&self) {
        if self.is_read {
            return;
        }
        if let Some(next) = self.boxes.values().find(|call_box| call_box.waits) {
            next.wake.notify_all();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::thread;

    use super::*;

    /// Many threads, each with a call of many answers that arrive in any order: all get theirs, in
    /// order.
    #[test]
    fn everybody_gets_what_is_theirs_in_order() {
        const CALLS: u64 = 8;
        const EVENTS: usize = 400;
        let mailbox = Mailbox::default();
        let next = AtomicUsize::new(0);
        let read = |replies: &mut Vec<Reply>| {
            // Answers of all calls in turn, with strangers between them.
            let turn = next.fetch_add(1, Ordering::SeqCst);
            let number = turn as u64 % (CALLS + 1);
            let event = Event::Progress((turn / (CALLS as usize + 1)) as f32);
            replies.push(Reply { number, event });
            Ok(())
        };
        for call in 0..CALLS {
            mailbox.open(call).unwrap();
        }
        thread::scope(|scope| {
            for call in 0..CALLS {
                let (mailbox, read) = (&mailbox, &read);
                scope.spawn(move || {
                    for index in 0..EVENTS {
                        let event = mailbox.next(call, read).unwrap();
                        assert_eq!(event, Event::Progress(index as f32));
                    }
                    mailbox.close(call);
                });
            }
        });
        assert!(mailbox.calls().is_empty());
    }

    #[test]
    fn the_end_reaches_all_and_later_calls() {
        let mailbox = Mailbox::default();
        let reads = AtomicUsize::new(0);
        let read = |replies: &mut Vec<Reply>| {
            thread::sleep(std::time::Duration::from_millis(20));
            match reads.fetch_add(1, Ordering::SeqCst) {
                0 => {
                    replies.push(Reply { number: 3, event: Event::Progress(1.0) });
                    Ok(())
                }
                _ => Err(EngineError::Cancelled),
            }
        };
        for call in 1..=4 {
            mailbox.open(call).unwrap();
        }
        thread::scope(|scope| {
            for call in 1..=4 {
                let (mailbox, read) = (&mailbox, &read);
                scope.spawn(move || {
                    if call == 3 {
                        assert_eq!(mailbox.next(call, read).unwrap(), Event::Progress(1.0));
                    }
                    assert!(matches!(mailbox.next(call, read), Err(EngineError::Cancelled)));
                });
            }
        });
        assert!(mailbox.open(5).is_err());
    }
}
