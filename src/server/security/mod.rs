//! Who may ask: hosts, origins, keys and limits, before any dialect sees a request.

use std::sync::Arc;

use axum::Router;

use super::Server;

/// The routes behind the guard.
pub(super) fn guard(routes: Router<Arc<Server>>, _server: &Arc<Server>) -> Router<Arc<Server>> {
    routes
}
