//! Refusals in Ollama's words: `{"error": "…"}`, and nothing else.

use axum::http::HeaderValue;
use axum::response::Response;

use super::super::body;
use super::super::problem::{Kind, Problem};
use super::wire;

/// A problem as an answer of its own.
pub(super) fn answer(problem: &Problem) -> Response {
    let mut response = body::json(problem.status.as_u16(), &line(problem));
    if let Some(seconds) = problem.retry_after {
        response.headers_mut().insert("retry-after", HeaderValue::from(seconds));
    }
    response
}

/// A problem as a line of an answer that has begun.
pub(super) fn line(problem: &Problem) -> wire::Error {
    let error = match problem.kind {
        Kind::Cancelled => "request canceled".to_owned(),
        _ => problem.text(),
    };
    wire::Error { error }
}

/// What was made, or why not.
pub(super) fn or(result: Result<Response, Problem>) -> Response {
    result.unwrap_or_else(|problem| answer(&problem))
}

/// There is no such model.
pub(super) fn no_model(name: &str) -> Problem {
    Problem::new(Kind::NotFound, format!("model '{name}' not found"))
}
