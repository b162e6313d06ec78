//! Several transfers at once, shown as one: a bar for people, a line of JSON now and then for programs.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde_json::json;

use super::failure::Failure;
use crate::hub::Meter;
use crate::term::progress::Progress;
use crate::term::{Printer, interrupt};

/// Transfers at the same time; each has several connections already.
const AT_ONCE: usize = 3;

/// How often the state is shown, and how often as JSON.
const LOOK: Duration = Duration::from_millis(100);
const TELL: Duration = Duration::from_millis(500);

/// One transfer as it is shown.
#[derive(Debug)]
struct Line {
    name: String,
    meters: Vec<Arc<Meter>>,
    since: Instant,
    is_done: bool,
}

/// What all transfers are at.
#[derive(Debug)]
pub(super) struct Board<'a> {
    printer: &'a Printer,
    /// What is being done, in JSON: `pulling`.
    verb: &'static str,
    as_json: bool,
    lines: Mutex<Vec<Line>>,
    bar: Mutex<Option<Progress>>,
}

impl<'a> Board<'a> {
    pub(super) fn new(printer: &'a Printer, verb: &'static str, as_json: bool) -> Self {
        Self { printer, verb, as_json, lines: Mutex::default(), bar: Mutex::default() }
    }

    /// Shows the gauges of a transfer that begins.
    pub(super) fn begin(&self, name: &str, meters: &[Arc<Meter>]) {
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        let (name, since) = (name.to_owned(), Instant::now());
        lines.push(Line { name, meters: meters.to_vec(), since, is_done: false });
    }

    /// Says something without disturbing the bar.
    pub(super) fn say(&self, say: impl FnOnce(&Printer)) {
        match &*self.bar.lock().unwrap_or_else(PoisonError::into_inner) {
            Some(bar) => bar.above(|| say(self.printer)),
            None => say(self.printer),
        }
    }

    /// Does the work for every order, a few at once; the results are in the order of the orders.
    pub(super) fn run<T: Sync, R: Send>(
        &self,
        orders: &[T],
        work: impl Fn(&T) -> Result<R, Failure> + Sync,
    ) -> Vec<Result<R, Failure>> {
        let next = AtomicUsize::new(0);
        let results: Mutex<Vec<Option<Result<R, Failure>>>> =
            Mutex::new(orders.iter().map(|_| None).collect());
        std::thread::scope(|scope| {
            let worker = || {
                loop {
                    let index = next.fetch_add(1, Ordering::SeqCst);
                    let Some(order) = orders.get(index) else { return };
                    let result = work(order);
                    results.lock().unwrap_or_else(PoisonError::into_inner)[index] = Some(result);
                }
            };
            let workers: Vec<_> =
                (0..orders.len().min(AT_ONCE)).map(|_| scope.spawn(worker)).collect();
            let mut told = None;
            while !workers.iter().all(std::thread::ScopedJoinHandle::is_finished) {
                std::thread::park_timeout(LOOK);
                self.show(&mut told);
            }
        });
        self.show(&mut None);
        *self.bar.lock().unwrap_or_else(PoisonError::into_inner) = None;
        let results = results.into_inner().unwrap_or_else(PoisonError::into_inner);
        let results =
            results.into_iter().map(|result| result.unwrap_or_else(|| Err(Failure::interrupted())));
        let status = |failure: Failure| {
            let status =
                if interrupt::requested() { interrupt::EXIT_STATUS } else { failure.status };
            Failure { status, ..failure }
        };
        results.map(|result| result.map_err(status)).collect()
    }

    fn show(&self, told: &mut Option<Instant>) {
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        if interrupt::requested() {
            lines.iter().flat_map(|line| &line.meters).for_each(|meter| meter.stop());
        }
        if self.as_json {
            if told.is_none_or(|told| told.elapsed() >= TELL) {
                *told = Some(Instant::now());
                lines.iter_mut().filter(|line| !line.is_done).for_each(|line| self.tell(line));
            }
            return;
        }
        // A file whose size nobody says is as long as what came of it.
        let total: u64 = lines
            .iter()
            .map(|line| {
                line.meters.iter().map(|meter| meter.total().max(meter.done())).sum::<u64>()
            })
            .sum();
        let done: u64 = lines.iter().map(|line| line.sum(Meter::done)).sum();
        if total == 0 {
            return;
        }
        let mut bar = self.bar.lock().unwrap_or_else(PoisonError::into_inner);
        let bar = bar.get_or_insert_with(|| Progress::bytes(self.printer, total));
        bar.set_total(total);
        let active = lines.iter().filter(|line| line.sum(Meter::done) < line.sum(Meter::total));
        let names: Vec<&str> = active.clone().map(|line| line.name.as_str()).collect();
        let note = active.flat_map(|line| &line.meters).find_map(|meter| meter.note());
        bar.message(&note.unwrap_or_else(|| names.join(", ")));
        bar.set(done);
    }

    /// One line of JSON about a transfer.
    fn tell(&self, line: &mut Line) {
        let (done, total) = (line.sum(Meter::done), line.sum(Meter::total));
        let came = done.saturating_sub(line.sum(Meter::kept));
        let speed = came as f64 / line.since.elapsed().as_secs_f64().max(0.001);
        let left = (speed > 0.0).then(|| total.saturating_sub(done) as f64 / speed);
        line.is_done = total > 0 && done >= total;
        let note = line.meters.iter().find_map(|meter| meter.note());
        let text = json!({
            "name": line.name,
            "status": self.verb,
            "completed": done,
            "total": total,
            "bytes_per_second": speed.round(),
            "seconds_left": left.map(f64::round),
            "connections": line.sum(Meter::lanes),
            "note": note,
        });
        // Whoever reads the lines may leave; the work goes on.
        let _ = self.printer.line(&text.to_string());
    }
}

impl Line {
    fn sum(&self, part: impl Fn(&Meter) -> u64) -> u64 {
        self.meters.iter().map(|meter| part(meter)).sum()
    }
}
