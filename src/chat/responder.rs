//! A loaded model that answers: the engine, the model's chat template and its own sampling defaults.

use std::collections::HashMap;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use nfl_models::Hint;
use nfl_models::gguf::{Gguf, GgufError, Metadata};
use nfl_models::template::{self, ChatTemplate, Clock, Conversation, TemplateError};
use thiserror::Error;

use super::event::{Event, TokenChance, TokenChances};
use super::request::{Input, Message, Request, RequestError};
use crate::engine::frames::{self, Done, Generation, LoadInfo, Prompt};
use crate::engine::llama::Logprobs;
use crate::engine::options::{LoadRequest, Sampling};
use crate::engine::process::{Engine, EngineError};
use crate::engine::runner::{Cancel, Runner};

/// Answers requests with one loaded model. Any number of threads may ask at the same time.
#[derive(Debug)]
pub struct Responder {
    runner: Box<dyn Runner>,
    template: Option<ChatTemplate>,
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
    /// Loads a model into a worker process. `on_progress` gets the share that is loaded, 0 to 1, and says whether to go on.
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

    /// Puts another chat template in the place of the file's.
    pub fn set_template(&mut self, template: &str) -> Result<(), ChatError> {
        self.template = Some(ChatTemplate::parse(template)?);
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
        let generation = Generation {
            prompt: self.prompt(&request.input)?,
            sampling: request.sampling.clone(),
            stop: request.stop.clone(),
            tokens_max: request.tokens_max,
            ignore_end: request.ignore_end,
            special: false,
            shift: request.shift,
            speculation: request.speculation,
            logprobs: request.logprobs,
            steering: request.steering.clone(),
            client: request.client,
        };
        let done = self.runner.generate(&generation, cancel, &mut |event| match event {
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
                    ControlFlow::Continue(())
                } else {
                    on_event(Event::Text(text))
                }
            }
            _ => ControlFlow::Continue(()),
        })?;
        // The reply is over: nobody can stop it any more.
        let _ = on_event(Event::Done(done));
        Ok(done)
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

    fn prompt(&self, input: &Input) -> Result<Prompt, ChatError> {
        match input {
            Input::Text(text) => {
                Ok(Prompt::Text { text: text.clone(), add_special: true, parse_special: false })
            }
            Input::Tokens(tokens) => Ok(Prompt::Tokens(tokens.clone())),
            Input::Infill { prefix, suffix } => {
                Ok(Prompt::Infill { prefix: prefix.clone(), suffix: suffix.clone() })
            }
            Input::Conversation(messages) => {
                let text = self.render(messages)?;
                // Most templates write the begin-of-sequence token themselves; two of them would confuse the model.
                let begins = self.begin().is_some_and(|begin| text.starts_with(begin));
                Ok(Prompt::Text { text, add_special: !begins, parse_special: true })
            }
        }
    }

    fn begin(&self) -> Option<&str> {
        self.info().begin.as_ref().map(|token| token.text.as_str()).filter(|text| !text.is_empty())
    }

    fn render(&self, messages: &[Message]) -> Result<String, ChatError> {
        let template = self.template.as_ref().ok_or(ChatError::NoTemplate)?;
        let messages: Vec<serde_json::Value> = messages
            .iter()
            .map(|message| serde_json::json!({"role": message.role.name(), "content": message.content}))
            .collect();
        let conversation = Conversation {
            messages: &messages,
            tools: None,
            bos_token: self.begin().unwrap_or(""),
            eos_token: self.info().end.as_ref().map_or("", |token| token.text.as_str()),
            add_generation_prompt: true,
            extra: serde_json::Map::new(),
            now: Clock::now_utc(),
        };
        Ok(template.render(&conversation)?)
    }
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
