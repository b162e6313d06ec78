//! Replies as Ollama's clients read them: pieces as lines, or all of it at once, and the account at the end.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::http::HeaderValue;
use axum::response::Response;

use super::super::Server;
use super::super::body::{self, Lines, NDJSON};
use super::super::problem::{Kind, Problem};
use super::super::reply::{Reply, Step};
use super::load::with_model;
use super::moment;
use super::refuse;
use super::terms::Terms;
use super::wire::{Called, Chance, Chunk, DebugInfo, Logprob, Message, Metrics, ToolCall};
use crate::chat::pool::{Ask, Lease};
use crate::chat::{Event, Request, TokenChance, TokenChances};
use crate::engine::frames::{Done, Reason};
use crate::engine::runner::Cancel;

/// The header that says how many tokens of the oldest messages were left out.
pub(super) const TRUNCATED: &str = "x-nfl-truncated-tokens";

/// What is said, and in which of the two forms it is answered.
pub(super) trait Said: Clone + Send + 'static {
    /// The request to a model that is there.
    fn request(&self, lease: &Lease, terms: &Terms) -> Result<Request, Problem>;

    /// The same without the oldest part, about so large a share of the whole; None when nothing may go any more.
    fn shorter(&self, share: f64) -> Option<Self>;

    /// Puts a piece of the reply into a chunk.
    fn write(piece: Piece, chunk: &mut Chunk);
}

/// A piece of a reply.
#[derive(Debug, Default)]
pub(super) struct Piece {
    pub(super) text: String,
    pub(super) thinking: String,
    pub(super) tool_calls: Vec<ToolCall>,
}

impl Piece {
    fn add(&mut self, other: Self) {
        self.text.push_str(&other.text);
        self.thinking.push_str(&other.thinking);
        self.tool_calls.extend(other.tool_calls);
    }
}

/// A question on its way to an answer.
#[derive(Debug)]
pub(super) struct Talk<S> {
    pub(super) said: S,
    pub(super) terms: Terms,
    pub(super) ask: Ask,
    /// The model's name as the client wrote it.
    pub(super) model: String,
    pub(super) started: Instant,
}

/// A reply that has begun.
#[derive(Debug)]
struct Telling {
    reply: Reply,
    model: String,
    started: Instant,
    load_time: Duration,
    /// Tokens of the prompt that were left out.
    truncated_tokens: u64,
    /// Probabilities of tokens whose text has not come yet.
    waiting: Vec<Logprob>,
    calls: u32,
}

impl<S: Said> Talk<S> {
    /// Asks the model and answers the client.
    pub(super) async fn answer(self, server: &Arc<Server>) -> Result<Response, Problem> {
        if self.terms.render_only {
            return self.render(server).await;
        }
        let is_streamed = self.terms.stream;
        let telling = self.begin(server).await?;
        let truncated = telling.truncated_tokens;
        let mut response = if is_streamed {
            body::streamed(NDJSON, move |lines| telling.stream::<S>(lines))
        } else {
            body::json(200, &telling.collect::<S>().await?)
        };
        if truncated > 0 {
            response.headers_mut().insert(TRUNCATED, HeaderValue::from(truncated));
        }
        Ok(response)
    }

    /// Answers with what the model would read.
    async fn render(self, server: &Arc<Server>) -> Result<Response, Problem> {
        let (said, terms) = (self.said, self.terms);
        let rendered = with_model(server, self.ask, move |lease, _| {
            Ok(lease.render(&said.request(lease, &terms)?)?)
        });
        let debug_info = Some(DebugInfo { rendered_template: rendered.await? });
        let (model, created_at) = (self.model, moment::now());
        let mut chunk = Chunk { model, created_at, debug_info, ..Chunk::default() };
        S::write(Piece::default(), &mut chunk);
        Ok(body::json(200, &chunk))
    }

    /// Waits until the reply has begun. A conversation that does not fit is told again without its oldest messages when
    /// the client asked for that.
    async fn begin(self, server: &Arc<Server>) -> Result<Telling, Problem> {
        let mut said = self.said;
        let mut whole: Option<usize> = None;
        loop {
            let (terms, told) = (self.terms.clone(), said.clone());
            let request = move |lease: &Lease| told.request(lease, &terms);
            // The end of one try must not be that of the next.
            let ask = Ask { cancel: Cancel::default(), ..self.ask.clone() };
            let mut reply = Reply::start(server, ask, request);
            let problem = match reply.begin().await {
                Ok(load_time) => {
                    let truncated_tokens = match whole {
                        Some(whole) => whole.saturating_sub(read_tokens(&mut reply).await?) as u64,
                        None => 0,
                    };
                    return Ok(Telling {
                        reply,
                        model: self.model,
                        started: self.started,
                        load_time,
                        truncated_tokens,
                        waiting: Vec::new(),
                        calls: 0,
                    });
                }
                Err(problem) => problem,
            };
            let Some((prompt, room)) = problem.tokens.filter(|_| self.terms.truncate) else {
                return Err(problem);
            };
            whole = whole.or(Some(prompt));
            let share = prompt.saturating_sub(room) as f64 / prompt.max(1) as f64;
            said = said.shorter(share).ok_or(problem)?;
        }
    }
}

/// Tokens of the prompt, once it is read.
async fn read_tokens(reply: &mut Reply) -> Result<usize, Problem> {
    loop {
        match reply.next().await.transpose()? {
            Some(Step::Event(Event::Reading(_)) | Step::Ready { .. }) => {}
            Some(Step::Event(Event::Read { tokens, .. })) => return Ok(tokens as usize),
            _ => return Err(Problem::new(Kind::Cancelled, "cancelled")),
        }
    }
}

impl Telling {
    async fn stream<S: Said>(mut self, lines: Lines) {
        while let Some(step) = self.reply.next().await {
            let told = match step {
                Ok(Step::Event(Event::Done(done))) => {
                    self.flush::<S>(&lines).await;
                    match self.end::<S>(&done) {
                        Ok(end) => lines.line(&end).await,
                        Err(problem) => lines.line(&refuse::line(&problem)).await,
                    }
                }
                Ok(Step::Event(event)) => match self.piece(event) {
                    Some(piece) => lines.line(&self.chunk::<S>(piece)).await,
                    None => true,
                },
                Ok(Step::Ready { .. }) => true,
                Err(problem) => {
                    lines.line(&refuse::line(&problem)).await;
                    false
                }
            };
            if !told {
                return;
            }
        }
    }

    /// Probabilities whose tokens have no text.
    async fn flush<S: Said>(&mut self, lines: &Lines) {
        if !self.waiting.is_empty() {
            let chunk = self.chunk::<S>(Piece::default());
            lines.line(&chunk).await;
        }
    }

    async fn collect<S: Said>(mut self) -> Result<Chunk, Problem> {
        let mut whole = Piece::default();
        while let Some(step) = self.reply.next().await {
            match step? {
                Step::Event(Event::Done(done)) => {
                    let mut end = self.end::<S>(&done)?;
                    S::write(whole, &mut end);
                    end.logprobs = self.waiting;
                    return Ok(end);
                }
                Step::Event(event) => {
                    if let Some(piece) = self.piece(event) {
                        whole.add(piece);
                    }
                }
                Step::Ready { .. } => {}
            }
        }
        Err(Problem::new(Kind::Internal, "the reply has no end"))
    }

    /// What an event says of the reply.
    fn piece(&mut self, event: Event) -> Option<Piece> {
        let mut piece = Piece::default();
        match event {
            Event::Text(text) => piece.text = text,
            Event::Thinking(text) => piece.thinking = text,
            Event::ToolCall(call) => {
                let function =
                    Called { index: self.calls, name: call.name, arguments: call.arguments };
                piece.tool_calls.push(ToolCall { id: Some(call.id), function });
                self.calls += 1;
            }
            Event::Token(chances) => {
                self.waiting.push(logprob(*chances));
                return None;
            }
            _ => return None,
        }
        Some(piece)
    }

    /// A piece with the probabilities of its tokens.
    fn chunk<S: Said>(&mut self, piece: Piece) -> Chunk {
        let logprobs = std::mem::take(&mut self.waiting);
        let (model, created_at) = (self.model.clone(), moment::now());
        let mut chunk = Chunk { model, created_at, logprobs, ..Chunk::default() };
        S::write(piece, &mut chunk);
        chunk
    }

    /// The end of the reply, without its text.
    fn end<S: Said>(&self, done: &Done) -> Result<Chunk, Problem> {
        let done_reason = match done.reason {
            Reason::EndOfText | Reason::Stop => "stop",
            Reason::Length | Reason::ContextFull => "length",
            // Not by this client, or nobody would read it.
            Reason::Cancelled => return Err(Problem::new(Kind::Cancelled, "cancelled")),
        };
        let mut chunk = Chunk {
            model: self.model.clone(),
            created_at: moment::now(),
            done: true,
            done_reason: Some(done_reason),
            metrics: Metrics {
                total_duration: moment::nanoseconds(self.started.elapsed()),
                load_duration: moment::nanoseconds(self.load_time),
                prompt_eval_count: done.prompt_tokens.into(),
                prompt_eval_duration: moment::from_milliseconds(done.prompt_ms),
                eval_count: done.generated_tokens.into(),
                eval_duration: moment::from_milliseconds(done.decode_ms),
                truncated_tokens: self.truncated_tokens,
            },
            ..Chunk::default()
        };
        S::write(Piece::default(), &mut chunk);
        Ok(chunk)
    }
}

fn logprob(chances: TokenChances) -> Logprob {
    let chance = |chance: TokenChance| Chance {
        token: String::from_utf8_lossy(&chance.bytes).into_owned(),
        logprob: chance.logprob,
        bytes: chance.bytes,
    };
    Logprob {
        chosen: chance(chances.chosen),
        top_logprobs: chances.top.into_iter().map(chance).collect(),
    }
}

/// A reply's message.
pub(super) fn message(piece: Piece) -> Message {
    Message {
        role: "assistant".to_owned(),
        content: piece.text,
        thinking: piece.thinking,
        tool_calls: (!piece.tool_calls.is_empty()).then_some(piece.tool_calls),
        ..Message::default()
    }
}
