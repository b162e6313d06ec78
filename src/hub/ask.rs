//! Questions with small answers: JSON, mostly. Asked again when the server is busy, refused in the server's own words.

use std::time::{Duration, SystemTime};

use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderValue};
use reqwest::{Method, Request, StatusCode};
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::time::timeout;

use super::error::HubError;
use super::network::{Network, Route, causes, place};
use super::retry;

/// Bytes of an answer that is kept in memory.
pub(crate) const ANSWER_BYTES_MAX: usize = 16 << 20;

/// Characters of a server's own words that are shown.
const WORDS_MAX: usize = 200;

/// How often a question is put, at the most.
const ATTEMPTS: u32 = 4;

/// How long the server may fall silent inside an answer.
const SILENCE_MAX: Duration = Duration::from_secs(30);

/// A whole answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Vec<u8>,
    /// The route that led to it.
    pub(crate) route: Route,
}

/// What a question carries.
#[derive(Debug, Clone)]
pub(crate) struct Question {
    pub(crate) method: Method,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Vec<u8>,
    /// Whether redirects are followed.
    pub(crate) follows: bool,
}

impl Question {
    /// A question without a body.
    pub(crate) fn get() -> Self {
        Self { method: Method::GET, headers: HeaderMap::new(), body: Vec::new(), follows: true }
    }

    /// A question without a body, by this method, whose answer is taken as it is.
    pub(crate) fn plain(method: Method) -> Self {
        Self { method, follows: false, ..Self::get() }
    }

    /// A question with a body of this type.
    pub(crate) fn send(method: Method, media_type: &str, body: Vec<u8>) -> Self {
        let media_type = HeaderValue::from_str(media_type).expect("a constant");
        let headers = HeaderMap::from_iter([(CONTENT_TYPE, media_type)]);
        Self { method, headers, body, follows: false }
    }

    /// A question with a JSON body.
    pub(crate) fn post(body: &Value) -> Self {
        Self::send(Method::POST, "application/json", body.to_string().into_bytes())
    }
}

impl Network {
    /// Asks until there is an answer that is not "later"; its status may be any.
    pub(crate) async fn ask(&self, route: &Route, question: &Question) -> Result<Answer, HubError> {
        let mut attempt = 1;
        loop {
            let answer = self.ask_once(route, question).await;
            let pause = match &answer {
                Ok(answer) if matches!(answer.status.as_u16(), 429 | 500 | 502..=504) => {
                    retry::asked_pause(&answer.headers, SystemTime::now())
                }
                Err(HubError::Unreachable { .. }) => None,
                _ => return answer,
            };
            if attempt == ATTEMPTS || pause.is_some_and(|pause| pause > retry::PAUSE_MAX) {
                return answer;
            }
            let own = retry::pause(attempt, Duration::from_millis(300));
            tokio::time::sleep(pause.unwrap_or(own)).await;
            attempt += 1;
        }
    }

    async fn ask_once(&self, route: &Route, question: &Question) -> Result<Answer, HubError> {
        let (mut response, route) = if question.follows {
            self.follow(route, &question.method, &question.headers).await?
        } else {
            let mut route = route.clone();
            let mut request = Request::new(question.method.clone(), route.url.clone());
            request.headers_mut().extend(question.headers.clone());
            *request.body_mut() = Some(question.body.clone().into());
            (self.send(&mut route, request).await?, route)
        };
        let mut body = Vec::new();
        loop {
            let place = || place(&route.url);
            let piece = timeout(SILENCE_MAX, response.chunk()).await.map_err(|_| {
                let reason = format!("nothing came for {} s", SILENCE_MAX.as_secs());
                HubError::Unreachable { place: place(), reason }
            })?;
            let piece = piece.map_err(|error| HubError::Unreachable {
                place: place(),
                reason: causes(&error),
            })?;
            let Some(piece) = piece else { break };
            if body.len() + piece.len() > ANSWER_BYTES_MAX {
                let what = format!("an answer of more than {ANSWER_BYTES_MAX} bytes");
                return Err(HubError::Protocol { place: place(), what });
            }
            body.extend_from_slice(&piece);
        }
        let (status, headers) = (response.status(), response.headers().clone());
        Ok(Answer { status, headers, body, route })
    }
}

impl Answer {
    /// The answer when it is a success, else an error with the server's words.
    pub(crate) fn success(self) -> Result<Self, HubError> {
        if self.status.is_success() { Ok(self) } else { Err(self.error()) }
    }

    /// The answer as an error.
    pub(crate) fn error(&self) -> HubError {
        HubError::Status {
            place: place(&self.route.url),
            status: self.status.as_u16(),
            words: self.words(),
        }
    }

    /// The body as JSON.
    pub(crate) fn json<T: DeserializeOwned>(&self) -> Result<T, HubError> {
        serde_json::from_slice(&self.body).map_err(|error| HubError::Protocol {
            place: place(&self.route.url),
            what: format!("the answer is not what the protocol says: {error}"),
        })
    }

    /// A header's text.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// What the server says about an error: the hub's header, its JSON, or a registry's list of errors.
    pub(crate) fn words(&self) -> Option<String> {
        let json: Option<Value> = serde_json::from_slice(&self.body).ok();
        let in_json = |value: &Value| {
            let first = &value["errors"][0];
            let words = [&value["error"], &first["message"], &first["code"], &value["message"]];
            words.iter().find_map(|word| word.as_str()).map(str::to_owned)
        };
        let words = self.header("x-error-message").map(str::to_owned);
        let words = words.or_else(|| json.as_ref().and_then(in_json))?;
        Some(words.chars().take(WORDS_MAX).collect())
    }
}
