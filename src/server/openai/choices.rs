//! Several replies at once: to several prompts, or several to one, whose later ones wait until the first has read it, so
//! that it is read once.

use std::collections::VecDeque;
use std::fmt;
use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::response::Response;

use super::refusal::Answer;
use super::wire::InputTokens;
use crate::chat::pool::{Ask, Lease};
use crate::chat::{Event, Request};
use crate::engine::runner::Cancel;
use crate::server::Server;
use crate::server::body;
use crate::server::problem::Problem;
use crate::server::reply::{Reply, Step, blocking};

/// Replies of one request that are under way at the same time; each has a thread, and a place in the model's queue.
const SIDE_BY_SIDE_MAX: usize = 16;

/// Makes the request of a reply by its number: `None` when there is no model yet and only its sense is in question.
pub(super) type Make = dyn Fn(Option<&Lease>, usize) -> Result<Request, Problem> + Send + Sync;

/// Answers with the tokens of a prompt.
pub(super) async fn count(server: &Arc<Server>, ask: Ask, make: Arc<Make>) -> Answer<Response> {
    let tokens = look(server, ask, make, |lease, request| Ok(lease.prompt_tokens(request)?.len()));
    let counted = InputTokens { object: "response.input_tokens", input_tokens: tokens.await? };
    Ok(body::json(200, &counted))
}

/// Looks at the request of the first reply before there is any.
pub(super) async fn look<T: Send + 'static>(
    server: &Arc<Server>,
    ask: Ask,
    make: Arc<Make>,
    work: impl FnOnce(&Lease, &Request) -> Result<T, Problem> + Send + 'static,
) -> Result<T, Problem> {
    make(None, 0)?;
    let server = Arc::clone(server);
    blocking(move || {
        let lease = server.pool.acquire(&ask)?;
        work(&lease, &make(Some(&lease), 0)?)
    })
    .await
}

/// Replies under way. Dropping them ends them.
pub(super) struct Choices {
    server: Arc<Server>,
    ask: Ask,
    make: Arc<Make>,
    /// Replies to each prompt.
    each: usize,
    waiting: VecDeque<usize>,
    running: Vec<Running>,
    /// Whose turn it is to be looked at first.
    turn: usize,
    /// An event that was looked at already.
    first: Option<(usize, Event)>,
}

#[derive(Debug)]
struct Running {
    index: usize,
    reply: Reply,
}

impl fmt::Debug for Choices {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Choices").field("running", &self.running).finish_non_exhaustive()
    }
}

impl Choices {
    /// Asks for `each` replies to each of so many prompts. Reply `i` is number `i % each` to prompt `i / each`.
    ///
    /// # Errors
    /// When a request makes no sense, before any model is loaded for it.
    pub(super) fn start(
        server: &Arc<Server>,
        ask: Ask,
        (prompts, each): (usize, usize),
        make: Arc<Make>,
    ) -> Result<Self, Problem> {
        for prompt in 0..prompts {
            make(None, prompt * each)?;
        }
        let mut choices = Self {
            server: Arc::clone(server),
            ask,
            make,
            each,
            waiting: (0..prompts).map(|prompt| prompt * each).collect(),
            running: Vec::new(),
            turn: 0,
            first: None,
        };
        choices.fill();
        Ok(choices)
    }

    /// Waits until the first reply has begun, so that what goes wrong before it still gets a status of its own. It may be
    /// given up and called again.
    pub(super) async fn begin(&mut self) -> Result<(), Problem> {
        if self.first.is_none() {
            self.first = self.next().await?;
        }
        Ok(())
    }

    /// What happens next, and to which reply; None when all are over.
    pub(super) async fn next(&mut self) -> Result<Option<(usize, Event)>, Problem> {
        match self.first.take() {
            Some(first) => Ok(Some(first)),
            None => poll_fn(|context| self.poll(context)).await,
        }
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Result<Option<(usize, Event)>, Problem>> {
        let mut looked_at = 0;
        while looked_at < self.running.len() {
            let place = (self.turn + looked_at) % self.running.len();
            let running = &mut self.running[place];
            match running.reply.poll_next(context) {
                Poll::Pending => looked_at += 1,
                Poll::Ready(Some(Ok(Step::Ready { .. }))) => {}
                Poll::Ready(Some(Ok(Step::Event(event)))) => {
                    let index = running.index;
                    self.turn = place + 1;
                    if matches!(event, Event::Read { .. }) {
                        self.follow(index);
                    }
                    return Poll::Ready(Ok(Some((index, event))));
                }
                Poll::Ready(Some(Err(problem))) => return Poll::Ready(Err(problem)),
                Poll::Ready(None) => {
                    self.running.swap_remove(place);
                    self.fill();
                    looked_at = 0;
                }
            }
        }
        if self.running.is_empty() { Poll::Ready(Ok(None)) } else { Poll::Pending }
    }

    /// Lets the other replies to a prompt come next when the first has read it.
    fn follow(&mut self, index: usize) {
        if index.is_multiple_of(self.each) {
            for other in (index + 1..index + self.each).rev() {
                self.waiting.push_front(other);
            }
            self.fill();
        }
    }

    fn fill(&mut self) {
        while self.running.len() < SIDE_BY_SIDE_MAX
            && let Some(index) = self.waiting.pop_front()
        {
            let make = Arc::clone(&self.make);
            let ask = Ask { cancel: Cancel::default(), ..self.ask.clone() };
            let reply = Reply::start(&self.server, ask, move |lease| make(Some(lease), index));
            self.running.push(Running { index, reply });
        }
    }
}
