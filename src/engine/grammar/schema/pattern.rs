//! Regular expressions of schemas (ECMA 262, without back-references and look-around) as GBNF of
//! the JSON that spells matching texts.
//!
//! A pattern may match anywhere in a text, so that what is not anchored is surrounded by any
//! characters. Quotes, backslashes and control characters are spelled with their escapes.

use std::fmt::Write as _;

use crate::engine::grammar::{NESTING_MAX, REPETITIONS_MAX, utf8};

/// Ranges of characters, both ends in.
type Ranges = Vec<(u32, u32)>;

const LAST: u32 = 0x0010_FFFF;

/// What `.` leaves out.
const LINE_ENDS: [(u32, u32); 3] = [(0x0A, 0x0A), (0x0D, 0x0D), (0x2028, 0x2029)];

/// What `\S` leaves out.
const BLANKS: [(u32, u32); 10] = [
    (0x09, 0x0D),
    (0x20, 0x20),
    (0x85, 0x85),
    (0xA0, 0xA0),
    (0x1680, 0x1680),
    (0x2000, 0x200A),
    (0x2028, 0x202F),
    (0x205F, 0x205F),
    (0x3000, 0x3000),
    (0xFEFF, 0xFEFF),
];

/// What `\s` writes: blanks in every dialect.
const PLAIN_BLANKS: [(u32, u32); 3] = [(0x09, 0x0A), (0x0D, 0x0D), (0x20, 0x20)];

const DIGITS: [(u32, u32); 1] = [(0x30, 0x39)];

const WORD: [(u32, u32); 4] = [(0x30, 0x39), (0x41, 0x5A), (0x5F, 0x5F), (0x61, 0x7A)];

/// The inside of a JSON string that matches a pattern; the error says what cannot be read.
pub(super) fn to_gbnf(pattern: &str) -> Result<String, String> {
    let letters: Vec<char> = pattern.chars().collect();
    let mut parser = Parser { letters, place: 0, depth: 0 };
    let mut alternatives = Vec::new();
    loop {
        alternatives.push(parser.anchored()?);
        if !parser.eat('|') {
            break;
        }
    }
    match parser.peek() {
        None => Ok(format!("({})", alternatives.join(" | "))),
        Some(other) => Err(format!("{other:?} is not expected")),
    }
}

struct Parser {
    letters: Vec<char>,
    place: usize,
    depth: usize,
}

impl Parser {
    fn peek(&self) -> Option<char> {
        self.letters.get(self.place).copied()
    }

    fn eat(&mut self, expected: char) -> bool {
        let found = self.peek() == Some(expected);
        self.place += usize::from(found);
        found
    }

    /// An alternative of the whole pattern, with or without anchors.
    fn anchored(&mut self) -> Result<String, String> {
        const ANYTHING: &str = "char*";
        let from_start = self.eat('^');
        let inside = self.sequence()?;
        let to_end = self.eat('$');
        if to_end && !matches!(self.peek(), None | Some('|')) {
            return Err("an anchor within the pattern".to_owned());
        }
        let before = if from_start { "" } else { ANYTHING };
        let behind = if to_end { "" } else { ANYTHING };
        Ok(format!("{before} {inside} {behind}"))
    }

    fn sequence(&mut self) -> Result<String, String> {
        let mut items: Vec<String> = Vec::new();
        while let Some(next) = self.peek() {
            match next {
                '|' | ')' | '$' => break,
                '^' => return Err("an anchor within the pattern".to_owned()),
                '*' | '+' | '?' | '{' => return Err("nothing to repeat".to_owned()),
                _ => {}
            }
            let item = self.item()?;
            let times = self.times()?;
            items.push(format!("{item}{times}"));
        }
        if items.is_empty() { Ok("\"\"".to_owned()) } else { Ok(items.join(" ")) }
    }

    fn item(&mut self) -> Result<String, String> {
        let Some(next) = self.peek() else { return Err("unexpected end".to_owned()) };
        self.place += 1;
        match next {
            '(' => self.group(),
            '[' => self.class(),
            '.' => characters(&utf8::normalize(&LINE_ENDS, true)),
            '\\' => {
                let ranges = self.escape(false)?;
                characters(&ranges)
            }
            ']' | '}' => Err(format!("{next:?} without its other half")),
            letter => characters(&[(letter.into(), letter.into())]),
        }
    }

    fn group(&mut self) -> Result<String, String> {
        if self.eat('?') && !self.eat(':') {
            return Err("look-around, names and flags".to_owned());
        }
        if self.depth == NESTING_MAX / 2 {
            return Err("nested too deep".to_owned());
        }
        self.depth += 1;
        let mut alternatives = vec![self.sequence()?];
        while self.eat('|') {
            alternatives.push(self.sequence()?);
        }
        if !self.eat(')') {
            return Err("a group that is not closed, or an anchor in a group".to_owned());
        }
        self.depth -= 1;
        Ok(format!("({})", alternatives.join(" | ")))
    }

    /// How often the item before is repeated; a lazy repetition matches the same texts.
    fn times(&mut self) -> Result<String, String> {
        let times = match self.peek() {
            Some(sign @ ('*' | '+' | '?')) => {
                self.place += 1;
                sign.to_string()
            }
            Some('{') => {
                self.place += 1;
                let least = self.number()?;
                let most = if self.eat(',') {
                    if self.peek() == Some('}') { None } else { Some(self.number()?) }
                } else {
                    Some(least)
                };
                if !self.eat('}') || most.is_some_and(|most| most < least) {
                    return Err("a repetition that cannot be read".to_owned());
                }
                match most {
                    Some(most) => format!("{{{least},{most}}}"),
                    None => format!("{{{least},}}"),
                }
            }
            _ => return Ok(String::new()),
        };
        self.eat('?');
        if matches!(self.peek(), Some('*' | '+' | '?' | '{')) {
            return Err("a repetition of a repetition".to_owned());
        }
        Ok(times)
    }

    fn number(&mut self) -> Result<u32, String> {
        let mut number = 0_u32;
        let start = self.place;
        while let Some(digit) = self.peek().and_then(|letter| letter.to_digit(10)) {
            number = number.saturating_mul(10).saturating_add(digit);
            self.place += 1;
        }
        if self.place == start || number > REPETITIONS_MAX {
            return Err("a repetition that cannot be read".to_owned());
        }
        Ok(number)
    }

    fn class(&mut self) -> Result<String, String> {
        let negated = self.eat('^');
        let mut ranges: Ranges = Vec::new();
        loop {
            let Some(next) = self.peek() else { return Err("a class without end".to_owned()) };
            self.place += 1;
            if next == ']' {
                break;
            }
            let first = match next {
                '\\' => self.escape(true)?,
                '[' => return Err("a bracket within a class".to_owned()),
                '&' if self.peek() == Some('&') => {
                    return Err("&& within a class".to_owned());
                }
                letter => vec![(letter.into(), letter.into())],
            };
            let dash = self.peek() == Some('-')
                && self.letters.get(self.place + 1).is_some_and(|next| *next != ']');
            if !dash {
                ranges.extend(first);
                continue;
            }
            self.place += 1;
            let last = match self.peek() {
                Some('\\') => {
                    self.place += 1;
                    self.escape(true)?
                }
                Some('[') | None => return Err("a bracket within a class".to_owned()),
                Some(letter) => {
                    self.place += 1;
                    vec![(letter.into(), letter.into())]
                }
            };
            match (first.as_slice(), last.as_slice()) {
                ([(low, same)], [(high, other)]) if low == same && high == other && low <= high => {
                    ranges.push((*low, *high));
                }
                _ => return Err("a range that cannot be read".to_owned()),
            }
        }
        characters(&utf8::normalize(&ranges, negated))
    }

    fn escape(&mut self, in_class: bool) -> Result<Ranges, String> {
        let Some(next) = self.peek() else { return Err("a backslash at the end".to_owned()) };
        self.place += 1;
        let one = |value: u32| Ok(vec![(value, value)]);
        match next {
            'd' => Ok(DIGITS.to_vec()),
            'D' => Ok(utf8::normalize(&DIGITS, true)),
            'w' => Ok(WORD.to_vec()),
            'W' => Ok(utf8::normalize(&WORD, true)),
            's' => Ok(PLAIN_BLANKS.to_vec()),
            'S' => Ok(utf8::normalize(&BLANKS, true)),
            'n' => one(0x0A),
            'r' => one(0x0D),
            't' => one(0x09),
            'f' => one(0x0C),
            'v' => one(0x0B),
            'b' if in_class => one(0x08),
            'x' => self.hexadecimal(2),
            'u' => self.hexadecimal(4),
            letter if letter.is_ascii_punctuation() => one(letter.into()),
            letter => Err(format!("\\{letter}")),
        }
    }

    fn hexadecimal(&mut self, digits: usize) -> Result<Ranges, String> {
        let end = self.place + digits;
        let text: String = self.letters.get(self.place..end).unwrap_or_default().iter().collect();
        self.place = end;
        let value = u32::from_str_radix(&text, 16).ok().filter(|_| text.len() == digits);
        match value.and_then(char::from_u32) {
            Some(letter) => Ok(vec![(letter.into(), letter.into())]),
            None => Err("an escape of no character".to_owned()),
        }
    }
}

/// One character of sorted ranges, as JSON spells it.
fn characters(ranges: &[(u32, u32)]) -> Result<String, String> {
    let ranges = utf8::normalize(ranges, false);
    let holds = |value: u32| ranges.iter().any(|(low, high)| (*low..=*high).contains(&value));
    // What needs no escape: all but control characters, the quote and the backslash.
    let mut plain: Ranges = Vec::new();
    for (low, high) in [(0x20, 0x21), (0x23, 0x5B), (0x5D, 0x7E), (0x80, LAST)] {
        let within = ranges.iter().map(|range| (range.0.max(low), range.1.min(high)));
        plain.extend(within.filter(|(first, last)| first <= last));
    }
    let mut alternatives = Vec::new();
    if !plain.is_empty() {
        let mut text = String::new();
        for (low, high) in &plain {
            let _ = write!(text, "\\U{low:08X}-\\U{high:08X}");
        }
        alternatives.push(format!("[{text}]"));
    }
    for (value, spelled) in [
        (0x22, r#""\\\"""#),
        (0x5C, r#""\\\\""#),
        (0x08, r#""\\b""#),
        (0x09, r#""\\t""#),
        (0x0A, r#""\\n""#),
        (0x0C, r#""\\f""#),
        (0x0D, r#""\\r""#),
    ] {
        if holds(value) {
            alternatives.push(spelled.to_owned());
        }
    }
    for value in (0..0x20).chain([0x7F]) {
        if holds(value) && !matches!(value, 0x08..=0x0A | 0x0C | 0x0D) {
            alternatives.push(format!("\"\\\\u{value:04x}\""));
        }
    }
    match alternatives.as_slice() {
        [] => Err("a class without characters".to_owned()),
        [only] => Ok(only.clone()),
        _ => Ok(format!("({})", alternatives.join(" | "))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_kept_is_refused() {
        for pattern in [
            "(?=a)b",
            "(?<name>a)",
            r"(a)\1",
            "a^b",
            "a$b",
            "(^a)",
            "[[:alpha:]]",
            "[a&&b]",
            r"\bword",
            r"\p{L}",
            "a**",
            "a{2,1}",
            "(a",
            "a)",
            "[a",
            "a\\",
            "*",
            "{2}",
            "a{100001}",
        ] {
            assert!(to_gbnf(pattern).is_err(), "{pattern}");
        }
    }

    #[test]
    fn anchors_decide_what_stands_around() {
        assert_eq!(to_gbnf("^a$").unwrap(), "( [\\U00000061-\\U00000061] )");
        assert!(to_gbnf("a").unwrap().starts_with("(char* ["));
        assert!(to_gbnf("^a|b$").unwrap().contains("char* | char*"));
    }
}
