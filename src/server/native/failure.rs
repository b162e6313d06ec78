//! Problems in llama-server's words.

use axum::http::HeaderValue;
use axum::http::header::RETRY_AFTER;
use axum::response::Response;
use serde::Serialize;
use serde_json::{Value, json};

use crate::server::body;
use crate::server::problem::{Kind, Problem};

/// llama-server's name of a kind of problem.
fn type_of(kind: Kind) -> &'static str {
    match kind {
        Kind::Invalid | Kind::TooLarge | Kind::Cancelled => "invalid_request_error",
        Kind::TooLong => "exceed_context_size_error",
        Kind::NotFound => "not_found_error",
        Kind::Unauthorized => "authentication_error",
        Kind::Forbidden => "permission_error",
        Kind::RateLimited => "rate_limit_error",
        Kind::Busy => "unavailable_error",
        Kind::Unsupported => "not_supported_error",
        Kind::Internal => "server_error",
    }
}

/// The value that says what went wrong.
pub(super) fn value(problem: &Problem) -> Value {
    let mut message = problem.text();
    if problem.kind == Kind::TooLong {
        // Clients look for these words to know that they have to shorten the prompt.
        message.push_str("; it exceeds the available context size");
    }
    let mut error = json!({
        "code": problem.status.as_u16(),
        "message": message,
        "type": type_of(problem.kind),
    });
    if let Some((prompt_tokens, context_tokens)) = problem.tokens {
        error["n_prompt_tokens"] = prompt_tokens.into();
        error["n_ctx"] = context_tokens.into();
    }
    json!({ "error": error })
}

/// The answer to a request that failed.
pub(super) fn response(problem: &Problem) -> Response {
    let mut response = body::json(problem.status.as_u16(), &value(problem));
    if let Some(seconds) = problem.retry_after {
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    response
}

/// The answer to a request, whatever became of it.
pub(super) fn answer(result: Result<impl Serialize, Problem>) -> Response {
    match result {
        Ok(value) => body::json(200, &value),
        Err(problem) => response(&problem),
    }
}
