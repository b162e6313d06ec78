//! The head of a model card (`README.md`): licence, languages, tags, and the models and data it
//! comes from.
//!
//! Model cards open with YAML. Only what they are made of is read: `key: value`, `key: [a, b]` and
//! lists of plain words; anything nested is passed over, since provenance is worth neither a YAML
//! library nor a failed conversion.

use std::collections::HashMap;

/// Bytes of a model card that is looked at; the head is at its very top.
pub(super) const CARD_BYTES_MAX: u64 = 4 << 20;

/// Lines of a head; real ones have a few dozen.
const HEAD_LINES_MAX: usize = 4096;

/// The entries of a model card's head.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Card {
    entries: HashMap<String, Vec<String>>,
}

impl Card {
    /// Reads the head of a card; without one there are no entries.
    pub(super) fn parse(text: &str) -> Self {
        let mut entries: HashMap<String, Vec<String>> = HashMap::new();
        let mut lines = text.lines();
        if lines.next() != Some("---") {
            return Self::default();
        }
        let mut open = None;
        for line in lines.take(HEAD_LINES_MAX).take_while(|line| *line != "---") {
            if let Some(item) = line.trim_start().strip_prefix("- ") {
                if let (Some(key), Some(word)) = (&open, plain(item)) {
                    entries.entry(String::clone(key)).or_default().push(word);
                }
            } else if line.starts_with(|first: char| !first.is_whitespace()) {
                let Some((key, value)) = line.split_once(':') else { continue };
                let key = key.trim().to_owned();
                let words = list(value.trim());
                open = words.is_empty().then(|| key.clone());
                entries.insert(key, words);
            } else {
                open = None; // something nested
            }
        }
        entries.retain(|_, words| !words.is_empty());
        Self { entries }
    }

    /// The first word of the first key that is there.
    pub(super) fn word(&self, keys: &[&str]) -> Option<&str> {
        let words = keys.iter().find_map(|key| self.entries.get(*key))?;
        words.first().map(String::as_str)
    }

    /// All words of the first key that is there.
    pub(super) fn words(&self, keys: &[&str]) -> &[String] {
        keys.iter().find_map(|key| self.entries.get(*key)).map_or(&[], Vec::as_slice)
    }
}

fn list(value: &str) -> Vec<String> {
    match value.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        Some(inner) => inner.split(',').filter_map(|item| plain(item.trim())).collect(),
        None => plain(value).into_iter().collect(),
    }
}

/// A plain or quoted word; `None` for what is nested or spans lines.
fn plain(text: &str) -> Option<String> {
    let text = text.trim();
    for quote in ['"', '\''] {
        if let Some(inner) = text.strip_prefix(quote).and_then(|rest| rest.strip_suffix(quote)) {
            return Some(inner.to_owned());
        }
    }
    let text = text.split(" #").next().unwrap_or_default().trim_end();
    let nested = text.starts_with(['|', '>', '{', '[', '&', '*', '#', '"', '\'']);
    (!text.is_empty() && !nested && !text.contains(": ") && !text.ends_with(':'))
        .then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_and_lists() {
        let card = Card::parse(
            "---\nlicense: apache-2.0\nlanguage:\n- en\n  - \"no\"\ntags: [a, 'b c']\n\
             model-index:\n- name: x\n  results:\n  - task: y\nlicense_link: https://a.b/c # d\n---\n\
             license: other\n",
        );
        assert_eq!(card.word(&["licence", "license"]), Some("apache-2.0"));
        assert_eq!(card.words(&["language"]), ["en", "no"]);
        assert_eq!(card.words(&["tags"]), ["a", "b c"]);
        assert_eq!(card.word(&["license_link"]), Some("https://a.b/c"));
        assert_eq!(card.words(&["model-index"]), [""; 0]);
    }

    #[test]
    fn a_card_without_a_head_has_no_entries() {
        assert_eq!(Card::parse("# Title\nlicense: mit\n"), Card::default());
        assert_eq!(Card::parse(""), Card::default());
    }
}
