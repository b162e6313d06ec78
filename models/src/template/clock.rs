//! The moment that `strftime_now` prints, and Python's `strftime` in the C locale.

use std::fmt::Write as _;
use std::time::{SystemTime, UNIX_EPOCH};

const DAYS: [&str; 7] =
    ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];
const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
const SECONDS_PER_DAY: i64 = 86_400;
/// The last second of the year 9999, after which Python has no dates.
const UNIX_SECONDS_MAX: i64 = 253_402_300_799;

/// A moment on the user's clock; handed in, so that a rendering depends on nothing else.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Clock {
    /// Seconds since 1970-01-01 00:00:00 UTC.
    pub unix_seconds: i64,
    /// Seconds that the user's clock is ahead of UTC.
    pub offset_seconds: i32,
}

impl Clock {
    /// This moment, in UTC: what a caller without knowledge of the time zone can offer.
    pub fn now_utc() -> Clock {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Clock { unix_seconds: since.as_secs() as i64, offset_seconds: 0 }
    }

    /// The moment in UTC as RFC 3339 writes it: `2026-11-21T10:27:33Z`.
    pub fn rfc3339(self) -> String {
        let utc = Clock { offset_seconds: 0, ..self };
        utc.format("%Y-%m-%dT%H:%M:%SZ").unwrap_or_default()
    }

    /// The moment in the form that `format` asks for; `Err` is a message about an unknown
    /// directive.
    pub(super) fn format(self, format: &str) -> Result<String, String> {
        let date = Date::of(self);
        let mut text = String::new();
        let mut characters = format.chars();
        while let Some(character) = characters.next() {
            if character != '%' {
                text.push(character);
                continue;
            }
            let mut directive = characters.next();
            let padded = directive != Some('-');
            if !padded {
                directive = characters.next();
            }
            let Some(directive) = directive else {
                text.push('%');
                break;
            };
            date.write(&mut text, directive, padded)?;
        }
        Ok(text)
    }
}

/// A moment taken apart.
struct Date {
    year: i64,
    month: i64,
    day: i64,
    second_of_day: i64,
    /// Days since Sunday.
    weekday: i64,
    /// Days since 1 January.
    day_of_year: i64,
}

impl Date {
    /// Howard Hinnant's algorithm "civil from days": years begin in March, so that the leap day
    /// comes last.
    fn of(clock: Clock) -> Date {
        let seconds =
            clock.unix_seconds.clamp(0, UNIX_SECONDS_MAX) + i64::from(clock.offset_seconds);
        let days = seconds.div_euclid(SECONDS_PER_DAY);
        let shifted = days + 719_468;
        let era = shifted.div_euclid(146_097);
        let day_of_era = shifted.rem_euclid(146_097);
        let year_of_era =
            (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_from_march = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let month_from_march = (5 * day_from_march + 2) / 153;
        let day = day_from_march - (153 * month_from_march + 2) / 5 + 1;
        let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
        let year = year_of_era + era * 400 + i64::from(month <= 2);
        let leap = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
        let day_of_year = match month {
            1 => day - 1,
            2 => day + 30,
            _ => day_from_march + 59 + i64::from(leap),
        };
        Date {
            year,
            month,
            day,
            second_of_day: seconds.rem_euclid(SECONDS_PER_DAY),
            weekday: (days + 4).rem_euclid(7),
            day_of_year,
        }
    }

    fn write(&self, text: &mut String, directive: char, padded: bool) -> Result<(), String> {
        let (hour, minute) = (self.second_of_day / 3_600, self.second_of_day / 60 % 60);
        let second = self.second_of_day % 60;
        let hour_of_12 = (hour + 11) % 12 + 1;
        let (day_name, month_name) = (DAYS[self.weekday as usize], MONTHS[self.month as usize - 1]);
        let (value, width) = match directive {
            'd' => (self.day, 2),
            'm' => (self.month, 2),
            'y' => (self.year % 100, 2),
            'Y' => (self.year, 1),
            'H' => (hour, 2),
            'I' => (hour_of_12, 2),
            'M' => (minute, 2),
            'S' => (second, 2),
            'j' => (self.day_of_year + 1, 3),
            'f' => (0, 6),
            'w' => (self.weekday, 1),
            'u' => ((self.weekday + 6) % 7 + 1, 1),
            'U' => ((self.day_of_year + 7 - self.weekday) / 7, 2),
            'W' => ((self.day_of_year + 7 - (self.weekday + 6) % 7) / 7, 2),
            _ => {
                match directive {
                    'a' => text.push_str(&day_name[..3]),
                    'A' => text.push_str(day_name),
                    'b' | 'h' => text.push_str(&month_name[..3]),
                    'B' => text.push_str(month_name),
                    'p' => text.push_str(if hour < 12 { "AM" } else { "PM" }),
                    'e' => {
                        let _ = write!(text, "{:>2}", self.day);
                    }
                    '%' => text.push('%'),
                    'n' => text.push('\n'),
                    't' => text.push('\t'),
                    // `datetime.now()` knows no time zone, so Python prints nothing for it.
                    'z' | 'Z' => {}
                    _ => return self.write_compound(text, directive),
                }
                return Ok(());
            }
        };
        let width = if padded { width } else { 1 };
        let _ = write!(text, "{value:0width$}");
        Ok(())
    }

    fn write_compound(&self, text: &mut String, directive: char) -> Result<(), String> {
        let parts: &[(&str, char)] = match directive {
            'D' | 'x' => &[("", 'm'), ("/", 'd'), ("/", 'y')],
            'F' => &[("", 'Y'), ("-", 'm'), ("-", 'd')],
            'R' => &[("", 'H'), (":", 'M')],
            'T' | 'X' => &[("", 'H'), (":", 'M'), (":", 'S')],
            'r' => &[("", 'I'), (":", 'M'), (":", 'S'), (" ", 'p')],
            'c' => &[("", 'a'), (" ", 'b'), (" ", 'e'), (" ", 'T'), (" ", 'Y')],
            _ => return Err(format!("strftime_now does not know %{directive}")),
        };
        for (before, part) in parts {
            text.push_str(before);
            self.write(text, *part, true)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(unix_seconds: i64, format: &str, expected: &str) {
        let clock = Clock { unix_seconds, offset_seconds: 0 };
        assert_eq!(clock.format(format).unwrap(), expected);
    }

    #[test]
    fn dates_are_python_s() {
        // From Python: datetime.fromtimestamp(…, timezone.utc).replace(tzinfo=None).strftime(…)
        check(
            0,
            "%A %d %B %Y %H:%M:%S %j %U %W %w %u",
            "Thursday 01 January 1970 00:00:00 001 00 00 4 4",
        );
        check(1_767_323_045, "%d %b %Y, %-d/%-m %I %p %y%%", "02 Jan 2026, 2/1 03 AM 26%");
        check(
            1_709_210_096,
            "%c|%x|%X|%F|%D|%j",
            "Thu Feb 29 12:34:56 2024|02/29/24|12:34:56|2024-02-29|02/29/24|060",
        );
        check(1_735_689_599, "%Y-%m-%d %j %U %W %e", "2024-12-31 366 52 53 31");
        check(1_735_689_599, "%Z%z", "");
    }

    #[test]
    fn the_offset_moves_the_day() {
        let clock = Clock { unix_seconds: 1_735_689_599, offset_seconds: 3_600 };
        assert_eq!(clock.format("%Y-%m-%d %H:%M").unwrap(), "2025-01-01 00:59");
    }

    #[test]
    fn moments_are_written_for_machines() {
        let clock = Clock { unix_seconds: 1_735_689_599, offset_seconds: 3_600 };
        assert_eq!(clock.rfc3339(), "2024-12-31T23:59:59Z");
    }

    #[test]
    fn unknown_directives_are_named() {
        let error = Clock { unix_seconds: 0, offset_seconds: 0 }.format("%Q").unwrap_err();
        assert_eq!(error, "strftime_now does not know %Q");
    }
}
