//! What all threads of a pool share, and what they do with it.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use super::error::{PoolError, Refusal};
use super::lease::Lease;
use super::state::{Entry, Granted, State};
use super::wanted::{Wanted, name_of};
use super::{Ask, Loader, PoolOptions, saved};
use crate::chat::responder::ChatError;
use crate::engine::process::EngineError;
use crate::store::{Store, StoreError};

/// How long a worker may take to save what it held and to end.
const UNLOAD_TIME: Duration = Duration::from_mins(1);

/// How often dead workers are looked for.
const LOOK_PAUSE: Duration = Duration::from_secs(5);

/// What all threads of a pool share.
pub(super) struct Shared {
    pub(super) home: PathBuf,
    pub(super) loader: Box<dyn Loader>,
    pub(super) options: PoolOptions,
    pub(super) state: Mutex<State>,
    /// Something changed in the state.
    pub(super) changed: Condvar,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Shared").field("home", &self.home).finish_non_exhaustive()
    }
}

impl Shared {
    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until something changes.
    pub(super) fn wait<'a>(&self, state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        self.changed.wait(state).unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until something changes, or so long.
    pub(super) fn wait_for<'a>(
        &self,
        state: MutexGuard<'a, State>,
        time: Duration,
    ) -> MutexGuard<'a, State> {
        self.changed.wait_timeout(state, time).unwrap_or_else(PoisonError::into_inner).0
    }

    pub(super) fn acquire(self: &Arc<Self>, ask: &Ask) -> Result<Lease, PoolError> {
        let started = Instant::now();
        let wanted = Wanted::of(ask, Store::open(&self.home)?, &self.options);
        let wanted = Arc::new(wanted.inspect_err(|error| {
            if matches!(error, StoreError::Missing { .. }) {
                // It was removed: what is loaded of it is nobody's any more.
                let mut state = self.lock();
                state.forget_name(&name_of(&ask.name));
                self.settle(&mut state);
            }
        })?);
        let Granted { entry, model } = self.grant_or_wait(&wanted, ask)?;
        wanted.held.note_use();
        Ok(Lease::new(self, (entry, model), wanted, ask.clone(), started.elapsed()))
    }

    fn grant_or_wait(
        self: &Arc<Self>,
        wanted: &Arc<Wanted>,
        ask: &Ask,
    ) -> Result<Granted, PoolError> {
        let mut state = self.lock();
        if state.is_closed {
            return Err(PoolError::Closed);
        }
        state.settle_name(wanted);
        if let Some(granted) = state.grant(wanted, ask.keep_alive) {
            return Ok(granted);
        }
        if let Some(refusal) = state.recent_failure(&wanted.way, Instant::now()) {
            return Err(refusal.into());
        }
        let waiting = state.waiting();
        if waiting >= self.options.queue_max as usize {
            return Err(PoolError::Busy { waiting });
        }
        let id = state.wait(wanted, ask.keep_alive);
        self.settle(&mut state);
        drop(state);
        let own = Arc::clone(self);
        let wake = move || {
            // Whoever looked and is about to wait is waited for.
            drop(own.lock());
            own.changed.notify_all();
        };
        ask.cancel.during(wake, || {
            let mut state = self.lock();
            while !state.is_settled(id) && !ask.cancel.is_requested() {
                state = self.wait(state);
            }
            let outcome = state.leave(id);
            self.changed.notify_all();
            match outcome {
                Some(Ok(granted)) => Ok(granted),
                Some(Err(refusal)) => Err(refusal.into()),
                None => Err(PoolError::Cancelled),
            }
        })
    }

    /// Does what follows from the state: serves who waits for what is there, unloads what is over, and has the rest loaded.
    pub(super) fn settle(self: &Arc<Self>, state: &mut State) {
        let mut changed = state.serve();
        for entry in state.take_over(Instant::now()) {
            changed = true;
            let (own, id) = (Arc::clone(self), entry.id);
            let unloading = thread::Builder::new().name("unload".to_owned());
            if unloading.spawn(move || own.unload(entry)).is_err() {
                // The worker went with the thread that was not to be had.
                state.gone(id);
            }
        }
        if !state.loads && !state.is_closed && state.waiting() > 0 {
            let own = Arc::clone(self);
            let loading = thread::Builder::new().name("load".to_owned());
            match loading.spawn(move || own.load_all_or_refuse()) {
                Ok(_) => state.loads = true,
                Err(error) => {
                    changed = true;
                    state.refuse(None, &broken(format!("no thread to load with: {error}")));
                }
            }
        }
        if changed {
            self.changed.notify_all();
        }
    }

    fn load_all_or_refuse(self: Arc<Self>) {
        if catch_unwind(AssertUnwindSafe(|| self.load_all())).is_err() {
            let mut state = self.lock();
            state.loads = false;
            state.refuse(None, &broken("the thread that loads failed".to_owned()));
            self.changed.notify_all();
        }
    }

    fn unload(self: Arc<Self>, entry: Entry) {
        let Entry { id, model, latest, .. } = entry;
        // Nobody else has it: there are no leases. What could not be saved is computed again.
        if let Some(model) = Arc::into_inner(model) {
            let _ = model.responder.unload();
        }
        drop(latest);
        if let Some(states) = &self.options.states {
            saved::trim(states);
        }
        let mut state = self.lock();
        state.gone(id);
        self.settle(&mut state);
        self.changed.notify_all();
    }

    /// Unloads models whose time is over, as the work of one thread.
    pub(super) fn keep(self: &Arc<Self>) {
        let mut state = self.lock();
        while !state.is_closed {
            self.settle(&mut state);
            let now = Instant::now();
            for ending in state.ending.iter().filter(|each| now > each.since + UNLOAD_TIME) {
                (ending.kill)();
            }
            let next = state.next_end(now).map(|end| end.saturating_duration_since(now));
            let pause = next.unwrap_or(LOOK_PAUSE).clamp(Duration::from_millis(1), LOOK_PAUSE);
            state = self.wait_for(state, pause);
        }
    }

    /// Waits until nothing is loaded, loading or being unloaded.
    pub(super) fn wait_for_end<'a>(
        self: &'a Arc<Self>,
        mut state: MutexGuard<'a, State>,
        deadline: Instant,
    ) -> MutexGuard<'a, State> {
        loop {
            self.settle(&mut state);
            let is_over = state.entries.is_empty() && state.ending.is_empty() && !state.loads;
            let left = deadline.saturating_duration_since(Instant::now());
            if is_over || left.is_zero() {
                return state;
            }
            state = self.wait_for(state, left);
        }
    }
}

/// A refusal for what should not happen.
fn broken(why: String) -> Refusal {
    Refusal::Load(Arc::new(ChatError::Engine(EngineError::Protocol(why))))
}
