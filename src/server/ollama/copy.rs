//! `/api/copy`: a second name for a model.

use std::sync::Arc;

use axum::extract::State;
use axum::response::{IntoResponse, Response};

use super::super::body::Raw;
use super::super::problem::{Kind, Problem};
use super::super::{Server, reply};
use super::{model, refuse, replaced, wire};

/// Gives a model a second name; one that had it loses it.
pub(super) async fn copy(State(server): State<Arc<Server>>, raw: Raw) -> Response {
    let copied = match raw.parse() {
        Ok(request) => reply::blocking(move || carry_out(&server, &request)).await,
        Err(problem) => Err(problem),
    };
    refuse::or(copied.map(IntoResponse::into_response))
}

fn carry_out(server: &Server, request: &wire::Copy) -> Result<(), Problem> {
    let parse = |what: &str, text: &str| {
        model::name(text).ok_or_else(|| Problem::invalid(format!("{what} {text:?} is invalid")))
    };
    parse("source", &request.source)?;
    let target = parse("destination", &request.destination)?;
    let store = server.pool.store()?;
    let source = model::find(&store, &request.source).map_err(|problem| match problem.kind {
        Kind::NotFound => {
            Problem::new(Kind::NotFound, format!("model {:?} not found", request.source))
        }
        _ => problem,
    })?;
    if source.name == target {
        return Ok(());
    }
    let replaced = store.read(&target).unwrap_or_default();
    store.copy(&source.name, &target, true)?;
    replaced::free(server, &store, &target, replaced.as_ref())
}
