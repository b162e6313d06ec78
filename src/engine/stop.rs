//! Stop strings: found across tokens, never shown, not even their beginnings.

use super::options::{OptionError, STOP_BYTES_MAX, STOP_STRINGS_MAX};

/// Looks for stop strings in a text that arrives in pieces.
#[derive(Debug)]
pub struct StopFilter {
    /// The strings, with their places in the list that was given.
    stops: Vec<(usize, String)>,
    /// The place of the one that was found.
    found: Option<usize>,
    /// Text that may turn out to be the beginning of a stop string.
    held: String,
}

impl StopFilter {
    /// A filter for these strings; empty ones are ignored.
    pub fn new(stops: &[String]) -> Result<Self, OptionError> {
        if stops.len() > STOP_STRINGS_MAX {
            let count = stops.len();
            let message = format!("{count} strings, {STOP_STRINGS_MAX} are the most");
            return Err(OptionError::Stop(message));
        }
        if let Some(stop) = stops.iter().find(|stop| stop.len() > STOP_BYTES_MAX) {
            let bytes = stop.len();
            let message = format!("a string of {bytes} bytes, {STOP_BYTES_MAX} are the most");
            return Err(OptionError::Stop(message));
        }
        let stops =
            stops.iter().cloned().enumerate().filter(|(_, stop)| !stop.is_empty()).collect();
        Ok(Self { stops, found: None, held: String::new() })
    }

    /// Adds text and appends to `target` what cannot be part of a stop string any more. Returns
    /// whether one was found: then nothing from its beginning on comes out.
    pub fn push(&mut self, text: &str, target: &mut String) -> bool {
        if self.stops.is_empty() {
            target.push_str(text);
            return false;
        }
        self.held.push_str(text);
        let starts = self
            .stops
            .iter()
            .filter_map(|(place, stop)| Some((self.held.find(stop.as_str())?, *place)));
        if let Some((start, place)) = starts.min() {
            self.found = Some(place);
            target.push_str(&self.held[..start]);
            self.held.clear();
            return true;
        }
        let stops = self.stops.iter().map(|(_, stop)| stop.as_str());
        let certain = self.held.len() - beginning_at_end(&self.held, stops);
        target.push_str(&self.held[..certain]);
        self.held.drain(..certain);
        false
    }

    /// The place of the string that was found in the list that was given; of several that begin at the same character the
    /// first.
    pub fn found(&self) -> Option<usize> {
        self.found
    }

    /// Ends the text: what was held back comes out.
    pub fn finish(&mut self, target: &mut String) {
        target.push_str(&self.held);
        self.held.clear();
    }
}

/// Bytes at the end of a text that begin one of these others, the longest such end.
pub fn beginning_at_end<'m>(text: &str, others: impl Iterator<Item = &'m str>) -> usize {
    let text = text.as_bytes();
    let longest = |other: &'m str| {
        let most = text.len().min(other.len().saturating_sub(1));
        (1..=most).rev().find(|&length| text.ends_with(&other.as_bytes()[..length]))
    };
    others.filter_map(longest).max().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Feeds pieces and returns what came out before and at the end, and whether a stop was found.
    fn run(stops: &[&str], pieces: &[&str]) -> (String, bool) {
        let stops: Vec<String> = stops.iter().map(|&stop| stop.to_owned()).collect();
        let mut filter = StopFilter::new(&stops).unwrap();
        let mut text = String::new();
        for piece in pieces {
            if filter.push(piece, &mut text) {
                return (text, true);
            }
            for stop in &stops {
                assert!(stop.is_empty() || !text.contains(stop.as_str()));
            }
        }
        filter.finish(&mut text);
        (text, false)
    }

    #[test]
    fn a_stop_is_found_wherever_tokens_cut_it() {
        let text = "One day.\nUser: more";
        for first in 0..=text.len() {
            for second in first..=text.len() {
                let pieces = [&text[..first], &text[first..second], &text[second..]];
                assert_eq!(run(&["\nUser:"], &pieces), ("One day.".to_owned(), true));
            }
        }
    }

    #[test]
    fn text_that_only_looks_like_a_stop_comes_out() {
        assert_eq!(run(&["</s>"], &["a <", "/", "b> <", "/s"]), ("a </b> </s".to_owned(), false));
        assert_eq!(run(&["aab"], &["a", "a", "a", "a"]), ("aaaa".to_owned(), false));
        assert_eq!(run(&["aab"], &["a", "a", "a", "b"]), ("a".to_owned(), true));
    }

    #[test]
    fn the_earliest_stop_wins_and_empty_ones_are_nothing() {
        assert_eq!(run(&["zz", "y"], &["xyzz"]), ("x".to_owned(), true));
        assert_eq!(run(&[""], &["abc"]), ("abc".to_owned(), false));
        assert_eq!(run(&["é!"], &["caf", "é", "?"]), ("café?".to_owned(), false));
    }

    #[test]
    fn the_string_that_came_is_known_by_its_place() {
        let stops = ["", "yz", "y"].map(str::to_owned);
        let mut filter = StopFilter::new(&stops).unwrap();
        assert_eq!(filter.found(), None);
        assert!(filter.push("xyz", &mut String::new()));
        assert_eq!(filter.found(), Some(1));
    }

    #[test]
    fn only_what_must_be_is_held_back() {
        let mut filter = StopFilter::new(&["END".to_owned()]).unwrap();
        let mut text = String::new();
        assert!(!filter.push("the EN", &mut text));
        assert_eq!(text, "the ");
    }

    #[test]
    fn too_many_or_too_long_strings_are_refused() {
        assert!(StopFilter::new(&vec!["a".to_owned(); STOP_STRINGS_MAX + 1]).is_err());
        assert!(StopFilter::new(&["a".repeat(STOP_BYTES_MAX + 1)]).is_err());
    }
}
