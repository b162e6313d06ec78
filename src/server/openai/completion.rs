//! `POST /v1/completions`: texts and tokens continued as they stand.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use serde_json::Value;

use super::asked::{Asked, Delivery, now};
use super::choices::{Choices, Make};
use super::echo::Echo;
use super::embeddings::Leaving;
use super::fields::Fields;
use super::finish::Finish;
use super::format;
use super::forms;
use super::ids;
use super::logprobs::TextLogprobs;
use super::prompt::{self, Prompt};
use super::refusal::{Answer, Refusal};
use super::stream::{self, Telling};
use super::timings::{self, Account, Clock};
use super::wire::{self, Completion, CompletionChoice, Field};
use crate::chat::{Event, Format, Input};
use crate::engine::frames::Reason;
use crate::server::Server;
use crate::server::body;
use crate::server::problem::Problem;
use crate::server::reply::blocking;

/// Texts to continue.
#[derive(Debug)]
struct Asking {
    asked: Asked,
    prompts: Vec<Prompt>,
    suffix: Option<String>,
    format: Format,
    echo: bool,
    logprobs: Option<u32>,
    /// Replies of which the likeliest are given.
    best_of: usize,
}

pub(super) async fn create(State(server): State<Arc<Server>>, fields: Fields) -> Answer<Response> {
    let asking = Asking::read(&server, fields).await?;
    let delivery = asking.asked.delivery;
    let echoes = asking.echoes(&server).await?;
    let tell = Tell::new(&asking, echoes);
    if asking.asked.tokens_max == Some(0) {
        return Ok(body::json(200, &tell.nothing()));
    }
    let choices = asking.start(&server)?;
    if delivery.stream {
        return stream::answer(choices, tell, delivery.ping).await;
    }
    Ok(body::json(200, &whole(choices, tell).await?))
}

impl Asking {
    async fn read(server: &Arc<Server>, mut fields: Fields) -> Answer<Self> {
        fields.keep_to(&forms::COMPLETION)?;
        let prompts = prompt::read(&fields.need::<Value>("prompt")?, "prompt")?;
        let suffix = fields.take::<String>("suffix")?.filter(|suffix| !suffix.is_empty());
        let echo = fields.take("echo")?.unwrap_or(false);
        let logprobs = fields.first(&["logprobs", "n_probs"])?;
        let format = format::read(&mut fields)?;
        let best_of = fields.take::<usize>("best_of")?;
        let asked = Asked::read(&mut fields, server).await?;
        fields.finish()?;
        let best_of = best_of.unwrap_or(asked.choices);
        let asking = Self { asked, prompts, suffix, format, echo, logprobs, best_of };
        asking.check()?;
        Ok(asking)
    }

    /// What does not go together.
    fn check(&self) -> Answer<()> {
        let refuse =
            |param, text: &str| Err(Refusal::invalid(Some(param), format!("{param}: {text}")));
        let (choices, stream) = (self.asked.choices, self.asked.delivery.stream);
        if self.best_of < choices || self.best_of > 20.max(choices) {
            return refuse("best_of", "must be n to 20");
        }
        if self.best_of > choices && stream {
            return refuse(
                "best_of",
                "the best replies are known at the end: they cannot be streamed",
            );
        }
        if stream && self.asked.tokens_max == Some(0) {
            return refuse("max_tokens", "0 tokens leave nothing to stream");
        }
        if self.suffix.is_some() && (self.echo || !self.prompts.iter().all(is_text)) {
            return refuse("suffix", "goes with texts that are not echoed");
        }
        Ok(())
    }

    /// The prompts as they come back, in their order: nothing of them when that was not asked.
    async fn echoes(&self, server: &Arc<Server>) -> Answer<Vec<Echo>> {
        if !self.echo && self.asked.tokens_max != Some(0) {
            return Ok(self.prompts.iter().map(|_| Echo::default()).collect());
        }
        let ask = self.asked.model.ask();
        let leaving = Leaving(ask.cancel.clone());
        let (prompts, echo, logprobs) = (self.prompts.clone(), self.echo, self.logprobs);
        let server = Arc::clone(server);
        let echoes = blocking(move || {
            let lease = server.pool.acquire(&ask)?;
            let mut echoes = Vec::with_capacity(prompts.len());
            for prompt in &prompts {
                if ask.cancel.is_requested() {
                    break;
                }
                let found = Echo::of(prompt, &lease, logprobs.filter(|_| echo))?;
                echoes.push(if echo {
                    found
                } else {
                    Echo { tokens: found.tokens, ..Echo::default() }
                });
            }
            Ok(echoes)
        });
        let echoes = echoes.await?;
        drop(leaving);
        Ok(echoes)
    }

    fn start(self, server: &Arc<Server>) -> Result<Choices, Problem> {
        let ask = self.asked.model.ask();
        let counts = (self.prompts.len(), self.best_of);
        // The best are those whose tokens were likeliest.
        let logprobs = self.logprobs.or((self.best_of > self.asked.choices).then_some(0));
        // Clients that measure ask for one token behind the prompt and leave out the last entry of the lists: it has to
        // be there when the model would rather end.
        let measures = self.echo && self.logprobs.is_some() && self.asked.tokens_max == Some(1);
        let make: Arc<Make> = Arc::new(move |model, index| {
            let prompt = &self.prompts[index / self.best_of];
            let input = match (&self.suffix, prompt) {
                (Some(suffix), Prompt::Text(prefix)) => {
                    Input::Infill { prefix: prefix.clone(), suffix: suffix.clone() }
                }
                _ => prompt.input(model.map(|lease| &**lease))?,
            };
            let request = self.asked.request(input, model, index % self.best_of)?;
            let request = if measures { request.ignore_end(true) } else { request };
            Ok(request.format(self.format.clone())?.logprobs(logprobs)?)
        });
        Choices::start(server, ask, counts, make)
    }
}

fn is_text(prompt: &Prompt) -> bool {
    matches!(prompt, Prompt::Text(_))
}

/// A whole answer.
async fn whole(mut choices: Choices, mut tell: Tell) -> Result<Completion, Problem> {
    while let Some((index, event)) = choices.next().await? {
        tell.hear(index, event);
    }
    let usage = tell.account.usage();
    let (each, best_of, logprobs) = (tell.each, tell.best_of, tell.logprobs);
    let timings = tell.replies.first().and_then(|said| said.finish.done.as_ref().map(timings::of));
    let mut replies = std::mem::take(&mut tell.replies);
    let mut found = Vec::new();
    for _ in 0..replies.len() / best_of {
        let mut group: Vec<Said> = replies.drain(..best_of).collect();
        if best_of > each {
            group.sort_by(|one, other| other.likelihood().total_cmp(&one.likelihood()));
            group.truncate(each);
        }
        found.append(&mut group);
    }
    let choices = found.into_iter().enumerate().map(|(index, mut said)| {
        let finish_reason = Some(said.finish.reason()?);
        let logprobs = logprobs.then(|| said.logprobs.take());
        Ok(CompletionChoice { index, text: said.text, logprobs, finish_reason })
    });
    let choices = choices.collect::<Result<_, Problem>>()?;
    Ok(Completion { usage: Field::Value(usage), timings, ..tell.piece(choices) })
}

/// What was said in one reply.
#[derive(Debug, Default)]
struct Said {
    text: String,
    logprobs: TextLogprobs,
    /// The sum over the tokens of the reply, and their number.
    likelihood: (f64, u32),
    has_begun: bool,
    finish: Finish,
}

impl Said {
    fn likelihood(&self) -> f64 {
        self.likelihood.0 / f64::from(self.likelihood.1.max(1))
    }
}

/// Tells of completions, piece by piece.
#[derive(Debug)]
struct Tell {
    id: String,
    created: u64,
    model: String,
    logprobs: bool,
    /// Replies to each prompt that are given, and that are made.
    each: usize,
    best_of: usize,
    delivery: Delivery,
    clock: Clock,
    account: Account,
    echoes: Vec<Echo>,
    replies: Vec<Said>,
    last: Option<wire::Timings>,
}

impl Tell {
    fn new(asking: &Asking, echoes: Vec<Echo>) -> Self {
        let count = asking.prompts.len() * asking.best_of;
        Self {
            id: ids::fresh("cmpl-"),
            created: now(),
            model: asking.asked.model.asked.clone(),
            logprobs: asking.logprobs.is_some(),
            each: asking.asked.choices,
            best_of: asking.best_of,
            delivery: asking.asked.delivery,
            clock: Clock::start(),
            account: Account::default(),
            echoes,
            replies: (0..count).map(|_| Said::default()).collect(),
            last: None,
        }
    }

    fn piece(&self, choices: Vec<CompletionChoice>) -> Completion {
        Completion {
            id: self.id.clone(),
            object: "text_completion",
            created: self.created,
            model: self.model.clone(),
            system_fingerprint: wire::FINGERPRINT,
            choices,
            usage: if self.delivery.usage { Field::Null } else { Field::Missing },
            timings: None,
            prompt_progress: None,
        }
    }

    /// The answer to those who want no token: prompts that are read, and come back when they asked for it.
    fn nothing(mut self) -> Completion {
        let mut choices = Vec::new();
        for echo in &self.echoes {
            self.account.read(echo.tokens);
            for _ in 0..self.each {
                let mut logprobs = TextLogprobs::default();
                echo.tell(&mut logprobs);
                choices.push(CompletionChoice {
                    index: choices.len(),
                    text: echo.text.clone(),
                    logprobs: self.logprobs.then(|| logprobs.take()),
                    finish_reason: Some("length"),
                });
            }
        }
        Completion { usage: Field::Value(self.account.usage()), ..self.piece(choices) }
    }

    fn hear(&mut self, index: usize, event: Event) {
        self.clock.hear(&event);
        let said = &mut self.replies[index];
        said.finish.hear(&event);
        if !said.has_begun && !matches!(event, Event::Reading(_)) {
            said.has_begun = true;
            let echo = &self.echoes[index / self.best_of];
            said.text.push_str(&echo.text);
            echo.tell(&mut said.logprobs);
            said.logprobs.has_text();
        }
        match event {
            Event::Token(chances) => {
                said.likelihood.0 += f64::from(chances.chosen.logprob);
                said.likelihood.1 += 1;
                said.logprobs.token(&chances.chosen, Some(&chances.top));
            }
            Event::Text(text) | Event::Thinking(text) => {
                said.text.push_str(&text);
                said.logprobs.has_text();
            }
            Event::Done(done) => {
                self.account.add(&done, index.is_multiple_of(self.best_of));
                self.last = Some(timings::of(&done));
                if done.reason == Reason::Stop {
                    // They are the stop string, which is no part of the text.
                    said.logprobs.forget_textless();
                }
            }
            Event::Reading(_) | Event::Read { .. } | Event::ToolCall(_) => {}
        }
    }

    /// The piece with what has come of a reply since the last one.
    fn news(&mut self, index: usize, finish_reason: Option<&'static str>) -> Completion {
        let said = &mut self.replies[index];
        let text = std::mem::take(&mut said.text);
        let logprobs = self.logprobs.then(|| said.logprobs.take());
        let logprobs = logprobs.filter(|logprobs| !logprobs.tokens.is_empty());
        let choice = CompletionChoice { index, text, logprobs, finish_reason };
        let timings = self.delivery.timings.then(|| self.clock.timings());
        Completion { timings, ..self.piece(vec![choice]) }
    }
}

impl Telling for Tell {
    type Piece = Completion;

    fn tell(&mut self, index: usize, event: Event) -> Result<Vec<Completion>, Problem> {
        let is_read = matches!(event, Event::Read { .. });
        let is_over = matches!(event, Event::Done(_));
        self.hear(index, event);
        if is_over {
            let reason = self.replies[index].finish.reason()?;
            let timings = self.last.filter(|_| !self.delivery.usage);
            return Ok(vec![Completion { timings, ..self.news(index, Some(reason)) }]);
        }
        if is_read && self.delivery.progress {
            let prompt_progress = Some(self.clock.progress());
            return Ok(vec![Completion { prompt_progress, ..self.news(index, None) }]);
        }
        if self.replies[index].text.is_empty() {
            return Ok(Vec::new());
        }
        Ok(vec![self.news(index, None)])
    }

    fn end(&mut self) -> Vec<Completion> {
        if !self.delivery.usage {
            return Vec::new();
        }
        let usage = Field::Value(self.account.usage());
        vec![Completion { usage, timings: self.last, ..self.piece(Vec::new()) }]
    }
}
