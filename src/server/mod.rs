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
mod native;
mod ollama;
mod openai;
mod page;
mod problem;
mod reply;
mod security;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::chat::pool::Pool;
use crate::hardware;

/// Threads that carry events of replies to their clients, and wait meanwhile.
const REPLY_THREADS_MAX: usize = 2048;

/// How long replies may go on when the server is asked to end.
const CLOSING_TIME: Duration = Duration::from_secs(5);

/// How the server works.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where it listens; port 0 takes any free one.
    pub address: SocketAddr,
    /// Bytes of a request's body.
    pub body_bytes_max: usize,
}

/// What all requests share.
#[derive(Debug)]
struct Server {
    config: Config,
    pool: Pool,
    started: Instant,
}

/// A server that listens. Dropping it ends it.
#[derive(Debug)]
pub struct Running {
    address: SocketAddr,
    server: Arc<Server>,
    stop: watch::Sender<bool>,
    runtime: Option<tokio::runtime::Runtime>,
    serving: Option<tokio::task::JoinHandle<io::Result<()>>>,
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
    let listener = runtime.block_on(TcpListener::bind(config.address))?;
    let address = listener.local_addr()?;
    let server = Arc::new(Server { config, pool, started: Instant::now() });
    let (stop, stopped) = watch::channel(false);
    let application = router(&server);
    let serving = runtime.spawn(async move {
        let mut stopped = stopped;
        axum::serve(listener, application.into_make_service_with_connect_info::<SocketAddr>())
            .with_graceful_shutdown(async move {
                let _ = stopped.wait_for(|stop| *stop).await;
            })
            .await
    });
    Ok(Running { address, server, stop, runtime: Some(runtime), serving: Some(serving) })
}

fn router(server: &Arc<Server>) -> Router {
    let routes = Router::new()
        .merge(page::router())
        .merge(native::router())
        .merge(ollama::router())
        .merge(openai::router())
        .merge(anthropic::router());
    security::guard(routes, server).with_state(Arc::clone(server))
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
        self.end()
    }

    fn end(&mut self) -> io::Result<()> {
        let _ = self.stop.send(true);
        let Some(runtime) = self.runtime.take() else { return Ok(()) };
        let deadline = Instant::now() + CLOSING_TIME;
        let mut result = Ok(());
        if let Some(serving) = self.serving.take() {
            let ended = runtime.block_on(tokio::time::timeout(CLOSING_TIME, serving));
            if let Ok(Ok(outcome)) = ended {
                result = outcome;
            }
        }
        self.server.pool.close(deadline);
        runtime.shutdown_timeout(Duration::from_secs(1));
        result
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.end();
    }
}
