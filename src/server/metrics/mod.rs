//! What the server counts of itself, for Prometheus to read at `/metrics`.
//!
//! A registry of our own: the names that users' dashboards know from llama-server have a colon in them and counters
//! without `_total`, which the usual crates cannot write, and what is left of such a crate is a few atomics.

mod histogram;
mod text;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use crate::chat::{ChatError, Event};
use crate::engine::frames::Done;
use crate::engine::process::EngineError;

use histogram::Histogram;
pub(super) use text::Now;

/// Routes, methods and statuses that are counted apart; further ones are one.
const SERIES_MAX: usize = 4096;

/// What takes less was loaded already.
const LOAD_TIME_LEAST: Duration = Duration::from_millis(5);

/// Everything that is counted.
#[derive(Debug)]
pub(super) struct Metrics {
    pub(super) started: SystemTime,
    requests: Mutex<BTreeMap<Answered, u64>>,
    /// Requests that wait for a model or for their turn.
    waiting: AtomicU64,
    /// Replies that are being made.
    busy: AtomicU64,
    prompt_tokens: AtomicU64,
    cached_tokens: AtomicU64,
    prompt_microseconds: AtomicU64,
    generated_tokens: AtomicU64,
    decoded_tokens: AtomicU64,
    decode_microseconds: AtomicU64,
    longest_tokens: AtomicU64,
    drafts: AtomicU64,
    drafted_tokens: AtomicU64,
    accepted_tokens: AtomicU64,
    worker_deaths: AtomicU64,
    first_token: Histogram,
    gap: Histogram,
    load: Histogram,
}

/// How a request was answered.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Answered {
    route: String,
    method: String,
    status: u16,
}

impl Metrics {
    pub(super) fn new() -> Self {
        Self {
            started: SystemTime::now(),
            requests: Mutex::default(),
            waiting: AtomicU64::default(),
            busy: AtomicU64::default(),
            prompt_tokens: AtomicU64::default(),
            cached_tokens: AtomicU64::default(),
            prompt_microseconds: AtomicU64::default(),
            generated_tokens: AtomicU64::default(),
            decoded_tokens: AtomicU64::default(),
            decode_microseconds: AtomicU64::default(),
            longest_tokens: AtomicU64::default(),
            drafts: AtomicU64::default(),
            drafted_tokens: AtomicU64::default(),
            accepted_tokens: AtomicU64::default(),
            worker_deaths: AtomicU64::default(),
            first_token: Histogram::new(&[
                0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0,
            ]),
            gap: Histogram::new(&[
                0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 5.0,
            ]),
            load: Histogram::new(&[0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0]),
        }
    }

    /// A request was answered. `route` is the pattern that matched, never the path: nobody can make series at will.
    pub(super) fn answered(&self, route: &str, method: &str, status: u16) {
        let mut requests = self.requests.lock().unwrap_or_else(PoisonError::into_inner);
        let mut key = Answered { route: route.to_owned(), method: method.to_owned(), status };
        if requests.len() >= SERIES_MAX && !requests.contains_key(&key) {
            key = Answered { route: "other".to_owned(), method: String::new(), status: 0 };
        }
        *requests.entry(key).or_default() += 1;
    }

    /// Watches a reply from when it was asked for; dropping the watch ends it.
    pub(super) fn watch(&self) -> Watch<'_> {
        self.waiting.fetch_add(1, Ordering::Relaxed);
        Watch { metrics: self, started: Instant::now(), is_busy: false, last: None }
    }

    /// A model is there, after so much time; next to nothing when it was loaded already.
    pub(super) fn loaded(&self, load_time: Duration) {
        if load_time >= LOAD_TIME_LEAST {
            self.load.observe(load_time);
        }
    }

    /// Texts were embedded or scored.
    pub(super) fn embedded(&self, tokens: u64, took: Duration) {
        self.prompt_tokens.fetch_add(tokens, Ordering::Relaxed);
        self.prompt_microseconds.fetch_add(took.as_micros() as u64, Ordering::Relaxed);
    }

    /// A reply or a question failed in the engine.
    pub(super) fn failed(&self, error: &ChatError) {
        if matches!(error, ChatError::Engine(EngineError::WorkerDied { .. })) {
            self.worker_deaths.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn done(&self, done: &Done) {
        let add = |counter: &AtomicU64, value: u32| {
            counter.fetch_add(u64::from(value), Ordering::Relaxed);
        };
        add(&self.prompt_tokens, done.prompt_tokens.saturating_sub(done.cached_tokens));
        add(&self.cached_tokens, done.cached_tokens);
        add(&self.generated_tokens, done.generated_tokens);
        add(&self.decoded_tokens, done.decoded_tokens);
        add(&self.drafts, done.drafts);
        add(&self.drafted_tokens, done.drafted_tokens);
        add(&self.accepted_tokens, done.accepted_tokens);
        let microseconds = |ms: f64| (ms * 1e3) as u64;
        self.prompt_microseconds.fetch_add(microseconds(done.prompt_ms), Ordering::Relaxed);
        self.decode_microseconds.fetch_add(microseconds(done.decode_ms), Ordering::Relaxed);
        let tokens = u64::from(done.prompt_tokens) + u64::from(done.generated_tokens);
        self.longest_tokens.fetch_max(tokens, Ordering::Relaxed);
    }
}

/// One reply under watch.
#[derive(Debug)]
pub(super) struct Watch<'a> {
    metrics: &'a Metrics,
    started: Instant,
    is_busy: bool,
    /// When something of the reply came last.
    last: Option<Instant>,
}

impl Watch<'_> {
    /// Something happened.
    pub(super) fn event(&mut self, event: &Event) {
        if !self.is_busy {
            self.is_busy = true;
            self.metrics.waiting.fetch_sub(1, Ordering::Relaxed);
            self.metrics.busy.fetch_add(1, Ordering::Relaxed);
        }
        match event {
            Event::Thinking(_) | Event::Text(_) | Event::ToolCall(_) => {
                let now = Instant::now();
                match self.last.replace(now) {
                    None => self.metrics.first_token.observe(now - self.started),
                    Some(last) => self.metrics.gap.observe(now - last),
                }
            }
            Event::Done(done) => self.metrics.done(done),
            _ => {}
        }
    }
}

impl Drop for Watch<'_> {
    fn drop(&mut self) {
        let counter = if self.is_busy { &self.metrics.busy } else { &self.metrics.waiting };
        counter.fetch_sub(1, Ordering::Relaxed);
    }
}
