//! A loaded model that answers: the engine, the model's chat template and its own sampling defaults.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use nfl_models::Hint;
use nfl_models::gguf::{Gguf, GgufError, Metadata};
use nfl_models::template::{self, ChatTemplate, TemplateError};
use serde_json::Value;
use thiserror::Error;

use super::event::{Event, TokenChance, TokenChances};
use super::form::Turn;
use super::plan::{self, Begun, Plan};
use super::prompt::{self, Shield};
use super::request::{Input, Message, Request, RequestError};
use super::syntax::{Piece, Stream};
use super::template::{Capabilities, Setting, Template};
use super::tools::ToolCall;
use crate::engine::frames::{self, Done, Generation, LoadInfo, Prompt};
use crate::engine::llama::Logprobs;
use crate::engine::options::{LoadRequest, Sampling};
use crate::engine::process::{Engine, EngineError};
use crate::engine::runner::{Cancel, Runner};

/// Answers requests with one loaded model. Any number of threads may ask at the same time.
#[derive(Debug)]
pub struct Responder {
    runner: Box<dyn Runner>,
    template: Option<Template>,
    sampling: Sampling,
    /// The bytes of tokens that were asked for, by number.
    pieces: Mutex<HashMap<i32, Vec<u8>>>,
}

/// Why there is no reply.
#[derive(Debug, Error)]
pub enum ChatError {
    /// The file is not a model that we would hand to llama.cpp.
    #[error(transparent)]
    File(#[from] GgufError),
    /// The request makes no sense.
    #[error(transparent)]
    Request(#[from] RequestError),
    /// The model's chat template cannot be used.
    #[error(transparent)]
    Template(#[from] TemplateError),
    /// A conversation was given to a model without a chat template.
    #[error("the model has no chat template")]
    NoTemplate,
    /// The engine failed.
    #[error(transparent)]
    Engine(#[from] EngineError),
}

impl Hint for ChatError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::File(error) => error.hint(),
            Self::Request(error) => error.hint(),
            Self::Template(error) => error
                .hint()
                .or_else(|| Some("use --raw to continue the text without a template".to_owned())),
            Self::NoTemplate => Some("let the model continue a text instead".to_owned()),
            Self::Engine(error) => error.hint(),
        }
    }
}

impl Responder {
    /// Loads a model into a worker process. `on_progress` gets the share that is loaded, 0 to 1, and says whether to
    /// go on.
    pub fn start(
        program: &Path,
        load: &LoadRequest,
        on_progress: &mut dyn FnMut(f32) -> ControlFlow<()>,
    ) -> Result<Self, ChatError> {
        let file = Gguf::open(&load.path)?;
        let template =
            file.metadata().text(template::METADATA_KEY).map(ChatTemplate::parse).transpose()?;
        let sampling = sampling_of(file.metadata());
        drop(file);
        let engine = Engine::start(program, load, on_progress)?;
        Ok(Self::with(Box::new(engine), template, sampling))
    }

    /// Answers with what runs a model already.
    pub fn with(
        runner: Box<dyn Runner>,
        template: Option<ChatTemplate>,
        sampling: Sampling,
    ) -> Self {
        let template = template.map(Template::new);
        Self { runner, template, sampling, pieces: Mutex::default() }
    }

    /// What was loaded.
    pub fn info(&self) -> &LoadInfo {
        self.runner.info()
    }

    /// What runs the model, for what is not a reply.
    pub fn runner(&self) -> &dyn Runner {
        &*self.runner
    }

    /// Whether the model answers conversations.
    pub fn has_template(&self) -> bool {
        self.template.is_some()
    }

    /// What the chat template lets the model do; None without a template.
    pub fn capabilities(&self) -> Option<Capabilities> {
        self.template.as_ref().map(Template::capabilities)
    }

    /// Puts another chat template in the place of the file's.
    pub fn set_template(&mut self, template: &str) -> Result<(), ChatError> {
        self.template = Some(Template::new(ChatTemplate::parse(template)?));
        Ok(())
    }

    /// The sampling that the model's makers recommend, our defaults where they are silent.
    pub fn sampling(&self) -> &Sampling {
        &self.sampling
    }

    /// Unloads the model. What was computed is saved when the load request names a place for it.
    pub fn unload(self) -> Result<(), ChatError> {
        Ok(self.runner.unload()?)
    }

    /// Starts a fresh worker after the last one died.
    pub fn restart(&mut self) -> Result<(), ChatError> {
        Ok(self.runner.restart()?)
    }

    /// Answers a request; events arrive as they happen, the last one is [`Event::Done`]. Returning
    /// [`ControlFlow::Break`] stops the reply, as `cancel` does from another thread.
    pub fn reply(
        &self,
        request: &Request,
        cancel: &Cancel,
        on_event: &mut dyn FnMut(Event) -> ControlFlow<()>,
    ) -> Result<Done, ChatError> {
        let (prompt, plan) = self.prepare(request)?;
        let mut sampling = request.sampling.clone();
        if let Some((constraint, triggers)) = plan.constraint {
            sampling.constraint = Some(constraint);
            sampling.triggers = triggers;
        }
        let generation = Generation {
            prompt,
            sampling,
            stop: request.stop.clone(),
            tokens_max: request.tokens_max,
            ignore_end: request.ignore_end,
            special: false,
            shown: plan.shown,
            shift: request.shift,
            speculation: request.speculation,
            logprobs: request.logprobs,
            steering: request.steering.clone(),
            client: request.client,
        };
        let tools = if plan.family.is_some() { &*request.tools.list } else { &[] };
        let mut stream = Stream::new(plan.family, plan.thinking, tools);
        let mut pieces = Vec::new();
        if plan.speaks {
            stream.go_on();
        }
        stream.push(plan.begun, &mut |piece| pieces.push(piece));
        let mut is_heard = true;
        let done = self.runner.generate(&generation, cancel, &mut |event| {
            let answer = self.pass_on(event, (&mut stream, &mut pieces), on_event);
            is_heard &= answer.is_continue();
            answer
        })?;
        stream.finish(&mut |piece| pieces.push(piece));
        for piece in pieces.drain(..) {
            is_heard = is_heard && on_event(event_of(piece)).is_continue();
        }
        // The reply is over: nobody can stop it any more.
        let _ = on_event(Event::Done(done));
        Ok(done)
    }

    /// Tells of what the runner did.
    fn pass_on(
        &self,
        event: frames::Event,
        (stream, pieces): (&mut Stream, &mut Vec<Piece>),
        on_event: &mut dyn FnMut(Event) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        match event {
            frames::Event::Progress(share) => on_event(Event::Reading(share)),
            frames::Event::PromptDone { tokens, cached_tokens, .. } => {
                on_event(Event::Read { tokens, cached_tokens })
            }
            frames::Event::Token { id, text, logprobs } => {
                if let (Some(id), Some(logprobs)) = (id, logprobs) {
                    let Ok(chances) = self.chances(id, &logprobs) else {
                        return ControlFlow::Break(());
                    };
                    on_event(Event::Token(Box::new(chances)))?;
                }
                if text.is_empty() {
                    return ControlFlow::Continue(());
                }
                stream.push(&text, &mut |piece| pieces.push(piece));
                pieces.drain(..).try_for_each(|piece| on_event(event_of(piece)))
            }
            _ => ControlFlow::Continue(()),
        }
    }

    /// What the model thought of a token, with the bytes of all tokens that are named.
    fn chances(&self, id: i32, logprobs: &Logprobs) -> Result<TokenChances, EngineError> {
        let chance = |id: i32, logprob: f32| -> Result<TokenChance, EngineError> {
            Ok(TokenChance { id, bytes: self.piece(id)?, logprob })
        };
        let top = logprobs.top.iter().map(|(id, logprob)| chance(*id, *logprob));
        Ok(TokenChances {
            chosen: chance(id, logprobs.logprob)?,
            top: top.collect::<Result<_, _>>()?,
        })
    }

    /// The bytes of a token.
    pub fn piece(&self, id: i32) -> Result<Vec<u8>, EngineError> {
        let pieces = || self.pieces.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = pieces().get(&id) {
            return Ok(known.clone());
        }
        let bytes = self.runner.detokenize(&[id], true)?;
        pieces().insert(id, bytes.clone());
        Ok(bytes)
    }

    /// The text that a request's conversation becomes; of other requests, the text to continue.
    ///
    /// # Errors
    /// [`ChatError`] when the template refuses it, or the model cannot do what is asked.
    pub fn render(&self, request: &Request) -> Result<String, ChatError> {
        match &request.input {
            Input::Conversation(messages) => {
                let (text, shield) = self.rendered(messages, request)?;
                Ok(shield.uncovered(&text))
            }
            Input::Text(text) => Ok(text.clone()),
            Input::Tokens(tokens) => {
                let bytes = self.runner.detokenize(tokens, true)?;
                Ok(String::from_utf8_lossy(&bytes).into_owned())
            }
            Input::Infill { prefix, suffix } => Ok(format!("{prefix}{suffix}")),
        }
    }

    /// The tokens of a request's prompt; of a gap, those of the text around it.
    pub fn prompt_tokens(&self, request: &Request) -> Result<Vec<i32>, ChatError> {
        Ok(match self.prepare(request)?.0 {
            Prompt::Tokens(tokens) => tokens,
            Prompt::Text { text, add_special, parse_special } => {
                self.runner.tokenize(&text, add_special, parse_special)?
            }
            Prompt::Infill { prefix, suffix } => {
                self.runner.tokenize(&format!("{prefix}{suffix}"), true, false)?
            }
        })
    }

    /// What goes to the runner, and how its reply is held and read.
    fn prepare(&self, request: &Request) -> Result<(Prompt, Plan), ChatError> {
        let (add_special, parse_special) = (true, false);
        let prompt = match &request.input {
            Input::Conversation(messages) => return self.conversation(messages, request),
            Input::Text(text) => Prompt::Text { text: text.clone(), add_special, parse_special },
            Input::Tokens(tokens) => Prompt::Tokens(tokens.clone()),
            Input::Infill { prefix, suffix } => {
                Prompt::Infill { prefix: prefix.clone(), suffix: suffix.clone() }
            }
        };
        Ok((prompt, Plan::of_text(request)?))
    }

    fn conversation(
        &self,
        messages: &[Message],
        request: &Request,
    ) -> Result<(Prompt, Plan), ChatError> {
        let template = self.template.as_ref().ok_or(ChatError::NoTemplate)?;
        let (text, shield) = self.rendered(messages, request)?;
        let plan = Plan::new(template, request, &text, &self.info().control)?;
        // Most templates write the begin-of-sequence token themselves; two of them would confuse the model.
        let add_special = !self.begin().is_some_and(|begin| text.starts_with(begin));
        let prompt = if shield.is_empty() {
            Prompt::Text { text, add_special, parse_special: true }
        } else {
            Prompt::Tokens(prompt::tokens(&*self.runner, &shield.segments(&text), add_special)?)
        };
        Ok((prompt, plan))
    }

    fn begin(&self) -> Option<&str> {
        self.info().begin.as_ref().map(|token| token.text.as_str()).filter(|text| !text.is_empty())
    }

    /// The text of a conversation, with stand-ins for texts of special tokens that the template did not write.
    fn rendered(
        &self,
        messages: &[Message],
        request: &Request,
    ) -> Result<(String, Shield<'_>), ChatError> {
        let template = self.template.as_ref().ok_or(ChatError::NoTemplate)?;
        template.check_think(request.think, request.tools.are_offered())?;
        plan::check_begun(template, request)?;
        let mut tools = None;
        let mut messages = match plan::family(template, request)? {
            None => template.messages(messages),
            Some(family) => {
                let offered = &request.tools.list;
                tools = template.tools(offered);
                template.messages(&template.with_tools_told(messages, offered, family))
            }
        };
        let variables = Value::Object(request.template_variables.clone());
        let mut all: Vec<&Value> = messages.iter().chain(&tools).collect();
        all.push(&variables);
        let mut shield = Shield::new(&self.info().control, &all);
        messages.iter_mut().chain(&mut tools).for_each(|value| shield.cover(value));
        let variables = shield.covered(request.template_variables.clone());
        let setting = Setting {
            think: request.think,
            variables: &variables,
            begin: self.begin().unwrap_or(""),
            end: self.info().end.as_ref().map_or("", |token| token.text.as_str()),
        };
        let text = match Begun::of(request) {
            Begun::Nothing => {
                template.render(&messages, tools, &setting, request.turn != Turn::Unopened)?
            }
            Begun::Thoughts(thoughts) => {
                messages.pop();
                let mut thoughts = Value::from(thoughts);
                shield.cover(&mut thoughts);
                let thoughts = thoughts.as_str().unwrap_or_default();
                template.render_thoughts(&messages, tools, &setting, thoughts)?
            }
            Begun::Text => template.render_begun(&messages, tools, &setting, &shield.mark())?,
        };
        Ok((text, shield))
    }
}

/// A part of a reply as an event; a call without an identifier gets one.
fn event_of(piece: Piece) -> Event {
    match piece {
        Piece::Thinking(text) => Event::Thinking(text),
        Piece::Text(text) => Event::Text(text),
        Piece::Call(id, name, arguments) => {
            Event::ToolCall(ToolCall { id: id.unwrap_or_else(new_id), name, arguments })
        }
    }
}

/// An identifier of nine letters and digits: some templates accept no other.
fn new_id() -> String {
    let mut random = RandomState::new().build_hasher().finish();
    let digit = |_| {
        let digit = char::from_digit((random % 36) as u32, 36).unwrap_or('0');
        random /= 36;
        digit
    };
    (0..9).map(digit).collect()
}

/// The sampling settings that a file recommends (`general.sampling.*`, written by converters from
/// `generation_config.json`), our defaults elsewhere.
fn sampling_of(metadata: &Metadata) -> Sampling {
    let default = Sampling::default();
    let float = |name: &str, otherwise: f32| {
        metadata
            .f32(&format!("general.sampling.{name}"))
            .filter(|value| value.is_finite())
            .unwrap_or(otherwise)
    };
    let sampling = Sampling {
        temperature: float("temp", default.temperature),
        top_k: metadata.u32("general.sampling.top_k").unwrap_or(default.top_k),
        top_p: float("top_p", default.top_p),
        min_p: float("min_p", default.min_p),
        repeat_penalty: float("penalty_repeat", default.repeat_penalty),
        ..default.clone()
    };
    // A file's recommendation that makes no sense is no reason to refuse the model.
    if sampling.check().is_ok() { sampling } else { default }
}
