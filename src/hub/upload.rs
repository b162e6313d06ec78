//! Sending a file: streamed, metered, and noticed when it stalls.

use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use reqwest::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, HeaderValue};
use reqwest::{Body, Method, Request, Response};

use super::download::{DownloadError, Meter};
use super::error::HubError;
use super::network::{Network, Route, place};

/// Bytes that are read and sent at once.
const PIECE_BYTES: usize = 256 << 10;

/// How long an upload may stand still; a server may take its time to store what it has.
const STILL_TIME_MAX: Duration = Duration::from_mins(2);

/// How often the meter is looked at.
const TICK: Duration = Duration::from_millis(200);

/// A part of a file.
#[derive(Debug, Clone)]
pub(super) struct Section<'a> {
    pub(super) path: &'a Path,
    pub(super) start: u64,
    pub(super) bytes: u64,
}

impl Network {
    /// Puts a section of a file to where `route` leads; counts what goes out in `meter`.
    pub(super) async fn put(
        &self,
        route: &Route,
        section: Section<'_>,
        meter: &Arc<Meter>,
    ) -> Result<Response, DownloadError> {
        let mut route = route.clone();
        let mut request = Request::new(Method::PUT, route.url.clone());
        *request.headers_mut() = HeaderMap::from_iter([
            (CONTENT_LENGTH, HeaderValue::from(section.bytes)),
            (CONTENT_TYPE, HeaderValue::from_static("application/octet-stream")),
        ]);
        let body = body(&section, meter.clone()).map_err(DownloadError::Write)?;
        *request.body_mut() = Some(body);
        let (mut seen, mut since) = (meter.done(), Instant::now());
        let mut ticks = tokio::time::interval(TICK);
        let at = place(&route.url);
        let mut sending = std::pin::pin!(self.send_patiently(&mut route, request));
        loop {
            tokio::select! {
                response = &mut sending => return Ok(response?),
                _ = ticks.tick() => {}
            }
            if meter.stopped() {
                return Err(DownloadError::Stopped);
            }
            if meter.done() != seen {
                (seen, since) = (meter.done(), Instant::now());
            } else if since.elapsed() > STILL_TIME_MAX {
                let reason = format!("it took nothing for {} s", STILL_TIME_MAX.as_secs());
                return Err(HubError::Unreachable { place: at, reason }.into());
            }
        }
    }
}

/// A body that reads the section while it is sent.
fn body(section: &Section<'_>, meter: Arc<Meter>) -> std::io::Result<Body> {
    use std::io::{Seek, SeekFrom};
    let mut file = File::open(section.path)?;
    file.seek(SeekFrom::Start(section.start))?;
    let reader = file.take(section.bytes);
    let stream = futures_util::stream::unfold((reader, meter), |(mut reader, meter)| async move {
        let mut piece = vec![0; PIECE_BYTES];
        match reader.read(&mut piece) {
            Ok(0) => None,
            Ok(count) => {
                piece.truncate(count);
                meter.set_done(meter.done() + count as u64);
                Some((Ok(Bytes::from(piece)), (reader, meter)))
            }
            Err(error) => Some((Err(error), (reader, meter))),
        }
    });
    Ok(Body::wrap_stream(stream))
}
