//! GET `/metrics`: the server's counters for Prometheus.

use std::sync::Arc;
use std::time::UNIX_EPOCH;

use axum::extract::State;
use axum::http::HeaderValue;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};

use super::failure;
use crate::chat::pool::Sight;
use crate::server::Server;
use crate::server::metrics::Now;
use crate::server::reply::blocking;

pub(super) async fn metrics(State(server): State<Arc<Server>>) -> Response {
    let started = server.metrics.started.duration_since(UNIX_EPOCH).unwrap_or_default();
    let page = blocking(move || {
        let sights = server.pool.look();
        let steps = |sight: &Sight| Some(sight.responder().runner().status().ok()?.steps);
        let steps = sights.iter().filter_map(steps).sum();
        let models = sights.iter().map(|sight| sight.loaded().clone()).collect();
        Ok(server.metrics.page(&Now { models, steps }))
    });
    match page.await {
        Ok(page) => {
            let mut response = page.into_response();
            let headers = response.headers_mut();
            let text = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
            headers.insert(CONTENT_TYPE, text);
            headers.insert("process-start-time-unix", started.as_secs().into());
            response
        }
        Err(problem) => failure::response(&problem),
    }
}
