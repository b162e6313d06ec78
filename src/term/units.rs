//! Numbers as people read them: bytes, counts, durations.

use std::time::Duration;

/// Bytes in binary units with three significant digits: `1.10 GiB`.
pub fn bytes(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 1000.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    match unit {
        0 => format!("{bytes} B"),
        _ => format!("{} {}", three_digits(value), UNITS[unit]),
    }
}

/// Reads a size as people write it: `12GiB`, `12G`, `500 MB`, or plain bytes. `K`, `M`, `G` and `T`
/// alone are binary, as memory is counted; None when it is no size.
pub fn parse_bytes(text: &str) -> Option<u64> {
    let text = text.trim().to_ascii_lowercase();
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let number: f64 = number.parse().ok()?;
    let unit = unit.trim();
    let power = match unit.chars().next() {
        None | Some('b') => 0,
        Some('k') => 1,
        Some('m') => 2,
        Some('g') => 3,
        Some('t') => 4,
        _ => return None,
    };
    let base: f64 = match unit.get(1..).unwrap_or("") {
        "" | "i" | "ib" => 1024.0,
        "b" => 1000.0,
        _ => return None,
    };
    Some((number * base.powi(power)) as u64)
}

/// A count in decimal units with three significant digits: `46.7 B`, `260 K`.
pub fn count(count: u64) -> String {
    const UNITS: [&str; 5] = ["", " K", " M", " B", " T"];
    let mut value = count as f64;
    let mut unit = 0;
    while value >= 1000.0 && unit + 1 < UNITS.len() {
        value /= 1000.0;
        unit += 1;
    }
    match unit {
        0 => count.to_string(),
        _ => format!("{}{}", three_digits(value), UNITS[unit]),
    }
}

/// A duration: `850 ms`, `12.4 s`, `3 min 05 s`.
pub fn duration(duration: Duration) -> String {
    let seconds = duration.as_secs_f64();
    if seconds < 1.0 {
        format!("{:.0} ms", seconds * 1000.0)
    } else if seconds < 60.0 {
        format!("{seconds:.1} s")
    } else {
        let whole = duration.as_secs();
        format!("{} min {:02} s", whole / 60, whole % 60)
    }
}

/// How long ago something was, in its largest unit: `3 days ago`.
pub fn ago(age: Duration) -> String {
    const UNITS: [(u64, &str); 6] = [
        (365 * 86_400, "year"),
        (30 * 86_400, "month"),
        (7 * 86_400, "week"),
        (86_400, "day"),
        (3_600, "hour"),
        (60, "minute"),
    ];
    let seconds = age.as_secs();
    match UNITS.iter().find(|(unit, _)| seconds >= *unit) {
        None => "just now".to_owned(),
        Some((unit, word)) => {
            let count = seconds / unit;
            format!("{count} {word}{} ago", if count == 1 { "" } else { "s" })
        }
    }
}

fn three_digits(value: f64) -> String {
    if value < 10.0 {
        format!("{value:.2}")
    } else if value < 100.0 {
        format!("{value:.1}")
    } else {
        format!("{value:.0}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_read_well() {
        assert_eq!(bytes(0), "0 B");
        assert_eq!(bytes(999), "999 B");
        assert_eq!(bytes(1_185_376), "1.13 MiB");
        assert_eq!(bytes(12 << 30), "12.0 GiB");
        assert_eq!(bytes(u64::MAX), "16384 PiB");
        assert_eq!(count(260_032), "260 K");
        for (text, size) in [
            ("12GiB", 12 << 30),
            ("12g", 12 << 30),
            ("0.5 G", 1 << 29),
            ("500MB", 500_000_000),
            ("64", 64),
            ("64b", 64),
        ] {
            assert_eq!(parse_bytes(text), Some(size), "{text}");
        }
        for text in ["", "GiB", "12 cats", "12Gi5", "-1G"] {
            assert_eq!(parse_bytes(text), None, "{text}");
        }
        assert_eq!(count(46_702_792_704), "46.7 B");
        assert_eq!(count(7), "7");
        assert_eq!(duration(Duration::from_millis(185_400)), "3 min 05 s");
        assert_eq!(duration(Duration::from_millis(9)), "9 ms");
        assert_eq!(ago(Duration::from_secs(59)), "just now");
        assert_eq!(ago(Duration::from_mins(1)), "1 minute ago");
        assert_eq!(ago(Duration::from_hours(50)), "2 days ago");
    }
}
