//! Moments and durations as Ollama writes them: RFC 3339 with nanoseconds in UTC, and whole nanoseconds.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nfl_models::template::Clock;

/// How far away "for ever" is: as many nanoseconds as a signed number of 64 bits holds, as Go has it.
const FOREVER: Duration = Duration::from_nanos(i64::MAX as u64);

/// A moment: `2026-11-21T10:27:33.000000123Z`.
pub(super) fn text(moment: SystemTime) -> String {
    let since = moment.duration_since(UNIX_EPOCH).unwrap_or_default();
    let clock = Clock { unix_seconds: since.as_secs() as i64, offset_seconds: 0 };
    let seconds = clock.rfc3339();
    format!("{}.{:09}Z", seconds.trim_end_matches('Z'), since.subsec_nanos())
}

/// This moment.
pub(super) fn now() -> String {
    text(SystemTime::now())
}

/// When a model goes that stays for ever.
pub(super) fn never() -> SystemTime {
    SystemTime::now() + FOREVER
}

/// Whole nanoseconds.
pub(super) fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// Whole nanoseconds of what was measured in milliseconds.
pub(super) fn from_milliseconds(milliseconds: f64) -> u64 {
    (milliseconds * 1e6).round() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_have_nine_digits() {
        let moment = UNIX_EPOCH + Duration::new(1_795_256_853, 42);
        assert_eq!(text(moment), "2026-11-21T10:27:33.000000042Z");
        assert_eq!(text(UNIX_EPOCH), "1970-01-01T00:00:00.000000000Z");
        assert!(text(never()).starts_with("23"));
        assert_eq!(from_milliseconds(1.5), 1_500_000);
        assert_eq!(nanoseconds(Duration::from_secs(2)), 2_000_000_000);
    }
}
