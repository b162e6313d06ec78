//! The end of a request: its line in the log, and its row in the audit when it managed something.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use axum::body::{Body, Bytes};
use axum::response::Response;
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use serde_json::Value;

use super::audit::Action;
use crate::server::Server;
use crate::server::call::Call;
use crate::server::problem::Problem;
use crate::server::routes::Access;
use crate::term::log::Level;

/// Routes that programs ask all the time.
const FREQUENT: [&str; 2] = ["/metrics", "/status"];

static ACTIONS: AtomicU64 = AtomicU64::new(0);

/// Tells how a request ended, when it is dropped.
pub(super) struct Ending {
    server: Arc<Server>,
    call: Arc<Call>,
    /// None until there is an answer.
    status: Option<u16>,
    is_complete: bool,
    /// What the audit has of it.
    action: Option<(u64, Action)>,
}

impl Ending {
    pub(super) fn new(server: Arc<Server>, call: Arc<Call>) -> Self {
        Self { server, call, status: None, is_complete: false, action: None }
    }

    /// Tells the audit of a request that manages something, unless it was refused before anybody knew who asks.
    pub(super) fn begin(&mut self, refusal: Option<&Problem>) {
        let call = &self.call;
        if call.access != Access::Manage || (refusal.is_some() && call.key().is_none()) {
            return;
        }
        self.register();
    }

    fn register(&mut self) {
        let call = &self.call;
        let who = call.key().unwrap_or("anyone");
        let action = Action {
            address: call.address.map(|address| address.to_string()),
            request: Some(call.id.clone()),
            ..Action::new(who, format!("{} {}", call.method, call.path))
        };
        let serial = ACTIONS.fetch_add(1, Ordering::Relaxed);
        self.server.gate.audit.begin(serial, action.clone());
        self.action = Some((serial, action));
    }

    /// Goes along with the answer to its last byte.
    pub(super) fn follow(mut self, response: Response, is_head: bool) -> Response {
        self.status = Some(response.status().as_u16());
        self.is_complete = is_head;
        response.map(|body| {
            self.is_complete |= body.is_end_stream();
            Body::new(Followed { body, ending: self })
        })
    }

    /// The status for the log, and what it does not tell.
    fn outcome(&self) -> (u16, Option<&'static str>) {
        match self.status {
            None if std::thread::panicking() => (500, Some("panicked")),
            // nginx's number for a client that left before its answer.
            None => (499, Some("left")),
            Some(status) if self.call.has_failed() => (status, Some("failed")),
            Some(status) if !self.is_complete => (status, Some("left")),
            Some(status) => (status, None),
        }
    }

    fn tell(&self, status: u16, outcome: Option<&'static str>) {
        let call = &self.call;
        let level = match status {
            _ if outcome == Some("failed") => Level::Error,
            500.. => Level::Error,
            499 => Level::Info,
            400.. => Level::Warn,
            _ if call.access == Access::Open || FREQUENT.contains(&call.path.as_str()) => {
                Level::Debug
            }
            _ => Level::Info,
        };
        let log = self.server.gate.log;
        if level > log.level {
            return;
        }
        let tokens = call.tokens();
        let ms = (call.started.elapsed().as_secs_f64() * 1e5).round() / 100.0;
        let fields: [(&str, Value); 11] = [
            ("method", call.method.as_str().into()),
            ("path", call.path.as_str().into()),
            ("status", status.into()),
            ("ms", ms.into()),
            ("outcome", outcome.into()),
            ("model", call.model().into()),
            ("prompt_tokens", tokens.map(|(read, _)| read).into()),
            ("reply_tokens", tokens.map(|(_, made)| made).into()),
            ("key", call.key().into()),
            ("address", call.address.map(|address| address.to_string()).into()),
            ("request", call.id.as_str().into()),
        ];
        log.event(level, "request", &fields);
    }
}

impl Drop for Ending {
    fn drop(&mut self) {
        let (status, outcome) = self.outcome();
        self.tell(status, outcome);
        if self.call.manages_by_body() {
            self.register();
        }
        if let Some((serial, mut action)) = self.action.take() {
            action.target = self.call.model().map(str::to_owned);
            action.outcome = Some(outcome.map_or_else(|| status.to_string(), str::to_owned));
            self.server.gate.audit.end(serial, action);
        }
    }
}

/// An answer's body with what is told at its end.
struct Followed {
    body: Body,
    ending: Ending,
}

impl HttpBody for Followed {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let frame = Pin::new(&mut self.body).poll_frame(context);
        let is_over = matches!(frame, Poll::Ready(None));
        self.ending.is_complete |= is_over || self.body.is_end_stream();
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
