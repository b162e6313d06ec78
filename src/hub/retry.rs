//! When to try again: what the server asks for, else longer and longer pauses.

use std::time::{Duration, SystemTime};

use reqwest::header::{HeaderMap, RETRY_AFTER};

/// The longest pause that a server may ask for; a longer one is no pause, it is a no.
pub(crate) const PAUSE_MAX: Duration = Duration::from_mins(2);

/// The pause that `Retry-After` asks for, in seconds or as a date (RFC 9110 §10.2.3).
pub(crate) fn asked_pause(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    let pause = match text.parse() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => httpdate::parse_http_date(text).ok()?.duration_since(now).unwrap_or_default(),
    };
    Some(pause)
}

/// The pause before attempt `attempt` (from 1): doubles from `first`, at most 30 times `first`, a quarter of it by chance
/// so that many clients do not come back at once.
pub(crate) fn pause(attempt: u32, first: Duration) -> Duration {
    let doubled = first.saturating_mul(1 << attempt.saturating_sub(1).min(8)).min(first * 30);
    // The nanoseconds of the clock are chance enough.
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    doubled.mul_f64(0.75 + f64::from(now.subsec_nanos() % 1000) / 4000.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_of_retry_after_are_read() {
        let now = httpdate::parse_http_date("Sun, 06 Nov 1994 08:49:37 GMT").unwrap();
        let asked = |text: &str| {
            let headers = HeaderMap::from_iter([(RETRY_AFTER, text.parse().unwrap())]);
            asked_pause(&headers, now).map(|pause| pause.as_secs())
        };
        assert_eq!(asked("7"), Some(7));
        assert_eq!(asked("Sun, 06 Nov 1994 08:50:37 GMT"), Some(60));
        assert_eq!(asked("Sun, 06 Nov 1994 08:00:00 GMT"), Some(0));
        assert_eq!(asked("soon"), None);
        assert_eq!(asked("-1"), None);
    }

    #[test]
    fn pauses_grow_and_stop_growing() {
        let first = Duration::from_millis(500);
        for (attempt, longest) in [(1, 500), (2, 1000), (3, 2000), (20, 15_000)] {
            let pause = pause(attempt, first).as_millis();
            assert!(pause <= longest && pause * 4 >= longest * 3, "{attempt}: {pause} ms");
        }
    }
}
