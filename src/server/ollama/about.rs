//! `/api/version` and `/api/status`: who answers, and that there is no cloud behind it.

use axum::response::Response;
use serde_json::json;

use super::super::body;

/// The version of this program. Clients that compare it with Ollama's find a lower one.
pub(super) async fn version() -> Response {
    body::json(200, &json!({"version": env!("CARGO_PKG_VERSION")}))
}

/// There is no cloud.
pub(super) async fn status() -> Response {
    body::json(200, &json!({"cloud": {"disabled": true, "source": "nfl"}}))
}
