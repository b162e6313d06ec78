//! `/api/embed` and the older `/api/embeddings`: texts become vectors.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::extract::State;
use axum::http::HeaderValue;
use axum::response::Response;
use serde_json::Value;

use super::super::body::{self, Raw};
use super::super::problem::{Kind, Problem};
use super::super::{Server, reply};
use super::load::with_model;
use super::model::Asked;
use super::options::Options;
use super::talk::TRUNCATED;
use super::wire::Metrics;
use super::{moment, refuse, terms, wire};
use crate::chat::pool::{Ask, Lease};
use crate::engine::embedding::{EmbeddingOptions, EmbeddingRequest, Embeddings, Passage};
use crate::engine::frames::Failure;
use crate::engine::process::EngineError;
use crate::engine::runner::Cancel;
use crate::store::Capability;

/// Ollama's words for a text that does not fit.
const TOO_LONG: &str = "the input length exceeds the context length";

/// The vectors of one text or several, of length 1.
pub(super) async fn embed(State(server): State<Arc<Server>>, raw: Raw) -> Response {
    refuse::or(answer(&server, &raw).await)
}

/// The vector of one text as the model gives it.
pub(super) async fn embeddings(State(server): State<Arc<Server>>, raw: Raw) -> Response {
    refuse::or(answer_old(&server, &raw).await)
}

/// The vectors of texts, and what is known of the work.
struct Embedded {
    embeddings: Embeddings,
    load_time: Duration,
    truncated_tokens: u64,
}

/// Texts to embed.
#[derive(Debug, Clone)]
struct Texts {
    list: Vec<String>,
    /// Cut those that are too long, leave it to the engine to refuse them, or refuse them in Ollama's words.
    truncate: Option<bool>,
    dimensions: Option<u32>,
    normalize: bool,
}

async fn answer(server: &Arc<Server>, raw: &Raw) -> Result<Response, Problem> {
    let started = Instant::now();
    let request: wire::Embed = raw.parse()?;
    let texts = Texts {
        list: texts(request.input)?,
        truncate: request.truncate,
        dimensions: request.dimensions.and_then(|count| u32::try_from(count).ok()),
        normalize: true,
    };
    let ask = ask(server, &request.model, request.keep_alive, request.options).await?;
    let counting = Arc::clone(server);
    let embed = move |lease: &Lease, cancel: &Cancel| texts.embed(&counting, lease, cancel);
    let made = with_model(server, ask, embed).await?;
    let list = made.embeddings.embeddings.iter();
    let answer = wire::Embedded {
        model: request.model,
        metrics: Metrics {
            total_duration: moment::nanoseconds(started.elapsed()),
            load_duration: moment::nanoseconds(made.load_time),
            prompt_eval_count: made.embeddings.tokens(),
            truncated_tokens: made.truncated_tokens,
            ..Metrics::default()
        },
        embeddings: list.filter_map(|each| each.vectors.first().cloned()).collect(),
    };
    let mut response = body::json(200, &answer);
    if made.truncated_tokens > 0 {
        response.headers_mut().insert(TRUNCATED, HeaderValue::from(made.truncated_tokens));
    }
    Ok(response)
}

async fn answer_old(server: &Arc<Server>, raw: &Raw) -> Result<Response, Problem> {
    let request: wire::OldEmbed = raw.parse()?;
    if request.model.is_empty() {
        return Err(Problem::invalid("model is required"));
    }
    let list = request.prompt.into_iter().filter(|text| !text.is_empty()).collect();
    let texts = Texts { list, truncate: None, dimensions: None, normalize: false };
    let ask = ask(server, &request.model, request.keep_alive, request.options).await?;
    let counting = Arc::clone(server);
    let embed = move |lease: &Lease, cancel: &Cancel| texts.embed(&counting, lease, cancel);
    let made = with_model(server, ask, embed).await?;
    let first = made.embeddings.embeddings.into_iter().next();
    let embedding = first.and_then(|each| each.vectors.into_iter().next()).unwrap_or_default();
    Ok(body::json(200, &wire::OldEmbedded { embedding }))
}

/// One text or several; an empty one alone is none.
fn texts(input: Option<Value>) -> Result<Vec<String>, Problem> {
    let wrong = || Problem::invalid("invalid input type");
    match input {
        None | Some(Value::Null) => Ok(Vec::new()),
        Some(Value::String(text)) if text.is_empty() => Ok(Vec::new()),
        Some(Value::String(text)) => Ok(vec![text]),
        Some(Value::Array(list)) => {
            let text = |value: Value| match value {
                Value::String(text) => Ok(text),
                _ => Err(wrong()),
            };
            list.into_iter().map(text).collect()
        }
        Some(_) => Err(wrong()),
    }
}

/// The question to the pool for a model that embeds; one that talks too is loaded for both.
async fn ask(
    server: &Arc<Server>,
    name: &str,
    keep_alive: Option<Value>,
    options: Option<serde_json::Map<String, Value>>,
) -> Result<Ask, Problem> {
    let keep_alive = terms::keep_alive(keep_alive)?;
    let options = Options::read(options)?;
    let asked = {
        let (server, name) = (Arc::clone(server), name.to_owned());
        reply::blocking(move || Asked::find(&server, &name)).await?
    };
    let embeds = !asked.can(Capability::Completion);
    let mut ask = Ask { embeds, keep_alive, ..asked.ask() };
    options.load(&mut ask)?;
    Ok(ask)
}

impl Texts {
    fn embed(&self, server: &Server, lease: &Lease, cancel: &Cancel) -> Result<Embedded, Problem> {
        let load_time = lease.load_time();
        let width = lease.info().embedding_length;
        let (mut passages, mut truncated_tokens) = (Vec::new(), 0);
        for text in &self.list {
            let (passage, cut) = self.passage(text, lease)?;
            passages.push(passage);
            truncated_tokens += cut;
        }
        let options = EmbeddingOptions {
            pooling: None,
            normalize: self.normalize,
            // More than there are is as good as all.
            dimensions: self.dimensions.filter(|count| (1..width).contains(count)),
        };
        let request = EmbeddingRequest { passages, options };
        let embeddings =
            reply::embed(server, lease, request, cancel).map_err(|error| match error {
                EngineError::Failed(Failure::TextTooLong { text, tokens, limit_tokens }) => {
                    let numbers =
                        format!("text {text} has {tokens} tokens, {limit_tokens} are the most");
                    let words = match self.truncate {
                        Some(false) => TOO_LONG.to_owned(),
                        _ => format!("{TOO_LONG}: {numbers}; \"truncate\": true cuts it"),
                    };
                    Problem::new(Kind::TooLong, words)
                }
                EngineError::Failed(Failure::NotFinite(_)) => not_finite(),
                error => error.into(),
            })?;
        let mut numbers =
            embeddings.embeddings.iter().flat_map(|each| each.vectors.iter().flatten());
        if !numbers.all(|number| number.is_finite()) {
            return Err(not_finite());
        }
        Ok(Embedded { embeddings, load_time, truncated_tokens })
    }

    /// A text, cut when that was asked for and it is too long; and how many tokens went.
    fn passage(&self, text: &str, lease: &Lease) -> Result<(Passage, u64), Problem> {
        let whole = || Ok((Passage::Text(text.to_owned()), 0));
        if self.truncate != Some(true) {
            return whole();
        }
        let limit = lease.info().embedding_tokens as usize;
        let mut tokens = lease.runner().tokenize(text, true, false)?;
        if tokens.len() <= limit || limit == 0 {
            return whole();
        }
        let cut = tokens.len() - limit;
        let end = lease.info().end.as_ref().map(|token| token.id);
        let last = tokens.last().copied().filter(|last| Some(*last) == end);
        tokens.truncate(limit);
        // The token that ends a text still ends it.
        if let (Some(last), Some(place)) = (last, tokens.last_mut()) {
            *place = last;
        }
        Ok((Passage::Tokens(tokens), cut as u64))
    }
}

fn not_finite() -> Problem {
    Problem::invalid("embedding contains NaN or Inf values")
}
