//! `GET /v1/models`: every stored model, and the one that a request is for.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::response::Response;

use super::fields::Fields;
use super::refusal::{Answer, Refusal};
use super::wire::{Meta, Model, Models, Status};
use crate::chat::pool::LoadedModel;
use crate::server::Server;
use crate::server::body;
use crate::server::reply::blocking;
use crate::server::which::{self, Named};
use crate::store::{Manifest, Reference};

pub(super) async fn list(State(server): State<Arc<Server>>) -> Answer<Response> {
    let data = blocking(move || {
        let loaded = server.pool.loaded();
        let manifests = server.pool.store()?.list()?.manifests;
        Ok(manifests.iter().map(|manifest| model(manifest, &loaded)).collect())
    });
    Ok(body::json(200, &Models { object: "list", data: data.await? }))
}

pub(super) async fn show(
    State(server): State<Arc<Server>>,
    Path(name): Path<String>,
) -> Answer<Response> {
    let asked = name.clone();
    let found = blocking(move || {
        let store = server.pool.store()?;
        let Ok(name) = name.parse::<Reference>() else { return Ok(None) };
        let manifest = store.read(&name)?;
        Ok(manifest.map(|manifest| model(&manifest, &server.pool.loaded())))
    });
    match found.await? {
        Some(model) => Ok(body::json(200, &model)),
        None => Err(which::missing(&asked).into()),
    }
}

/// Takes `model`, see [`which::named`].
pub(super) async fn named(fields: &mut Fields, server: &Arc<Server>) -> Answer<Named> {
    let asked = fields.take::<String>("model")?;
    let server = Arc::clone(server);
    let found = blocking(move || which::named(&server.pool, asked.as_deref())).await;
    found.map_err(|problem| Refusal::from(problem).of("model"))
}

fn model(manifest: &Manifest, loaded: &[LoadedModel]) -> Model {
    let name = &manifest.name;
    let is_it =
        |other: &&LoadedModel| other.name.parse::<Reference>().is_ok_and(|other| other == *name);
    let loaded = loaded.iter().find(is_it);
    let facts = &manifest.facts;
    Model {
        id: name.to_string(),
        object: "model",
        created: unix_seconds(&manifest.created).unwrap_or_default(),
        owned_by: "nfl".to_owned(),
        status: Status { value: if loaded.is_some() { "loaded" } else { "unloaded" } },
        meta: Meta {
            architecture: facts.architecture.clone(),
            n_ctx_train: facts.context,
            n_embd: facts.embedding,
            n_params: facts.parameters,
            size: manifest.bytes(),
            ftype: facts.level.clone(),
            capabilities: facts.capabilities.iter().map(|each| each.name()).collect(),
            n_ctx: loaded.map(|loaded| loaded.context_tokens),
        },
    }
}

/// The seconds since 1970 of a moment in UTC as manifests have it, `2026-11-21T10:27:33Z`.
fn unix_seconds(moment: &str) -> Option<i64> {
    let number = |range: std::ops::Range<usize>| moment.get(range)?.parse::<i64>().ok();
    let (year, month, day) = (number(0..4)?, number(5..7)?, number(8..10)?);
    let (hour, minute, second) = (number(11..13)?, number(14..16)?, number(17..19)?);
    // Years that begin in March, so that the leap day is their last.
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let leap_days = year / 4 - year / 100 + year / 400;
    let days = 365 * year + leap_days + (153 * month + 2) / 5 + day - 1 - 719_468;
    Some(((days * 24 + hour) * 60 + minute) * 60 + second)
}

#[cfg(test)]
mod tests {
    use nfl_models::template::Clock;

    use super::*;

    #[test]
    fn moments_come_back_as_they_were_written() {
        let mut seconds: i64 = 0;
        while seconds < 4_102_444_800 {
            let written = Clock { unix_seconds: seconds, offset_seconds: 0 }.rfc3339();
            assert_eq!(unix_seconds(&written), Some(seconds), "{written}");
            seconds += 86_399 * 5;
        }
        assert_eq!(unix_seconds("soon"), None);
    }
}
