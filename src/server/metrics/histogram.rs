//! Durations by how long they are.

use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Counts durations in buckets.
#[derive(Debug)]
pub(super) struct Histogram {
    /// Seconds at which buckets end, ascending.
    bounds: &'static [f64],
    /// How many durations are in each bucket, and last how many are longer than all.
    counts: Vec<AtomicU64>,
    microseconds: AtomicU64,
}

impl Histogram {
    pub(super) fn new(bounds: &'static [f64]) -> Self {
        let counts = (0..=bounds.len()).map(|_| AtomicU64::default()).collect();
        Self { bounds, counts, microseconds: AtomicU64::default() }
    }

    pub(super) fn observe(&self, duration: Duration) {
        let seconds = duration.as_secs_f64();
        let bucket = self.bounds.partition_point(|bound| *bound < seconds);
        self.counts[bucket].fetch_add(1, Ordering::Relaxed);
        self.microseconds.fetch_add(duration.as_micros() as u64, Ordering::Relaxed);
    }

    /// Appends the lines of this histogram: each bucket counts what is in the smaller ones too.
    pub(super) fn write(&self, name: &str, target: &mut String) {
        let mut count = 0;
        let ends = self.bounds.iter().map(ToString::to_string).chain(["+Inf".to_owned()]);
        for (end, bucket) in ends.zip(&self.counts) {
            count += bucket.load(Ordering::Relaxed);
            let _ = writeln!(target, "{name}_bucket{{le=\"{end}\"}} {count}");
        }
        let seconds = self.microseconds.load(Ordering::Relaxed) as f64 / 1e6;
        let _ = writeln!(target, "{name}_sum {seconds}\n{name}_count {count}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_holds_what_is_at_most_its_end() {
        let histogram = Histogram::new(&[0.1, 1.0]);
        for ms in [50, 100, 101, 5000] {
            histogram.observe(Duration::from_millis(ms));
        }
        let mut text = String::new();
        histogram.write("x", &mut text);
        assert_eq!(
            text,
            "x_bucket{le=\"0.1\"} 2\nx_bucket{le=\"1\"} 3\nx_bucket{le=\"+Inf\"} 4\nx_sum 5.251\nx_count 4\n"
        );
    }
}
