//! A look at a loaded model: for those who tell of it, and shall not change how long it stays.

use std::sync::Arc;
use std::time::Instant;

use super::state::Model;
use super::wanted::Wanted;
use super::{LoadedModel, Pool, Shared, describe};
use crate::chat::responder::Responder;
use crate::store::Resolved;

/// A loaded model that somebody looks at. It is not unloaded meanwhile, and goes when it would have gone.
#[derive(Debug)]
pub struct Sight {
    shared: Arc<Shared>,
    /// None while it is dropped.
    model: Option<Arc<Model>>,
    entry: u64,
    wanted: Arc<Wanted>,
    loaded: LoadedModel,
}

impl Pool {
    /// All models that are loaded, to be looked at.
    pub fn look(&self) -> Vec<Sight> {
        let mut state = self.shared.lock();
        let now = Instant::now();
        let described: Vec<LoadedModel> =
            state.entries.iter().map(|entry| describe(entry, &state, now)).collect();
        let entries = state.entries.iter_mut().zip(described);
        let alive = entries.filter(|(entry, _)| entry.is_alive());
        let sight = |(entry, loaded): (&mut super::Entry, LoadedModel)| {
            entry.leases += 1;
            Sight {
                shared: Arc::clone(&self.shared),
                model: Some(Arc::clone(&entry.model)),
                entry: entry.id,
                wanted: Arc::clone(&entry.latest),
                loaded,
            }
        };
        alive.map(sight).collect()
    }
}

impl Sight {
    /// What it is, as of when one began to look.
    pub fn loaded(&self) -> &LoadedModel {
        &self.loaded
    }

    /// What the store knows of it.
    pub fn resolved(&self) -> &Resolved {
        &self.wanted.held.resolved
    }

    /// The model.
    ///
    /// # Panics
    /// Never: it is there until this is dropped.
    pub fn responder(&self) -> &Responder {
        &self.model.as_ref().expect("it is there until the look is over").responder
    }
}

impl Drop for Sight {
    fn drop(&mut self) {
        // Who unloads the model must be the last to hold it.
        self.model = None;
        let mut state = self.shared.lock();
        state.look_away(self.entry);
        self.shared.settle(&mut state);
        self.shared.changed.notify_all();
    }
}
