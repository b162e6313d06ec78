//! The traffic of one download: which parts are asked for, on how many connections, and how their bytes come together.
//!
//! Bytes arrive out of order and leave in order: what comes early waits in memory, in a window of bounded size in front of
//! the first byte that is missing. So the file and its hash only ever grow at the end, nothing is read twice, and a
//! kill costs the window and no more.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use bytes::{Buf, Bytes};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::super::error::HubError;
use super::super::retry;
use super::answer::{Granted, Trouble};
use super::journal::Hashed;
use super::lanes::Lanes;
use super::meter::Meter;
use super::part::{Line, OPEN_END, Report};
use super::sink::{Sink, Work};
use super::{DownloadError, Limits, check_room};

/// How often speeds are measured and slow parts looked for.
const TICK: Duration = Duration::from_millis(100);

/// The smallest part that is asked for when several connections share a file.
const PART_BYTES_MIN: u64 = 1 << 20;

/// How long one request should take, so that asking costs little.
const PART_SECONDS: f64 = 2.0;

/// What must have come since the last trouble for it to count as over.
const PROGRESS_BYTES: u64 = 1024;

/// How a flow ended, when it did not fail.
#[derive(Debug)]
pub(super) enum Outcome {
    /// All bytes are written; their hash.
    Complete(Hashed),
    /// The file on the server is not the one that was begun.
    Changed(String),
    /// The meter said stop.
    Stopped,
}

#[derive(Debug)]
struct Part {
    /// The next byte that it will bring.
    next: u64,
    end: Arc<AtomicU64>,
    /// When it was last known to keep pace, and where it was.
    paced: (Instant, u64),
}

/// A running download.
pub(super) struct Flow {
    pub(super) line: Arc<Line>,
    pub(super) reports: mpsc::Receiver<Report>,
    pub(super) meter: Arc<Meter>,
    pub(super) limits: Limits,
    /// Whether somebody knows what the file must be; only then may its end stay unsaid.
    pub(super) digest_known: bool,
    work: Option<Work>,
    sink: Option<Sink>,
    total: Option<u64>,
    /// Everything before this byte is with the sink.
    handed: u64,
    early: BTreeMap<u64, Bytes>,
    /// What nobody fetches yet: start and end of each gap.
    todo: BTreeMap<u64, u64>,
    parts: HashMap<usize, Part>,
    tasks: JoinSet<()>,
    next_id: usize,
    lanes: Lanes,
    ranges: bool,
    received: u64,
    troubles: u32,
    received_at_trouble: u64,
    not_before: Option<Instant>,
    heard: (Instant, u64),
}

impl Flow {
    /// A flow that goes on where `work` stands.
    pub(super) fn new(
        line: Arc<Line>,
        reports: mpsc::Receiver<Report>,
        work: Work,
        limits: Limits,
        digest_known: bool,
    ) -> Self {
        let (now, start) = (Instant::now(), work.hashed.bytes);
        Self {
            line,
            reports,
            meter: work.meter.clone(),
            lanes: Lanes::new(limits.connections_max, now),
            limits,
            digest_known,
            total: work.total,
            handed: start,
            todo: BTreeMap::from([(start, work.total.unwrap_or(OPEN_END))]),
            work: Some(work),
            sink: None,
            early: BTreeMap::new(),
            parts: HashMap::new(),
            tasks: JoinSet::new(),
            next_id: 0,
            ranges: false,
            received: 0,
            troubles: 0,
            received_at_trouble: 0,
            not_before: None,
            heard: (now, 0),
        }
    }

    /// Runs until the file is complete.
    pub(super) async fn run(mut self) -> Result<Outcome, DownloadError> {
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        while self.total.is_none_or(|total| self.handed < total) {
            self.assign();
            let troubled = tokio::select! {
                Some(report) = self.reports.recv() => self.take(report).await?,
                _ = ticks.tick() => self.tick(),
            };
            match troubled {
                None => {}
                Some(Trouble::Changed(how)) => return Ok(Outcome::Changed(how)),
                Some(Trouble::Final(error) | Trouble::Expired(error)) => {
                    self.close()?;
                    return Err(error.into());
                }
                Some(Trouble::Again { reason, pause, busy }) => self.pause(reason, pause, busy)?,
            }
            if self.meter.stopped() {
                self.close()?;
                return Ok(Outcome::Stopped);
            }
        }
        Ok(Outcome::Complete(self.close()?))
    }

    /// Ends all connections and writes what is there.
    fn close(&mut self) -> Result<Hashed, DownloadError> {
        self.tasks.abort_all();
        self.meter.set_lanes(0);
        match (self.sink.take(), self.work.take()) {
            (Some(sink), _) => sink.finish().map_err(DownloadError::Write),
            (None, Some(work)) => Ok(work.hashed),
            (None, None) => unreachable!("the work becomes the sink's"),
        }
    }

    /// Gives every free connection a part.
    fn assign(&mut self) {
        if self.not_before.is_some_and(|time| Instant::now() < time) {
            return;
        }
        // The next request goes out one round trip before the last one ends.
        let nearly_done = (self.lanes.speed_of_one() * 0.05) as u64;
        let busy = |part: &Part| part.end.load(Relaxed).saturating_sub(part.next) > nearly_done;
        let mut at_work = self.parts.values().filter(|part| busy(part)).count();
        while at_work < self.lanes.count() && self.assign_one() {
            at_work += 1;
        }
        self.meter.set_lanes(self.parts.len());
    }

    /// Begins the first gap, as far as the window reaches; false when there is none.
    fn assign_one(&mut self) -> bool {
        if self.todo.is_empty() && self.ranges {
            self.split_largest();
        }
        let Some((start, end)) = self.todo.first_key_value().map(|(start, end)| (*start, *end))
        else {
            return false;
        };
        if start >= self.handed.saturating_add(self.limits.window_bytes) || start >= end {
            return false;
        }
        self.todo.remove(&start);
        let mut stop = end;
        if self.ranges && self.lanes.count() > 1 {
            stop = end.min(start + self.part_bytes());
        }
        if stop < end {
            self.todo.insert(stop, end);
        }
        let (id, shared) = (self.next_id, Arc::new(AtomicU64::new(stop)));
        self.next_id += 1;
        self.tasks.spawn(self.line.clone().fetch(id, start, shared.clone()));
        self.parts.insert(id, Part { next: start, end: shared, paced: (Instant::now(), start) });
        true
    }

    /// The size of a part: long enough that asking costs little, short enough that all fit into the window.
    fn part_bytes(&self) -> u64 {
        let wanted = (self.lanes.speed_of_one() * PART_SECONDS) as u64;
        let most = self.limits.window_bytes / self.lanes.count() as u64;
        wanted.max(PART_BYTES_MIN).min(most.max(1))
    }

    /// Takes the rest of the longest part away from its connection, so that others can share it.
    fn split_largest(&mut self) {
        let worthwhile = (self.lanes.speed_of_one() * 0.5) as u64;
        let part_bytes = self.part_bytes();
        let rest = |part: &Part| part.end.load(Relaxed).saturating_sub(part.next);
        let Some(part) = self.parts.values().max_by_key(|part| rest(part)) else { return };
        let (rest, end) = (rest(part), part.end.load(Relaxed));
        if rest < 2 * PART_BYTES_MIN.max(worthwhile) || end == OPEN_END {
            return;
        }
        let cut = part.next + (rest / 2).min(part_bytes);
        part.end.store(cut, Relaxed);
        self.todo.insert(cut, end);
    }

    async fn take(&mut self, report: Report) -> Result<Option<Trouble>, DownloadError> {
        match report {
            Report::Opened { granted, id } => self.opened(id, granted),
            Report::Piece { id, offset, bytes } => {
                self.received += bytes.len() as u64;
                if let Some(part) = self.parts.get_mut(&id) {
                    part.next = offset + bytes.len() as u64;
                }
                self.arrange(offset, bytes).await?;
                Ok(None)
            }
            Report::Ended { id, result } => {
                let Some(part) = self.parts.remove(&id) else { return Ok(None) };
                let end = part.end.load(Relaxed);
                if end == OPEN_END && result.is_ok() {
                    self.total = Some(part.next);
                } else if part.next < end {
                    self.todo.insert(part.next, end);
                }
                Ok(result.err())
            }
        }
    }

    /// The first answer says what the file is; later ones have been compared with it.
    fn opened(&mut self, id: usize, granted: Granted) -> Result<Option<Trouble>, DownloadError> {
        if !granted.ranges {
            let knows_version = granted.etag.is_some() || self.digest_known;
            if self.handed > 0 && !knows_version {
                let how = "the server cannot go on in the middle".to_owned();
                return Ok(Some(Trouble::Changed(how)));
            }
            self.lanes.one_only();
        }
        self.ranges = granted.ranges;
        let Some(mut work) = self.work.take() else { return Ok(None) };
        if granted.total.is_none() && !granted.ends && !self.digest_known {
            let place = super::super::network::place(
                &self.line.route.lock().expect("nothing panics with it").url,
            );
            let what = "it does not say where the file ends, so that a cut could not be noticed";
            return Err(HubError::Protocol { place, what: what.to_owned() }.into());
        }
        work.total = work.total.or(granted.total);
        work.etag = work.etag.or(granted.etag);
        *self.line.facts.lock().expect("nothing panics with it") = (work.total, work.etag.clone());
        if let Some(total) = work.total {
            self.total = Some(total);
            self.meter.set_total(total);
            if let Some(part) = self.parts.get(&id) {
                part.end.fetch_min(total, Relaxed);
            }
            check_room(&work.file, total.saturating_sub(work.hashed.bytes))?;
        }
        self.sink = Some(Sink::start(work).map_err(DownloadError::Write)?);
        Ok(None)
    }

    /// Puts bytes in their place, and hands on what is now in order.
    async fn arrange(&mut self, offset: u64, bytes: Bytes) -> Result<(), DownloadError> {
        if offset + bytes.len() as u64 <= self.handed {
            return Ok(());
        }
        if offset > self.handed {
            self.early.insert(offset, bytes);
            return Ok(());
        }
        let mut next = Some((offset, bytes));
        while let Some((offset, mut bytes)) = next {
            // A part that was taken away from a slow connection may have come twice.
            let known = self.handed - offset;
            if known < bytes.len() as u64 {
                bytes.advance(known as usize);
                self.handed += bytes.len() as u64;
                let sink = self.sink.as_mut().expect("an answer comes before its bytes");
                if !sink.push(bytes).await {
                    self.close()?;
                    let died = std::io::Error::other("the writing thread ended");
                    return Err(DownloadError::Write(died));
                }
            }
            let ready =
                self.early.first_key_value().is_some_and(|(start, _)| *start <= self.handed);
            next = if ready { self.early.pop_first() } else { None };
        }
        Ok(())
    }

    fn tick(&mut self) -> Option<Trouble> {
        let now = Instant::now();
        // More connections do not help a disk that is behind.
        if self.ranges && !self.sink.as_ref().is_some_and(Sink::is_behind) {
            self.lanes.measure(now, self.received);
        }
        if self.received - self.received_at_trouble >= PROGRESS_BYTES && self.troubles > 0 {
            self.troubles = 0;
            self.meter.set_note(None);
        }
        self.hurry(now);
        if let Some(sink) = &mut self.sink {
            sink.flush();
        }
        // A server that sends a byte now and then never stalls; it is as good as gone.
        let slow = self.limits.stall * 3;
        if self.received - self.heard.1 >= PROGRESS_BYTES || self.parts.is_empty() {
            self.heard = (now, self.received);
        } else if now.duration_since(self.heard.0) > slow {
            self.heard = (now, self.received);
            self.drop_parts();
            return Some(Trouble::again(format!(
                "less than {PROGRESS_BYTES} bytes came in {:.0} s",
                slow.as_secs_f64()
            )));
        }
        None
    }

    /// Takes the part that all others wait for away from a connection that is far slower than they are.
    fn hurry(&mut self, now: Instant) {
        let limit = self.handed.saturating_add(self.limits.window_bytes);
        let is_waiting = self.todo.first_key_value().is_some_and(|(start, _)| *start >= limit);
        let speed = self.lanes.speed_of_one();
        let Some(part) = self.parts.values_mut().find(|part| part.next == self.handed) else {
            return;
        };
        let elapsed = now.duration_since(part.paced.0);
        let came = (part.next - part.paced.1) as f64;
        if !is_waiting || came >= speed / 4.0 * elapsed.as_secs_f64() {
            part.paced = (now, part.next);
        } else if elapsed > self.limits.stall / 5 {
            let end = part.end.swap(part.next, Relaxed);
            self.todo.insert(part.next, end);
            part.paced = (now, part.next);
        }
    }

    /// Ends all connections; what they had left is to do again.
    fn drop_parts(&mut self) {
        self.tasks.abort_all();
        for (_, part) in self.parts.drain() {
            let end = part.end.load(Relaxed);
            if part.next < end {
                self.todo.insert(part.next, end);
            }
        }
    }

    /// Waits before the next request, or gives up.
    fn pause(
        &mut self,
        reason: String,
        asked: Option<Duration>,
        busy: bool,
    ) -> Result<(), DownloadError> {
        let now = Instant::now();
        if self.received - self.received_at_trouble >= PROGRESS_BYTES {
            self.troubles = 0;
        }
        self.received_at_trouble = self.received;
        // Several connections that fail together are one trouble.
        if self.not_before.is_none_or(|time| time <= now) {
            self.troubles += 1;
        }
        if self.troubles > self.limits.attempts {
            let url = self.line.route.lock().expect("nothing panics with it").url.clone();
            let place = super::super::network::place(&url);
            let attempts = self.limits.attempts;
            self.close()?;
            return Err(HubError::GaveUp { place, attempts, reason }.into());
        }
        if busy {
            self.lanes.yield_to_server(now);
        }
        let pause = asked.unwrap_or_else(|| match self.troubles {
            // The first time costs nothing: connections break.
            1 => Duration::ZERO,
            attempt => retry::pause(attempt - 1, self.limits.pause_first),
        });
        self.not_before = Some(now + pause);
        if pause >= Duration::from_secs(1) {
            let seconds = pause.as_secs_f64();
            self.meter.set_note(Some(format!("{reason}; again in {seconds:.0} s")));
        }
        Ok(())
    }
}
