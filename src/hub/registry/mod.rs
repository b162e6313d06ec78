//! OCI registries, Ollama's among them: manifests, blobs, and the logins and tokens that some want to see.
//!
//! Protocol: the OCI distribution specification 1.1, and the token flow of Docker's registries.

mod access;
mod index;
mod login;
mod pull;
mod push;
mod wire;

use std::sync::Arc;

use reqwest::{StatusCode, Url};

use super::ask::{Answer, Question};
use super::error::HubError;
use super::network::{Network, Route};
use crate::store::{Host, Reference};
pub(crate) use access::{Access, PULL};

/// Where names without a host and an owner live.
pub(crate) const OLLAMA: &str = "registry.ollama.ai";

/// Docker's hub as names call it, and where it answers.
const DOCKER_HUB: (&str, &str) = ("docker.io", "registry-1.docker.io");

/// One repository of a registry.
#[derive(Debug)]
pub(crate) struct Registry<'a> {
    network: &'a Network,
    base: Url,
    repository: String,
    access: Arc<Access>,
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
        let host = if host == DOCKER_HUB.0 { DOCKER_HUB.1 } else { host };
        let base = super::parse_url(&format!("{scheme}://{host}/"))?;
        let access = Access::new(base.clone(), host.to_owned(), repository.clone());
        Ok(Self { network, base, repository, access: Arc::new(access) })
    }

    /// The route to something of the repository: `manifests/TAG`.
    fn route(&self, what: &str) -> Route {
        let url = self.base.join(&format!("/v2/{}/{what}", self.repository));
        let url = url.expect("names hold no characters that URLs do not");
        Route::new(url, self.access.secret())
    }

    /// Asks; when the registry wants to know who does, shows what gives the right to `actions`.
    async fn ask(
        &self,
        what: &str,
        actions: &str,
        question: &Question,
    ) -> Result<Answer, HubError> {
        let mut answer = self.network.ask(&self.route(what), question).await?;
        if answer.status == StatusCode::UNAUTHORIZED {
            let (headers, route) = (&answer.headers, &answer.route);
            if self.access.renew(self.network, headers, route, actions).await?.is_some() {
                answer = self.network.ask(&self.route(what), question).await?;
            }
        }
        let is_refused = matches!(answer.status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN);
        if is_refused && answer.route.url.origin() == self.base.origin() {
            return Err(self.access.refused(answer.words()));
        }
        Ok(answer)
    }
}
