//! Models on demand: loaded into workers when they are asked for, kept while they are used.

mod keep_alive;

use std::collections::HashMap;
use std::ops::{ControlFlow, Deref};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use nfl_models::Hint;
use thiserror::Error;

use super::carried;
use super::request::Message;
use super::responder::{ChatError, Responder};
use crate::engine::options::{ContextOptions, LoadRequest, ModelOptions, Sampling};
use crate::engine::plan::{PlanError, Wishes};
use crate::engine::process::OnProgress;
use crate::engine::runner::Cancel;
use crate::hardware;
use crate::store::{Resolved, Store, StoreError};

pub use keep_alive::{DurationError, KeepAlive};

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
}

impl Default for PoolOptions {
    fn default() -> Self {
        Self {
            keep_alive: KeepAlive::For(Duration::from_mins(5)),
            models_max: None,
            sequences: None,
            queue_max: 512,
            wishes: Wishes::default(),
        }
    }
}

/// What is asked of a pool.
#[derive(Debug, Clone)]
pub struct Ask {
    /// The model: a stored name or a path.
    pub name: String,
    /// Context, layers on GPUs and the like; None of each is the planner's choice. Other wishes than those it was loaded
    /// with load the model anew.
    pub wishes: Wishes,
    /// Threads that compute.
    pub threads: Option<u32>,
    /// The model is to give embeddings or scores.
    pub embeds: bool,
    /// How long it stays after this; None is the pool's own rule.
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

/// Why there is no model to answer.
#[derive(Debug, Error)]
pub enum PoolError {
    /// There is none of that name, or its files are not what they were.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// It fits nowhere.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// It was not loaded.
    #[error(transparent)]
    Load(#[from] ChatError),
    /// As many requests wait as may.
    #[error("{waiting} requests are waiting already")]
    Busy {
        /// Their number.
        waiting: usize,
    },
    /// Whoever asked went away.
    #[error("cancelled")]
    Cancelled,
    /// The pool is being shut down.
    #[error("the server is shutting down")]
    Closed,
}

impl Hint for PoolError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::Store(error) => error.hint(),
            Self::Plan(error) => error.hint(),
            Self::Load(error) => error.hint(),
            Self::Busy { .. } => Some("try again in a moment".to_owned()),
            Self::Cancelled | Self::Closed => None,
        }
    }
}

/// Starts models; workers, or in tests something that plays them.
pub trait Loader: Send + Sync + std::fmt::Debug {
    /// Loads a model as described.
    fn load(
        &self,
        resolved: &Resolved,
        request: &LoadRequest,
        on_progress: OnProgress<'_>,
    ) -> Result<Responder, ChatError>;
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
}

/// A model that is loaded.
#[derive(Debug)]
struct Loaded {
    name: String,
    responder: Responder,
    resolved: Resolved,
    expires: Mutex<Option<SystemTime>>,
    /// Holds its files.
    _store: Store,
}

/// A model that is loaded, for people to read.
#[derive(Debug, Clone)]
pub struct LoadedModel {
    /// The name by which it was asked for.
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
    pub manifest: Option<crate::store::Manifest>,
}

/// The right to ask a model; it is not unloaded while somebody has one.
#[derive(Debug)]
pub struct Lease {
    loaded: Arc<Loaded>,
    load_time: Duration,
}

impl Lease {
    /// What the store knows of the model.
    pub fn resolved(&self) -> &Resolved {
        &self.loaded.resolved
    }

    /// The sampling that the model carries, over what its file recommends, over our defaults.
    pub fn sampling(&self) -> Sampling {
        carried::sampling(&self.resolved().parameters, self.loaded.responder.sampling())
    }

    /// The instructions that the model carries.
    pub fn system(&self) -> Option<&str> {
        self.resolved().system.as_deref()
    }

    /// The texts before which its replies end.
    pub fn stop(&self) -> Vec<String> {
        carried::stop(&self.resolved().parameters)
    }

    /// The most tokens of its replies.
    pub fn tokens_max(&self) -> Option<u32> {
        carried::tokens_max(&self.resolved().parameters)
    }

    /// The turns that its conversations begin with, without instructions.
    pub fn messages(&self) -> Vec<Message> {
        carried::turns(self.resolved()).collect()
    }

    /// How long it took to have the model ready; next to nothing when it was loaded.
    pub fn load_time(&self) -> Duration {
        self.load_time
    }
}

impl Deref for Lease {
    type Target = Responder;

    fn deref(&self) -> &Responder {
        &self.loaded.responder
    }
}

/// The models of one server.
#[derive(Debug)]
pub struct Pool {
    home: PathBuf,
    loader: Box<dyn Loader>,
    options: PoolOptions,
    loaded: Mutex<HashMap<String, Arc<Loaded>>>,
}

impl Pool {
    /// A pool over the store below `home`.
    pub fn new(home: PathBuf, loader: Box<dyn Loader>, options: PoolOptions) -> Self {
        Self { home, loader, options, loaded: Mutex::default() }
    }

    /// The store, for what is not about loaded models.
    pub fn store(&self) -> Result<Store, StoreError> {
        Store::open(&self.home)
    }

    /// How this pool works.
    pub fn options(&self) -> &PoolOptions {
        &self.options
    }

    /// A model that is ready to answer. Waits while it is loaded and while others have to go for it.
    pub fn acquire(&self, ask: &Ask) -> Result<Lease, PoolError> {
        let started = Instant::now();
        let mut loaded = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) =
            loaded.get(&ask.name).filter(|known| known.responder.runner().is_alive())
        {
            return Ok(Lease { loaded: Arc::clone(known), load_time: Duration::ZERO });
        }
        let store = self.store()?;
        let resolved = store.resolve(&ask.name)?;
        let threads = ask.threads.unwrap_or_else(hardware::default_threads);
        let mut context = ContextOptions::with_threads(threads);
        context.context_tokens = ask.wishes.context_tokens.or(self.options.wishes.context_tokens);
        let mut request = LoadRequest::new(&resolved.model, ModelOptions::default(), context);
        request.embeddings_only = ask.embeds;
        let responder = self.loader.load(&resolved, &request, &mut |_| {
            if ask.cancel.is_requested() {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        })?;
        let model = Arc::new(Loaded {
            name: ask.name.clone(),
            responder,
            resolved,
            expires: Mutex::default(),
            _store: store,
        });
        loaded.insert(ask.name.clone(), Arc::clone(&model));
        Ok(Lease { loaded: model, load_time: started.elapsed() })
    }

    /// The models that are loaded, the one that stays longest first.
    pub fn loaded(&self) -> Vec<LoadedModel> {
        let loaded = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        loaded
            .values()
            .map(|model| LoadedModel {
                name: model.name.clone(),
                digest: None,
                bytes: model.responder.info().weights_bytes,
                gpu_bytes: 0,
                context_tokens: model.responder.info().context_tokens,
                expires: *model.expires.lock().unwrap_or_else(PoisonError::into_inner),
                busy: 0,
                waiting: 0,
                manifest: model.resolved.manifest.clone(),
            })
            .collect()
    }

    /// Unloads a model when its replies are over; says whether it was loaded.
    pub fn unload(&self, name: &str) -> bool {
        let mut loaded = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        loaded.remove(name).is_some()
    }

    /// Ends everything: replies that are being made have until `deadline`.
    pub fn close(&self, deadline: Instant) {
        let _ = deadline;
        self.loaded.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}
