//! `/api/delete`: a model goes, and what no other model needs of it.

use std::sync::Arc;

use axum::extract::State;
use axum::response::{IntoResponse, Response};

use super::super::body::Raw;
use super::super::problem::Problem;
use super::super::{Server, reply};
use super::{model, refuse, replaced, wire};

/// Removes a model.
pub(super) async fn delete(State(server): State<Arc<Server>>, raw: Raw) -> Response {
    let removed = match raw.parse() {
        Ok(request) => reply::blocking(move || carry_out(&server, request)).await,
        Err(problem) => Err(problem),
    };
    refuse::or(removed.map(IntoResponse::into_response))
}

fn carry_out(server: &Server, request: wire::Named) -> Result<(), Problem> {
    let text = model::named(request.model, request.name).unwrap_or_default();
    let Some(name) = model::name(&text) else {
        return Err(Problem::invalid(format!("name {text:?} is invalid")));
    };
    let store = server.pool.store()?;
    // One that cannot be read is removed too.
    let name = match store.read(&name) {
        Ok(None) => model::find(&store, &text)?.name,
        _ => name,
    };
    let removed = store.remove(&name)?;
    replaced::free(server, &store, &name, removed.as_ref())
}
