//! One request for one part of the file, in a task of its own.

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use bytes::Bytes;
use reqwest::header::{HeaderMap, HeaderValue, IF_RANGE, RANGE};
use reqwest::{Method, Response, StatusCode};
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::super::error::HubError;
use super::super::network::{Network, Route, causes, place};
use super::super::registry::{Access, PULL};
use super::answer::{Asked, Granted, Trouble, judge, size_of_unsatisfied};

/// The end of a part of a file whose size nobody knows yet.
pub(super) const OPEN_END: u64 = u64::MAX;

/// What all parts of a download share.
#[derive(Debug)]
pub(super) struct Line {
    pub(super) network: Network,
    /// Where the last answer came from: redirects are followed once, not for every part.
    pub(super) route: Mutex<Route>,
    /// The right to the file, where that can run out.
    pub(super) access: Option<Arc<Access>>,
    /// Size and version, as the first answer or the journal said.
    pub(super) facts: Mutex<(Option<u64>, Option<String>)>,
    /// How long a connection may bring nothing.
    pub(super) stall: Duration,
    pub(super) reports: mpsc::Sender<Report>,
}

/// What a part tells the flow.
#[derive(Debug)]
pub(super) enum Report {
    /// The server answers as it should.
    Opened { id: usize, granted: Granted },
    /// Bytes from `offset` of the file on.
    Piece { id: usize, offset: u64, bytes: Bytes },
    /// The part is complete, or why it is not.
    Ended { id: usize, result: Result<(), Trouble> },
}

impl Line {
    /// Fetches from `start` to `end`, which may move nearer while the part runs.
    pub(super) async fn fetch(self: Arc<Self>, id: usize, start: u64, end: Arc<AtomicU64>) {
        let result = self.part(id, start, &end).await;
        // Nobody listens when the flow has ended.
        let _ = self.reports.send(Report::Ended { id, result }).await;
    }

    async fn part(&self, id: usize, start: u64, end: &AtomicU64) -> Result<(), Trouble> {
        let asked_end = end.load(Relaxed);
        let (mut response, granted) = self.open(start, asked_end).await?;
        let mut at = granted.start;
        if self.reports.send(Report::Opened { id, granted }).await.is_err() {
            return Ok(());
        }
        loop {
            let Some(bytes) = self.chunk(&mut response).await? else { break };
            let begin = at;
            at += bytes.len() as u64;
            let end = end.load(Relaxed);
            // A server without ranges begins at the beginning; a part that was shortened ends early.
            let (from, to) = (start.max(begin), at.min(end));
            if from < to {
                let bytes = bytes.slice((from - begin) as usize..(to - begin) as usize);
                let report = Report::Piece { id, offset: from, bytes };
                if self.reports.send(report).await.is_err() {
                    return Ok(());
                }
            }
            if at >= end {
                if at == asked_end {
                    // Reading the end of the body gives the connection back for the next part.
                    let _ = timeout(Duration::from_millis(50), response.chunk()).await;
                }
                return Ok(());
            }
        }
        match end.load(Relaxed) {
            OPEN_END => Ok(()),
            end if at >= end => Ok(()),
            end => Err(Trouble::again(format!("the connection ended {} bytes early", end - at))),
        }
    }

    async fn chunk(&self, response: &mut Response) -> Result<Option<Bytes>, Trouble> {
        let piece = timeout(self.stall, response.chunk()).await.map_err(|_| {
            Trouble::again(format!("nothing came for {:.0} s", self.stall.as_secs_f64()))
        })?;
        piece.map_err(|error| Trouble::again(causes(&error)))
    }

    async fn open(&self, start: u64, end: u64) -> Result<(Response, Granted), Trouble> {
        let (total, etag) = self.facts.lock().expect("nothing panics with it").clone();
        let mut headers = HeaderMap::new();
        let range = match end {
            OPEN_END => format!("bytes={start}-"),
            end => format!("bytes={start}-{}", end - 1),
        };
        headers.insert(RANGE, HeaderValue::from_str(&range).expect("digits"));
        if let Some(etag) = etag.as_ref().and_then(|etag| HeaderValue::from_str(etag).ok()) {
            headers.insert(IF_RANGE, etag);
        }
        let asked = Asked { start, total, etag };
        let mut is_renewed = false;
        loop {
            let route = self.route.lock().expect("nothing panics with it").clone();
            let answer = self.network.follow(&route, &Method::GET, &headers).await;
            let (response, used) = answer.map_err(trouble)?;
            let (status, head) = (response.status(), response.headers());
            if start == 0 && size_of_unsatisfied(status, head) == Some(0) && total.unwrap_or(0) == 0
            {
                // An empty file has no part to give.
                let granted =
                    Granted { total: Some(0), ends: true, etag: None, start: 0, ranges: true };
                return Ok((response, granted));
            }
            match judge(status, head, &asked, &place(&used.url)) {
                Ok(granted) => {
                    *self.route.lock().expect("nothing panics with it") = used;
                    return Ok((response, granted));
                }
                // Addresses that redirects lead to are often signed for a while: ask where it is now.
                Err(Trouble::Expired(_)) if route.was_redirected() => {
                    *self.route.lock().expect("nothing panics with it") = route.begun_again();
                }
                Err(Trouble::Expired(error)) => {
                    // Tokens of registries last for minutes, large files for hours.
                    let right = self.access.as_ref().filter(|_| {
                        status == StatusCode::UNAUTHORIZED
                            && !std::mem::replace(&mut is_renewed, true)
                    });
                    let Some(right) = right else { return Err(Trouble::Final(error)) };
                    let renewed = right.renew(&self.network, head, &used, PULL).await;
                    let Some(secret) = renewed.map_err(trouble)? else {
                        return Err(Trouble::Final(error));
                    };
                    *self.route.lock().expect("nothing panics with it") =
                        route.with_secret_here(secret);
                }
                Err(other) => return Err(other),
            }
        }
    }
}

/// A request that got no answer may get one later; one that was refused by our own rules never will.
fn trouble(error: HubError) -> Trouble {
    match error {
        HubError::Unreachable { ref reason, .. } => Trouble::again(reason.clone()),
        other => Trouble::Final(other),
    }
}
