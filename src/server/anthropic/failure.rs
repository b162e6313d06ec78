//! Problems in Anthropic's words.

use axum::http::HeaderValue;
use axum::http::header::RETRY_AFTER;
use axum::response::Response;
use serde_json::{Value, json};

use super::ids;
use crate::server::body;
use crate::server::problem::{Kind, Problem};

/// Anthropic's status and name of a kind of problem.
fn class(kind: Kind) -> (u16, &'static str) {
    match kind {
        // What is not made here is as wrong to ask for as what is nowhere.
        Kind::Invalid | Kind::TooLong | Kind::Unsupported => (400, "invalid_request_error"),
        Kind::Unauthorized => (401, "authentication_error"),
        Kind::Forbidden => (403, "permission_error"),
        Kind::NotFound => (404, "not_found_error"),
        Kind::TooLarge => (413, "request_too_large"),
        Kind::RateLimited => (429, "rate_limit_error"),
        Kind::Busy => (529, "overloaded_error"),
        Kind::Cancelled | Kind::Internal => (500, "api_error"),
    }
}

/// The value that says what went wrong.
pub(super) fn value(problem: &Problem, request_id: &str) -> Value {
    let message = match (problem.kind, problem.tokens) {
        // Clients look for these words to know that they have to shorten the conversation.
        (Kind::TooLong, Some((prompt, context))) => {
            format!("prompt is too long: {prompt} tokens > {context} maximum")
        }
        _ => problem.text(),
    };
    json!({
        "type": "error",
        "error": {"type": class(problem.kind).1, "message": message},
        "request_id": request_id,
    })
}

/// The answer to a request that failed.
pub(super) fn response(problem: &Problem) -> Response {
    let request_id = ids::new("req_");
    let status = match problem.kind {
        // A method that a path does not take, or a body that does not come: there is a status for it.
        Kind::Invalid => problem.status.as_u16(),
        kind => class(kind).0,
    };
    let mut response = body::json(status, &value(problem, &request_id));
    let headers = response.headers_mut();
    if let Ok(id) = HeaderValue::from_str(&request_id) {
        headers.insert("request-id", id);
    }
    if let Some(seconds) = problem.retry_after {
        headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    response
}
