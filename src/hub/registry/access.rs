//! The right to one repository of a registry: what is shown with each request, and how to get it anew when the registry
//! answers 401.
//!
//! The registry names a way: `Basic`, or `Bearer` with a place (realm) that gives tokens, to anybody or for a login. The
//! place comes from the server, so it is treated like a redirect: no private networks, no way back to http. A login is
//! shown to the registry that it is for, and to a place that has the registry's own host or that the registry itself
//! named over https and that is asked over https; a token is shown to the registry alone.

use std::sync::Mutex;

use reqwest::header::{HeaderMap, WWW_AUTHENTICATE};
use reqwest::{Method, StatusCode, Url};
use serde::Deserialize;

use super::super::ask::Question;
use super::super::error::HubError;
use super::super::network::{Network, Route, place};
use super::super::secret::Secret;
use super::login::Login;

/// Characters of a token.
const TOKEN_CHARACTERS_MAX: usize = 16 << 10;

/// What a download is allowed to do.
pub(crate) const PULL: &str = "pull";

/// What is shown to one repository of one registry.
#[derive(Debug)]
pub(crate) struct Access {
    /// The registry.
    base: Url,
    /// The registry as logins call it.
    host: String,
    repository: String,
    secret: Mutex<Option<Secret>>,
}

#[derive(Deserialize)]
struct Granted {
    token: Option<String>,
    access_token: Option<String>,
}

/// A way to prove something that a registry names (RFC 9110 §11.6.1).
#[derive(Debug, PartialEq, Eq)]
enum Challenge {
    Basic,
    Bearer { realm: String, service: Option<String> },
}

impl Access {
    /// The right of somebody who has shown nothing yet.
    pub(super) fn new(base: Url, host: String, repository: String) -> Self {
        Self { base, host, repository, secret: Mutex::default() }
    }

    /// What to show now.
    pub(crate) fn secret(&self) -> Option<Secret> {
        self.secret.lock().expect("nothing panics with it").clone()
    }

    /// Gets the right to `actions` anew, after `route` was answered 401 with `headers`. None when there is no way to, or
    /// it was not the registry that answered.
    ///
    /// # Errors
    /// When the way leads where it must not, or to nothing, or the login is refused there.
    pub(crate) async fn renew(
        &self,
        network: &Network,
        headers: &HeaderMap,
        route: &Route,
        actions: &str,
    ) -> Result<Option<Secret>, HubError> {
        if route.url.origin() != self.base.origin() {
            return Ok(None);
        }
        let shown = self.secret();
        if route.secret() != shown.as_ref() {
            // Another request has renewed it meanwhile.
            return Ok(shown);
        }
        let login = Login::of(&self.host)?;
        let mut secret = None;
        for challenge in challenges(headers) {
            secret = match (challenge, &login) {
                (_, Some(Login::Token(token))) => Some(token.clone()),
                (Challenge::Basic, Some(Login::Password(user, password))) => {
                    Some(Secret::basic(user, password))
                }
                (Challenge::Basic, _) => None,
                (Challenge::Bearer { realm, service }, login) => {
                    let asked = Asked { route, login: login.as_ref(), actions };
                    Some(self.token(network, &realm, service.as_deref(), asked).await?)
                }
            };
            if secret.is_some() {
                break;
            }
        }
        self.secret.lock().expect("nothing panics with it").clone_from(&secret);
        // What was refused already is not shown again.
        Ok(secret.filter(|secret| shown.as_ref() != Some(secret)))
    }

    /// What a refusal means, when nothing more can be shown.
    pub(super) fn refused(&self, words: Option<String>) -> HubError {
        let with_login = matches!(Login::of(&self.host), Ok(Some(_)));
        let (registry, repository) = (self.host.clone(), self.repository.clone());
        HubError::Login { registry, repository, with_login, words }
    }

    /// A token from the place that the registry names.
    async fn token(
        &self,
        network: &Network,
        realm: &str,
        service: Option<&str>,
        asked: Asked<'_>,
    ) -> Result<Secret, HubError> {
        let wrong = |what: &str| HubError::Protocol {
            place: place(&asked.route.url),
            what: format!("{what}: {realm:?}"),
        };
        let url = Url::parse(realm).map_err(|_| wrong("the place of its tokens is no address"))?;
        let is_own_host = url.host_str() == self.base.host_str();
        let is_named_safely = self.base.scheme() == "https" && url.scheme() == "https";
        if asked.login.is_some() && !is_own_host && !is_named_safely {
            let (registry, realm) = (self.host.clone(), place(&url));
            return Err(HubError::Realm { registry, realm });
        }
        // Made here, not taken from the challenge: the scope is ours to ask for.
        let mut fields =
            vec![("scope", format!("repository:{}:{}", self.repository, asked.actions))];
        fields.extend(service.map(|service| ("service", service.to_owned())));
        let (route, question) = match asked.login {
            Some(Login::Identity(token)) => {
                fields.push(("grant_type", "refresh_token".to_owned()));
                fields.push(("refresh_token", token.clone()));
                fields.push(("client_id", "nfl".to_owned()));
                let route = asked.route.without_secret().sent_to(url)?;
                (route, form(&fields))
            }
            Some(Login::Password(user, password)) => {
                fields.push(("account", user.clone()));
                let route = asked.route.without_secret().sent_to(with_query(url, &fields))?;
                (route.with_secret_here(Secret::basic(user, password)), Question::get())
            }
            Some(Login::Token(_)) | None => {
                let route = asked.route.without_secret().sent_to(with_query(url, &fields))?;
                (route, Question::get())
            }
        };
        let answer = network.ask(&route, &question).await?;
        if matches!(answer.status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) {
            return Err(self.refused(answer.words()));
        }
        let granted: Granted = answer.success()?.json()?;
        let token = granted.token.or(granted.access_token).unwrap_or_default();
        if token.len() > TOKEN_CHARACTERS_MAX {
            return Err(wrong("a token without end"));
        }
        Secret::bearer(&token).ok_or_else(|| wrong("no token"))
    }
}

/// What a token is wanted for.
struct Asked<'a> {
    /// The request that was refused.
    route: &'a Route,
    login: Option<&'a Login>,
    actions: &'a str,
}

fn with_query(mut url: Url, fields: &[(&str, String)]) -> Url {
    url.query_pairs_mut().extend_pairs(fields);
    url
}

/// A question that carries its fields in its body, where no log finds them.
fn form(fields: &[(&str, String)]) -> Question {
    let mut carrier = Url::parse("http://form").expect("a constant");
    carrier.query_pairs_mut().extend_pairs(fields);
    let body = carrier.query().unwrap_or_default().as_bytes().to_vec();
    Question::send(Method::POST, "application/x-www-form-urlencoded", body)
}

/// The ways that a refusal names, as far as they are known here.
fn challenges(headers: &HeaderMap) -> Vec<Challenge> {
    let texts = headers.get_all(WWW_AUTHENTICATE).iter().filter_map(|value| value.to_str().ok());
    texts.filter_map(parse).collect()
}

fn parse(challenge: &str) -> Option<Challenge> {
    let challenge = challenge.trim();
    let (scheme, rest) = challenge.split_once(' ').unwrap_or((challenge, ""));
    let value = |name: &str| {
        let start = rest.find(&format!("{name}=\""))? + name.len() + 2;
        let text = &rest[start..];
        Some(text[..text.find('"')?].to_owned())
    };
    match scheme.to_ascii_lowercase().as_str() {
        "basic" => Some(Challenge::Basic),
        "bearer" => Some(Challenge::Bearer { realm: value("realm")?, service: value("service") }),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn challenges_are_read() {
        let text = "Bearer realm=\"https://auth.example/token\",service=\"registry\",scope=\"repository:a:pull\"";
        let realm = "https://auth.example/token".to_owned();
        let expected = Challenge::Bearer { realm, service: Some("registry".to_owned()) };
        assert_eq!(parse(text), Some(expected));
        assert_eq!(parse("Basic realm=\"x\""), Some(Challenge::Basic));
        for text in ["Bearer", "Bearer realm=", "Bearer realm=\"open", "", "Negotiate abc"] {
            assert_eq!(parse(text), None, "{text}");
        }
    }

    #[test]
    fn forms_are_encoded() {
        let form = form(&[("scope", "a:b c&d=e".to_owned()), ("x", "ü".to_owned())]);
        assert_eq!(form.body, b"scope=a%3Ab+c%26d%3De&x=%C3%BC");
    }
}
