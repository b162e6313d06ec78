//! Long work as Ollama tells of it: a line of JSON for each step, or the last one alone.

use axum::response::Response;
use tokio::sync::mpsc;

use super::super::body::{self, NDJSON};
use super::super::problem::{Kind, Problem};
use super::refuse;
use super::wire::Status;

/// Steps that wait for a slow client; then the work waits too.
const STEPS_WAITING_MAX: usize = 64;

type Steps = mpsc::Receiver<Result<Status, Problem>>;

/// Tells the client how far its work is.
#[derive(Debug, Clone)]
pub(super) struct Teller(mpsc::Sender<Result<Status, Problem>>);

impl Teller {
    /// A step in words.
    pub(super) fn say(&self, words: impl Into<String>) -> Result<(), Problem> {
        self.tell(Status { words: words.into(), ..Status::default() })
    }

    /// A step; the work ends with this error when nobody listens any more.
    pub(super) fn tell(&self, status: Status) -> Result<(), Problem> {
        let gone = |_| Problem::new(Kind::Cancelled, "cancelled");
        self.0.blocking_send(Ok(status)).map_err(gone)
    }

    /// Whether the client has left.
    pub(super) fn is_alone(&self) -> bool {
        self.0.is_closed()
    }
}

/// Runs `work` on a thread of its own and answers with its steps; what goes wrong before the first of them has a status.
pub(super) async fn told(
    stream: Option<bool>,
    work: impl FnOnce(&Teller) -> Result<(), Problem> + Send + 'static,
) -> Response {
    let (sender, mut steps) = mpsc::channel(STEPS_WAITING_MAX);
    tokio::task::spawn_blocking(move || {
        let teller = Teller(sender);
        if let Err(problem) = work(&teller) {
            // Nobody listens any more: nobody need know.
            let _ = teller.0.blocking_send(Err(problem));
        }
    });
    let first = match steps.recv().await {
        Some(Ok(first)) => first,
        Some(Err(problem)) => return refuse::answer(&problem),
        None => return refuse::answer(&Problem::new(Kind::Internal, "the work has no end")),
    };
    if stream == Some(false) {
        return refuse::or(last(first, steps).await.map(|status| body::json(200, &status)));
    }
    body::streamed(NDJSON, move |lines| async move {
        let mut step = Some(Ok(first));
        while let Some(next) = step {
            let heard = match next {
                Ok(status) => lines.line(&status).await,
                Err(problem) => lines.line(&refuse::line(&problem)).await,
            };
            if !heard {
                return;
            }
            step = steps.recv().await;
        }
    })
}

async fn last(first: Status, mut steps: Steps) -> Result<Status, Problem> {
    let mut last = first;
    while let Some(step) = steps.recv().await {
        last = step?;
    }
    Ok(last)
}
