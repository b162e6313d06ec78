//! POST `/v1/messages` and `/v1/messages/count_tokens`.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use serde_json::{Value, json};

use super::blocks::Blocks;
use super::convert::Asked;
use super::{failure, ids, wire};
use crate::chat::Event;
use crate::engine::frames::Done;
use crate::server::Server;
use crate::server::body::{self, EVENTS, Lines, Raw};
use crate::server::problem::{Kind, Problem};
use crate::server::reply::{Reply, Step, blocking};
use crate::server::which;

/// A message on its way.
#[derive(Debug)]
struct Writing {
    id: String,
    model: String,
    asked: Arc<Asked>,
    reply: Reply,
    blocks: Blocks,
}

pub(super) async fn messages(
    State(server): State<Arc<Server>>,
    raw: Result<Raw, Response>,
) -> Response {
    match begin(&server, raw).await {
        Ok((writing, true)) => body::streamed(EVENTS, |lines| writing.stream(lines)),
        Ok((writing, false)) => match writing.finish().await {
            Ok(value) => body::json(200, &value),
            Err(problem) => failure::response(&problem),
        },
        Err(problem) => failure::response(&problem),
    }
}

/// Asks the model and waits until it begins; says whether the answer is to be streamed.
async fn begin(
    server: &Arc<Server>,
    raw: Result<Raw, Response>,
) -> Result<(Writing, bool), Problem> {
    let wire = read(raw)?;
    if wire.max_tokens.is_none() {
        return Err(Problem::invalid("max_tokens: Field required"));
    }
    let (name, streams) = (wire.model.clone(), wire.stream);
    let asked = Arc::new(Asked::new(wire)?);
    let pool = Arc::clone(server);
    let model = blocking(move || which::named(&pool.pool, Some(&name))).await?;
    let own = Arc::clone(&asked);
    let mut reply = Reply::start(server, model.ask(), move |lease| own.request(lease));
    reply.begin().await?;
    let (id, blocks) = (ids::new("msg_"), Blocks::default());
    Ok((Writing { id, model: model.asked, asked, reply, blocks }, streams))
}

fn read(raw: Result<Raw, Response>) -> Result<wire::Request, Problem> {
    let too_large = |_| Problem::new(Kind::TooLarge, "the request's body is too large");
    raw.map_err(too_large)?.parse()
}

impl Writing {
    /// The whole message.
    async fn finish(mut self) -> Result<Value, Problem> {
        let mut unheard = Vec::new();
        loop {
            match self.reply.next().await {
                Some(Ok(Step::Event(Event::Done(done)))) => {
                    let (reason, stop) = self.blocks.reason(&done, &self.asked.stop);
                    let mut message = self.head(&usage(&done));
                    message["stop_reason"] = reason.into();
                    message["stop_sequence"] = stop.into();
                    message["content"] = self.blocks.finish().into();
                    return Ok(message);
                }
                Some(Ok(Step::Event(event))) => {
                    self.blocks.hear(event, &mut unheard);
                    unheard.clear();
                }
                Some(Ok(Step::Ready { .. })) => {}
                Some(Err(problem)) => return Err(problem),
                None => return Err(broken()),
            }
        }
    }

    /// Sends the message as it comes.
    async fn stream(mut self, lines: Lines) {
        loop {
            let step = self.reply.next().await;
            let (told, is_over) = match step {
                Some(Ok(Step::Event(event))) => {
                    let is_over = matches!(event, Event::Done(_));
                    (self.told(event), is_over)
                }
                Some(Ok(Step::Ready { .. })) => continue,
                Some(Err(problem)) => (vec![failure::value(&problem, &ids::new("req_"))], true),
                None => (vec![failure::value(&broken(), &ids::new("req_"))], true),
            };
            for value in told {
                let name = value["type"].as_str();
                if !lines.event(name, &value).await {
                    return;
                }
            }
            if is_over {
                return;
            }
        }
    }

    /// What a client that listens is told when something happens.
    fn told(&mut self, event: Event) -> Vec<Value> {
        let mut told = Vec::new();
        match event {
            // The message starts with the number of its tokens, which is not known yet: a sign of life meanwhile.
            Event::Reading(_) => told.push(json!({"type": "ping"})),
            Event::Read { tokens, cached_tokens } => {
                let usage = usage_of(tokens, cached_tokens, 0);
                told.push(json!({"type": "message_start", "message": self.head(&usage)}));
                told.push(json!({"type": "ping"}));
            }
            Event::Done(done) => {
                self.blocks.close(&mut told);
                let (reason, stop) = self.blocks.reason(&done, &self.asked.stop);
                told.push(json!({
                    "type": "message_delta",
                    "delta": {"stop_reason": reason, "stop_sequence": stop},
                    "usage": usage(&done),
                }));
                told.push(json!({"type": "message_stop"}));
            }
            event => self.blocks.hear(event, &mut told),
        }
        told
    }

    /// The message before anything of it is there.
    fn head(&self, usage: &Value) -> Value {
        json!({
            "id": self.id,
            "type": "message",
            "role": "assistant",
            "model": self.model,
            "content": [],
            "stop_reason": null,
            "stop_sequence": null,
            "usage": usage,
        })
    }
}

fn usage(done: &Done) -> Value {
    usage_of(done.prompt_tokens, done.cached_tokens, done.generated_tokens)
}

/// Tokens as Anthropic counts them: those of the prompt that were known already are counted apart. What is read is kept
/// anyway, so that none is counted as written into a cache.
fn usage_of(tokens: u32, cached: u32, generated: u32) -> Value {
    json!({
        "input_tokens": tokens.saturating_sub(cached),
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": cached,
        "output_tokens": generated,
    })
}

fn broken() -> Problem {
    Problem::new(Kind::Internal, "the reply broke off")
}

pub(super) async fn count_tokens(
    State(server): State<Arc<Server>>,
    raw: Result<Raw, Response>,
) -> Response {
    match count(server, raw).await {
        Ok(tokens) => body::json(200, &json!({ "input_tokens": tokens })),
        Err(problem) => failure::response(&problem),
    }
}

async fn count(server: Arc<Server>, raw: Result<Raw, Response>) -> Result<usize, Problem> {
    let wire = read(raw)?;
    let model = wire.model.clone();
    let asked = Asked::new(wire)?;
    let work = move || {
        let lease = which::lease(&server, Some(&model))?;
        Ok(lease.prompt_tokens(&asked.request(&lease)?)?.len())
    };
    blocking(work).await
}
