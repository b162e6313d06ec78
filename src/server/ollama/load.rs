//! Requests without a text: they load a model, or unload it.

use std::sync::Arc;
use std::time::Duration;

use super::super::call::Call;
use super::super::problem::Problem;
use super::super::{Server, reply};
use super::moment;
use super::terms::Terms;
use super::wire::Chunk;
use crate::chat::pool::{Ask, KeepAlive, Lease};
use crate::engine::runner::Cancel;

/// Ends a piece of work when whoever waits for it has gone.
#[derive(Debug)]
pub(super) struct OnLeaving(pub(super) Cancel);

impl Drop for OnLeaving {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

/// Runs what needs a model on a thread that may wait; ends when nobody waits for it any more.
pub(super) async fn with_model<T: Send + 'static>(
    server: &Arc<Server>,
    ask: Ask,
    work: impl FnOnce(&Lease, &Cancel) -> Result<T, Problem> + Send + 'static,
) -> Result<T, Problem> {
    let server = Arc::clone(server);
    let _leaving = OnLeaving(ask.cancel.clone());
    reply::blocking(move || {
        let lease = server.pool.acquire(&ask)?;
        work(&lease, &ask.cancel)
    })
    .await
}

/// Carries out a request without a text; returns the end of its reply.
pub(super) async fn load(
    server: &Arc<Server>,
    terms: &Terms,
    ask: Ask,
    model: String,
) -> Result<Chunk, Problem> {
    let done_reason = if terms.keep_alive == Some(KeepAlive::For(Duration::ZERO)) {
        // It takes the model from all who use it.
        if let Some(call) = Call::current() {
            call.asks(&ask.name);
            call.must_manage()?;
        }
        let (server, name) = (Arc::clone(server), ask.name);
        reply::blocking(move || {
            server.pool.unload(&name);
            Ok("unload")
        })
        .await?
    } else {
        with_model(server, ask, |_, _| Ok("load")).await?
    };
    let created_at = moment::now();
    Ok(Chunk { model, created_at, done: true, done_reason: Some(done_reason), ..Chunk::default() })
}
