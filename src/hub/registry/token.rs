//! The anonymous token flow: a registry answers 401 and names a place that gives tokens to anybody.
//!
//! The place comes from the server, so it is treated like a redirect: no private networks, no way back to http. Nothing
//! secret is sent there; the token that comes back is sent to the registry alone.

use reqwest::Url;
use serde::Deserialize;

use super::super::ask::{Answer, Question};
use super::super::error::HubError;
use super::super::network::{Network, place};
use super::super::secret::Secret;

/// Characters of a token.
const TOKEN_CHARACTERS_MAX: usize = 16 << 10;

#[derive(Deserialize)]
struct Granted {
    token: Option<String>,
    access_token: Option<String>,
}

/// A token for `actions` on `repository`, when the challenge in `answer` names a place for it.
pub(super) async fn fetch(
    network: &Network,
    answer: &Answer,
    repository: &str,
    actions: &str,
) -> Result<Option<Secret>, HubError> {
    let Some(challenge) = answer.header("www-authenticate") else { return Ok(None) };
    let Some((realm, service)) = parse(challenge) else { return Ok(None) };
    let wrong = |what: &str| HubError::Protocol {
        place: place(&answer.route.url),
        what: format!("{what}: {realm:?}"),
    };
    let mut url = Url::parse(&realm).map_err(|_| wrong("the place of its tokens is no address"))?;
    // Made here, not taken from the challenge: the scope is ours to ask for.
    let scope = format!("repository:{repository}:{actions}");
    url.query_pairs_mut().append_pair("scope", &scope);
    if let Some(service) = service {
        url.query_pairs_mut().append_pair("service", &service);
    }
    let route = answer.route.without_secret().sent_to(url)?;
    let granted = network.ask(&route, &Question::get()).await?.success()?;
    let granted: Granted = granted.json()?;
    let token = granted.token.or(granted.access_token).unwrap_or_default();
    if token.len() > TOKEN_CHARACTERS_MAX {
        return Err(wrong("a token without end"));
    }
    Secret::bearer(&token).map(Some).ok_or_else(|| wrong("no token"))
}

/// Realm and service of a `Bearer` challenge.
fn parse(challenge: &str) -> Option<(String, Option<String>)> {
    let (scheme, rest) = challenge.trim().split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("bearer") {
        return None;
    }
    let value = |name: &str| {
        let start = rest.find(&format!("{name}=\""))? + name.len() + 2;
        let text = &rest[start..];
        Some(text[..text.find('"')?].to_owned())
    };
    Some((value("realm")?, value("service")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn challenges_are_read() {
        let text = "Bearer realm=\"https://auth.example/token\",service=\"registry\",scope=\"repository:a:pull\"";
        let expected = ("https://auth.example/token".to_owned(), Some("registry".to_owned()));
        assert_eq!(parse(text), Some(expected));
        for text in ["Basic realm=\"x\"", "Bearer", "Bearer realm=", "Bearer realm=\"open", ""] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
