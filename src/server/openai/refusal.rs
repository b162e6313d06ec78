//! Refusals in OpenAI's words: one JSON object with message, type, parameter and code.

use axum::http::HeaderValue;
use axum::http::header::RETRY_AFTER;
use axum::response::{IntoResponse, Response};

use super::wire;
use crate::server::body;
use crate::server::problem::{Kind, Problem};

/// What is answered, or why not.
pub(super) type Answer<T> = Result<T, Refusal>;

/// Why a request was refused.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Refusal {
    pub(super) problem: Box<Problem>,
    /// The field that is to blame.
    pub(super) param: Option<String>,
    /// A word for programs.
    code: Option<&'static str>,
}

impl Refusal {
    /// A request that makes no sense, because of this field.
    pub(super) fn invalid(param: Option<&str>, message: impl Into<String>) -> Self {
        Self {
            problem: Box::new(Problem::invalid(message)),
            param: param.map(str::to_owned),
            code: None,
        }
    }

    /// A thing that is not there.
    pub(super) fn missing(param: Option<&str>, message: impl Into<String>) -> Self {
        let problem = Box::new(Problem::new(Kind::NotFound, message));
        Self { problem, param: param.map(str::to_owned), code: None }
    }

    /// The same, with a field that is to blame.
    pub(super) fn of(self, param: &str) -> Self {
        Self { param: Some(param.to_owned()), ..self }
    }

    /// The same with a word for programs.
    pub(super) fn code(self, code: &'static str) -> Self {
        Self { code: Some(code), ..self }
    }

    /// Says so in a stream or a body.
    pub(super) fn wire(&self) -> wire::Failure {
        let tokens = self.problem.tokens;
        wire::Failure {
            error: wire::Error {
                message: self.problem.text(),
                kind: kind(self.problem.kind),
                param: self.param.clone(),
                code: self.code.or_else(|| code(self.problem.kind)),
                n_prompt_tokens: tokens.map(|(prompt, _)| prompt),
                n_ctx: tokens.map(|(_, room)| room),
            },
        }
    }
}

impl From<Problem> for Refusal {
    fn from(problem: Problem) -> Self {
        // What the pool does not find is a model.
        let is_model = problem.kind == Kind::NotFound;
        Self {
            problem: Box::new(problem),
            param: is_model.then(|| "model".to_owned()),
            code: is_model.then_some("model_not_found"),
        }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let mut response = body::json(self.problem.status.as_u16(), &self.wire());
        if let Some(seconds) = self.problem.retry_after {
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}

/// The words of this dialect for what goes wrong before it sees a request.
pub(super) fn response(problem: &Problem) -> Response {
    Refusal::from(problem.clone()).into_response()
}

/// llama-server's words for kinds of errors; they are OpenAI's and a few more.
fn kind(kind: Kind) -> &'static str {
    match kind {
        Kind::Invalid | Kind::TooLarge => "invalid_request_error",
        Kind::TooLong => "exceed_context_size_error",
        Kind::NotFound => "not_found_error",
        Kind::Unauthorized => "authentication_error",
        Kind::Forbidden => "permission_error",
        Kind::RateLimited => "rate_limit_error",
        Kind::Busy => "unavailable_error",
        Kind::Unsupported => "not_supported_error",
        Kind::Cancelled | Kind::Internal => "server_error",
    }
}

/// OpenAI's words for programs, where it has one for the kind.
fn code(kind: Kind) -> Option<&'static str> {
    match kind {
        Kind::TooLong => Some("context_length_exceeded"),
        Kind::Unauthorized => Some("invalid_api_key"),
        Kind::RateLimited => Some("rate_limit_exceeded"),
        _ => None,
    }
}
