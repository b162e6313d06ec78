//! `/api/ps`: the models that are loaded.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;

use super::super::{Server, body};
use super::{model, moment, wire};
use crate::chat::pool::LoadedModel;

/// All loaded models, the one that stays longest first.
pub(super) async fn ps(State(server): State<Arc<Server>>) -> Response {
    let models = server.pool.loaded().into_iter().map(running).collect();
    body::json(200, &wire::Models { models })
}

fn running(loaded: LoadedModel) -> wire::Running {
    let name = match &loaded.manifest {
        Some(manifest) => model::full(&manifest.name),
        None => loaded.name,
    };
    wire::Running {
        model: name.clone(),
        name,
        size: loaded.bytes,
        digest: loaded.digest.unwrap_or_default(),
        details: loaded.manifest.as_ref().map(model::details),
        expires_at: moment::text(loaded.expires.unwrap_or_else(moment::never)),
        size_vram: loaded.gpu_bytes,
        context_length: loaded.context_tokens,
    }
}
