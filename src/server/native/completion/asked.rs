//! What a completion asks for, and the request that it becomes when its model is there.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use serde_json::{Value, json};

use super::settings;
use crate::chat::pool::Lease;
use crate::chat::{Input, Request};
use crate::server::native::prompt::{PROMPTS_MAX, Prompt};
use crate::server::native::wire;
use crate::server::problem::{Kind, Problem};

/// Everything of a request but its prompts.
#[derive(Debug)]
pub(super) struct Asked {
    wire: wire::Completion,
    /// Completions of each prompt.
    pub(super) copies: u32,
    /// The time for a reply after its first token, once it has a line.
    pub(super) time_max: Option<Duration>,
}

/// What is known of a reply when its model is there.
#[derive(Debug)]
pub(super) struct Facts {
    pub(super) model: String,
    /// The prompt as the model reads it.
    pub(super) prompt: String,
    pub(super) prompt_tokens: u32,
    pub(super) context_tokens: u32,
    pub(super) stop: Vec<String>,
    pub(super) settings: Value,
}

/// The request's facts, from the thread that makes the request to those that write the answer.
pub(super) type Later = Arc<OnceLock<Facts>>;

impl Asked {
    /// Checks what can be checked without a model.
    pub(super) fn new(wire: wire::Completion) -> Result<Self, Problem> {
        let refuse = |text: &str| Err(Problem::invalid(text));
        if wire.post_sampling_probs == Some(true) && wire.n_probs.is_some_and(|count| count > 0) {
            let text = "post_sampling_probs: only the model's own probabilities are told";
            return Err(Problem::new(Kind::Unsupported, text));
        }
        if wire.n_indent.is_some_and(|count| count > 0) {
            return refuse("n_indent: replies do not end by indentation here");
        }
        if wire.lora.as_ref().is_some_and(|list| !list.is_empty()) {
            return refuse("lora: adapters belong to a model here; make one with nfl create");
        }
        let copies = wire.n_cmpl.unwrap_or(1);
        if copies == 0 || copies as usize > PROMPTS_MAX {
            return refuse(&format!("n_cmpl: {copies} is outside 1 to {PROMPTS_MAX}"));
        }
        let time_max = wire
            .t_max_predict_ms
            .and_then(|ms| u64::try_from(ms).ok())
            .filter(|ms| *ms > 0)
            .map(Duration::from_millis);
        Ok(Self { wire, copies, time_max })
    }

    pub(super) fn streams(&self) -> bool {
        self.wire.stream == Some(true)
    }

    pub(super) fn tells_progress(&self) -> bool {
        self.wire.return_progress == Some(true)
    }

    pub(super) fn tells_timings(&self) -> bool {
        self.wire.timings_per_token == Some(true)
    }

    /// Whether the answer has the numbers of tokens; events always do, as llama-server's.
    pub(super) fn tells_tokens(&self) -> bool {
        self.streams() || self.wire.return_tokens == Some(true)
    }

    pub(super) fn tells_chances(&self) -> bool {
        self.wire.n_probs.is_some_and(|count| count > 0)
    }

    /// The fields that the answer is to have; all when empty.
    pub(super) fn fields(&self) -> &[String] {
        self.wire.response_fields.as_deref().unwrap_or_default()
    }

    /// The request for one prompt, `copy` of several for it.
    pub(super) fn request(
        &self,
        input: &super::Source,
        copy: u32,
        lease: &Lease,
        later: &Later,
    ) -> Result<Request, Problem> {
        let runner = lease.runner();
        let base = lease.sampling();
        let mut sampling = settings::sampling(&self.wire.sampling, &base, runner)?;
        // Copies that start alike would be alike.
        sampling.seed = sampling.seed.map(|seed| seed.wrapping_add(copy));
        let ignore_end = self.wire.ignore_eos == Some(true);
        if ignore_end {
            let info = lease.info();
            for token in [&info.end, &info.end_of_turn].into_iter().flatten() {
                if !sampling.logit_bias.iter().any(|(known, _)| *known == token.id) {
                    sampling.logit_bias.push((token.id, f32::NEG_INFINITY));
                }
            }
        }
        let asked = self.wire.stop.as_ref().map(wire::Stop::strings);
        let stop = asked.unwrap_or_else(|| lease.stop());
        let tokens_max = match self.wire.n_predict {
            None => lease.tokens_max(),
            Some(count) if count < 0 => None,
            Some(count) => Some(u32::try_from(count).unwrap_or(u32::MAX)),
        };
        let (input, prompt, prompt_tokens) = input.read(runner)?;
        let mut settings = settings::written(&sampling);
        for (name, value) in [
            ("n_predict", json!(tokens_max.map_or(-1, i64::from))),
            ("max_tokens", json!(tokens_max.map_or(-1, i64::from))),
            ("stop", json!(stop)),
            ("ignore_eos", json!(ignore_end)),
            ("stream", json!(self.streams())),
            ("n_probs", json!(self.wire.n_probs.unwrap_or(0))),
            ("post_sampling_probs", json!(false)),
            ("timings_per_token", json!(self.tells_timings())),
            ("n_ctx", json!(lease.info().context_tokens)),
        ] {
            settings.insert(name.to_owned(), value);
        }
        let facts = Facts {
            model: super::model_name(lease),
            prompt,
            prompt_tokens,
            context_tokens: lease.info().context_tokens,
            stop: stop.clone(),
            settings: Value::Object(settings),
        };
        // Set once: each reply has facts of its own.
        let _ = later.set(facts);
        let logprobs = match self.wire.n_probs {
            Some(count) if count > 0 => Some(count),
            _ => self.tells_tokens().then_some(0),
        };
        let request = Request::new(input, sampling, stop, tokens_max)?
            .logprobs(logprobs)?
            .ignore_end(ignore_end);
        Ok(request)
    }
}

/// What a reply continues.
#[derive(Debug, Clone)]
pub(in crate::server::native) enum Source {
    /// A prompt.
    Prompt(Prompt),
    /// A gap, and what stands at its beginning already.
    Gap {
        /// What stands before the gap.
        prefix: String,
        /// What stands behind it.
        suffix: String,
    },
}

impl Source {
    /// The input of a request, its text, and its tokens as far as they are known.
    fn read(
        &self,
        runner: &dyn crate::engine::runner::Runner,
    ) -> Result<(Input, String, u32), Problem> {
        match self {
            Self::Prompt(prompt) => {
                let tokens = prompt.tokens(runner, runner.info().adds_begin, true)?;
                let text = runner.detokenize(&tokens, true)?;
                let count = tokens.len() as u32;
                Ok((Input::Tokens(tokens), String::from_utf8_lossy(&text).into_owned(), count))
            }
            Self::Gap { prefix, suffix } => {
                let input = Input::Infill { prefix: prefix.clone(), suffix: suffix.clone() };
                Ok((input, format!("{prefix}\u{fffc}{suffix}"), 0))
            }
        }
    }
}
