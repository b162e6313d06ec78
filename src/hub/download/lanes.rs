//! How many connections to use: as many as make the whole faster, found by trying.
//!
//! One connection is best where it already fills the line or this machine (a server next door); where each connection is
//! held back (by distance, or by the server), the sum grows with their number. So the number is multiplied as long as
//! that pays (1, 4, 16), and what does not pay is taken back.

use std::time::{Duration, Instant};

/// Bytes a second of one connection above which more of them only compete for this machine's own time.
const FAST_BYTES_PER_SECOND: f64 = 300e6;

/// How many times as many connections the next try has: large steps, because every step takes time at a low speed.
const STEP: usize = 4;

/// How much faster [`STEP`] times the connections must be.
const GAIN: f64 = 1.2;

/// How long connections get to come up to speed, and then are measured.
const WARM_UP: Duration = Duration::from_millis(200);
const MEASURE: Duration = Duration::from_millis(300);

/// After a step that did not pay, how long until the next try.
const REST: Duration = Duration::from_secs(20);

/// The number of connections, and the experiment that finds it.
#[derive(Debug)]
pub(super) struct Lanes {
    count: usize,
    max: usize,
    /// The number before this one and its speed; 0 at the beginning.
    before: (usize, f64),
    /// When this number was set; the measurement begins [`WARM_UP`] later.
    since: Instant,
    /// Bytes at the beginning of the measurement.
    from: Option<(Instant, u64)>,
    rest_until: Option<Instant>,
    speed: f64,
}

impl Lanes {
    /// Begins with one.
    pub(super) fn new(max: usize, now: Instant) -> Self {
        Self {
            count: 1,
            max,
            before: (1, 0.0),
            since: now,
            from: None,
            rest_until: None,
            speed: 0.0,
        }
    }

    /// How many connections to use now.
    pub(super) fn count(&self) -> usize {
        self.count
    }

    /// Bytes a second of one connection, as last measured; 0 before that.
    pub(super) fn speed_of_one(&self) -> f64 {
        self.speed / self.count as f64
    }

    /// Takes note of the bytes that came so far (any growing count).
    pub(super) fn measure(&mut self, now: Instant, bytes: u64) {
        if let Some(until) = self.rest_until {
            if now < until {
                return;
            }
            self.rest_until = None;
            self.restart(now);
            self.before.1 = 0.0;
        }
        if now.duration_since(self.since) < WARM_UP {
            return;
        }
        let (start, at_start) = *self.from.get_or_insert((now, bytes));
        let elapsed = now.duration_since(start);
        if elapsed < MEASURE {
            return;
        }
        self.speed = bytes.saturating_sub(at_start) as f64 / elapsed.as_secs_f64();
        let pays = self.speed > self.before.1 * GAIN;
        if !pays && self.before.1 > 0.0 {
            // More were not faster: go back, and leave it so for a while.
            self.count = self.before.0;
            self.rest_until = Some(now + REST);
        } else if self.count < self.max && self.speed_of_one() < FAST_BYTES_PER_SECOND {
            self.before = (self.count, self.speed);
            self.count = (self.count * STEP).min(self.max);
            self.restart(now);
        } else {
            self.rest_until = Some(now + REST);
        }
    }

    /// The server is busy: half as many, and never more again.
    pub(super) fn yield_to_server(&mut self, now: Instant) {
        self.count = (self.count / 2).max(1);
        self.max = self.count;
        self.before = (self.count, 0.0);
        self.restart(now);
    }

    /// The server does not give parts of the file.
    pub(super) fn one_only(&mut self) {
        (self.count, self.max) = (1, 1);
    }

    fn restart(&mut self, now: Instant) {
        self.since = now;
        self.from = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The number after `seconds` on a line where one connection brings `one` and all together at most `all` bytes/s.
    fn settle(one: f64, all: f64, seconds: u64) -> usize {
        let start = Instant::now();
        let mut lanes = Lanes::new(16, start);
        let mut bytes = 0.0;
        for tick in 0..seconds * 10 {
            bytes += (one * lanes.count() as f64).min(all) / 10.0;
            lanes.measure(start + Duration::from_millis(100 * tick), bytes as u64);
        }
        lanes.count()
    }

    #[test]
    fn connections_that_are_held_back_one_by_one_become_many() {
        assert_eq!(settle(20e6, 1e12, 5), 16);
        assert_eq!(settle(20e6, 1e12, 2), 16);
        assert_eq!(settle(5e6, 42e6, 10), 16);
        assert_eq!(settle(5e6, 22e6, 10), 4);
    }

    #[test]
    fn a_full_line_or_a_fast_neighbour_needs_one() {
        assert_eq!(settle(10e6, 10e6, 10), 1);
        assert_eq!(settle(1.5e9, 1.5e9, 10), 1);
    }

    #[test]
    fn a_busy_server_gets_fewer() {
        let start = Instant::now();
        let mut lanes = Lanes::new(16, start);
        (lanes.count, lanes.max) = (8, 16);
        lanes.yield_to_server(start);
        assert_eq!(lanes.count(), 4);
        for second in 0..200 {
            lanes.measure(start + Duration::from_secs(second), second * 1_000_000);
        }
        assert!(lanes.count() <= 4);
    }
}
