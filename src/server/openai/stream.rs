//! Answers in pieces: events of replies become server-sent events as they happen.

use std::time::Duration;

use axum::response::Response;
use serde::Serialize;
use tokio::time::timeout;

use super::choices::Choices;
use super::refusal::{Answer, Refusal};
use crate::chat::Event;
use crate::server::body::{EVENTS, Lines, streamed};
use crate::server::problem::Problem;

/// How long an answer without pings may wait for its status.
const STATUS_PATIENCE: Duration = Duration::from_mins(1);

/// Puts events into the words of one interface.
pub(super) trait Telling: Send + 'static {
    /// A piece.
    type Piece: Serialize + Send + Sync;

    /// The pieces for an event of a reply.
    fn tell(&mut self, index: usize, event: Event) -> Result<Vec<Self::Piece>, Problem>;

    /// The pieces at the end of all.
    fn end(&mut self) -> Vec<Self::Piece>;
}

/// What happens next in a stream.
#[derive(Debug)]
pub(super) enum Next {
    /// This, to the reply of this number.
    Event(usize, Event),
    /// Nothing for so long that the client has to be told.
    Silence,
    /// All replies are over.
    End,
}

/// Waits for the beginning, so that most of what goes wrong has a status; but not for so long that a client which waits
/// for a long prompt, or for a large model to load, gives up: its stream is opened then.
pub(super) async fn begin(choices: &mut Choices, ping: Option<Duration>) -> Result<(), Problem> {
    timeout(ping.unwrap_or(STATUS_PATIENCE), choices.begin()).await.unwrap_or(Ok(()))
}

/// What happens next, or that nothing does.
pub(super) async fn next(choices: &mut Choices, ping: Option<Duration>) -> Result<Next, Problem> {
    let next = match ping {
        Some(ping) => match timeout(ping, choices.next()).await {
            Ok(next) => next?,
            Err(_) => return Ok(Next::Silence),
        },
        None => choices.next().await?,
    };
    Ok(next.map_or(Next::End, |(index, event)| Next::Event(index, event)))
}

/// The answer in pieces.
pub(super) async fn answer(
    mut choices: Choices,
    telling: impl Telling,
    ping: Option<Duration>,
) -> Answer<Response> {
    begin(&mut choices, ping).await?;
    Ok(streamed(EVENTS, move |lines| async move {
        if let Err(problem) = write(&lines, choices, telling, ping).await {
            // The status is sent: all that is left is to say so. There is no [DONE] behind an error.
            lines.event(None, &Refusal::from(problem).wire()).await;
        }
    }))
}

async fn write(
    lines: &Lines,
    mut choices: Choices,
    mut telling: impl Telling,
    ping: Option<Duration>,
) -> Result<(), Problem> {
    loop {
        match next(&mut choices, ping).await? {
            Next::Event(index, event) => {
                for piece in telling.tell(index, event)? {
                    if !lines.event(None, &piece).await {
                        return Ok(());
                    }
                }
            }
            Next::Silence => {
                if !lines.comment().await {
                    return Ok(());
                }
            }
            Next::End => break,
        }
    }
    for piece in telling.end() {
        lines.event(None, &piece).await;
    }
    lines.done().await;
    Ok(())
}
