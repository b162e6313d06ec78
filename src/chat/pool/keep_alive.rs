//! How long a model stays: durations as people and Ollama's clients write them.

use std::time::Duration;

use nfl_models::Hint;
use thiserror::Error;

/// How long a model stays after its last use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeepAlive {
    /// So long; zero unloads it at once.
    For(Duration),
    /// Until memory is needed for another one and no model that may go sooner is idle.
    Forever,
}

/// Nobody keeps a model for more than a century; beyond it clocks overflow.
const DURATION_MAX: Duration = Duration::from_hours(100 * 365 * 24);

/// Units of a duration and their nanoseconds, as Go's `time.ParseDuration` knows them.
const UNITS: [(&str, f64); 8] = [
    ("ns", 1.0),
    ("us", 1e3),
    ("µs", 1e3),
    ("μs", 1e3),
    ("ms", 1e6),
    ("s", 1e9),
    ("m", 60e9),
    ("h", 3600e9),
];

/// A text that is no duration.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("time: invalid duration {0:?}")]
pub struct DurationError(String);

impl Hint for DurationError {
    fn hint(&self) -> Option<String> {
        Some(
            "write a number and a unit, such as 30s, 5m or 1h30m; below zero is for ever"
                .to_owned(),
        )
    }
}

impl KeepAlive {
    /// So many seconds; for ever when they are negative, or no number.
    pub fn from_seconds(seconds: f64) -> Self {
        // Also not-a-number, which no comparison holds for.
        if seconds >= 0.0 {
            let time = Duration::try_from_secs_f64(seconds).unwrap_or(DURATION_MAX);
            Self::For(time.min(DURATION_MAX))
        } else {
            Self::Forever
        }
    }

    /// A duration as Go writes it: `5m`, `1h30m`, `-1s`. A number needs its unit, but for 0.
    pub fn from_duration(text: &str) -> Result<Self, DurationError> {
        duration_seconds(text).map(Self::from_seconds)
    }

    /// The same, or a whole number of seconds: how settings have it.
    pub fn from_setting(text: &str) -> Result<Self, DurationError> {
        let text = text.trim();
        match text.parse::<i64>() {
            Ok(seconds) => Ok(Self::from_seconds(seconds as f64)),
            Err(_) => Self::from_duration(text),
        }
    }
}

/// The seconds of a duration in Go's form.
fn duration_seconds(text: &str) -> Result<f64, DurationError> {
    let refused = || DurationError(text.chars().take(80).collect());
    let (sign, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (-1.0, rest),
        None => (1.0, text.strip_prefix('+').unwrap_or(text)),
    };
    if rest == "0" {
        return Ok(0.0);
    }
    if rest.is_empty() {
        return Err(refused());
    }
    let mut nanoseconds = 0.0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(refused)?;
        // `.` alone and two points in a row are no numbers for Rust either.
        let number: f64 = rest[..digits].parse().map_err(|_| refused())?;
        rest = &rest[digits..];
        let letters = rest.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(rest.len());
        let unit = UNITS.iter().find(|(name, _)| *name == &rest[..letters]).ok_or_else(refused)?;
        nanoseconds += number * unit.1;
        rest = &rest[letters..];
    }
    Ok(sign * nanoseconds / 1e9)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_those_of_go() {
        for (text, milliseconds) in [
            ("0", 0),
            ("5s", 5_000),
            ("5m", 300_000),
            ("1h30m", 5_400_000),
            ("+1.5s", 1_500),
            (".5s", 500),
            ("5.s", 5_000),
            ("1h0m0.25s", 3_600_250),
            ("300ms", 300),
            ("10us", 0),
        ] {
            let KeepAlive::For(time) = KeepAlive::from_duration(text).unwrap() else {
                panic!("{text}")
            };
            assert_eq!(time.as_millis(), milliseconds, "{text}");
        }
        for text in ["-1s", "-5m", "-1h30m", "-0.5ms"] {
            assert_eq!(KeepAlive::from_duration(text), Ok(KeepAlive::Forever), "{text}");
        }
        for text in ["", "-", "300", "s", ".s", "5", "5x", "5 m", "1..5s", "m5", "1h30", "5ſ", "∞"]
        {
            let error = KeepAlive::from_duration(text).unwrap_err();
            assert_eq!(error.to_string(), format!("time: invalid duration {text:?}"));
        }
    }

    #[test]
    fn settings_may_be_seconds_and_numbers_may_be_anything() {
        let seconds = |seconds| KeepAlive::For(Duration::from_secs(seconds));
        assert_eq!(KeepAlive::from_setting("300"), Ok(seconds(300)));
        assert_eq!(KeepAlive::from_setting(" 10m "), Ok(seconds(600)));
        assert_eq!(KeepAlive::from_setting("-1"), Ok(KeepAlive::Forever));
        assert!(KeepAlive::from_setting("forever").is_err());
        assert_eq!(KeepAlive::from_seconds(-0.0), seconds(0));
        assert_eq!(KeepAlive::from_seconds(-0.1), KeepAlive::Forever);
        assert_eq!(KeepAlive::from_seconds(f64::NAN), KeepAlive::Forever);
        for huge in [1e300, f64::INFINITY] {
            assert_eq!(KeepAlive::from_seconds(huge), KeepAlive::For(DURATION_MAX));
        }
        let many = "9".repeat(400) + "h";
        assert_eq!(KeepAlive::from_duration(&many), Ok(KeepAlive::For(DURATION_MAX)));
    }
}
