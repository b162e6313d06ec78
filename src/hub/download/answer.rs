//! What a server's answer to a request for bytes is worth: nothing that it says is believed before it fits what was
//! asked and what is known.

use std::time::{Duration, SystemTime};

use reqwest::StatusCode;
use reqwest::header::{
    CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, ETAG, HeaderMap, HeaderName, TRANSFER_ENCODING,
};

use super::super::error::HubError;
use super::super::retry;
use super::journal::ETAG_BYTES_MAX;

/// What was asked for, and what is known of the file.
#[derive(Debug, Clone)]
pub(super) struct Asked {
    /// The first byte.
    pub(super) start: u64,
    /// The file's size.
    pub(super) total: Option<u64>,
    /// The file's version.
    pub(super) etag: Option<String>,
}

/// What an answer brings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Granted {
    /// The file's size; None when the server does not say.
    pub(super) total: Option<u64>,
    /// Whether a body that was cut off can be told from one that is whole.
    pub(super) ends: bool,
    /// The file's version, when it is one that comparing bytes would confirm (a strong ETag).
    pub(super) etag: Option<String>,
    /// Where in the file the body begins.
    pub(super) start: u64,
    /// Whether the server gives parts of the file.
    pub(super) ranges: bool,
}

/// Why bytes did not come.
#[derive(Debug)]
pub(super) enum Trouble {
    /// It may go better the next time, after the pause that the server asked for.
    Again { reason: String, pause: Option<Duration>, busy: bool },
    /// The address that a redirect led to answers no more.
    Expired(HubError),
    /// The file is not the one that we have a part of.
    Changed(String),
    /// There is no use in trying again.
    Final(HubError),
}

impl Trouble {
    /// A connection that failed.
    pub(super) fn again(reason: impl Into<String>) -> Self {
        Self::Again { reason: reason.into(), pause: None, busy: false }
    }
}

/// The file's size that a 416 answer names: where a file ends, when somebody asked for what lies behind.
pub(super) fn size_of_unsatisfied(status: StatusCode, headers: &HeaderMap) -> Option<u64> {
    let text =
        text(headers, CONTENT_RANGE).filter(|_| status == StatusCode::RANGE_NOT_SATISFIABLE)?;
    text.trim().strip_prefix("bytes */")?.parse().ok()
}

/// Judges the head of an answer.
pub(super) fn judge(
    status: StatusCode,
    headers: &HeaderMap,
    asked: &Asked,
    place: &str,
) -> Result<Granted, Trouble> {
    match status {
        StatusCode::OK | StatusCode::PARTIAL_CONTENT => {}
        _ => return Err(refused(status, headers, place)),
    }
    let encoding = text(headers, CONTENT_ENCODING).unwrap_or("identity");
    if !encoding.eq_ignore_ascii_case("identity") {
        let place = place.to_owned();
        let what = format!("the server compresses the file ({encoding}), though asked not to");
        return Err(Trouble::Final(HubError::Protocol { place, what }));
    }
    let etag = text(headers, ETAG)
        .filter(|etag| !etag.starts_with("W/") && etag.len() <= ETAG_BYTES_MAX)
        .map(str::to_owned);
    if let (Some(known), Some(now)) = (&asked.etag, &etag)
        && known != now
    {
        return Err(Trouble::Changed(format!("its version was {known} and is {now}")));
    }
    let length = text(headers, CONTENT_LENGTH).and_then(|length| length.parse::<u64>().ok());
    let granted = if status == StatusCode::OK {
        // The last chunk is an empty one (RFC 9112 §7.1); a body without it is an error of the connection.
        let is_chunked = text(headers, TRANSFER_ENCODING)
            .is_some_and(|encoding| encoding.trim().to_ascii_lowercase().ends_with("chunked"));
        let ends = length.is_some() || is_chunked;
        Granted { total: length, ends, etag, start: 0, ranges: false }
    } else {
        let range = text(headers, CONTENT_RANGE).and_then(parse_range);
        let Some((start, end, total)) = range else {
            return Err(Trouble::again("the server does not say which part of the file it sends"));
        };
        if start != asked.start || length.is_some_and(|length| length != end - start) {
            let said = format!("bytes {start} to {end} where {} was asked for", asked.start);
            return Err(Trouble::again(format!("the server sends {said}")));
        }
        let total = total.or(asked.total);
        Granted { total, ends: total.is_some(), etag, start, ranges: true }
    };
    if let (Some(expected), Some(total)) = (asked.total, granted.total)
        && expected != total
    {
        let what = format!("the file has {total} bytes, not the {expected} that were announced");
        return Err(Trouble::Changed(what));
    }
    Ok(granted)
}

fn refused(status: StatusCode, headers: &HeaderMap, place: &str) -> Trouble {
    let pause = retry::asked_pause(headers, SystemTime::now());
    let error = HubError::Status { place: place.to_owned(), status: status.as_u16(), words: None };
    match status.as_u16() {
        416 => Trouble::Changed("it is shorter than it was".to_owned()),
        429 | 503 if pause.is_some_and(|pause| pause > retry::PAUSE_MAX) => Trouble::Final(error),
        408 | 425 | 429 | 500 | 502..=504 => {
            let reason = format!("the server answers {status}");
            Trouble::Again { reason, pause, busy: matches!(status.as_u16(), 429 | 503) }
        }
        401 | 403 | 404 | 410 => Trouble::Expired(error),
        _ => Trouble::Final(error),
    }
}

/// `bytes FIRST-LAST/TOTAL` as (start, end, total), end exclusive.
fn parse_range(text: &str) -> Option<(u64, u64, Option<u64>)> {
    let (range, total) = text.trim().strip_prefix("bytes ")?.split_once('/')?;
    let (first, last) = range.split_once('-')?;
    let (start, end) = (first.parse().ok()?, last.parse::<u64>().ok()?.checked_add(1)?);
    let total: Option<u64> = if total == "*" { None } else { Some(total.parse().ok()?) };
    (start < end && total.is_none_or(|total| end <= total)).then_some((start, end, total))
}

fn text(headers: &HeaderMap, name: HeaderName) -> Option<&str> {
    headers.get(name)?.to_str().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: u16, headers: &[(&'static str, &str)]) -> Result<Granted, Trouble> {
        let asked = Asked { start: 100, total: Some(1000), etag: Some("\"v1\"".to_owned()) };
        let pairs = headers
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), value.parse().unwrap()));
        judge(StatusCode::from_u16(status).unwrap(), &pairs.collect(), &asked, "x")
    }

    #[test]
    fn a_part_is_taken_when_it_is_the_part_that_was_asked_for() {
        let good =
            answer(206, &[("content-range", "bytes 100-999/1000"), ("content-length", "900")]);
        assert_eq!(
            good.unwrap(),
            Granted { total: Some(1000), ends: true, etag: None, start: 100, ranges: true }
        );
        for range in
            ["bytes 99-999/1000", "bytes 0-899/1000", "bytes 100-1000/1000", "bytes 100-", ""]
        {
            let lie = answer(206, &[("content-range", range)]);
            assert!(matches!(lie, Err(Trouble::Again { .. })), "{range}: {lie:?}");
        }
        let short =
            answer(206, &[("content-range", "bytes 100-999/1000"), ("content-length", "9")]);
        assert!(matches!(short, Err(Trouble::Again { .. })));
    }

    #[test]
    fn another_file_is_noticed() {
        for headers in [
            &[("content-range", "bytes 100-998/999")][..],
            &[("content-range", "bytes 100-999/1000"), ("etag", "\"v2\"")],
        ] {
            assert!(matches!(answer(206, headers), Err(Trouble::Changed(_))), "{headers:?}");
        }
        assert!(matches!(answer(416, &[]), Err(Trouble::Changed(_))));
        assert!(matches!(answer(200, &[("content-length", "7")]), Err(Trouble::Changed(_))));
        let weak = answer(206, &[("content-range", "bytes 100-999/1000"), ("etag", "W/\"v2\"")]);
        assert_eq!(weak.unwrap().etag, None);
    }

    #[test]
    fn a_server_without_parts_starts_at_the_beginning() {
        let whole = answer(200, &[("content-length", "1000"), ("etag", "\"v1\"")]).unwrap();
        assert_eq!((whole.start, whole.ranges), (0, false));
    }

    #[test]
    fn a_body_without_a_length_ends_with_its_last_chunk() {
        let asked = Asked { start: 0, total: None, etag: None };
        let ends = |headers: &HeaderMap| judge(StatusCode::OK, headers, &asked, "x").unwrap().ends;
        assert!(!ends(&HeaderMap::new()));
        for (name, value) in [(TRANSFER_ENCODING, "Chunked"), (CONTENT_LENGTH, "5")] {
            assert!(ends(&HeaderMap::from_iter([(name, value.parse().unwrap())])), "{value}");
        }
    }

    #[test]
    fn compression_is_refused() {
        let bomb = answer(200, &[("content-encoding", "gzip")]);
        assert!(matches!(bomb, Err(Trouble::Final(HubError::Protocol { .. }))), "{bomb:?}");
    }

    #[test]
    fn pauses_are_kept_and_endless_ones_are_a_no() {
        match answer(429, &[("retry-after", "3")]) {
            Err(Trouble::Again { pause, busy, .. }) => {
                assert_eq!((pause, busy), (Some(Duration::from_secs(3)), true));
            }
            other => panic!("{other:?}"),
        }
        assert!(matches!(answer(503, &[("retry-after", "9999")]), Err(Trouble::Final(_))));
        assert!(matches!(answer(502, &[]), Err(Trouble::Again { pause: None, .. })));
        assert!(matches!(answer(403, &[]), Err(Trouble::Expired(_))));
        assert!(matches!(answer(418, &[]), Err(Trouble::Final(_))));
    }
}
