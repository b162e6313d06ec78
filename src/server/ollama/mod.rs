//! Ollama's dialect: models by name, talk and texts as lines of JSON, and the management of the store.
//!
//! One file an endpoint. Where Ollama would drop a part of a prompt without a word, this refuses with the numbers; who asks
//! for it (`truncate`, `shift`) gets it, and is told.

mod about;
mod blobs;
mod chat;
mod cloud;
mod copy;
mod create;
mod delete;
mod embed;
mod generate;
mod list;
mod load;
mod model;
mod moment;
mod options;
mod progress;
mod ps;
mod pull;
mod push;
mod refuse;
mod replaced;
mod show;
mod talk;
mod terms;
mod wire;

use std::sync::Arc;

use axum::Router;
use axum::routing::{MethodFilter, MethodRouter, delete, get, on, post};

use super::Server;

/// The routes.
pub(super) fn router() -> Router<Arc<Server>> {
    let known = |methods: MethodRouter<Arc<Server>>| methods.fallback(refuse::method);
    Router::new()
        .route("/api/version", known(get(about::version)))
        .route("/api/status", known(get(about::status)))
        .route("/api/generate", known(post(generate::generate)))
        .route("/api/chat", known(post(chat::chat)))
        .route("/api/embed", known(post(embed::embed)))
        .route("/api/embeddings", known(post(embed::embeddings)))
        .route("/api/tags", known(get(list::tags)))
        .route("/api/show", known(post(show::show)))
        .route("/api/ps", known(get(ps::ps)))
        .route("/api/copy", known(post(copy::copy)))
        .route("/api/delete", known(delete(delete::delete)))
        .route("/api/create", known(post(create::create)))
        .route("/api/blobs/{digest}", known(post(blobs::put).on(MethodFilter::HEAD, blobs::has)))
        .route("/api/pull", known(post(pull::pull)))
        .route("/api/push", known(post(push::push)))
        .route("/api/me", known(post(cloud::account)))
        .route("/api/signout", known(post(cloud::account)))
        .route("/api/user/keys/{key}", known(delete(cloud::account)))
        .route("/api/experimental/web_search", known(post(cloud::web_search)))
        .route("/api/experimental/web_fetch", known(post(cloud::web_fetch)))
        .route("/api/web_search", known(post(cloud::web_search)))
        .route("/api/web_fetch", known(post(cloud::web_fetch)))
        .route(
            "/api/experimental/model-recommendations",
            known(on(MethodFilter::GET, cloud::recommendations)),
        )
}
