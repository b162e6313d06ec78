//! OpenAI's dialect.

use std::sync::Arc;

use axum::Router;

use super::Server;

/// The routes.
pub(super) fn router() -> Router<Arc<Server>> {
    Router::new()
}
