//! What Ollama's cloud does: refused in the words that it has for a cloud that is switched off.

use axum::response::Response;

use super::super::problem::{Kind, Problem};
use super::refuse;

fn disabled(what: &str) -> Response {
    let words = format!("ollama cloud is disabled: {what}");
    refuse::answer(&Problem::new(Kind::Forbidden, words))
}

/// Accounts.
pub(super) async fn account() -> Response {
    disabled("nfl knows no accounts")
}

/// Searching the web.
pub(super) async fn web_search() -> Response {
    disabled("web search is unavailable")
}

/// Fetching pages.
pub(super) async fn web_fetch() -> Response {
    disabled("web fetch is unavailable")
}

/// Which models the cloud recommends.
pub(super) async fn recommendations() -> Response {
    disabled("model recommendations are unavailable")
}
