//! What requests for replies have in common, whatever their prompt: model, sampling, limits, and how the answer comes.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Map, Value};

use super::fields::Fields;
use super::models;
use super::refusal::{Answer, Refusal};
use super::sampling::Tuning;
use crate::chat::pool::Lease;
use crate::chat::{Input, Message, Request, Role, carried};
use crate::engine::options::Sampling;
use crate::server::Server;
use crate::server::problem::Problem;
use crate::server::which::Named;

/// Replies to one prompt.
const CHOICES_MAX: usize = 128;

/// How often a silent stream says that it is alive, unless the request says otherwise.
const PING: Duration = Duration::from_secs(15);

/// What every request for replies has.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) model: Named,
    pub(super) tuning: Tuning,
    pub(super) stop: Vec<String>,
    pub(super) tokens_max: Option<u32>,
    ignore_end: bool,
    /// Replies to each prompt.
    pub(super) choices: usize,
    pub(super) delivery: Delivery,
}

/// How an answer comes.
#[derive(Debug, Clone, Copy)]
#[expect(clippy::struct_excessive_bools, reason = "independent switches of a request")]
pub(super) struct Delivery {
    /// In pieces.
    pub(super) stream: bool,
    /// With an account at the end of the pieces.
    pub(super) usage: bool,
    /// With llama-server's account of the time in each piece.
    pub(super) timings: bool,
    /// With a word on how much of the prompt is read.
    pub(super) progress: bool,
    /// How long the stream may be silent.
    pub(super) ping: Option<Duration>,
}

impl Asked {
    /// Takes the common fields.
    pub(super) async fn read(fields: &mut Fields, server: &Arc<Server>) -> Answer<Self> {
        let asked = Self {
            tuning: Tuning::read(fields)?,
            stop: stop(fields)?,
            tokens_max: tokens_max(fields)?,
            ignore_end: fields.take("ignore_eos")?.unwrap_or(false),
            choices: choices(fields)?,
            delivery: Delivery::read(fields)?,
            model: models::named(fields, server).await?,
        };
        // Switches of llama-server's that are always as they are here.
        fields.only("parse_tool_calls", &[true.into()])?;
        fields.only("add_generation_prompt", &[true.into()])?;
        Ok(asked)
    }

    /// The request for one of the replies to a prompt, over what the model carries; without a model only to see whether it
    /// makes sense.
    pub(super) fn request(
        &self,
        input: Input,
        model: Option<&Lease>,
        choice: usize,
    ) -> Result<Request, Problem> {
        let Some(model) = model else {
            let sampling = self.tuning.apply(&Sampling::default(), choice);
            return Ok(Request::new(input, sampling, self.stop.clone(), self.tokens_max)?);
        };
        let mut sampling = self.tuning.apply(&model.sampling(), choice);
        sampling.logit_bias.extend(self.tuning.biases(model)?);
        let stop = match self.stop.as_slice() {
            [] => model.stop(),
            stop => stop.to_vec(),
        };
        let tokens_max = self.tokens_max.or_else(|| model.tokens_max());
        let request = Request::new(input, sampling, stop, tokens_max)?;
        Ok(request.ignore_end(self.ignore_end))
    }
}

/// A conversation behind what the model brings: its instructions, unless the conversation has some, and its first turns.
pub(super) fn opened(conversation: &[Message], model: Option<&Lease>) -> Input {
    let Some(model) = model else { return Input::Conversation(conversation.to_vec()) };
    let (system, rest) = match conversation {
        [first, rest @ ..] if first.role == Role::System => (Some(first.content.as_str()), rest),
        all => (None, all),
    };
    let mut turns = carried::opening(model.resolved(), system);
    turns.extend_from_slice(rest);
    Input::Conversation(turns)
}

impl Delivery {
    fn read(fields: &mut Fields) -> Answer<Self> {
        let options = fields.take::<Map<String, Value>>("stream_options")?.unwrap_or_default();
        let stream = fields.take("stream")?.unwrap_or(false);
        let ping = match fields.take::<i64>("sse_ping_interval")? {
            None => Some(PING),
            Some(seconds) => {
                u64::try_from(seconds).ok().filter(|s| *s > 0).map(Duration::from_secs)
            }
        };
        Ok(Self {
            stream,
            usage: options.get("include_usage").and_then(Value::as_bool).unwrap_or(false),
            timings: fields.take("timings_per_token")?.unwrap_or(false),
            progress: fields.take("return_progress")?.unwrap_or(false),
            ping,
        })
    }
}

fn stop(fields: &mut Fields) -> Answer<Vec<String>> {
    let refuse =
        || Refusal::invalid(Some("stop"), "stop: expected a string or an array of strings");
    let texts: Vec<String> = match fields.take::<Value>("stop")? {
        None => Vec::new(),
        Some(Value::String(text)) => vec![text],
        Some(list) => serde_json::from_value(list).map_err(|_| refuse())?,
    };
    // An empty one would end a reply before it begins; llama-server passes over it, too.
    Ok(texts.into_iter().filter(|text| !text.is_empty()).collect())
}

fn tokens_max(fields: &mut Fields) -> Answer<Option<u32>> {
    const NAMES: &[&str] = &["n_predict", "max_completion_tokens", "max_tokens"];
    match fields.first::<i64>(NAMES)? {
        None | Some(-1) => Ok(None),
        Some(tokens) => u32::try_from(tokens).map(Some).map_err(|_| {
            let message = format!("max_tokens: {tokens} is outside 0 to {}", u32::MAX);
            Refusal::invalid(Some("max_tokens"), message)
        }),
    }
}

fn choices(fields: &mut Fields) -> Answer<usize> {
    match fields.first::<i64>(&["n", "n_cmpl"])?.unwrap_or(1) {
        count @ 1.. if count <= CHOICES_MAX as i64 => Ok(count as usize),
        count => {
            let message = format!("n: {count} is outside 1 to {CHOICES_MAX}");
            Err(Refusal::invalid(Some("n"), message))
        }
    }
}

/// Now, in seconds since 1970.
pub(super) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}
