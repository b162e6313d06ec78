//! `/api/push`: models to other machines, with their progress.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;

use super::super::Server;
use super::super::body::Raw;
use super::super::problem::Problem;
use super::progress::{self, Teller};
use super::pull::{download_problem, hub_problem, watch};
use super::{model, refuse, wire};
use crate::hub::{Hub, Meter};
use crate::settings;
use crate::store::Digest;

/// Sends a model to where its name says.
pub(super) async fn push(State(server): State<Arc<Server>>, raw: Raw) -> Response {
    let request: wire::Named = match raw.parse() {
        Ok(request) => request,
        Err(problem) => return refuse::answer(&problem),
    };
    let Some(name) = model::named(request.model, request.name) else {
        return refuse::answer(&Problem::invalid("model is required"));
    };
    let insecure = request.insecure.unwrap_or(false);
    progress::told(request.stream, move |teller| send(&server, &name, insecure, teller)).await
}

fn send(server: &Server, name: &str, insecure: bool, teller: &Teller) -> Result<(), Problem> {
    let store = server.pool.store()?;
    let manifest = model::find(&store, name)?;
    teller.say("retrieving manifest")?;
    // Held while they are sent.
    store.resolve_manifest(manifest.clone())?;
    let hub = Hub::new(settings::offline()).map_err(|error| hub_problem(&error))?;
    let meters: Vec<_> = manifest.layers.iter().map(|_| Arc::new(Meter::default())).collect();
    let digests: Vec<Option<Digest>> =
        manifest.layers.iter().map(|layer| Some(layer.digest)).collect();
    watch("pushing", &digests, &meters, teller, || {
        hub.push(&manifest, &store, insecure, &meters).map_err(download_problem)
    })?;
    teller.say("pushing manifest")?;
    teller.say("success")
}
