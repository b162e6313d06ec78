//! OCI registries, Ollama's among them: manifests, blobs, and the anonymous tokens that some want to see.
//!
//! Protocol: the OCI distribution specification 1.1, and the token flow of Docker's registries.

mod pull;
mod push;
mod token;
mod wire;

use std::sync::Mutex;

use reqwest::{StatusCode, Url};

use super::ask::{Answer, Question};
use super::error::HubError;
use super::network::{Network, Route};
use super::secret::Secret;
use crate::store::{Host, Reference};

/// Where names without a host and an owner live.
pub(crate) const OLLAMA: &str = "registry.ollama.ai";

/// One repository of a registry.
#[derive(Debug)]
pub(crate) struct Registry<'a> {
    network: &'a Network,
    base: Url,
    repository: String,
    token: Mutex<Option<Secret>>,
}

impl<'a> Registry<'a> {
    /// The repository of a model's name. With `insecure`, over plain http, on this machine only.
    pub(crate) fn new(
        network: &'a Network,
        name: &Reference,
        insecure: bool,
    ) -> Result<Self, HubError> {
        let host = name.host().map_or(OLLAMA, Host::as_str);
        let is_here = name.host().is_some_and(|host| {
            let name = host.name();
            let address: Option<std::net::IpAddr> = name.parse().ok();
            name.eq_ignore_ascii_case("localhost") || address.is_some_and(|ip| ip.is_loopback())
        });
        if insecure && !is_here {
            return Err(HubError::Insecure { host: host.to_owned() });
        }
        let scheme = if insecure { "http" } else { "https" };
        // Lower case: registries know no other, and people copy names from pages that show them otherwise.
        let repository = name.repository().to_ascii_lowercase();
        let base = super::parse_url(&format!("{scheme}://{host}/"))?;
        Ok(Self { network, base, repository, token: Mutex::default() })
    }

    /// The route to something of the repository: `manifests/TAG`.
    fn route(&self, what: &str) -> Route {
        let url = self.base.join(&format!("/v2/{}/{what}", self.repository));
        let url = url.expect("names hold no characters that URLs do not");
        Route::new(url, self.token.lock().expect("nothing panics with it").clone())
    }

    /// Asks; gets a token first when the registry wants one for `actions`.
    async fn ask(
        &self,
        what: &str,
        actions: &str,
        question: &Question,
    ) -> Result<Answer, HubError> {
        let answer = self.network.ask(&self.route(what), question).await?;
        if answer.status != StatusCode::UNAUTHORIZED {
            return Ok(answer);
        }
        let Some(token) = token::fetch(self.network, &answer, &self.repository, actions).await?
        else {
            return Ok(answer);
        };
        *self.token.lock().expect("nothing panics with it") = Some(token);
        self.network.ask(&self.route(what), question).await
    }
}
