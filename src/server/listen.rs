//! Connections: as many as may be, in the clear or through TLS, and none that waits for ever.
//!
//! `axum::serve` has no limits for headers, for slow clients or for the number of connections, and no TLS; hyper has
//! them, and this is the loop around it.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::ConnectInfo;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tower::ServiceExt;

use super::security::{Flowing, Limits, Tls};

/// How long to wait when the system has no more descriptors.
const EXHAUSTED_PAUSE: Duration = Duration::from_millis(500);

/// Where connections come from.
pub(super) struct Listener {
    pub(super) socket: TcpListener,
    pub(super) tls: Option<TlsAcceptor>,
    pub(super) limits: Limits,
}

/// Serves connections until `stop` is true, and then until the last answer has gone.
pub(super) async fn serve(listener: Listener, router: Router, mut stop: watch::Receiver<bool>) {
    let Listener { socket, tls, limits } = listener;
    let limits = Arc::new(limits);
    let places = Arc::new(Semaphore::new(limits.connections_max as usize));
    loop {
        let next = async {
            let place = Arc::clone(&places).acquire_owned().await;
            (place, socket.accept().await)
        };
        let (place, accepted) = tokio::select! {
            next = next => next,
            _ = stop.wait_for(|stop| *stop) => break,
        };
        match accepted {
            Ok((stream, peer)) => {
                let connection =
                    Connection { peer, limits: Arc::clone(&limits), router: router.clone() };
                let (tls, stop) = (tls.clone(), stop.clone());
                tokio::spawn(async move {
                    connection.run(stream, tls, stop).await;
                    drop(place);
                });
            }
            // A client that left again is its own matter; anything else passes only with time.
            Err(error) if is_of_client(&error) => {}
            Err(_) => sleep(EXHAUSTED_PAUSE).await,
        }
    }
    drop(socket);
    // All places are free when all connections have ended.
    let _ = places.acquire_many(limits.connections_max).await;
}

fn is_of_client(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}

struct Connection {
    peer: SocketAddr,
    limits: Arc<Limits>,
    router: Router,
}

impl Connection {
    async fn run(self, stream: TcpStream, tls: Option<TlsAcceptor>, stop: watch::Receiver<bool>) {
        // A token is a small packet, and the next one does not wait for the answer to it.
        let _ = stream.set_nodelay(true);
        let stream = Flowing::new(stream, self.limits.read_pause_max);
        match tls {
            None => self.speak(stream, stop).await,
            Some(tls) => {
                if let Ok(Ok(stream)) = timeout(self.limits.header_time, tls.accept(stream)).await {
                    self.speak(stream, stop).await;
                }
            }
        }
    }

    async fn speak(
        self,
        stream: impl AsyncRead + AsyncWrite + Unpin,
        mut stop: watch::Receiver<bool>,
    ) {
        let Self { peer, limits, router } = self;
        let service = service_fn(move |request: hyper::Request<Incoming>| {
            let mut request = request.map(Body::new);
            request.extensions_mut().insert(ConnectInfo(peer));
            let router = router.clone();
            async move {
                Ok::<_, Infallible>(
                    router.oneshot(request).await.unwrap_or_else(|never| match never {}),
                )
            }
        });
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(limits.header_time)
            .max_header_size(limits.header_bytes_max)
            .max_headers(limits.headers_max)
            .serve_connection(TokioIo::new(stream), service);
        tokio::pin!(connection);
        let is_asked_to_stop = tokio::select! {
            _ = connection.as_mut() => false,
            _ = stop.wait_for(|stop| *stop) => true,
        };
        if is_asked_to_stop {
            connection.as_mut().graceful_shutdown();
            let _ = connection.await;
        }
    }
}

/// What speaks TLS with a certificate.
///
/// # Errors
/// When the files are not there, hold no such thing, or do not belong together.
pub(super) fn acceptor(files: &Tls) -> io::Result<TlsAcceptor> {
    let wrong = |what: &str, path: &std::path::Path, error: &dyn std::fmt::Display| {
        io::Error::other(format!("{what} {}: {error}", path.display()))
    };
    let chain = CertificateDer::pem_file_iter(&files.certificate)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| wrong("certificate", &files.certificate, &error))?;
    let key = PrivateKeyDer::from_pem_file(&files.key)
        .map_err(|error| wrong("private key", &files.key, &error))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .map_err(|error| wrong("certificate", &files.certificate, &error))?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}
