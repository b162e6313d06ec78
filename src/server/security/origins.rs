//! Pages that may ask: what browsers say in `Origin` and `Sec-Fetch-Site`, and what they are answered.

use axum::body::Body;
use axum::http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_HEADERS,
    ACCESS_CONTROL_REQUEST_METHOD, CONTENT_TYPE, ORIGIN, VARY,
};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use axum::response::Response;

use super::hosts::Authority;
use crate::server::problem::{Kind, Problem};

/// Schemes of programs on this machine that show pages of their own; no site on the network has one of these.
const SCHEMES: [&str; 5] = ["app", "file", "tauri", "vscode-file", "vscode-webview"];

/// Content types that any page may send to any server without asking first.
const SIMPLE: [&str; 3] =
    ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data"];

const PRIVATE_NETWORK_ASKED: &str = "access-control-request-private-network";
const PRIVATE_NETWORK_ALLOWED: HeaderName =
    HeaderName::from_static("access-control-allow-private-network");

/// Origins that the user allows beside those of this machine.
#[derive(Debug, Clone)]
pub(super) struct Origins {
    /// `SCHEME://HOST[:PORT]`, where each `*` stands for anything but a slash.
    allowed: Vec<String>,
}

impl Origins {
    pub(super) fn new(allowed: &[String]) -> Self {
        let lower = allowed.iter().map(|origin| origin.trim().to_lowercase());
        Self { allowed: lower.filter(|origin| !origin.is_empty()).collect() }
    }

    /// Whether a page of `origin` may ask the server that it calls `host`.
    fn may_ask(&self, origin: &str, host: &Authority) -> bool {
        let origin = origin.to_ascii_lowercase();
        if self.allowed.iter().any(|pattern| is_like(pattern, &origin)) {
            return true;
        }
        let Some((scheme, rest)) = origin.split_once("://") else { return false };
        let usual = match scheme {
            "http" => 80,
            "https" => 443,
            scheme => return SCHEMES.contains(&scheme),
        };
        let Some(from) = Authority::parse(rest) else { return false };
        let is_same =
            from.host == host.host && from.port.unwrap_or(usual) == host.port.unwrap_or(usual);
        // Other programs of this machine have pages too; its own page comes from here.
        from.host.is_loopback() || is_same
    }

    /// The origin that an answer is to name, None when no page asks.
    ///
    /// # Errors
    /// When a page asks that may not, or in a way in which any page may ask.
    pub(super) fn check(
        &self,
        method: &Method,
        headers: &HeaderMap,
        host: &Authority,
    ) -> Result<Option<HeaderValue>, Problem> {
        let mut origins = headers.get_all(ORIGIN).iter();
        let Some(origin) = origins.next() else {
            return if is_foreign_without_origin(method, headers) {
                Err(forbidden("another site's page"))
            } else {
                Ok(None)
            };
        };
        let is_allowed = origin.to_str().is_ok_and(|text| self.may_ask(text, host));
        if !is_allowed || origins.next().is_some() {
            return Err(forbidden(&String::from_utf8_lossy(origin.as_bytes())));
        }
        if *method == Method::POST && is_simple(headers) {
            return Err(Problem {
                status: StatusCode::UNSUPPORTED_MEDIA_TYPE,
                hint: Some("send Content-Type: application/json".to_owned()),
                ..Problem::new(Kind::Forbidden, "a page sent a body without saying that it is JSON")
            });
        }
        Ok(Some(origin.clone()))
    }
}

fn forbidden(origin: &str) -> Problem {
    let shown: String = origin.chars().take(100).collect();
    Problem {
        hint: Some(format!("nfl serve --allow-origin {shown} lets it")),
        ..Problem::new(Kind::Forbidden, format!("{shown} may not ask this server"))
    }
}

/// What a foreign page has its browser fetch without an origin: pictures, scripts and the like. That somebody follows a
/// link is fine.
fn is_foreign_without_origin(method: &Method, headers: &HeaderMap) -> bool {
    let says = |name: &str, value: &str| headers.get(name).is_some_and(|found| found == value);
    let follows = says("sec-fetch-mode", "navigate") && (method == Method::GET);
    says("sec-fetch-site", "cross-site") && !follows
}

fn is_simple(headers: &HeaderMap) -> bool {
    match headers.get(CONTENT_TYPE).map(HeaderValue::to_str) {
        None | Some(Err(_)) => true,
        Some(Ok(text)) => {
            let kind = text.split(';').next().unwrap_or(text).trim().to_ascii_lowercase();
            kind.is_empty() || SIMPLE.contains(&kind.as_str())
        }
    }
}

/// Whether a browser only asks what its page may ask.
pub(super) fn is_preflight(method: &Method, headers: &HeaderMap) -> bool {
    method == Method::OPTIONS
        && headers.contains_key(ORIGIN)
        && headers.contains_key(ACCESS_CONTROL_REQUEST_METHOD)
}

/// The answer to that, for an origin that may.
pub(super) fn preflight(headers: &HeaderMap) -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::NO_CONTENT;
    let answer = response.headers_mut();
    let methods = HeaderValue::from_static("GET, HEAD, POST, DELETE");
    answer.insert(ACCESS_CONTROL_ALLOW_METHODS, methods);
    // Clients invent headers (x-stainless-…), and none of them opens anything.
    if let Some(asked) = headers.get(ACCESS_CONTROL_REQUEST_HEADERS) {
        answer.insert(ACCESS_CONTROL_ALLOW_HEADERS, asked.clone());
    }
    answer.insert(ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("7200"));
    if headers.contains_key(PRIVATE_NETWORK_ASKED) {
        answer.insert(PRIVATE_NETWORK_ALLOWED, HeaderValue::from_static("true"));
    }
    response
}

/// Tells the browser that this page may read the answer.
pub(super) fn allow(response: &mut Response, origin: HeaderValue) {
    let headers = response.headers_mut();
    headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
    let exposed = HeaderValue::from_static("x-request-id, retry-after");
    headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, exposed);
    headers.append(VARY, HeaderValue::from_static("Origin"));
}

/// Whether a text is like a pattern in which each `*` stands for anything but a slash.
fn is_like(pattern: &str, text: &str) -> bool {
    let Some((head, mut rest)) = pattern.split_once('*') else { return pattern == text };
    // A star alone is everything, as in Ollama's settings.
    if pattern == "*" {
        return true;
    }
    let Some(mut text) = text.strip_prefix(head) else { return false };
    loop {
        let (part, more) = rest.split_once('*').map_or((rest, None), |(a, b)| (a, Some(b)));
        let Some(more) = more else {
            return text.strip_suffix(part).is_some_and(|gap| !gap.contains('/'));
        };
        let Some(at) = text.find(part).filter(|at| !text[..*at].contains('/')) else {
            return false;
        };
        text = &text[at + part.len()..];
        rest = more;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn may(allowed: &[&str], origin: &str, host: &str) -> bool {
        let allowed: Vec<String> = allowed.iter().map(|text| (*text).to_owned()).collect();
        Origins::new(&allowed).may_ask(origin, &Authority::parse(host).unwrap())
    }

    #[test]
    fn pages_of_this_machine_may_ask_and_no_others() {
        for origin in [
            "http://localhost",
            "http://localhost:3000",
            "https://LOCALHOST:3000",
            "http://127.0.0.1:8080",
            "http://[::1]:8080",
            "http://tauri.localhost",
            "tauri://localhost",
            "app://obsidian.md",
            "vscode-webview://abc",
            "file://",
        ] {
            assert!(may(&[], origin, "127.0.0.1:11434"), "{origin}");
        }
        for origin in [
            "null",
            "",
            "localhost",
            "http://",
            "https://evil.com",
            "http://localhost.evil.com",
            "http://localhost.evil.com:11434",
            "http://evil.com:11434",
            "http://localhost@evil.com",
            "http://localhost:3000/evil",
            "http://0.0.0.0:11434",
            "http://192.168.1.5",
            "chrome-extension://abcdef",
            "javascript://localhost",
        ] {
            assert!(!may(&[], origin, "127.0.0.1:11434"), "{origin}");
        }
        assert!(may(&[], "http://192.168.1.5:11434", "192.168.1.5:11434"), "its own page");
        assert!(!may(&[], "http://192.168.1.5:8080", "192.168.1.5:11434"), "another program's");
        assert!(may(&[], "https://box.lan", "box.lan"), "behind a proxy");
    }

    #[test]
    fn users_allow_origins_as_ollama_takes_them() {
        for (pattern, origin, allowed) in [
            ("http://192.168.1.5:*", "http://192.168.1.5:3000", true),
            ("http://192.168.1.5:*", "http://192.168.1.55:3000", false),
            ("chrome-extension://*", "chrome-extension://abc", true),
            ("https://*.example.com", "https://a.example.com", true),
            ("https://*.example.com", "https://example.com.evil.com", false),
            ("https://*.example.com", "http://a.example.com", false),
            ("https://*.b.*.com", "https://a.b.c.com", true),
            ("https://Example.com", "https://example.com", true),
            ("*", "https://evil.com", true),
            ("*", "null", true),
        ] {
            assert_eq!(may(&[pattern], origin, "localhost"), allowed, "{pattern} {origin}");
        }
    }
}
