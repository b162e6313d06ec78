//! GET `/props`, `/slots` and `/lora-adapters`: what a model is and what it does now.

use std::collections::HashMap;
use std::sync::Arc;

use axum::extract::{Query, State};
use axum::response::Response;
use nfl_models::gguf::Gguf;
use nfl_models::template;
use serde_json::{Value, json};

use super::completion::{model_name, settings};
use super::failure;
use crate::chat::pool::{Lease, Sight};
use crate::engine::frames::SpecialToken;
use crate::server::Server;
use crate::server::problem::{Kind, Problem};
use crate::server::reply::blocking;
use crate::server::which;
use crate::store::Reference;

type Asked = Query<HashMap<String, String>>;

/// What the server is: llama-server's clients look for a build here.
const BUILD: &str = concat!("b0-nfl-", env!("CARGO_PKG_VERSION"));

pub(super) async fn props(State(server): State<Arc<Server>>, Query(asked): Asked) -> Response {
    let work = move || {
        let lease = which::lease(&server, asked.get("model").map(String::as_str))?;
        describe(&lease)
    };
    failure::answer(blocking(work).await)
}

fn describe(lease: &Lease) -> Result<Value, Problem> {
    let status = lease.runner().status()?;
    let info = lease.info();
    let mut params = settings::written(&lease.sampling());
    let tokens_max = lease.tokens_max().map_or(-1, i64::from);
    for name in ["n_predict", "max_tokens"] {
        params.insert(name.to_owned(), tokens_max.into());
    }
    params.insert("stop".to_owned(), lease.stop().into());
    let text = |token: &Option<SpecialToken>| token.as_ref().map(|token| token.text.clone());
    Ok(json!({
        "default_generation_settings": {
            "id": 0,
            "id_task": -1,
            "n_ctx": info.context_tokens,
            "speculative": false,
            "is_processing": status.busy > 0,
            "params": params,
        },
        "total_slots": status.slots,
        "model_alias": model_name(lease),
        "model_path": lease.resolved().model,
        "modalities": {"vision": false, "audio": false},
        "chat_template": chat_template(lease)?,
        "bos_token": text(&info.begin),
        "eos_token": text(&info.end),
        "build_info": BUILD,
        "is_sleeping": false,
    }))
}

/// The text of the model's chat template; empty when it has none.
fn chat_template(lease: &Lease) -> Result<String, Problem> {
    if let Some(own) = &lease.resolved().template {
        return Ok(own.clone());
    }
    let unreadable = |error: nfl_models::gguf::GgufError| {
        Problem::new(Kind::Internal, format!("the model's file: {error}"))
    };
    let file = Gguf::open(&lease.resolved().model).map_err(unreadable)?;
    Ok(file.metadata().text(template::METADATA_KEY).unwrap_or_default().to_owned())
}

pub(super) async fn slots(State(server): State<Arc<Server>>, Query(asked): Asked) -> Response {
    let work = move || {
        let name = |text: &str| text.parse::<Reference>().ok();
        let model = asked.get("model").map(|text| name(text));
        let mut slots = Vec::new();
        for sight in server.pool.look() {
            if model.as_ref().is_none_or(|model| *model == name(&sight.loaded().name)) {
                slots.extend(slots_of(&sight)?);
            }
        }
        let is_busy = |slot: &Value| slot["is_processing"] == true;
        let is_full = !slots.is_empty() && slots.iter().all(is_busy);
        if asked.contains_key("fail_on_no_slot") && is_full {
            return Err(Problem::new(Kind::Busy, "no slot is free"));
        }
        Ok(slots)
    };
    failure::answer(blocking(work).await)
}

/// The conversations of a model that can be computed side by side; which of them are busy is not told, how many are is.
fn slots_of(sight: &Sight) -> Result<Vec<Value>, Problem> {
    let status = sight.responder().runner().status()?;
    let slot = |id: u32| {
        json!({
            "id": id,
            "model": sight.loaded().name,
            "n_ctx": status.context_tokens,
            "speculative": false,
            "is_processing": id < status.busy,
        })
    };
    Ok((0..status.slots).map(slot).collect())
}

pub(super) async fn adapters(State(server): State<Arc<Server>>, Query(asked): Asked) -> Response {
    let work = move || {
        let lease = which::lease(&server, asked.get("model").map(String::as_str))?;
        let adapter = |(id, path)| json!({"id": id, "path": path, "scale": 1.0});
        let adapters = &lease.resolved().adapters;
        Ok(adapters.iter().enumerate().map(adapter).collect::<Vec<_>>())
    };
    failure::answer(blocking(work).await)
}
