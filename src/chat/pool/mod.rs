//! Models on demand: loaded into workers when they are asked for, kept while they are used.
//!
//! # How asks are served
//!
//! An ask whose model is loaded gets its lease at once. All others wait in one line; a thread takes the first of them,
//! plans its model for the machine as it would be without any other, makes room and loads it, and everybody who waits for
//! that model is served. What has to make room takes no new asks, so that whoever keeps a model busy cannot keep others
//! waiting for ever; what is busy is waited for and never unloaded.
//!
//! Of idle models the one unused for longest goes first; one that is to stay for ever ([`KeepAlive::Forever`]) goes after
//! all other idle ones. It does go: a pin is no reason to refuse another model.
//!
//! # Locks
//!
//! One mutex and one condition for everything. The mutex is held for decisions only ([`state`]), never while a file is
//! read, a plan is made, or a model is loaded, asked or unloaded.

mod error;
mod keep_alive;
mod lease;
mod load;
mod memory;
mod saved;
mod shared;
mod sight;
mod state;
#[cfg(test)]
mod tests;
mod wanted;

use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant, SystemTime};

use super::responder::{ChatError, Responder};
use crate::engine::options::{LoadRequest, Speculation, StateOptions};
use crate::engine::plan::{
    FileLoad, Machine, MainMemory, PlanError, Planned, Wishes, this_machine,
};
use crate::engine::process::OnProgress;
use crate::engine::runner::Cancel;
use crate::hardware;
use crate::store::{Manifest, Resolved, Store, StoreError};
use error::Refusal;
use shared::Shared;
use state::{Entry, State};
use wanted::name_of;

pub use error::PoolError;
pub use keep_alive::{DurationError, KeepAlive};
pub use lease::Lease;
pub use sight::Sight;

/// How long models may take to save what they held, when everything ends.
const SAVING_TIME: Duration = Duration::from_secs(5);

/// How long what was killed may take to be gone.
const DYING_TIME: Duration = Duration::from_secs(3);

/// How a pool works.
#[derive(Debug, Clone)]
pub struct PoolOptions {
    /// How long models stay when nobody says otherwise.
    pub keep_alive: KeepAlive,
    /// Models at the same time; memory alone decides when None.
    pub models_max: Option<usize>,
    /// Conversations of one model that are computed side by side; what fits when None.
    pub sequences: Option<u32>,
    /// Requests that may wait for a model, loaded or not; more are refused.
    pub queue_max: u32,
    /// What holds for every model unless its request says otherwise.
    pub wishes: Wishes,
    /// How long loading may stand still before it is given up; for ever when None.
    pub load_timeout: Option<Duration>,
    /// Where models save what their caches held when they are unloaded; nowhere when None.
    pub states: Option<StateOptions>,
    /// Whether replies guess tokens ahead.
    pub speculation: Speculation,
}

impl Default for PoolOptions {
    fn default() -> Self {
        Self {
            keep_alive: KeepAlive::For(Duration::from_mins(5)),
            models_max: None,
            sequences: None,
            queue_max: 512,
            wishes: Wishes::default(),
            load_timeout: Some(Duration::from_mins(5)),
            states: None,
            speculation: Speculation::Auto,
        }
    }
}

/// What is asked of a pool.
#[derive(Debug, Clone)]
pub struct Ask {
    /// The model: a stored name or a path.
    pub name: String,
    /// Context, layers on GPUs and the like; None of each is the planner's choice. A model that was loaded with other
    /// wishes is loaded anew, unless what it has does: a longer context for a shorter one.
    pub wishes: Wishes,
    /// Threads that compute.
    pub threads: Option<u32>,
    /// The model is to give embeddings or scores.
    pub embeds: bool,
    /// How long it stays after this; None changes nothing, and is the pool's own rule for a model that is loaded.
    pub keep_alive: Option<KeepAlive>,
    /// Ends the waiting.
    pub cancel: Cancel,
}

impl Ask {
    /// For a model, with nothing special.
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            wishes: Wishes::default(),
            threads: None,
            embeds: false,
            keep_alive: None,
            cancel: Cancel::default(),
        }
    }
}

/// Starts models; workers, or in tests something that plays them.
pub trait Loader: Send + Sync + std::fmt::Debug {
    /// Loads a model as described. Asks `on_progress` several times a second whether to go on, and stops soon after it
    /// said no.
    fn load(
        &self,
        resolved: &Resolved,
        request: &LoadRequest,
        on_progress: OnProgress<'_>,
    ) -> Result<Responder, ChatError>;

    /// The machine as it is now.
    fn machine(&self) -> Machine {
        let memory = MainMemory::available(hardware::memory().available_bytes);
        Machine { gpus: Vec::new(), memory }
    }

    /// What is to be loaded on a machine, and the plan behind it, where there is one. A model that `reads` is loaded for
    /// embeddings and scores alone.
    fn prepare(
        &self,
        load: &FileLoad<'_>,
        reads: bool,
        machine: &Machine,
    ) -> Result<(LoadRequest, Option<Planned>), PlanError> {
        let _ = machine;
        Ok((LoadRequest { embeddings_only: reads, ..load.unplanned() }, None))
    }
}

/// Starts workers from this program.
#[derive(Debug, Clone)]
pub struct Workers {
    /// The executable.
    pub program: PathBuf,
}

impl Loader for Workers {
    fn load(
        &self,
        _resolved: &Resolved,
        request: &LoadRequest,
        on_progress: OnProgress<'_>,
    ) -> Result<Responder, ChatError> {
        Responder::start(&self.program, request, on_progress)
    }

    fn machine(&self) -> Machine {
        this_machine(&self.program)
    }

    fn prepare(
        &self,
        load: &FileLoad<'_>,
        reads: bool,
        machine: &Machine,
    ) -> Result<(LoadRequest, Option<Planned>), PlanError> {
        if reads { load.request_reader(machine) } else { load.request(&self.program, machine) }
    }
}

/// A model that is loaded, for people to read.
#[derive(Debug, Clone)]
pub struct LoadedModel {
    /// The name by which it was asked for last.
    pub name: String,
    /// The digest of its manifest, in hexadecimal; None for a path.
    pub digest: Option<String>,
    /// Bytes in all memories.
    pub bytes: u64,
    /// Bytes in the memories of GPUs.
    pub gpu_bytes: u64,
    /// Room of one conversation in tokens.
    pub context_tokens: u32,
    /// When it goes if nobody asks for it; None is never.
    pub expires: Option<SystemTime>,
    /// Replies that are being made.
    pub busy: u32,
    /// Requests that wait for it.
    pub waiting: u32,
    /// What is known of its file.
    pub manifest: Option<Manifest>,
}

/// The models of one server. Dropping it ends them.
#[derive(Debug)]
pub struct Pool {
    shared: Arc<Shared>,
    /// The thread that unloads what nobody asks for any more.
    keeper: Mutex<Option<JoinHandle<()>>>,
}

impl Pool {
    /// A pool over the store below `home`.
    pub fn new(home: PathBuf, loader: Box<dyn Loader>, options: PoolOptions) -> Self {
        let (state, changed) = (Mutex::default(), Condvar::new());
        let shared = Arc::new(Shared { home, loader, options, state, changed });
        let own = Arc::clone(&shared);
        // Without it, models go when the next ask or reply looks at them.
        let keeper = thread::Builder::new().name("models".to_owned()).spawn(move || own.keep());
        Self { shared, keeper: Mutex::new(keeper.ok()) }
    }

    /// The store, for what is not about loaded models.
    pub fn store(&self) -> Result<Store, StoreError> {
        Store::open(&self.shared.home)
    }

    /// How this pool works.
    pub fn options(&self) -> &PoolOptions {
        &self.shared.options
    }

    /// A model that is ready to answer. Waits while it is loaded and while others have to go for it.
    pub fn acquire(&self, ask: &Ask) -> Result<Lease, PoolError> {
        self.shared.acquire(ask)
    }

    /// The models that are loaded, the one that stays longest first.
    pub fn loaded(&self) -> Vec<LoadedModel> {
        let state = self.shared.lock();
        let now = Instant::now();
        let mut entries: Vec<&Entry> =
            state.entries.iter().filter(|each| each.is_alive()).collect();
        entries.sort_by_key(|entry| {
            let expires = entry.expires(now);
            (expires.is_some(), std::cmp::Reverse(expires))
        });
        entries.into_iter().map(|entry| describe(entry, &state, now)).collect()
    }

    /// Unloads a model when its replies are over; says whether it was loaded.
    pub fn unload(&self, name: &str) -> bool {
        let mut state = self.shared.lock();
        let found = state.forget_name(&name_of(name));
        self.shared.settle(&mut state);
        found
    }

    /// Ends everything: replies that are being made have until `deadline`; what is saved has a little longer.
    pub fn close(&self, deadline: Instant) {
        let mut state = self.shared.lock();
        state.is_closed = true;
        state.refuse(None, &Refusal::Closed);
        self.shared.settle(&mut state);
        self.shared.changed.notify_all();
        state = self.shared.wait_for_end(state, deadline);
        for entry in &state.entries {
            entry.model.responder.runner().kill();
        }
        state = self.shared.wait_for_end(state, deadline.max(Instant::now() + SAVING_TIME));
        for ending in &state.ending {
            (ending.kill)();
        }
        drop(self.shared.wait_for_end(state, Instant::now() + DYING_TIME));
        let keeper = self.keeper.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(keeper) = keeper {
            let _ = keeper.join();
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.close(Instant::now());
    }
}

fn describe(entry: &Entry, state: &State, now: Instant) -> LoadedModel {
    let model = &entry.model;
    let manifest = entry.latest.held.resolved.manifest.clone();
    let busy = entry.leases.min(model.room.sequences.max(1));
    let waiting = state.waiting_for(&model.way.identity) as u32 + entry.leases - busy;
    let until = |expires: Instant| SystemTime::now() + expires.saturating_duration_since(now);
    LoadedModel {
        name: manifest
            .as_ref()
            .map_or_else(|| entry.latest.name.clone(), |manifest| manifest.name.to_string()),
        digest: manifest.as_ref().map(|manifest| manifest.digest().hex()),
        bytes: model.holding.total_bytes(),
        gpu_bytes: model.holding.gpu_bytes(),
        context_tokens: model.room.context_tokens,
        expires: entry.expires(now).map(until),
        busy,
        waiting,
        manifest,
    }
}
