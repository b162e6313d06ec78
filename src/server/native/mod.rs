//! What no dialect has: health and the like.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use serde_json::json;

use super::Server;
use super::body;
use super::routes::{Access, Routes};

/// The routes.
pub(super) fn routes() -> Routes {
    Routes::new("nfl", body::refusal).get(
        "/health",
        Access::Open,
        "Says that the server is there",
        health,
    )
}

async fn health(State(server): State<Arc<Server>>) -> Response {
    body::json(200, &json!({"status": "ok", "uptime_seconds": server.started.elapsed().as_secs()}))
}
