//! What a server says of a file before it is fetched: how long it is, and which state of it this is.

use reqwest::header::{
    CONTENT_LENGTH, CONTENT_RANGE, ETAG, HeaderMap, HeaderName, HeaderValue, LAST_MODIFIED, RANGE,
};
use reqwest::{Method, StatusCode};

use super::ask::Question;
use super::error::HubError;
use super::network::{Network, Route, place};

/// Characters of a header that is kept.
const TEXT_MAX: usize = 256;

/// A file on a server, as far as the server says.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) bytes: Option<u64>,
    /// Its version (RFC 9110 §8.8.3), also one that only means about the same content.
    pub(crate) etag: Option<String>,
    /// When it was last changed.
    pub(crate) modified: Option<String>,
    /// Where it is: the route that was given, with what the answer says about how far it may lead.
    pub(crate) route: Route,
}

impl Network {
    /// Asks for the state of a file without fetching it.
    ///
    /// # Errors
    /// When there is no such file, or its server cannot be reached.
    pub(crate) async fn probe(&self, route: &Route) -> Result<State, HubError> {
        let question = Question { method: Method::HEAD, ..Question::get() };
        let answer = self.ask(route, &question).await?;
        if answer.status == StatusCode::OK {
            let bytes = number(&answer.headers, CONTENT_LENGTH);
            return Ok(state(&answer.headers, bytes, &answer.route));
        }
        // Addresses that are signed for GET refuse HEAD, and some servers do not know it: ask for the first byte. The
        // body is not read; from a server that knows no ranges it would be the whole file.
        let first = HeaderMap::from_iter([(RANGE, HeaderValue::from_static("bytes=0-0"))]);
        let (response, used) = self.follow(route, &Method::GET, &first).await?;
        let (status, headers) = (response.status(), response.headers());
        let bytes = match status {
            StatusCode::OK => number(headers, CONTENT_LENGTH),
            StatusCode::PARTIAL_CONTENT => text(headers, CONTENT_RANGE)
                .and_then(|range| range.rsplit_once('/')?.1.trim().parse().ok()),
            // An empty file has no first byte; a busy server is asked again by whoever fetches.
            StatusCode::RANGE_NOT_SATISFIABLE | StatusCode::TOO_MANY_REQUESTS => None,
            _ if status.is_server_error() => None,
            _ => {
                let (place, status) = (place(&used.url), status.as_u16());
                return Err(HubError::Status { place, status, words: None });
            }
        };
        Ok(state(headers, bytes, &used))
    }
}

fn state(headers: &HeaderMap, bytes: Option<u64>, used: &Route) -> State {
    State {
        // Some servers do not count before they send.
        bytes: bytes.filter(|bytes| *bytes > 0),
        etag: text(headers, ETAG),
        modified: text(headers, LAST_MODIFIED),
        route: used.begun_again(),
    }
}

fn number(headers: &HeaderMap, name: HeaderName) -> Option<u64> {
    text(headers, name)?.parse().ok()
}

fn text(headers: &HeaderMap, name: HeaderName) -> Option<String> {
    let text = headers.get(name)?.to_str().ok()?.trim();
    (!text.is_empty() && text.len() <= TEXT_MAX).then(|| text.to_owned())
}
