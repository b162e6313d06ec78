//! `/api/tags`: the models of the store.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;

use super::super::problem::Problem;
use super::super::{Server, body, reply};
use super::{model, refuse, wire};
use crate::store::Manifest;

/// All models, the newest first.
pub(super) async fn tags(State(server): State<Arc<Server>>) -> Response {
    let listed = reply::blocking(move || Ok(server.pool.store()?.list()?)).await;
    let answer = |mut manifests: Vec<Manifest>| -> Result<Response, Problem> {
        manifests.sort_by(|left, right| right.created.cmp(&left.created));
        let models = manifests.iter().map(stored).collect();
        Ok(body::json(200, &wire::Models { models }))
    };
    refuse::or(listed.and_then(|listing| answer(listing.manifests)))
}

fn stored(manifest: &Manifest) -> wire::Stored {
    let name = model::full(&manifest.name);
    wire::Stored {
        model: name.clone(),
        name,
        modified_at: manifest.created.clone(),
        size: manifest.bytes(),
        digest: manifest.digest().hex(),
        details: model::details(manifest),
        capabilities: model::capabilities(manifest),
    }
}
