//! What the reader of calls tells the computation: which call is cancelled.

use std::sync::atomic::Ordering;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::engine::llama::AbortFlag;

/// Shared by the thread that reads calls and the one that answers them.
#[derive(Debug, Default)]
pub(super) struct Control {
    /// Raised while the running call is cancelled; llama.cpp looks at it in the middle of a
    /// computation.
    abort: AbortFlag,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    running: u64,
    cancelled_up_to: u64,
    ended: bool,
}

impl Control {
    pub(super) fn abort_flag(&self) -> AbortFlag {
        AbortFlag::clone(&self.abort)
    }

    /// A call begins, maybe one that was cancelled while it waited.
    pub(super) fn begin(&self, number: u64) {
        let mut state = self.state();
        state.running = number;
        self.abort.store(state.ended || state.cancelled_up_to >= number, Ordering::SeqCst);
    }

    /// Cancels a call, whether it runs, waits or is over; no other.
    pub(super) fn cancel(&self, number: u64) {
        let mut state = self.state();
        state.cancelled_up_to = state.cancelled_up_to.max(number);
        if state.running == number {
            self.abort.store(true, Ordering::SeqCst);
        }
    }

    /// Nobody waits for answers any more.
    pub(super) fn end(&self) {
        self.state().ended = true;
        self.abort.store(true, Ordering::SeqCst);
    }

    pub(super) fn is_cancelled(&self) -> bool {
        self.abort.load(Ordering::SeqCst)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cancellation_meets_its_call_and_no_other() {
        let control = Control::default();
        control.begin(1);
        control.cancel(1);
        assert!(control.is_cancelled());
        control.begin(2);
        assert!(!control.is_cancelled());
        control.cancel(1);
        assert!(!control.is_cancelled(), "too late for call 1 must not hit call 2");
        control.cancel(3);
        assert!(!control.is_cancelled());
        control.begin(3);
        assert!(control.is_cancelled(), "it was cancelled while it waited");
        control.begin(4);
        assert!(!control.is_cancelled());
        control.end();
        control.begin(5);
        assert!(control.is_cancelled());
    }
}
