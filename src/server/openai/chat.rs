//! `POST /v1/chat/completions`, and what a model would read of it.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use serde_json::Value;

use super::asked::{Asked, Delivery, now, opened};
use super::choices::{self, Choices, Make};
use super::fields::Fields;
use super::finish::{self, Finish};
use super::format::{self, Thinking};
use super::forms;
use super::ids;
use super::logprobs::{ChatLogprobs, wrapped};
use super::messages;
use super::refusal::{Answer, Refusal};
use super::stream::{self, Telling};
use super::timings::{self, Account, Clock};
use super::tools;
use super::turn;
use super::wire::{self, Chunk, ChunkChoice, Delta, DeltaCall, DeltaFunction, Field};
use crate::chat::pool::{Ask, Lease};
use crate::chat::{Event, Format, Message, Request, ToolCall, Tools, Turn};
use crate::server::Server;
use crate::server::body;
use crate::server::problem::Problem;

/// A chat that is asked for.
#[derive(Debug)]
pub(super) struct Asking {
    asked: Asked,
    messages: Vec<Message>,
    tools: Tools,
    format: Format,
    thinking: Thinking,
    turn: Turn,
    logprobs: Option<u32>,
    /// With the prompt as the model reads it.
    verbose: bool,
}

pub(super) async fn create(State(server): State<Arc<Server>>, fields: Fields) -> Answer<Response> {
    let asking = Asking::read(&server, fields).await?;
    let delivery = asking.asked.delivery;
    let mut tell = Tell::new(&asking);
    let (verbose, count, ask) = (asking.verbose, asking.asked.choices, asking.asked.model.ask());
    let make = asking.make();
    if verbose {
        tell.verbose = Some(prompt(&server, ask.clone(), Arc::clone(&make)).await?);
    }
    let choices = Choices::start(&server, ask, (1, count), make)?;
    if delivery.stream {
        return stream::answer(choices, tell, delivery.ping).await;
    }
    Ok(body::json(200, &whole(choices, tell).await?))
}

/// Counts the tokens of the prompt.
pub(super) async fn count(State(server): State<Arc<Server>>, fields: Fields) -> Answer<Response> {
    let asking = Asking::read(&server, fields).await?;
    let ask = asking.asked.model.ask();
    choices::count(&server, ask, asking.make()).await
}

/// Writes the conversation as the model's template does.
pub(super) async fn template(
    State(server): State<Arc<Server>>,
    fields: Fields,
) -> Answer<Response> {
    let asking = Asking::read(&server, fields).await?;
    let ask = asking.asked.model.ask();
    let rendered = |lease: &Lease, request: &Request| Ok(lease.render(request)?);
    let prompt = choices::look(&server, ask, asking.make(), rendered).await?;
    Ok(body::json(200, &wire::Prompt { prompt }))
}

/// The prompt as the model reads it, with what it wants in front of a text.
async fn prompt(server: &Arc<Server>, ask: Ask, make: Arc<Make>) -> Result<wire::Prompt, Problem> {
    let text = choices::look(server, ask, make, |lease, request| {
        let tokens = lease.prompt_tokens(request)?;
        Ok(lease.runner().detokenize(&tokens, true)?)
    });
    Ok(wire::Prompt { prompt: String::from_utf8_lossy(&text.await?).into_owned() })
}

impl Asking {
    async fn read(server: &Arc<Server>, mut fields: Fields) -> Answer<Self> {
        fields.keep_to(&forms::CHAT)?;
        let messages = messages::conversation(&fields.need::<Value>("messages")?)?;
        let tools = tools::read(&mut fields)?;
        let asking = Self {
            turn: turn::read(&mut fields, &messages)?,
            verbose: fields.take("verbose")?.unwrap_or(false),
            messages,
            tools,
            format: format::read(&mut fields)?,
            thinking: Thinking::read(&mut fields)?,
            logprobs: logprobs(&mut fields)?,
            asked: Asked::read(&mut fields, server).await?,
        };
        fields.only("modalities", &[serde_json::json!(["text"])])?;
        fields.finish()?;
        Ok(asking)
    }

    /// How the request of each reply is made.
    fn make(self) -> Arc<Make> {
        Arc::new(move |model, choice| {
            let input = opened(&self.messages, model);
            let request = self.asked.request(input, model, choice)?;
            Ok(request
                .turn(self.turn)?
                .tools(self.tools.clone())?
                .format(self.format.clone())?
                .think(self.thinking.think)
                .template_variables(self.thinking.variables.clone())
                .logprobs(self.logprobs)?)
        })
    }
}

/// Takes `logprobs` and `top_logprobs`.
fn logprobs(fields: &mut Fields) -> Answer<Option<u32>> {
    let wanted = fields.take("logprobs")?.unwrap_or(false);
    match fields.first(&["top_logprobs", "n_probs"])? {
        Some(top) if wanted || top == 0 => Ok(wanted.then_some(top)),
        Some(_) => {
            let text = "top_logprobs requires logprobs to be set to true";
            Err(Refusal::invalid(Some("top_logprobs"), text))
        }
        None => Ok(wanted.then_some(0)),
    }
}

/// A whole answer.
async fn whole(mut choices: Choices, tell: Tell) -> Result<wire::Chat, Problem> {
    let mut said: Vec<Said> = (0..tell.count).map(|_| Said::default()).collect();
    let mut account = Account::default();
    while let Some((index, event)) = choices.next().await? {
        if let Event::Done(done) = &event {
            account.add(done, index == 0);
        }
        said[index].hear(event);
    }
    let timings = said[0].finish.done.as_ref().map(timings::of);
    let choice = |(index, said): (usize, Said)| said.choice(index, tell.logprobs);
    Ok(wire::Chat {
        id: tell.id,
        object: "chat.completion",
        created: tell.created,
        model: tell.model,
        choices: said.into_iter().enumerate().map(choice).collect::<Result<_, _>>()?,
        usage: account.usage(),
        system_fingerprint: wire::FINGERPRINT,
        timings,
        verbose: tell.verbose,
    })
}

/// What was said in one reply.
#[derive(Debug, Default)]
struct Said {
    text: String,
    thinking: String,
    calls: Vec<ToolCall>,
    pending: ChatLogprobs,
    logprobs: Vec<wire::Logprob>,
    finish: Finish,
}

impl Said {
    fn hear(&mut self, event: Event) {
        self.finish.hear(&event);
        match event {
            Event::Reading(_) | Event::Read { .. } | Event::Done(_) => {}
            Event::Token(chances) => self.pending.token(*chances),
            Event::Text(text) => {
                self.text.push_str(&text);
                self.logprobs.append(&mut self.pending.take());
            }
            Event::Thinking(text) => {
                self.thinking.push_str(&text);
                self.pending.forget();
            }
            Event::ToolCall(call) => {
                self.calls.push(call);
                self.pending.forget();
            }
        }
    }

    fn choice(self, index: usize, logprobs: bool) -> Result<wire::Choice, Problem> {
        let thinking = (!self.thinking.is_empty()).then_some(self.thinking);
        let said_nothing = self.text.is_empty() && !self.calls.is_empty();
        let message = wire::Message {
            role: "assistant",
            content: (!said_nothing).then_some(self.text),
            refusal: None,
            reasoning_content: thinking.clone(),
            reasoning: thinking,
            tool_calls: self.calls.into_iter().map(call).collect(),
        };
        Ok(wire::Choice {
            index,
            message,
            logprobs: logprobs.then(|| wrapped(self.logprobs)),
            finish_reason: self.finish.reason()?,
        })
    }
}

fn call(call: ToolCall) -> wire::Call {
    let arguments = finish::arguments(&call);
    let function = wire::Function { name: call.name, arguments };
    wire::Call { id: call.id, kind: "function", function }
}

/// Tells of a chat, piece by piece.
#[derive(Debug)]
struct Tell {
    id: String,
    created: u64,
    model: String,
    count: usize,
    logprobs: bool,
    delivery: Delivery,
    clock: Clock,
    account: Account,
    replies: Vec<Told>,
    last: Option<wire::Timings>,
    verbose: Option<wire::Prompt>,
}

/// What was told of one reply.
#[derive(Debug, Default)]
struct Told {
    has_begun: bool,
    calls: usize,
    pending: ChatLogprobs,
    finish: Finish,
}

impl Tell {
    fn new(asking: &Asking) -> Self {
        Self {
            id: ids::fresh("chatcmpl-"),
            created: now(),
            model: asking.asked.model.asked.clone(),
            count: asking.asked.choices,
            logprobs: asking.logprobs.is_some(),
            delivery: asking.asked.delivery,
            clock: Clock::start(),
            account: Account::default(),
            replies: (0..asking.asked.choices).map(|_| Told::default()).collect(),
            last: None,
            verbose: None,
        }
    }

    fn chunk(&self, choices: Vec<ChunkChoice>) -> Chunk {
        Chunk {
            id: self.id.clone(),
            object: "chat.completion.chunk",
            created: self.created,
            model: self.model.clone(),
            system_fingerprint: wire::FINGERPRINT,
            choices,
            usage: if self.delivery.usage { Field::Null } else { Field::Missing },
            timings: None,
            prompt_progress: None,
            verbose: None,
        }
    }

    fn piece(&self, index: usize, delta: Delta, logprobs: Option<wire::Logprobs>) -> Chunk {
        let choice = ChunkChoice { index, delta, logprobs, finish_reason: None };
        let timings = self.delivery.timings.then(|| self.clock.timings());
        Chunk { timings, ..self.chunk(vec![choice]) }
    }

    fn begin(&mut self, index: usize) -> Option<Chunk> {
        if std::mem::replace(&mut self.replies[index].has_begun, true) {
            return None;
        }
        let delta = Delta { role: Some("assistant"), content: Field::Null, ..Delta::default() };
        let choice = ChunkChoice { index, delta, logprobs: None, finish_reason: None };
        let progress = self.delivery.progress.then(|| self.clock.progress());
        let verbose = self.verbose.take();
        Some(Chunk { prompt_progress: progress, verbose, ..self.chunk(vec![choice]) })
    }

    /// A call in two pieces, as clients expect it: what is called, then with what.
    fn call(&mut self, index: usize, call: ToolCall) -> [Chunk; 2] {
        let number = self.replies[index].calls;
        self.replies[index].calls += 1;
        let arguments = finish::arguments(&call);
        let piece = |id, kind, name, arguments| {
            let function = DeltaFunction { name, arguments };
            let call = DeltaCall { index: number, id, kind, function };
            self.piece(index, Delta { tool_calls: Some([call]), ..Delta::default() }, None)
        };
        [
            piece(Some(call.id), Some("function"), Some(call.name), String::new()),
            piece(None, None, None, arguments),
        ]
    }
}

impl Telling for Tell {
    type Piece = Chunk;

    fn tell(&mut self, index: usize, event: Event) -> Result<Vec<Chunk>, Problem> {
        self.clock.hear(&event);
        self.replies[index].finish.hear(&event);
        if let Event::Reading(_) = event {
            return Ok(Vec::new());
        }
        let mut chunks: Vec<Chunk> = self.begin(index).into_iter().collect();
        match event {
            Event::Reading(_) | Event::Read { .. } => {}
            Event::Token(chances) => self.replies[index].pending.token(*chances),
            Event::Text(text) => {
                let logprobs = self.logprobs.then(|| wrapped(self.replies[index].pending.take()));
                let delta = Delta { content: Field::Value(text), ..Delta::default() };
                chunks.push(self.piece(index, delta, logprobs));
            }
            Event::Thinking(text) => {
                self.replies[index].pending.forget();
                let reasoning_content = Some(text.clone());
                let delta = Delta { reasoning_content, reasoning: Some(text), ..Delta::default() };
                chunks.push(self.piece(index, delta, None));
            }
            Event::ToolCall(call) => {
                self.replies[index].pending.forget();
                chunks.extend(self.call(index, call));
            }
            Event::Done(done) => {
                self.account.add(&done, index == 0);
                let finish_reason = Some(self.replies[index].finish.reason()?);
                let delta = Delta::default();
                let choice = ChunkChoice { index, delta, logprobs: None, finish_reason };
                self.last = Some(timings::of(&done));
                let last = self.last.filter(|_| !self.delivery.usage);
                chunks.push(Chunk { timings: last, ..self.chunk(vec![choice]) });
            }
        }
        Ok(chunks)
    }

    fn end(&mut self) -> Vec<Chunk> {
        if !self.delivery.usage {
            return Vec::new();
        }
        let usage = Field::Value(self.account.usage());
        vec![Chunk { usage, timings: self.last, ..self.chunk(Vec::new()) }]
    }
}
