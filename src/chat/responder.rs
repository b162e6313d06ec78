//! A loaded model that answers: the engine, the model's chat template and its own sampling defaults.

use std::ops::ControlFlow;
use std::path::Path;

use nfl_models::Hint;
use nfl_models::gguf::{Gguf, GgufError, Metadata};
use nfl_models::template::{self, ChatTemplate, Clock, Conversation, TemplateError};
use thiserror::Error;

use super::event::Event;
use super::request::{Input, Message, Request, RequestError};
use crate::engine::frames::{self, Done, Generation, LoadInfo, Prompt};
use crate::engine::options::{LoadRequest, Sampling};
use crate::engine::process::{CancelHandle, Engine, EngineError};

/// Answers requests with one loaded model.
#[derive(Debug)]
pub struct Responder {
    engine: Engine,
    template: Option<ChatTemplate>,
    sampling: Sampling,
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
        Ok(Self { engine, template, sampling })
    }

    /// What was loaded.
    pub fn info(&self) -> &LoadInfo {
        self.engine.info()
    }

    /// The engine, for what is not a reply.
    pub fn engine(&mut self) -> &mut Engine {
        &mut self.engine
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

    /// Stops a reply from another thread.
    pub fn cancel_handle(&self) -> CancelHandle {
        self.engine.cancel_handle()
    }

    /// Unloads the model. What was computed is saved when the load request names a place for it.
    pub fn unload(self) -> Result<(), ChatError> {
        self.engine.unload()?;
        Ok(())
    }

    /// Starts a fresh worker after the last one died.
    pub fn restart(&mut self) -> Result<(), ChatError> {
        Ok(self.engine.restart(&mut |_| ControlFlow::Continue(()))?)
    }

    /// Answers a request; events arrive as they happen, the last one is [`Event::Done`]. Returning
    /// [`ControlFlow::Break`] stops the reply.
    pub fn reply(
        &mut self,
        request: &Request,
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
            client: 0,
        };
        let done = self.engine.generate(&generation, &mut |event| match event {
            frames::Event::Progress(share) => on_event(Event::Reading(share)),
            frames::Event::Token { id, text, logprobs } => {
                if let (Some(id), Some(logprobs)) = (id, logprobs)
                    && on_event(Event::Token { id, logprobs }).is_break()
                {
                    return ControlFlow::Break(());
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

    fn prompt(&self, input: &Input) -> Result<Prompt, ChatError> {
        match input {
            Input::Text(text) => {
                Ok(Prompt::Text { text: text.clone(), add_special: true, parse_special: false })
            }
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
