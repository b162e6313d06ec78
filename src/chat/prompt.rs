//! The text of messages never becomes a special token.
//!
//! A message may contain the text of a special token, by accident or to play somebody else. Before a conversation is
//! rendered, such texts give way to words that nothing else contains; behind it, they come back as text that is made
//! tokens apart from the rest, whose special tokens are the template's own.

use std::fmt::Write as _;

use serde_json::{Map, Value};

use crate::engine::frames::SpecialToken;
use crate::engine::process::EngineError;
use crate::engine::runner::Runner;

/// Texts of special tokens that were taken out.
#[derive(Debug)]
pub(super) struct Shield<'v> {
    control: &'v [SpecialToken],
    /// The letters that these begin with: few, so that most of a text is passed over quickly.
    first_letters: Vec<char>,
    /// What every stand-in begins with; no text that was looked at contains it.
    word: String,
    taken: Vec<String>,
}

/// A part of a prompt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Segment<'t> {
    /// As the template wrote it.
    Template(&'t str),
    /// What was a text of a message, although it looks like a special token.
    Plain(&'t str),
}

impl<'v> Shield<'v> {
    /// Takes texts of these special tokens out of what goes into a template.
    pub(super) fn new(control: &'v [SpecialToken], values: &[&Value]) -> Self {
        let mut word = "nflplain".to_owned();
        while values.iter().any(|value| contains(value, &word)) {
            word.push('q');
        }
        let mut first_letters: Vec<char> =
            control.iter().filter_map(|token| token.text.chars().next()).collect();
        first_letters.sort_unstable();
        first_letters.dedup();
        Self { control, first_letters, word, taken: Vec::new() }
    }

    /// Takes them out of a value, the names of its fields included.
    pub(super) fn cover(&mut self, value: &mut Value) {
        match value {
            Value::String(text) => self.cover_text(text),
            Value::Array(items) => items.iter_mut().for_each(|item| self.cover(item)),
            Value::Object(fields) => {
                let old = std::mem::take(fields);
                *fields = self.covered(old);
            }
            _ => {}
        }
    }

    /// Takes them out of the fields of an object.
    pub(super) fn covered(&mut self, fields: Map<String, Value>) -> Map<String, Value> {
        let cover = |(mut name, mut value): (String, Value)| {
            self.cover_text(&mut name);
            self.cover(&mut value);
            (name, value)
        };
        fields.into_iter().map(cover).collect()
    }

    fn cover_text(&mut self, text: &mut String) {
        let mut covered = String::new();
        let mut rest = text.as_str();
        while let Some((place, token)) = self.next_in(rest) {
            let number = self.taken.iter().position(|taken| *taken == token.text);
            let number = number.unwrap_or_else(|| {
                self.taken.push(token.text.clone());
                self.taken.len() - 1
            });
            covered.push_str(&rest[..place]);
            let _ = write!(covered, "{}{number}z", self.word);
            rest = &rest[place + token.text.len()..];
        }
        if !covered.is_empty() {
            covered.push_str(rest);
            *text = covered;
        }
    }

    fn next_in(&self, text: &str) -> Option<(usize, &'v SpecialToken)> {
        let mut from = 0;
        while let Some(found) = text[from..].find(self.first_letters.as_slice()) {
            let place = from + found;
            let here = &text[place..];
            let named = self
                .control
                .iter()
                .filter(|token| !token.text.is_empty() && here.starts_with(&*token.text));
            if let Some(token) = named.max_by_key(|token| token.text.len()) {
                return Some((place, token));
            }
            from = place + here.chars().next().map_or(1, char::len_utf8);
        }
        None
    }

    /// A word that nothing that was looked at contains, and no stand-in is.
    pub(super) fn mark(&self) -> String {
        format!("{}end", self.word)
    }

    /// Whether nothing was taken out.
    pub(super) fn is_empty(&self) -> bool {
        self.taken.is_empty()
    }

    /// The parts of a rendered text.
    pub(super) fn segments<'t>(&'t self, text: &'t str) -> Vec<Segment<'t>> {
        let mut segments = Vec::new();
        let mut rest = text;
        let mut from = 0;
        while let Some(found) = rest[from..].find(&self.word) {
            let place = from + found;
            let behind = &rest[place + self.word.len()..];
            let digits = behind.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(0);
            let number = behind[..digits].parse::<usize>().ok();
            let taken = number.and_then(|number| self.taken.get(number));
            let Some(taken) = taken.filter(|_| behind[digits..].starts_with('z')) else {
                from = place + self.word.len();
                continue;
            };
            segments.push(Segment::Template(&rest[..place]));
            segments.push(Segment::Plain(taken));
            rest = &behind[digits + 1..];
            from = 0;
        }
        segments.push(Segment::Template(rest));
        segments.retain(|segment| !matches!(segment, Segment::Template("")));
        segments
    }

    /// A rendered text with everything back in its place.
    pub(super) fn uncovered(&self, text: &str) -> String {
        let parts = self.segments(text).into_iter();
        parts.map(|(Segment::Template(text) | Segment::Plain(text))| text).collect()
    }
}

/// The tokens of segments one after the other.
pub(super) fn tokens(
    runner: &dyn Runner,
    segments: &[Segment<'_>],
    add_special: bool,
) -> Result<Vec<i32>, EngineError> {
    let mut tokens = Vec::new();
    for (index, segment) in segments.iter().enumerate() {
        let (text, parse) = match segment {
            Segment::Template(text) => (*text, true),
            Segment::Plain(text) => (*text, false),
        };
        if index == 0 {
            tokens = runner.tokenize(text, add_special, parse)?;
        } else {
            tokens.extend(continued(runner, text, parse)?);
        }
    }
    Ok(tokens)
}

/// The tokens of a text that follows another one. Some vocabularies put a space in front of every text; behind a line
/// end, which is a token of its own there, they do not.
fn continued(runner: &dyn Runner, text: &str, parse: bool) -> Result<Vec<i32>, EngineError> {
    const ANCHOR: &str = "\n";
    let plain = runner.tokenize(text, false, parse)?;
    let spaced = runner.detokenize(&runner.tokenize("x", false, false)?, true)?.starts_with(b" ");
    if !spaced {
        return Ok(plain);
    }
    let anchor = runner.tokenize(ANCHOR, false, false)?;
    let whole = runner.tokenize(&format!("{ANCHOR}{text}"), false, parse)?;
    Ok(whole.strip_prefix(anchor.as_slice()).map_or(plain, <[i32]>::to_vec))
}

fn contains(value: &Value, word: &str) -> bool {
    match value {
        Value::String(text) => text.contains(word),
        Value::Array(items) => items.iter().any(|item| contains(item, word)),
        Value::Object(fields) => {
            fields.iter().any(|(name, item)| name.contains(word) || contains(item, word))
        }
        _ => false,
    }
}
