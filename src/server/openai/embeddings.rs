//! `POST /v1/embeddings`, and llama-server's own `/embeddings`.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use super::fields::Fields;
use super::forms;
use super::models;
use super::prompt::{self, Prompt};
use super::refusal::{Answer, Refusal};
use super::timings::prompt_usage;
use super::wire::{Embedding, Embeddings, Legacy, Vector};
use crate::chat::pool::Ask;
use crate::engine::embedding::{self as engine, EmbeddingOptions, EmbeddingRequest, Pooling};
use crate::engine::runner::Cancel;
use crate::server::Server;
use crate::server::body;
use crate::server::problem::Problem;
use crate::server::reply::{self, blocking};
use crate::server::which::Named;

/// Texts to embed.
#[derive(Debug)]
struct Asking {
    model: Named,
    prompts: Vec<Prompt>,
    options: EmbeddingOptions,
    base64: bool,
}

pub(super) async fn create(
    State(server): State<Arc<Server>>,
    mut fields: Fields,
) -> Answer<Response> {
    fields.keep_to(&forms::EMBEDDING)?;
    let input = fields.need::<Value>("input")?;
    let asking = Asking::read(&server, fields, &input, "input").await?;
    let (model, base64) = (asking.model.asked.clone(), asking.base64);
    let found = embed(&server, asking).await?;
    if found.pooling == Pooling::None {
        let text = "the model does not pool: it has no embedding of a whole text; /embeddings gives a vector a token";
        return Err(Refusal::invalid(Some("model"), text));
    }
    let usage = prompt_usage(found.tokens() as u32);
    let vectors = found.embeddings.into_iter().filter_map(|each| each.vectors.into_iter().next());
    let data = vectors.enumerate().map(|(index, vector)| Embedding {
        object: "embedding",
        index,
        embedding: if base64 { Vector::Base64(packed(&vector)) } else { Vector::Numbers(vector) },
    });
    Ok(body::json(200, &Embeddings { object: "list", data: data.collect(), model, usage }))
}

/// llama-server's own form, from before OpenAI's.
pub(super) async fn create_legacy(
    State(server): State<Arc<Server>>,
    mut fields: Fields,
) -> Answer<Response> {
    fields.keep_to(&forms::LEGACY_EMBEDDING)?;
    let content = fields.take::<Value>("content")?;
    let (input, at) = match content {
        Some(content) => (content, "content"),
        None => (fields.need::<Value>("input")?, "input"),
    };
    let asking = Asking::read(&server, fields, &input, at).await?;
    let found = embed(&server, asking).await?.embeddings.into_iter().enumerate();
    let data = found.map(|(index, each)| Legacy { index, embedding: each.vectors });
    Ok(body::json(200, &data.collect::<Vec<_>>()))
}

impl Asking {
    async fn read(
        server: &Arc<Server>,
        mut fields: Fields,
        input: &Value,
        at: &str,
    ) -> Answer<Self> {
        let base64 = match fields.take::<String>("encoding_format")?.as_deref() {
            None | Some("float") => false,
            Some("base64") => true,
            Some(other) => {
                let text = format!("encoding_format: {other:?} is neither float nor base64");
                return Err(Refusal::invalid(Some("encoding_format"), text));
            }
        };
        let options = EmbeddingOptions {
            pooling: None,
            normalize: normalize(&mut fields)?,
            dimensions: fields.take("dimensions")?,
        };
        let asking = Self {
            prompts: prompt::read(input, at)?,
            options,
            base64,
            model: models::named(&mut fields, server).await?,
        };
        fields.finish()?;
        Ok(asking)
    }
}

/// llama-server's `embd_normalize`: 2 is Euclid's norm, which is the default, -1 is none.
fn normalize(fields: &mut Fields) -> Answer<bool> {
    match fields.take::<i64>("embd_normalize")? {
        None | Some(2) => Ok(true),
        Some(-1) => Ok(false),
        Some(other) => {
            let text =
                format!("embd_normalize: {other} is neither 2 (Euclid's norm) nor -1 (none)");
            Err(Refusal::invalid(Some("embd_normalize"), text))
        }
    }
}

/// Ends the work when the client leaves.
#[derive(Debug)]
pub(super) struct Leaving(pub(super) Cancel);

impl Drop for Leaving {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

async fn embed(server: &Arc<Server>, asking: Asking) -> Result<engine::Embeddings, Problem> {
    let ask = Ask { embeds: true, ..asking.model.ask() };
    let leaving = Leaving(ask.cancel.clone());
    let server = Arc::clone(server);
    let found = blocking(move || {
        let lease = server.pool.acquire(&ask)?;
        let passages = asking.prompts.iter().map(|prompt| prompt.passage(&lease));
        let passages = passages.collect::<Result<_, _>>()?;
        let request = EmbeddingRequest { passages, options: asking.options };
        Ok(reply::embed(&server, &lease, request, &ask.cancel)?)
    });
    let found = found.await;
    drop(leaving);
    found
}

/// The Base64 of 32-bit floats, the least byte first.
fn packed(vector: &[f32]) -> String {
    let bytes: Vec<u8> = vector.iter().flat_map(|value| value.to_le_bytes()).collect();
    STANDARD.encode(bytes)
}
