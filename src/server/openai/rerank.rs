//! `POST /v1/rerank`: documents in the order of their relevance to a query.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use serde_json::Value;

use super::embeddings::Leaving;
use super::fields::Fields;
use super::forms;
use super::models;
use super::refusal::{Answer, Refusal};
use super::timings::prompt_usage;
use super::wire::{Document, Ranked, Ranking, Scored};
use crate::chat::pool::Ask;
use crate::engine::embedding::{EmbeddingOptions, EmbeddingRequest, Passage};
use crate::server::Server;
use crate::server::body;
use crate::server::reply::{self, blocking};
use crate::server::which::Named;

/// Documents of one request.
const DOCUMENTS_MAX: usize = 4096;

pub(super) async fn create(
    State(server): State<Arc<Server>>,
    mut fields: Fields,
) -> Answer<Response> {
    fields.keep_to(&forms::RERANK)?;
    let query = fields.need::<String>("query")?;
    // `texts` is what Text Embeddings Inference says, and it answers in a form of its own.
    let texts = fields.take::<Value>("texts")?;
    let is_inference = texts.is_some();
    let listed = if let Some(texts) = texts { texts } else { fields.need("documents")? };
    let documents = documents(&listed)?;
    let top = fields.take::<usize>("top_n")?.unwrap_or(documents.len());
    let with_texts = fields.first::<bool>(&["return_documents", "return_text"])?.unwrap_or(false);
    let model = models::named(&mut fields, &server).await?;
    fields.finish()?;
    let (tokens, mut scores) = score(&server, &model, query, &documents).await?;
    scores.sort_by(|one, other| other.1.total_cmp(&one.1));
    scores.truncate(top);
    let text = |index: usize| with_texts.then(|| documents[index].clone());
    if is_inference {
        let results = scores.iter();
        let results = results.map(|&(index, score)| Scored { index, score, text: text(index) });
        return Ok(body::json(200, &results.collect::<Vec<_>>()));
    }
    let results = scores.iter().map(|&(index, relevance_score)| {
        let document = text(index).map(|text| Document { text });
        Ranked { index, relevance_score, document }
    });
    let results = results.collect();
    let usage = prompt_usage(tokens);
    Ok(body::json(200, &Ranking { object: "list", model: model.asked, usage, results }))
}

/// The texts of documents: strings, or objects with a text.
fn documents(listed: &Value) -> Answer<Vec<String>> {
    let refuse = |text: String| Refusal::invalid(Some("documents"), format!("documents: {text}"));
    let list = listed.as_array().filter(|list| !list.is_empty());
    let list =
        list.ok_or_else(|| refuse("expected a list of strings that is not empty".to_owned()))?;
    if list.len() > DOCUMENTS_MAX {
        return Err(refuse(format!("{} are too many, {DOCUMENTS_MAX} are the most", list.len())));
    }
    let text = |value: &Value| {
        let text = value.as_str().or_else(|| value.get("text")?.as_str());
        text.map(str::to_owned)
    };
    list.iter()
        .map(|value| text(value).ok_or_else(|| refuse(format!("{value} is no text"))))
        .collect()
}

/// The tokens that were read, and each document's number and score.
async fn score(
    server: &Arc<Server>,
    model: &Named,
    query: String,
    documents: &[String],
) -> Answer<(u32, Vec<(usize, f32)>)> {
    let ask = Ask { embeds: true, ..model.ask() };
    let leaving = Leaving(ask.cancel.clone());
    let pair = |document: &String| {
        let (query, document) = (query.clone(), document.clone());
        Passage::Pair { query, document }
    };
    let passages = documents.iter().map(pair).collect();
    let request = EmbeddingRequest { passages, options: EmbeddingOptions::ranking() };
    let server = Arc::clone(server);
    let found = blocking(move || {
        let lease = server.pool.acquire(&ask)?;
        Ok(reply::embed(&server, &lease, request, &ask.cancel)?)
    });
    let found = found.await?;
    drop(leaving);
    let first = |vectors: &[Vec<f32>]| vectors.first().and_then(|scores| scores.first()).copied();
    let scores = found.embeddings.iter().enumerate();
    let scores = scores.filter_map(|(index, each)| Some((index, first(&each.vectors)?)));
    Ok((found.tokens() as u32, scores.collect()))
}
