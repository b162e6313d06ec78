//! The right to ask a model, and what the model carries for whoever asks.

use std::borrow::Cow;
use std::ops::{ControlFlow, Deref};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::state::Model;
use super::wanted::Wanted;
use super::{Ask, Shared};
use crate::chat::carried;
use crate::chat::event::Event;
use crate::chat::request::{Message, Request};
use crate::chat::responder::{ChatError, Responder};
use crate::engine::frames::Done;
use crate::engine::options::Sampling;
use crate::engine::process::EngineError;
use crate::engine::runner::Cancel;
use crate::engine::steering::Steering;
use crate::store::Resolved;

/// The right to ask a model; it is not unloaded while somebody has one.
#[derive(Debug)]
pub struct Lease {
    shared: Arc<Shared>,
    /// None while it is dropped.
    model: Option<Arc<Model>>,
    entry: u64,
    wanted: Arc<Wanted>,
    ask: Ask,
    load_time: Duration,
}

impl Lease {
    pub(super) fn new(
        shared: &Arc<Shared>,
        (entry, model): (u64, Arc<Model>),
        wanted: Arc<Wanted>,
        ask: Ask,
        load_time: Duration,
    ) -> Self {
        Self { shared: Arc::clone(shared), model: Some(model), entry, wanted, ask, load_time }
    }

    fn model(&self) -> &Model {
        self.model.as_ref().expect("it is there until the lease is dropped")
    }

    /// What the store knows of the model, under the name that was asked for.
    pub fn resolved(&self) -> &Resolved {
        &self.wanted.held.resolved
    }

    /// How long it took to have the model ready; next to nothing when it was loaded.
    pub fn load_time(&self) -> Duration {
        self.load_time
    }

    /// The sampling that the model carries, over what its file recommends, over our defaults.
    pub fn sampling(&self) -> Sampling {
        carried::sampling(&self.resolved().parameters, self.model().responder.sampling())
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

    /// Answers a request, see [`Responder::reply`], with the model's adapters and guessing ahead as the pool does.
    ///
    /// When the model's process dies before the reply began, it is tried once again on a fresh one: somebody else's request
    /// may have killed it.
    pub fn reply(
        &self,
        request: &Request,
        cancel: &Cancel,
        on_event: &mut dyn FnMut(Event) -> ControlFlow<()>,
    ) -> Result<Done, ChatError> {
        let request = self.completed(request);
        let mut has_begun = false;
        let first = self.model().responder.reply(&request, cancel, &mut |event| {
            has_begun |= !matches!(event, Event::Reading(_));
            on_event(event)
        });
        let died = matches!(first, Err(ChatError::Engine(EngineError::WorkerDied { .. })));
        if !died || has_begun || cancel.is_requested() {
            return first;
        }
        // Why there is no fresh one is told to those who ask for it; here the first failure is the one that counts.
        match self.shared.acquire(&self.ask) {
            Ok(again) => again.model().responder.reply(&request, cancel, on_event),
            Err(_) => first,
        }
    }

    /// The request with what holds for all requests of this model.
    fn completed<'a>(&self, request: &'a Request) -> Cow<'a, Request> {
        let speculation = self.shared.options.speculation;
        let mut request = Cow::Borrowed(request);
        if request.speculation != speculation {
            request.to_mut().speculation = speculation;
        }
        if request.steering == Steering::default() && !self.resolved().adapters.is_empty() {
            request.to_mut().steering = carried::steering(self.resolved());
        }
        request
    }
}

impl Deref for Lease {
    type Target = Responder;

    fn deref(&self) -> &Responder {
        &self.model().responder
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        // Who unloads the model must be the last to hold it.
        self.model = None;
        let mut state = self.shared.lock();
        state.release(self.entry, Instant::now());
        self.shared.settle(&mut state);
        self.shared.changed.notify_all();
    }
}
