//! Replies: a model is asked on a thread of its own, and its events come out as they happen.

use std::future::poll_fn;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use tokio::sync::mpsc;

use super::Server;
use super::call::Call;
use super::problem::{Kind, Problem};
use crate::chat::pool::{Ask, Lease};
use crate::chat::{Event, Request};
use crate::engine::embedding::{EmbeddingRequest, Embeddings};
use crate::engine::process::EngineError;
use crate::engine::runner::Cancel;

/// Events that wait for a client which reads slowly; then the model's thread waits too.
const EVENTS_WAITING_MAX: usize = 256;

/// One step of a reply as a dialect gets it.
#[derive(Debug)]
pub(super) enum Step {
    /// The model is there, after so much time for loading it.
    Ready {
        /// Time until the model was there.
        load_time: Duration,
    },
    /// What happens.
    Event(Event),
}

/// A reply on its way. Dropping it ends the reply.
#[derive(Debug)]
pub(super) struct Reply {
    steps: mpsc::Receiver<Result<Step, Problem>>,
    cancel: Cancel,
    call: Option<Arc<Call>>,
    /// A step that was looked at already.
    first: Option<Result<Step, Problem>>,
}

impl Reply {
    /// Asks a model. `request` is made when the model is there, because its defaults count.
    pub(super) fn start(
        server: &Arc<Server>,
        ask: Ask,
        request: impl FnOnce(&Lease) -> Result<Request, Problem> + Send + 'static,
    ) -> Self {
        let (sender, steps) = mpsc::channel(EVENTS_WAITING_MAX);
        let cancel = ask.cancel.clone();
        let call = Call::current();
        if let Some(call) = &call {
            call.asks(&ask.name);
        }
        let server = Arc::clone(server);
        tokio::task::spawn_blocking(move || {
            if let Err(problem) = answer(&server, &ask, request, &sender) {
                // Nobody listens any more: nobody need know.
                let _ = sender.blocking_send(Err(problem));
            }
        });
        Self { steps, cancel, call, first: None }
    }

    /// The next step; None after the last one.
    pub(super) async fn next(&mut self) -> Option<Result<Step, Problem>> {
        poll_fn(|context| self.poll_next(context)).await
    }

    /// The next step, for those who wait for several replies.
    pub(super) fn poll_next(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Step, Problem>>> {
        if let Some(first) = self.first.take() {
            return Poll::Ready(Some(first));
        }
        let step = ready!(self.steps.poll_recv(context));
        if let (Some(call), Some(Ok(Step::Event(event)))) = (&self.call, &step) {
            call.note(event);
        }
        Poll::Ready(step)
    }

    /// Waits until the reply has begun, so that what goes wrong before it still gets a status of its own. Returns the time
    /// for loading the model.
    pub(super) async fn begin(&mut self) -> Result<Duration, Problem> {
        let gone = || Problem::new(Kind::Internal, "the reply ended before it began");
        let Step::Ready { load_time } = self.next().await.ok_or_else(gone)?? else {
            return Err(gone());
        };
        let first = self.next().await.ok_or_else(gone)?;
        self.first = Some(Ok(first?));
        Ok(load_time)
    }
}

impl Drop for Reply {
    fn drop(&mut self) {
        self.cancel.cancel();
    }
}

fn answer(
    server: &Server,
    ask: &Ask,
    request: impl FnOnce(&Lease) -> Result<Request, Problem>,
    sender: &mpsc::Sender<Result<Step, Problem>>,
) -> Result<(), Problem> {
    let mut watch = server.metrics.watch();
    let lease = server.pool.acquire(ask)?;
    server.metrics.loaded(lease.load_time());
    let request = request(&lease)?;
    let tell = |step: Step| match sender.blocking_send(Ok(step)) {
        Ok(()) => ControlFlow::Continue(()),
        Err(_) => ControlFlow::Break(()),
    };
    if tell(Step::Ready { load_time: lease.load_time() }).is_break() {
        return Ok(());
    }
    let mut hear = |event: Event| {
        watch.event(&event);
        tell(Step::Event(event))
    };
    match lease.reply(&request, &ask.cancel, &mut hear) {
        Ok(_) => Ok(()),
        Err(error) => {
            server.metrics.failed(&error);
            Err(error.into())
        }
    }
}

/// The embeddings of texts or the scores of documents, counted.
pub(super) fn embed(
    server: &Server,
    lease: &Lease,
    request: EmbeddingRequest,
    cancel: &Cancel,
) -> Result<Embeddings, EngineError> {
    let started = Instant::now();
    let found = lease.runner().embed(request, cancel)?;
    server.metrics.embedded(found.tokens(), started.elapsed());
    Ok(found)
}

/// Runs what blocks, with a model or the store.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Problem> + Send + 'static,
) -> Result<T, Problem> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => Err(Problem::new(Kind::Internal, format!("a thread failed: {error}"))),
    }
}
