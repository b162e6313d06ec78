//! Bodies: JSON in with limits, lines and server-sent events out.

use std::convert::Infallible;
use std::error::Error;
use std::iter;
use std::sync::Arc;

use axum::body::{Body, Bytes, HttpBody};
use axum::extract::{FromRequest, Request};
use axum::http::StatusCode;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER};
use axum::response::Response;
use futures_util::stream;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::json;
use tokio::sync::mpsc;

use super::Server;
use super::call::Call;
use super::problem::{Kind, Problem};
use super::routes::Words;
use super::security::TooSlow;

/// Chunks of a streamed body that wait for a slow client.
const CHUNKS_WAITING_MAX: usize = 64;

/// A request's body.
#[derive(Debug)]
pub(super) struct Raw(pub(super) Bytes);

impl FromRequest<Arc<Server>> for Raw {
    type Rejection = Response;

    async fn from_request(request: Request, server: &Arc<Server>) -> Result<Self, Response> {
        let call = Call::current();
        let refuse =
            |problem: &Problem| call.as_ref().map_or(refusal as Words, |call| call.words)(problem);
        let bytes_max = server.config.body_bytes_max;
        let body = request.into_body();
        // What says beforehand that it is too long is not read at all.
        if body.size_hint().lower() > bytes_max as u64 {
            return Err(refuse(&too_long(bytes_max)));
        }
        let bytes = axum::body::to_bytes(body, bytes_max).await;
        let bytes = bytes.map_err(|error| refuse(&broken(&error, bytes_max)))?;
        if let Some(call) = Call::current() {
            call.read(&bytes);
        }
        Ok(Self(bytes))
    }
}

fn too_long(bytes_max: usize) -> Problem {
    Problem::new(Kind::TooLarge, format!("the request's body is longer than {bytes_max} bytes"))
}

/// Why a body did not come.
fn broken(error: &(dyn Error + 'static), bytes_max: usize) -> Problem {
    let mut causes = iter::successors(Some(error), |error| (*error).source());
    let cause = causes.find_map(|cause| {
        let slow = cause.is::<TooSlow>().then_some(StatusCode::REQUEST_TIMEOUT);
        slow.or_else(|| cause.is::<hyper::Error>().then_some(StatusCode::BAD_REQUEST))
    });
    match cause {
        Some(status) => {
            Problem { status, ..Problem::invalid(format!("the request's body: {error}")) }
        }
        None => too_long(bytes_max),
    }
}

/// A problem in the words of the dialect that this task answers in.
pub(super) fn refuse(problem: &Problem) -> Response {
    Call::current().map_or(refusal as Words, |call| call.words)(problem)
}

/// A problem in the plainest words, for requests that reach no dialect.
pub(super) fn refusal(problem: &Problem) -> Response {
    let mut response = json(problem.status.as_u16(), &json!({ "error": problem.text() }));
    if let Some(seconds) = problem.retry_after {
        response.headers_mut().insert(RETRY_AFTER, seconds.into());
    }
    response
}

impl Raw {
    /// The JSON value in the body.
    pub(super) fn parse<T: DeserializeOwned>(&self) -> Result<T, Problem> {
        if self.0.is_empty() {
            return Err(Problem::invalid("missing request body"));
        }
        serde_json::from_slice(&self.0)
            .map_err(|error| Problem::new(Kind::Invalid, format!("the request's body: {error}")))
    }
}

/// A JSON answer.
pub(super) fn json(status: u16, value: &impl Serialize) -> Response {
    let bytes = serde_json::to_vec(value).unwrap_or_default();
    let mut response = Response::new(Body::from(bytes));
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::OK);
    let value = "application/json; charset=utf-8";
    response.headers_mut().insert(CONTENT_TYPE, axum::http::HeaderValue::from_static(value));
    response
}

/// The sending end of a streamed body.
#[derive(Debug, Clone)]
pub(super) struct Lines(mpsc::Sender<Bytes>);

impl Lines {
    /// Sends a JSON value as a line; false when nobody listens any more.
    pub(super) async fn line(&self, value: &impl Serialize) -> bool {
        let mut bytes = serde_json::to_vec(value).unwrap_or_default();
        note_failure(&bytes);
        bytes.push(b'\n');
        self.0.send(bytes.into()).await.is_ok()
    }

    /// Sends a JSON value as a server-sent event; false when nobody listens any more. JSON has no line ends, so that no
    /// text in it can end the event.
    pub(super) async fn event(&self, name: Option<&str>, value: &impl Serialize) -> bool {
        let mut text = name.map_or(String::new(), |name| format!("event: {name}\n"));
        text.push_str("data: ");
        let data = serde_json::to_string(value).unwrap_or_default();
        note_failure(data.as_bytes());
        text.push_str(&data);
        text.push_str("\n\n");
        self.0.send(text.into()).await.is_ok()
    }

    /// Sends a comment, which clients pass over: that the connection is alive.
    pub(super) async fn comment(&self) -> bool {
        self.0.send(Bytes::from_static(b":\n\n")).await.is_ok()
    }

    /// Sends the end of OpenAI's streams.
    pub(super) async fn done(&self) -> bool {
        self.0.send(Bytes::from_static(b"data: [DONE]\n\n")).await.is_ok()
    }
}

/// A stream's status says that all is well; that it is not is said by an object that begins with `error`, or, in
/// Anthropic's dialect, is of the type `error`.
fn note_failure(value: &[u8]) {
    let is_failure = value.starts_with(b"{\"error\":") || value.starts_with(b"{\"type\":\"error\"");
    if is_failure && let Some(call) = Call::current() {
        call.fail();
    }
}

/// An answer whose body is written by `write` while the client reads it; what `write` holds is dropped when the client
/// leaves.
pub(super) fn streamed<F>(content_type: &'static str, write: impl FnOnce(Lines) -> F) -> Response
where
    F: Future<Output = ()> + Send + 'static,
{
    let (sender, receiver) = mpsc::channel(CHUNKS_WAITING_MAX);
    let gone = sender.clone();
    let writing = write(Lines(sender));
    tokio::spawn(Call::work(Call::current(), async move {
        tokio::select! {
            () = writing => {}
            () = gone.closed() => {}
        }
    }));
    let chunks = stream::unfold(receiver, |mut receiver| async {
        let chunk = receiver.recv().await?;
        Some((Ok::<_, Infallible>(chunk), receiver))
    });
    let mut response = Response::new(Body::from_stream(chunks));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, axum::http::HeaderValue::from_static(content_type));
    headers.insert(CACHE_CONTROL, axum::http::HeaderValue::from_static("no-cache"));
    response
}

/// The content type of NDJSON.
pub(super) const NDJSON: &str = "application/x-ndjson";

/// The content type of server-sent events.
pub(super) const EVENTS: &str = "text/event-stream";
