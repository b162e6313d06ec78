//! POST `/tokenize` and `/detokenize`: texts as the model reads them.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use serde_json::{Value, json};

use super::prompt::Prompt;
use super::{failure, wire};
use crate::chat::pool::Lease;
use crate::server::Server;
use crate::server::body::Raw;
use crate::server::problem::Problem;
use crate::server::reply::blocking;
use crate::server::which;

pub(super) async fn tokenize(State(server): State<Arc<Server>>, raw: Raw) -> Response {
    let result = match raw.parse::<wire::Tokenize>() {
        Ok(asked) => blocking(move || tokens(&server, &asked)).await,
        Err(problem) => Err(problem),
    };
    failure::answer(result)
}

fn tokens(server: &Server, asked: &wire::Tokenize) -> Result<Value, Problem> {
    let prompt = Prompt::one(&asked.content)?;
    let lease = which::lease(server, asked.model.as_deref())?;
    let parse_special = asked.parse_special.unwrap_or(true);
    let tokens = prompt.tokens(lease.runner(), asked.add_special, parse_special)?;
    if !asked.with_pieces {
        return Ok(json!({ "tokens": tokens }));
    }
    let pieces: Vec<Value> =
        tokens.iter().map(|token| piece(&lease, *token)).collect::<Result<_, _>>()?;
    Ok(json!({ "tokens": pieces }))
}

/// A token and its text; its bytes where they are no whole characters.
fn piece(lease: &Lease, token: i32) -> Result<Value, Problem> {
    let piece = match String::from_utf8(lease.piece(token)?) {
        Ok(text) => Value::from(text),
        Err(error) => Value::from(error.into_bytes()),
    };
    Ok(json!({"id": token, "piece": piece}))
}

pub(super) async fn detokenize(State(server): State<Arc<Server>>, raw: Raw) -> Response {
    let result = match raw.parse::<wire::Detokenize>() {
        Ok(asked) => blocking(move || text(&server, &asked)).await,
        Err(problem) => Err(problem),
    };
    failure::answer(result)
}

fn text(server: &Server, asked: &wire::Detokenize) -> Result<Value, Problem> {
    let lease = which::lease(server, asked.model.as_deref())?;
    let bytes = lease.runner().detokenize(&asked.tokens, true)?;
    Ok(json!({ "content": String::from_utf8_lossy(&bytes) }))
}
