//! What no dialect has: health and the like.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::response::Response;
use axum::routing::get;
use serde_json::json;

use super::Server;
use super::body;

/// The routes.
pub(super) fn router() -> Router<Arc<Server>> {
    Router::new().route("/health", get(health))
}

async fn health(State(server): State<Arc<Server>>) -> Response {
    body::json(200, &json!({"status": "ok", "uptime_seconds": server.started.elapsed().as_secs()}))
}
