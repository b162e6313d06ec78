//! The built-in page: what is loaded, what there is, and a chat. One document, nothing from elsewhere.

mod wire;

use std::sync::{Arc, LazyLock};

use axum::body::Body;
use axum::extract::State;
use axum::http::header::{
    ACCEPT, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY, VARY,
};
use axum::http::{HeaderMap, HeaderValue};
use axum::response::Response;
use sha2::{Digest, Sha256};

use super::Server;
use super::body;
use super::routes::{Access, Routes};

/// What Ollama's clients want to hear.
const GREETING: &str = "Ollama is running";

const STYLE: &str = include_str!("page.css");
const SCRIPT: &str = include_str!("page.js");

/// The document with its style and its script inside.
static PAGE: LazyLock<String> = LazyLock::new(|| {
    include_str!("page.html").replace("/*style*/", STYLE).replace("/*script*/", SCRIPT)
});

/// What the document may do: run and look like these two, and ask this server. Nothing that a model says can become more
/// than text, because no other script runs.
static POLICY: LazyLock<HeaderValue> = LazyLock::new(|| {
    let policy = format!(
        "default-src 'none'; style-src '{}'; script-src '{}'; connect-src 'self'; img-src data:; \
         base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
        source(STYLE),
        source(SCRIPT)
    );
    HeaderValue::try_from(policy).expect("a policy of plain letters")
});

/// The routes.
pub(super) fn routes() -> Routes {
    Routes::new("nfl", body::refusal)
        .get(
            "/",
            Access::Open,
            "The page for browsers; for others a word that the server runs",
            page,
        )
        .sends("text/html")
        .sends("text/plain")
        .get(
            "/status",
            Access::Infer,
            "What is loaded, how much waits, and what memory is left",
            status,
        )
        .gives::<wire::Status>()
}

async fn page(headers: HeaderMap) -> Response {
    let accepted = headers.get(ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let is_browser = accepted.contains("text/html");
    let (text, kind) = if is_browser {
        (PAGE.as_str(), "text/html; charset=utf-8")
    } else {
        (GREETING, "text/plain; charset=utf-8")
    };
    let mut response = Response::new(Body::from(text));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(VARY, HeaderValue::from_static("Accept"));
    if is_browser {
        headers.insert(CONTENT_SECURITY_POLICY, POLICY.clone());
        headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    }
    response
}

async fn status(State(server): State<Arc<Server>>) -> Response {
    body::json(200, &wire::Status::of(&server))
}

/// How a policy names a text that may run: by its hash.
fn source(text: &str) -> String {
    format!("sha256-{}", base64(&Sha256::digest(text)))
}

/// RFC 4648, section 4.
fn base64(bytes: &[u8]) -> String {
    const LETTERS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let group = |chunk: &[u8]| {
        let byte = |at: usize| u32::from(chunk.get(at).copied().unwrap_or(0));
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        [18, 12, 6, 0]
            .into_iter()
            .enumerate()
            .map(move |(at, shift)| {
                if at <= chunk.len() {
                    char::from(LETTERS[(bits >> shift & 63) as usize])
                } else {
                    '='
                }
            })
            .collect::<String>()
    };
    bytes.chunks(3).map(group).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_that_of_the_standard() {
        for (text, encoded) in
            [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foobar", "Zm9vYmFy")]
        {
            assert_eq!(base64(text.as_bytes()), encoded);
        }
    }

    #[test]
    fn the_page_needs_nothing_from_elsewhere_and_makes_no_markup_of_texts() {
        for needle in ["http://", "https://", "//cdn", "@import", "url(", "<link rel=\"s", " src="]
        {
            assert!(!PAGE.contains(needle), "{needle}");
        }
        for needle in ["innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval("] {
            assert!(!SCRIPT.contains(needle), "{needle}");
        }
        assert!(PAGE.contains(STYLE) && PAGE.contains(SCRIPT));
        assert!(!SCRIPT.contains("</script") && !STYLE.contains("</style"));
        assert!(PAGE.len() < 32 << 10, "{} bytes", PAGE.len());
    }
}
