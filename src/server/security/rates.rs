//! How often one client may ask: a bucket of requests each, filled at a steady rate.
//!
//! The whole of it is a number and a time per client, so it is written here and not taken from a crate that brings a
//! concurrent map, clocks and random numbers of its own.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

/// Clients that are remembered; then those go that have a full bucket, which is as good as never having asked.
const CLIENTS_MAX: usize = 4096;

/// Buckets of all clients.
#[derive(Debug)]
pub(super) struct Rates {
    /// Requests a minute, and how many of them may come at once.
    per_minute: f64,
    buckets: Mutex<HashMap<String, Bucket>>,
}

#[derive(Debug)]
struct Bucket {
    requests: f64,
    filled: Instant,
}

impl Rates {
    /// So many requests a minute.
    pub(super) fn new(per_minute: u32) -> Self {
        Self { per_minute: f64::from(per_minute), buckets: Mutex::default() }
    }

    /// Takes one request from a client's bucket; or the seconds until there is one.
    pub(super) fn take(&self, client: &str, now: Instant) -> Result<(), u32> {
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        if buckets.len() >= CLIENTS_MAX && !buckets.contains_key(client) {
            buckets.retain(|_, bucket| self.filled(bucket, now) < self.per_minute);
        }
        if buckets.len() >= CLIENTS_MAX && !buckets.contains_key(client) {
            // So many that ask too much: whoever they are, they wait.
            return Err(60);
        }
        let fresh = || Bucket { requests: self.per_minute, filled: now };
        let bucket = buckets.entry(client.to_owned()).or_insert_with(fresh);
        bucket.requests = self.filled(bucket, now);
        bucket.filled = now;
        if bucket.requests >= 1.0 {
            bucket.requests -= 1.0;
            Ok(())
        } else {
            let seconds = (1.0 - bucket.requests) * 60.0 / self.per_minute;
            Err(seconds.ceil().max(1.0) as u32)
        }
    }

    fn filled(&self, bucket: &Bucket, now: Instant) -> f64 {
        let minutes = now.saturating_duration_since(bucket.filled).as_secs_f64() / 60.0;
        (bucket.requests + minutes * self.per_minute).min(self.per_minute)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_client_gets_its_share_and_no_more() {
        let rates = Rates::new(6);
        let start = Instant::now();
        for _ in 0..6 {
            assert_eq!(rates.take("a", start), Ok(()));
        }
        assert_eq!(rates.take("a", start), Err(10));
        assert_eq!(rates.take("b", start), Ok(()), "another client's requests count for itself");
        assert_eq!(rates.take("a", start + Duration::from_secs(4)), Err(6));
        assert_eq!(rates.take("a", start + Duration::from_secs(10)), Ok(()));
        assert_eq!(rates.take("a", start + Duration::from_secs(10)), Err(10));
        let later = start + Duration::from_hours(1);
        assert_eq!((0..10).filter(|_| rates.take("a", later).is_ok()).count(), 6);
    }

    #[test]
    fn memory_for_clients_is_bounded() {
        let rates = Rates::new(1);
        let start = Instant::now();
        for client in 0..CLIENTS_MAX {
            assert!(rates.take(&client.to_string(), start).is_ok());
        }
        assert_eq!(rates.take("one more", start), Err(60));
        assert_eq!(rates.take("one more", start + Duration::from_mins(1)), Ok(()));
        assert_eq!(rates.buckets.lock().unwrap().len(), 1);
    }
}
