//! Connections to other machines, under rules: who may send us where, and what a header may carry.
//!
//! - A redirect leads only to where its sender could have reached by itself ([`Reach`]), never from https to http, and at
//!   most [`HOPS_MAX`] times. Names are judged by the addresses that the connection really uses, so a name that
//!   resolves to another address the second time (DNS rebinding) gains nothing.
//! - A secret goes to the scheme, host and port that it was given for, and is dropped on the way to any other.
//! - Nothing is decompressed: a compressed answer to a request for a file is refused where the file is read.
//! - `--offline` cuts every connection here.

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::header::{ACCEPT_ENCODING, AUTHORIZATION, HeaderMap, HeaderValue, LOCATION};
use reqwest::{Client, ClientBuilder, Method, Proxy, Request, Response, StatusCode, Url};

use super::address::{Reach, Zone};
use super::error::HubError;
use super::secret::Secret;
use crate::settings;

/// Redirects in a row.
pub(crate) const HOPS_MAX: usize = 10;

/// How long opening a connection may take.
const CONNECT_TIME_MAX: Duration = Duration::from_secs(15);

/// How long a server may take from the request to the beginning of its answer.
const ANSWER_TIME_MAX: Duration = Duration::from_mins(1);

/// Every reach that a connection can have; each has connections of its own.
const REACHES: [Reach; 5] = [
    Reach::Anywhere,
    Reach::SentFrom(Zone::Public),
    Reach::SentFrom(Zone::Private),
    Reach::SentFrom(Zone::Loopback),
    Reach::SentFrom(Zone::Special),
];

/// The clients, one for each reach, and one for what goes through a proxy (which resolves names itself). Each is made when
/// it is first needed, because each reads the system's certificates.
#[derive(Debug, Clone)]
pub(crate) struct Network {
    clients: Arc<[OnceLock<Client>; REACHES.len()]>,
    proxied: Arc<OnceLock<Client>>,
    offline: bool,
}

/// Where a request goes and what it may carry there.
#[derive(Debug, Clone)]
pub(crate) struct Route {
    /// Where the next request goes.
    pub(crate) url: Url,
    /// Where the route began: the only place that may see the secret.
    origin: Url,
    secret: Option<Secret>,
    reach: Reach,
    /// The reach at the beginning.
    origin_reach: Reach,
}

impl Route {
    /// A route to what the person named.
    pub(crate) fn new(url: Url, secret: Option<Secret>) -> Self {
        let (reach, origin_reach) = (Reach::Anywhere, Reach::Anywhere);
        Self { origin: url.clone(), url, secret, reach, origin_reach }
    }

    /// The same route before any redirect. What its beginning has turned out to be it stays.
    pub(crate) fn begun_again(&self) -> Self {
        Self { url: self.origin.clone(), reach: self.origin_reach, ..self.clone() }
    }

    /// The same route for somebody who proves nothing.
    pub(crate) fn without_secret(&self) -> Self {
        Self { secret: None, ..self.clone() }
    }

    /// The same route for somebody who proves something, to nobody but the host that the route has come to.
    pub(crate) fn with_secret_here(&self, secret: Secret) -> Self {
        let (origin, origin_reach) = (self.url.clone(), self.reach);
        Self { origin, origin_reach, secret: Some(secret), ..self.clone() }
    }

    /// Whether a redirect led away from the beginning.
    pub(crate) fn was_redirected(&self) -> bool {
        self.url != self.origin
    }

    /// Goes on to `url`, which a server named in its answer, under the rules for redirects.
    pub(crate) fn sent_to(&self, url: Url) -> Result<Self, HubError> {
        let refuse =
            |reason| HubError::Redirect { from: place(&self.url), to: place(&url), reason };
        match (self.url.scheme(), url.scheme()) {
            (_, "https") | ("http", "http") => {}
            ("https", "http") => return Err(refuse("it leads from https to http")),
            _ => return Err(refuse("only http and https are followed")),
        }
        if literal(&url).is_some_and(|address| !self.reach.allows(address)) {
            return Err(refuse("it leads into a private network"));
        }
        Ok(Self { url, ..self.clone() })
    }

    /// What the next request shows.
    pub(crate) fn secret(&self) -> Option<&Secret> {
        self.secret.as_ref().filter(|_| self.url.origin() == self.origin.origin())
    }
}

impl Network {
    /// Ways to other machines, none when `offline`.
    pub(crate) fn new(offline: bool) -> Self {
        // It fails when a provider is installed already, which is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
        Self { clients: Arc::default(), proxied: Arc::default(), offline }
    }

    /// The client that connects directly, to what is within `reach`.
    ///
    /// # Errors
    /// When the system's certificates cannot be used.
    fn direct(&self, reach: Reach) -> Result<&Client, HubError> {
        let index = REACHES.iter().position(|other| *other == reach);
        let place = &self.clients[index.expect("every reach has a client")];
        made(place, || Client::builder().no_proxy().dns_resolver(Within(reach)))
    }

    /// The client that connects through the proxies of the environment.
    ///
    /// # Errors
    /// When the system's certificates or the proxies cannot be used.
    fn proxied(&self) -> Result<&Client, HubError> {
        let choose = |url: &Url| settings::proxy(url.scheme(), url.host_str()?);
        made(&self.proxied, || Client::builder().proxy(Proxy::custom(choose)))
    }

    /// Whether connections are cut.
    pub(crate) fn is_offline(&self) -> bool {
        self.offline
    }

    /// Asks and follows redirects; returns the answer of whatever status, and the route that led to it.
    pub(crate) async fn follow(
        &self,
        route: &Route,
        method: &Method,
        headers: &HeaderMap,
    ) -> Result<(Response, Route), HubError> {
        let mut route = route.clone();
        for _ in 0..=HOPS_MAX {
            let mut request = Request::new(method.clone(), route.url.clone());
            request.headers_mut().extend(headers.clone());
            let response = self.send(&mut route, request).await?;
            match target_of(&response, &route.url) {
                Some(target) => route = route.sent_to(target?)?,
                None => return Ok((response, route)),
            }
        }
        let (from, to) = (place(&route.origin), place(&route.url));
        Err(HubError::Redirect { from, to, reason: "it goes on without end" })
    }

    /// Sends one request along a route, without following redirects; narrows the route to where it really led.
    pub(crate) async fn send(
        &self,
        route: &mut Route,
        request: Request,
    ) -> Result<Response, HubError> {
        let at = place(&route.url);
        let answer = self.send_patiently(route, request);
        tokio::time::timeout(ANSWER_TIME_MAX, answer).await.unwrap_or_else(|_| {
            let reason = format!("no answer within {} s", ANSWER_TIME_MAX.as_secs());
            Err(HubError::Unreachable { place: at, reason })
        })
    }

    /// The same without a limit of time.
    pub(crate) async fn send_patiently(
        &self,
        route: &mut Route,
        mut request: Request,
    ) -> Result<Response, HubError> {
        if self.offline {
            return Err(HubError::Offline { what: place(&route.url) });
        }
        if let Some(secret) = route.secret() {
            request.headers_mut().insert(AUTHORIZATION, secret.header());
        }
        let host = route.url.host_str().unwrap_or_default();
        let is_proxied = settings::proxy(route.url.scheme(), host).is_some();
        let client = if is_proxied { self.proxied()? } else { self.direct(route.reach)? };
        let response = client.execute(request).await.map_err(|error| failed(route, &error))?;
        // Through a proxy the address is the proxy's; what it leads to is public, as far as we know.
        let address = if is_proxied {
            literal(&route.url)
        } else {
            response.remote_addr().map(|address| address.ip())
        };
        route.reach = match address {
            Some(address) => route.reach.after(address),
            None => Reach::SentFrom(Zone::Public),
        };
        if !route.was_redirected() {
            route.origin_reach = route.reach;
        }
        Ok(response)
    }
}

/// Where an answer sends us; None when it does not.
fn target_of(response: &Response, base: &Url) -> Option<Result<Url, HubError>> {
    let redirects = [
        StatusCode::MOVED_PERMANENTLY,
        StatusCode::FOUND,
        StatusCode::SEE_OTHER,
        StatusCode::TEMPORARY_REDIRECT,
        StatusCode::PERMANENT_REDIRECT,
    ];
    if !redirects.contains(&response.status()) {
        return None;
    }
    let location = response.headers().get(LOCATION).and_then(|value| value.to_str().ok());
    let target = location.and_then(|location| base.join(location).ok());
    let (from, to) = (place(base), location.unwrap_or("").chars().take(80).collect());
    Some(target.ok_or(HubError::Redirect { from, to, reason: "it names no address" }))
}

/// All addresses of a name are out of reach.
#[derive(Debug, thiserror::Error)]
#[error("the name leads into a private network")]
struct OutOfReach;

/// Resolves names to the addresses within a reach, for the connection that is then made.
struct Within(Reach);

impl Resolve for Within {
    fn resolve(&self, name: Name) -> Resolving {
        let reach = self.0;
        Box::pin(async move {
            let found = tokio::net::lookup_host((name.as_str(), 0)).await?;
            let allowed: Vec<SocketAddr> =
                found.filter(|address| reach.allows(address.ip())).collect();
            if allowed.is_empty() {
                return Err(OutOfReach.into());
            }
            Ok(Box::new(allowed.into_iter()) as Addrs)
        })
    }
}

/// The client in `place`, made now when it is not there yet.
fn made(
    place: &OnceLock<Client>,
    builder: impl FnOnce() -> ClientBuilder,
) -> Result<&Client, HubError> {
    if let Some(client) = place.get() {
        return Ok(client);
    }
    let identity = (ACCEPT_ENCODING, HeaderValue::from_static("identity"));
    let client = builder()
        .redirect(reqwest::redirect::Policy::none())
        .referer(false)
        .user_agent(concat!("nfl/", env!("CARGO_PKG_VERSION")))
        .default_headers(HeaderMap::from_iter([identity]))
        .connect_timeout(CONNECT_TIME_MAX)
        .tcp_keepalive(Duration::from_secs(20))
        .retry(reqwest::retry::never())
        .build()
        .map_err(|error| HubError::Setup(causes(&error)))?;
    Ok(place.get_or_init(|| client))
}

/// The address that a URL names by number.
fn literal(url: &Url) -> Option<IpAddr> {
    let host = url.host_str()?;
    host.trim_matches(['[', ']']).parse().ok()
}

/// A URL as messages name it: without user, password, query and fragment, which may be secret.
pub(crate) fn place(url: &Url) -> String {
    let port = url.port().map(|port| format!(":{port}")).unwrap_or_default();
    format!("{}://{}{port}{}", url.scheme(), url.host_str().unwrap_or_default(), url.path())
}

/// Why there is no answer: the network's doing, or our own rule for names.
fn failed(route: &Route, error: &reqwest::Error) -> HubError {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(inner) = cause {
        if inner.is::<OutOfReach>() {
            let (from, to) = (place(&route.origin), place(&route.url));
            return HubError::Redirect {
                from,
                to,
                reason: "the name leads into a private network",
            };
        }
        cause = inner.source();
    }
    HubError::Unreachable { place: place(&route.url), reason: causes(error) }
}

/// The innermost causes of an error of the HTTP library; its outer words quote URLs with their queries.
pub(crate) fn causes(error: &reqwest::Error) -> String {
    if error.is_timeout() {
        return "the connection timed out".to_owned();
    }
    let mut source = std::error::Error::source(error);
    let mut words = Vec::new();
    while let Some(inner) = source {
        words.push(inner.to_string());
        source = inner.source();
    }
    match words.len() {
        0 => "the request failed".to_owned(),
        1 => words.remove(0),
        _ => words.split_off(words.len() - 1).remove(0),
    }
}
