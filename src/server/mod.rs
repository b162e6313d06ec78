//! The local server: the dialects of Ollama, OpenAI and Anthropic over the models of this machine.
//!
//! ```text
//! request ─► security (host, origin, key, limits) ─► a dialect: wire ─► chat::Request ─► reply ─► chat::Event ─► wire
//! ```
//!
//! Dialects differ in their words only: models come from one pool, every reply from [`reply`], every failure from
//! [`problem`].

mod anthropic;
mod body;
mod call;
mod listen;
mod metrics;
mod native;
mod ollama;
mod openai;
mod openapi;
mod page;
mod problem;
mod reply;
mod routes;
mod security;
mod which;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::{MatchedPath, Request, State};
use axum::http::StatusCode;
use axum::middleware::{self, Next};
use axum::response::Response;
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::chat::pool::Pool;
use crate::hardware;
use problem::{Kind, Problem};
use routes::{Routes, Table};
use security::Gate;

pub use security::{
    Action, Key, KeyError, KeyRule, Keyring, Limits, Scope, Security, Tls, last_actions, record,
};

/// Threads that carry events of replies to their clients, and wait meanwhile.
const REPLY_THREADS_MAX: usize = 2048;

/// How long replies may go on when the server is asked to end; what asks services to end waits longer.
const CLOSING_TIME: Duration = Duration::from_secs(30);

/// The same when nobody waits for it.
const DROPPING_TIME: Duration = Duration::from_secs(1);

/// How the server works.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where it listens; port 0 takes any free one.
    pub address: SocketAddr,
    /// Bytes of a request's body.
    pub body_bytes_max: usize,
    /// Who may ask, and how much.
    pub security: Security,
}

/// What all requests share.
#[derive(Debug)]
struct Server {
    config: Config,
    pool: Pool,
    /// What is known of all routes.
    table: Table,
    gate: Gate,
    started: Instant,
    metrics: metrics::Metrics,
}

/// A server that listens. Dropping it ends it.
#[derive(Debug)]
pub struct Running {
    address: SocketAddr,
    server: Arc<Server>,
    stop: watch::Sender<bool>,
    runtime: Option<tokio::runtime::Runtime>,
    serving: Option<tokio::task::JoinHandle<()>>,
}

/// Starts to listen.
///
/// # Errors
/// When the address cannot be had.
pub fn start(config: Config, pool: Pool) -> io::Result<Running> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(hardware::default_threads().clamp(1, 4) as usize)
        .max_blocking_threads(REPLY_THREADS_MAX)
        .thread_name("nfl-serve")
        .enable_all()
        .build()?;
    let tls = config.security.tls.as_ref().map(listen::acceptor).transpose()?;
    let socket = runtime.block_on(TcpListener::bind(config.address))?;
    let address = socket.local_addr()?;
    let home = pool.store().map_err(io::Error::other)?.home().to_owned();
    let gate = Gate::new(&config.security, address.ip(), &home)?;
    let limits = config.security.limits.clone();
    let (routes, table) = routes().parts();
    let metrics = metrics::Metrics::new();
    let server = Arc::new(Server { config, pool, table, gate, started: Instant::now(), metrics });
    let router = router(routes, &server);
    let (stop, stopped) = watch::channel(false);
    let listener = listen::Listener { socket, tls, limits };
    let serving = runtime.spawn(listen::serve(listener, router, stopped));
    Ok(Running { address, server, stop, runtime: Some(runtime), serving: Some(serving) })
}

/// All routes; a dialect is one line here.
fn routes() -> Routes {
    Routes::new("server", body::refusal)
        .and(page::routes())
        .and(openapi::routes())
        .and(native::routes())
        .and(ollama::routes())
        .and(anthropic::routes())
        .and(openai::routes())
}

fn router(routes: Router<Arc<Server>>, server: &Arc<Server>) -> Router {
    // Counting is outside of the guard, so that what it refuses is counted too.
    let routes = routes.fallback(unknown).method_not_allowed_fallback(wrong_method);
    security::guard(routes, server)
        .layer(middleware::from_fn_with_state(Arc::clone(server), count))
        .with_state(Arc::clone(server))
}

/// Counts how requests are answered.
async fn count(State(server): State<Arc<Server>>, request: Request, next: Next) -> Response {
    let route = request.extensions().get::<MatchedPath>().cloned();
    let method = request.method().clone();
    let response = next.run(request).await;
    let route = route.as_ref().map_or("none", MatchedPath::as_str);
    server.metrics.answered(route, method.as_str(), response.status().as_u16());
    response
}

async fn unknown(request: Request) -> Response {
    let text = format!("there is no {} here", request.uri().path());
    body::refuse(&Problem::new(Kind::NotFound, text))
}

async fn wrong_method(request: Request) -> Response {
    let text = format!("{} does not take {}", request.uri().path(), request.method());
    let problem = Problem { status: StatusCode::METHOD_NOT_ALLOWED, ..Problem::invalid(text) };
    body::refuse(&problem)
}

impl Running {
    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The models.
    pub fn pool(&self) -> &Pool {
        &self.server.pool
    }

    /// Takes no further requests, lets replies end for a while, and unloads all models.
    pub fn stop(mut self) -> io::Result<()> {
        self.end(CLOSING_TIME)
    }

    fn end(&mut self, time: Duration) -> io::Result<()> {
        let _ = self.stop.send(true);
        let Some(runtime) = self.runtime.take() else { return Ok(()) };
        let deadline = Instant::now() + time;
        let mut result = Ok(());
        if let Some(serving) = self.serving.take() {
            let ended = runtime.block_on(async { tokio::time::timeout(time, serving).await });
            // Replies that go on after their time end with their models.
            result = ended.unwrap_or(Ok(())).map_err(io::Error::other);
        }
        self.server.pool.close(deadline);
        runtime.shutdown_timeout(Duration::from_secs(1));
        result
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.end(DROPPING_TIME);
    }
}
