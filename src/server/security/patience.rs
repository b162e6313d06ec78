//! How long a client may take: bodies that trickle in, and answers that nobody reads.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::{Body, Bytes};
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep};

/// Bytes a second that a body must come with on average, beside the time that every body has.
const BYTES_PER_SECOND_MIN: u32 = 1024;

/// A body that took too long.
#[derive(Debug, Error)]
#[error("it came too slowly")]
pub(in crate::server) struct TooSlow;

/// A request's body that fails when it does not come.
pub(super) struct Patient {
    body: Body,
    pause_max: Duration,
    /// When there must have been more.
    deadline: Pin<Box<Sleep>>,
    /// When all of it must have come, as far as it is known.
    end: Instant,
}

impl Patient {
    pub(super) fn new(body: Body, pause_max: Duration) -> Self {
        let deadline = Box::pin(sleep(pause_max));
        Self { body, pause_max, deadline, end: Instant::now() + pause_max }
    }
}

impl HttpBody for Patient {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        if let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(context) {
            if let Some(Ok(frame)) = &frame
                && let Some(data) = frame.data_ref()
            {
                let bytes = u32::try_from(data.len()).unwrap_or(u32::MAX);
                self.end += Duration::from_secs(1) * bytes / BYTES_PER_SECOND_MIN;
                let next = self.end.min(Instant::now() + self.pause_max);
                self.deadline.as_mut().reset(next);
            }
            return Poll::Ready(frame);
        }
        ready!(self.deadline.as_mut().poll(context));
        Poll::Ready(Some(Err(axum::Error::new(TooSlow))))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A connection that ends when its client reads nothing for too long, for as long as there is something to read. A reply
/// waits for its reader, and others wait for the model.
pub(in crate::server) struct Flowing<T> {
    stream: T,
    pause_max: Duration,
    /// When something must have been read, while something waits.
    deadline: Option<Pin<Box<Sleep>>>,
}

impl<T> Flowing<T> {
    pub(in crate::server) fn new(stream: T, pause_max: Duration) -> Self {
        Self { stream, pause_max, deadline: None }
    }
}

impl<T: Unpin> Flowing<T> {
    /// What writing came to: waiting is an error after a while.
    fn judge<R>(
        &mut self,
        context: &mut Context<'_>,
        outcome: Poll<io::Result<R>>,
    ) -> Poll<io::Result<R>> {
        if outcome.is_ready() {
            self.deadline = None;
            return outcome;
        }
        let pause_max = self.pause_max;
        let deadline = self.deadline.get_or_insert_with(|| Box::pin(sleep(pause_max)));
        ready!(deadline.as_mut().poll(context));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Flowing<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Flowing<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.judge(context, outcome)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        self.judge(context, outcome)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let outcome = Pin::new(&mut self.stream).poll_flush(context);
        self.judge(context, outcome)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let outcome = Pin::new(&mut self.stream).poll_shutdown(context);
        self.judge(context, outcome)
    }
}
