//! llama-server's own dialect, the seeds' `/generate`, health and metrics.
//!
//! llama-server has one model; here a request may name one in `model`, and need not where only one is loaded or stored.

mod completion;
mod failure;
mod generate;
mod infill;
mod metrics;
mod prompt;
mod props;
mod tokens;
mod wire;

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use serde_json::{Map, Value, json};

use super::Server;
use super::body;
use super::routes::{Access, Routes};

/// A JSON object whose fields depend on the request.
type Object = Map<String, Value>;

/// The routes.
pub(super) fn routes() -> Routes {
    use Access::{Infer, Open};
    Routes::new("llama-server", failure::response)
        .get("/health", Open, "Says that the server is there", health)
        .gives::<Object>()
        .get("/v1/health", Open, "Says that the server is there", health)
        .gives::<Object>()
        .get("/metrics", Infer, "Counts and times, as Prometheus reads them", metrics::metrics)
        .sends("text/plain; version=0.0.4")
        .get("/props", Infer, "What a model is and how it is asked by default", props::props)
        .gives::<Object>()
        .get("/slots", Infer, "What loaded models are doing", props::slots)
        .gives::<Vec<Object>>()
        .get("/lora-adapters", Infer, "The adapters of a model", props::adapters)
        .gives::<Vec<Object>>()
        .post("/tokenize", Infer, "The tokens of a text", tokens::tokenize)
        .takes::<wire::Tokenize>()
        .gives::<Object>()
        .post("/detokenize", Infer, "The text of tokens", tokens::detokenize)
        .takes::<wire::Detokenize>()
        .gives::<Object>()
        .post("/completion", Infer, "Continues a prompt", completion::completion)
        .takes::<wire::Completion>()
        .gives::<Value>()
        .sends(body::EVENTS)
        .post("/completions", Infer, "Continues a prompt", completion::completion)
        .takes::<wire::Completion>()
        .gives::<Value>()
        .sends(body::EVENTS)
        .post("/infill", Infer, "Fills a gap in a text", infill::infill)
        .takes::<wire::Infill>()
        .gives::<Value>()
        .sends(body::EVENTS)
        .post("/generate", Infer, "Answers with a measure of confidence", generate::generate)
        .takes::<wire::Generate>()
        .gives::<Object>()
}

async fn health(State(server): State<Arc<Server>>) -> Response {
    body::json(200, &json!({"status": "ok", "uptime_seconds": server.started.elapsed().as_secs()}))
}
