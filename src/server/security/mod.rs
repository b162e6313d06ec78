//! Who may ask: hosts, origins, keys and limits, before any dialect sees a request; and what is written down about it.
//!
//! ```text
//! request ─► host known? ─► origin may? ─► (preflight: answered here) ─► key? ─► rate? ─► dialect
//!                                                                                          │
//! log line, audit ◄───────────── when the last byte has gone, or the client ◄──────────────┘
//! ```

mod audit;
mod door;
mod ending;
mod hosts;
mod keys;
mod origins;
mod patience;
mod rates;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::{ConnectInfo, MatchedPath, Request, State};
use axum::http::header::{HOST, X_CONTENT_TYPE_OPTIONS};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::middleware::{self, Next};
use axum::response::Response;

use super::Server;
use super::body;
use super::call::Call;
use super::problem::{Kind, Problem};
use super::routes::{Access, Table};
use crate::term::log::{Form, Level, Log};
use audit::Audit;
use door::Door;
use ending::Ending;
use hosts::{Authority, Hosts};
use origins::Origins;
use patience::Patient;
use rates::Rates;

pub use audit::{Action, last as last_actions, record};
pub use door::KeyRule;
pub(super) use keys::hexadecimal;
pub use keys::{Key, KeyError, Keyring, Scope};
pub(super) use patience::{Flowing, TooSlow};

/// A request's name, in requests and answers.
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Characters of a name that a client gives its request.
const REQUEST_ID_CHARACTERS_MAX: usize = 128;

/// Who may ask, and how much.
#[derive(Debug, Clone)]
pub struct Security {
    /// Names by which the server may be asked, beside those of this machine: a name, `*.DOMAIN`, an address, or `*`.
    pub hosts: Vec<String>,
    /// Origins of pages that may ask, beside those of this machine.
    pub origins: Vec<String>,
    /// When keys are asked for.
    pub keys: KeyRule,
    /// Requests a minute for each key, or each address where there are no keys.
    pub requests_per_minute: Option<u32>,
    /// The certificate and its key.
    pub tls: Option<Tls>,
    /// What one connection may cost.
    pub limits: Limits,
    /// Where requests are told.
    pub log: Log,
}

impl Default for Security {
    fn default() -> Self {
        Self {
            hosts: Vec::new(),
            origins: Vec::new(),
            keys: KeyRule::WhenMade,
            requests_per_minute: None,
            tls: None,
            limits: Limits::default(),
            log: Log { form: Form::Text, level: Level::Error },
        }
    }
}

/// Files for TLS, both PEM.
#[derive(Debug, Clone)]
pub struct Tls {
    /// The certificate and those that vouch for it.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

/// What one connection may cost.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Connections at once; more wait until others end.
    pub connections_max: u32,
    /// Bytes of a request's line and headers.
    pub header_bytes_max: usize,
    /// Headers of a request.
    pub headers_max: usize,
    /// How long the headers may take, a connection may wait for its next request, and TLS may take to begin.
    pub header_time: Duration,
    /// How long a body may pause while it comes.
    pub body_pause_max: Duration,
    /// How long a client may read nothing while something waits for it.
    pub read_pause_max: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections_max: 2048,
            header_bytes_max: 64 << 10,
            headers_max: 100,
            header_time: Duration::from_secs(30),
            body_pause_max: Duration::from_secs(30),
            read_pause_max: Duration::from_mins(5),
        }
    }
}

/// What stands before the dialects.
#[derive(Debug)]
pub(super) struct Gate {
    hosts: Hosts,
    origins: Origins,
    door: Door,
    rates: Option<Rates>,
    body_pause_max: Duration,
    log: Log,
    audit: Audit,
}

impl Gate {
    /// The gate of a server at an address, with the keys and the audit below `home`.
    pub(super) fn new(security: &Security, bound: IpAddr, home: &Path) -> io::Result<Self> {
        let log = security.log;
        let on_error = move |error: &rusqlite::Error| {
            log.event(Level::Error, "audit", &[("error", error.to_string().into())]);
        };
        let audit = Audit::start(home, on_error)
            .map_err(|error| io::Error::other(format!("audit in {}: {error}", home.display())))?;
        Ok(Self {
            hosts: Hosts::new(&security.hosts, bound),
            origins: Origins::new(&security.origins),
            door: Door::new(security.keys, Keyring::new(home)).map_err(io::Error::other)?,
            rates: security.requests_per_minute.map(Rates::new),
            body_pause_max: security.limits.body_pause_max,
            log,
            audit,
        })
    }

    /// Lets a request in, and says which origin the answer is to name.
    fn admit(&self, request: &Request, call: &Call) -> Result<Admitted, Problem> {
        let headers = request.headers();
        let host = self.host(request)?;
        let origin = self.origins.check(request.method(), headers, &host)?;
        if origins::is_preflight(request.method(), headers) {
            return Ok(Admitted { origin, is_preflight: true });
        }
        self.door.check(headers, call)?;
        if call.access != Access::Open
            && let Some(rates) = &self.rates
        {
            let address = || call.address.map_or(String::new(), |address| address.to_string());
            let client = call.key().map_or_else(address, |key| format!("key {key}"));
            rates.take(&client, Instant::now()).map_err(|seconds| Problem {
                retry_after: Some(seconds),
                ..Problem::new(Kind::RateLimited, "too many requests a minute")
            })?;
        }
        Ok(Admitted { origin, is_preflight: false })
    }

    /// The name by which the server is asked.
    fn host(&self, request: &Request) -> Result<Authority, Problem> {
        let mut named = request.headers().get_all(HOST).iter();
        let (Some(text), None) = (named.next(), named.next()) else {
            return Err(Problem::invalid("a request needs one Host header"));
        };
        let text = text.to_str().unwrap_or_default();
        let known = |text: &str| {
            Authority::parse(text).filter(|authority| self.hosts.knows(&authority.host))
        };
        // `GET http://name/path` names a host too, and counts before the header.
        let others = request.uri().authority();
        let is_known = others.is_none_or(|authority| known(authority.as_str()).is_some());
        known(text).filter(|_| is_known).ok_or_else(|| {
            let shown: String = text.chars().take(100).collect();
            Problem {
                hint: Some("nfl serve --allow-host NAME lets it".to_owned()),
                ..Problem::new(Kind::Forbidden, format!("this server is not called {shown:?}"))
            }
        })
    }
}

/// A request that was let in.
struct Admitted {
    origin: Option<HeaderValue>,
    is_preflight: bool,
}

/// The routes behind the guard.
pub(super) fn guard(routes: Router<Arc<Server>>, server: &Arc<Server>) -> Router<Arc<Server>> {
    routes.layer(middleware::from_fn_with_state(Arc::clone(server), pass))
}

async fn pass(State(server): State<Arc<Server>>, request: Request, next: Next) -> Response {
    let call = Arc::new(call_of(&request, &server.table));
    let mut ending = Ending::new(Arc::clone(&server), Arc::clone(&call));
    let is_head = request.method() == axum::http::Method::HEAD;
    let admitted = server.gate.admit(&request, &call);
    ending.begin(admitted.as_ref().err());
    let (mut response, origin) = match admitted {
        Err(problem) => ((call.words)(&problem), None),
        Ok(Admitted { origin, is_preflight: true }) => {
            (origins::preflight(request.headers()), origin)
        }
        Ok(Admitted { origin, is_preflight: false }) => {
            let pause_max = server.gate.body_pause_max;
            let patient = |body| axum::body::Body::new(Patient::new(body, pause_max));
            let work = next.run(request.map(patient));
            (Call::work(Some(Arc::clone(&call)), work).await, origin)
        }
    };
    if let Some(origin) = origin {
        origins::allow(&mut response, origin);
    }
    if response.status() == StatusCode::UNAUTHORIZED {
        let scheme = HeaderValue::from_static("Bearer");
        response.headers_mut().insert(axum::http::header::WWW_AUTHENTICATE, scheme);
    }
    mark(response.headers_mut(), &call.id);
    ending.follow(response, is_head)
}

/// What every answer says.
fn mark(headers: &mut HeaderMap, id: &str) {
    if let Ok(id) = HeaderValue::from_str(id) {
        headers.insert(REQUEST_ID, id);
    }
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    // No page embeds what it may not read.
    let policy = HeaderName::from_static("cross-origin-resource-policy");
    headers.insert(policy, HeaderValue::from_static("same-origin"));
}

fn call_of(request: &Request, table: &Table) -> Call {
    let method = request.method().as_str();
    let matched = request.extensions().get::<MatchedPath>();
    let route = matched.and_then(|path| table.find(method, path.as_str()));
    let of_path = matched.and_then(|path| table.words(path.as_str()));
    // What is no route changes nothing; what is one that nobody described is not for everybody.
    let is_undescribed = matched.is_some() && of_path.is_none();
    let usual = if is_undescribed { Access::Manage } else { Access::Infer };
    let access = route.map_or(usual, |route| route.access);
    let words = route.map(|route| route.words).or(of_path).unwrap_or(body::refusal);
    let mut call = Call::new(id_of(request.headers()), method, request.uri().path(), access, words);
    let address = request.extensions().get::<ConnectInfo<SocketAddr>>();
    call.address = address.map(|address| address.0.ip().to_canonical());
    call
}

/// The client's name for its request when it is one, else a new one.
fn id_of(headers: &HeaderMap) -> String {
    let is_name = |text: &&str| {
        let is_fine = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.:".contains(&byte);
        (1..=REQUEST_ID_CHARACTERS_MAX).contains(&text.len()) && text.bytes().all(is_fine)
    };
    let given = headers.get(REQUEST_ID).and_then(|id| id.to_str().ok()).filter(is_name);
    given
        .map_or_else(|| keys::hexadecimal(&keys::random::<12>().unwrap_or_default()), str::to_owned)
}
