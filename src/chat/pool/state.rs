//! What is loaded, who waits, and who goes: decisions without threads, clocks or processes.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::KeepAlive;
use super::error::Refusal;
use super::memory::{Holding, fits};
use super::wanted::{Room, Wanted, Way};
use crate::chat::responder::Responder;
use crate::engine::plan::Machine;

/// Models whose failed loads are remembered.
const FAILURES_MAX: usize = 64;

/// How long after a failed load it is not tried again: doubled with each failure.
const PAUSE_MIN: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_mins(1);

/// A loaded model.
#[derive(Debug)]
pub(super) struct Model {
    pub(super) way: Way,
    pub(super) room: Room,
    pub(super) holding: Holding,
    pub(super) responder: Responder,
    /// Its files.
    pub(super) held: Arc<Wanted>,
}

/// A loaded model's place in the pool.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) id: u64,
    pub(super) model: Arc<Model>,
    /// What it was asked for as.
    names: BTreeSet<String>,
    /// By whom it was asked for last.
    pub(super) latest: Arc<Wanted>,
    pub(super) leases: u32,
    pub(super) keep: KeepAlive,
    /// Counts uses: the smallest was used longest ago.
    used: u64,
    /// Since when nobody has a lease.
    pub(super) idle_since: Instant,
    /// It must make room: nobody gets a lease any more.
    pub(super) drains: bool,
    /// It goes when it is idle, unless somebody asks for it again.
    is_unwanted: bool,
}

impl Entry {
    /// When it goes if nobody asks for it; None is never.
    pub(super) fn expires(&self, now: Instant) -> Option<Instant> {
        let KeepAlive::For(time) = self.keep else { return None };
        let since = if self.leases > 0 { now } else { self.idle_since };
        since.checked_add(time)
    }

    pub(super) fn is_alive(&self) -> bool {
        self.model.responder.runner().is_alive()
    }

    /// Who goes first: the idle before the busy, those that may go before those that are to stay, those unused for longest.
    fn order(&self) -> (bool, bool, u64) {
        (self.leases > 0, self.keep == KeepAlive::Forever, self.used)
    }
}

/// A model that is being unloaded; its memory is taken still.
pub(super) struct Ending {
    pub(super) id: u64,
    pub(super) identity: String,
    pub(super) holding: Holding,
    pub(super) since: Instant,
    pub(super) kill: Box<dyn Fn() + Send + Sync>,
}

/// Somebody who waits for a model.
#[derive(Debug)]
pub(super) struct Waiter {
    pub(super) id: u64,
    pub(super) wanted: Arc<Wanted>,
    keep: Option<KeepAlive>,
    outcome: Option<Result<Granted, Refusal>>,
}

/// A lease that was given.
#[derive(Debug)]
pub(super) struct Granted {
    pub(super) entry: u64,
    pub(super) model: Arc<Model>,
}

#[derive(Debug)]
struct Failed {
    way: Way,
    refusal: Refusal,
    count: u32,
    until: Instant,
}

/// A pool's state.
#[derive(Default)]
pub(super) struct State {
    pub(super) entries: Vec<Entry>,
    pub(super) ending: Vec<Ending>,
    waiters: VecDeque<Waiter>,
    failures: Vec<Failed>,
    /// Whether a thread loads what is waited for.
    pub(super) loads: bool,
    pub(super) is_closed: bool,
    /// The last number that was given out.
    last: u64,
    /// Grows when a model comes or is gone.
    pub(super) changes: u64,
}

impl State {
    fn next(&mut self) -> u64 {
        self.last += 1;
        self.last
    }

    /// A lease at once, where a loaded model suits.
    pub(super) fn grant(
        &mut self,
        wanted: &Arc<Wanted>,
        keep: Option<KeepAlive>,
    ) -> Option<Granted> {
        let used = self.next();
        let entry = self.entries.iter_mut().find(|entry| {
            !entry.drains
                && entry.model.way.suits(&wanted.way, entry.model.room)
                && entry.is_alive()
        })?;
        entry.leases += 1;
        entry.used = used;
        entry.is_unwanted = false;
        entry.names.insert(wanted.name.clone());
        entry.latest = Arc::clone(wanted);
        entry.keep = keep.unwrap_or(entry.keep);
        Some(Granted { entry: entry.id, model: Arc::clone(&entry.model) })
    }

    /// Takes a lease back.
    pub(super) fn release(&mut self, id: u64, now: Instant) {
        if let Some(entry) = self.entries.iter_mut().find(|entry| entry.id == id) {
            entry.leases = entry.leases.saturating_sub(1);
            entry.idle_since = now;
        }
    }

    /// Somebody has looked at it: that is no use of it.
    pub(super) fn look_away(&mut self, id: u64) {
        if let Some(entry) = self.entries.iter_mut().find(|entry| entry.id == id) {
            entry.leases = entry.leases.saturating_sub(1);
        }
    }

    /// A name stands for these files from now on: what else was loaded under it goes when it is idle.
    pub(super) fn settle_name(&mut self, wanted: &Wanted) {
        let others = self.entries.iter_mut();
        for entry in others.filter(|entry| entry.model.way.identity != wanted.way.identity) {
            if entry.names.remove(&wanted.name) && entry.names.is_empty() {
                entry.is_unwanted = true;
            }
        }
    }

    /// Marks a model as not wanted any more; says whether it was loaded.
    pub(super) fn forget_name(&mut self, name: &str) -> bool {
        let mut found = false;
        for entry in self.entries.iter_mut().filter(|entry| entry.names.contains(name)) {
            entry.is_unwanted = true;
            found = true;
        }
        found
    }

    /// Gets in line.
    pub(super) fn wait(&mut self, wanted: &Arc<Wanted>, keep: Option<KeepAlive>) -> u64 {
        let id = self.next();
        let wanted = Arc::clone(wanted);
        self.waiters.push_back(Waiter { id, wanted, keep, outcome: None });
        id
    }

    /// Leaves the line; what came of it, if anything did.
    pub(super) fn leave(&mut self, id: u64) -> Option<Result<Granted, Refusal>> {
        let index = self.waiters.iter().position(|waiter| waiter.id == id)?;
        self.waiters.remove(index)?.outcome
    }

    /// Whether something came of it.
    pub(super) fn is_settled(&self, id: u64) -> bool {
        self.waiters.iter().any(|waiter| waiter.id == id && waiter.outcome.is_some())
    }

    fn in_line(&self) -> impl Iterator<Item = &Waiter> {
        self.waiters.iter().filter(|waiter| waiter.outcome.is_none())
    }

    /// How many wait.
    pub(super) fn waiting(&self) -> usize {
        self.in_line().count()
    }

    /// How many wait for a model, however it is to be loaded.
    pub(super) fn waiting_for(&self, identity: &str) -> usize {
        self.in_line().filter(|waiter| waiter.wanted.way.identity == identity).count()
    }

    /// Whose turn it is to have a model loaded.
    pub(super) fn first(&self) -> Option<Arc<Wanted>> {
        self.in_line().next().map(|waiter| Arc::clone(&waiter.wanted))
    }

    /// Whether anybody waits for a model that is loaded this way.
    pub(super) fn is_wanted(&self, way: &Way) -> bool {
        self.in_line().any(|waiter| waiter.wanted.way == *way)
    }

    /// Gives leases to all who wait for what is there; says whether anybody got one.
    pub(super) fn serve(&mut self) -> bool {
        let mut waiters = std::mem::take(&mut self.waiters);
        let mut served = false;
        for waiter in waiters.iter_mut().filter(|waiter| waiter.outcome.is_none()) {
            if let Some(granted) = self.grant(&waiter.wanted, waiter.keep) {
                waiter.outcome = Some(Ok(granted));
                served = true;
            }
        }
        self.waiters = waiters;
        served
    }

    /// Refuses all who wait for a model that is loaded this way, or everybody.
    pub(super) fn refuse(&mut self, way: Option<&Way>, refusal: &Refusal) {
        for waiter in self.waiters.iter_mut().filter(|waiter| waiter.outcome.is_none()) {
            if way.is_none_or(|way| waiter.wanted.way == *way) {
                waiter.outcome = Some(Err(refusal.clone()));
            }
        }
    }

    /// Puts a loaded model in its place.
    pub(super) fn add(&mut self, model: Model, keep: KeepAlive, now: Instant) {
        self.failures.retain(|failed| failed.way != model.way);
        let (id, used) = (self.next(), self.next());
        let latest = Arc::clone(&model.held);
        let names = BTreeSet::from([latest.name.clone()]);
        self.changes += 1;
        self.entries.push(Entry {
            id,
            model: Arc::new(model),
            names,
            latest,
            leases: 0,
            keep,
            used,
            idle_since: now,
            drains: false,
            is_unwanted: false,
        });
    }

    /// Remembers that loading failed, so that it is not tried again at once.
    pub(super) fn note_failure(&mut self, way: &Way, refusal: &Refusal, now: Instant) {
        let known = self.failures.iter().position(|failed| failed.way == *way);
        let count = known.map_or(0, |index| self.failures.remove(index).count) + 1;
        let pause = PAUSE_MIN.saturating_mul(1 << (count - 1).min(16)).min(PAUSE_MAX);
        if self.failures.len() == FAILURES_MAX {
            self.failures.remove(0);
        }
        let (way, refusal) = (way.clone(), refusal.clone());
        self.failures.push(Failed { way, refusal, count, until: now + pause });
    }

    /// Why a model is not to be loaded just now.
    pub(super) fn recent_failure(&self, way: &Way, now: Instant) -> Option<Refusal> {
        let failed =
            self.failures.iter().find(|failed| failed.way == *way && failed.until > now)?;
        Some(failed.refusal.clone())
    }

    /// Marks what has to go for a new model: the same model loaded another way, the models above `models_max`, and as many
    /// as its memory needs. Says whether there is room already.
    ///
    /// Idle models go before busy ones, which are waited for; of either, those that were to stay for ever go last.
    pub(super) fn make_way(
        &mut self,
        empty: &Machine,
        way: &Way,
        holding: &Holding,
        models_max: usize,
    ) -> bool {
        let (ending, same_ends): (Vec<&Holding>, bool) = (
            self.ending.iter().map(|ending| &ending.holding).collect(),
            self.ending.iter().any(|ending| ending.identity == way.identity),
        );
        let alive: Vec<&Entry> = self.entries.iter().filter(|entry| entry.is_alive()).collect();
        let (mut going, mut staying): (Vec<&Entry>, Vec<&Entry>) =
            alive.into_iter().partition(|entry| entry.model.way.identity == way.identity);
        staying.sort_by_key(|entry| std::cmp::Reverse(entry.order()));
        let is_room = |staying: &[&Entry], ending: &[&Holding]| {
            let taken = staying.iter().map(|entry| &entry.model.holding);
            fits(empty, taken.chain(ending.iter().copied()), holding)
        };
        while staying.len() >= models_max.max(1) || !is_room(&staying, &[]) {
            let Some(entry) = staying.pop() else { break };
            going.push(entry);
        }
        let is_free = going.is_empty() && !same_ends && is_room(&staying, &ending);
        let going: Vec<u64> = going.iter().map(|entry| entry.id).collect();
        for entry in &mut self.entries {
            entry.drains = going.contains(&entry.id);
        }
        is_free
    }

    /// Nobody has to make room any more.
    pub(super) fn stop_draining(&mut self) {
        self.entries.iter_mut().for_each(|entry| entry.drains = false);
    }

    /// Takes out the models whose time is over; they are to be unloaded.
    pub(super) fn take_over(&mut self, now: Instant) -> Vec<Entry> {
        let is_closed = self.is_closed;
        let is_over = |entry: &mut Entry| {
            let is_late = entry.expires(now).is_some_and(|expires| expires <= now);
            entry.leases == 0
                && (is_closed || entry.drains || entry.is_unwanted || is_late || !entry.is_alive())
        };
        let over: Vec<Entry> = self.entries.extract_if(.., is_over).collect();
        for entry in &over {
            self.ending.push(Ending {
                id: entry.id,
                identity: entry.model.way.identity.clone(),
                holding: entry.model.holding.clone(),
                since: now,
                kill: entry.model.responder.runner().killer(),
            });
        }
        self.changes += over.len() as u64;
        over
    }

    /// A model is unloaded.
    pub(super) fn gone(&mut self, id: u64) {
        self.ending.retain(|ending| ending.id != id);
        self.changes += 1;
    }

    /// What is taken of the machine, by the living.
    pub(super) fn holdings(&self) -> impl Iterator<Item = &Holding> + Clone {
        let alive = self.entries.iter().filter(|entry| entry.is_alive());
        alive.map(|entry| &entry.model.holding)
    }

    /// When the next model's time is over.
    pub(super) fn next_end(&self, now: Instant) -> Option<Instant> {
        let idle = self.entries.iter().filter(|entry| entry.leases == 0);
        idle.filter_map(|entry| entry.expires(now)).min()
    }
}
