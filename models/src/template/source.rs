//! What is done to a template's source before minijinja parses it: `{% generation %}`, and limits
//! on single tags.
//!
//! minijinja knows no tags of one's own; `{% generation %}` marks what the assistant said, for
//! training, and renders as a scope, which is what `{% with %}` is. It takes away the line break
//! after `{% raw %}`, jinja2 does not: a `+` keeps it. The parser and the code generator recurse
//! along chains of operators and of `elif`, and compute `"x" * 100000000` while they compile, so
//! those are bounded here.

use super::TemplateError;

/// Tokens of one tag; the longest tag in use has about 60.
const TAG_TOKENS_MAX: usize = 4_000;
/// `elif` tags of a template; they nest into each other.
const ELIF_MAX: usize = 2_000;
/// Bytes that repetitions of constants may make when they are computed at compile time, over a
/// template.
const REPEATED_BYTES_MAX: u64 = 1 << 20;

/// Checks the tags of a template, and rewrites those that minijinja does not know or treats
/// otherwise.
pub(super) fn prepare(source: &str) -> Result<String, TemplateError> {
    let mut prepared = String::with_capacity(source.len());
    let mut copied = 0;
    let mut place = 0;
    let mut elifs = 0;
    let mut repeated_bytes = 0;
    while let Some(found) = source[place..].find('{') {
        let start = place + found;
        place = start + 1;
        let end_of_tag = match source.as_bytes().get(place) {
            Some(b'#') => {
                place = source[place..].find("#}").map_or(source.len(), |end| place + end + 2);
                continue;
            }
            Some(b'%') => "%}",
            Some(b'{') => "}}",
            _ => continue,
        };
        let tag = Tag::read(&source[start + 2..], end_of_tag);
        let line = || source[..start].bytes().filter(|byte| *byte == b'\n').count() + 1;
        let refused =
            |message: &str| TemplateError::Syntax { line: line(), message: message.to_owned() };
        if tag.tokens > TAG_TOKENS_MAX {
            return Err(refused("the tag is too long"));
        }
        repeated_bytes = tag.repeated_bytes().saturating_add(repeated_bytes);
        if repeated_bytes > REPEATED_BYTES_MAX {
            return Err(refused("it repeats a constant too often"));
        }
        place = start + 2 + tag.bytes;
        if end_of_tag == "}}" {
            continue;
        }
        let word_at = start + 2 + tag.word_at;
        match tag.word {
            "elif" => elifs += 1,
            "raw" => {
                let open_end = place - "%}".len();
                if !source[..open_end].ends_with(['-', '+']) {
                    prepared.push_str(&source[copied..open_end]);
                    prepared.push('+');
                    copied = open_end;
                }
                place = after_raw(source, place);
            }
            "generation" | "endgeneration" => {
                prepared.push_str(&source[copied..word_at]);
                prepared.push_str(if tag.word == "generation" { "with" } else { "endwith" });
                copied = word_at + tag.word.len();
            }
            _ => {}
        }
        if elifs > ELIF_MAX {
            return Err(refused("too many elif"));
        }
    }
    prepared.push_str(&source[copied..]);
    Ok(prepared)
}

/// Where the tag ends that closes a raw block.
fn after_raw(source: &str, mut place: usize) -> usize {
    while let Some(found) = source[place..].find("{%") {
        let start = place + found + 2;
        let tag = Tag::read(&source[start..], "%}");
        place = start;
        if tag.word == "endraw" {
            return start + tag.bytes;
        }
    }
    source.len()
}

/// A tag, read roughly.
#[derive(Default)]
struct Tag<'s> {
    /// Bytes from the opening to the closing, both outside and inside.
    bytes: usize,
    /// The first word, and where it stands.
    word: &'s str,
    word_at: usize,
    tokens: usize,
    stars: usize,
    /// Whether there is anything in it that can be repeated.
    repeatable: bool,
    /// The product of all numbers.
    factor: u64,
}

impl<'s> Tag<'s> {
    fn read(text: &'s str, end: &str) -> Tag<'s> {
        let mut tag = Tag { bytes: text.len(), factor: 1, ..Tag::default() };
        let bytes = text.as_bytes();
        let mut place = usize::from(matches!(bytes.first(), Some(b'-' | b'+')));
        let mut open = 0_usize;
        while let Some(&byte) = bytes.get(place) {
            if open == 0 && text[place..].starts_with(end) {
                tag.bytes = place + end.len();
                break;
            }
            let start = place;
            place = match byte {
                b'"' | b'\'' => after_string(bytes, place),
                _ if byte.is_ascii_alphanumeric() || byte == b'_' => {
                    let rest = &bytes[place..];
                    place
                        + rest
                            .iter()
                            .take_while(|b| b.is_ascii_alphanumeric() || **b == b'_')
                            .count()
                }
                _ => place + text[place..].chars().next().map_or(1, char::len_utf8),
            };
            if byte.is_ascii_whitespace() {
                continue;
            }
            tag.tokens += 1;
            match byte {
                b'(' | b'[' | b'{' => open += 1,
                b')' | b']' | b'}' => open = open.saturating_sub(1),
                b'*' => tag.stars += 1,
                _ => {}
            }
            tag.repeatable |= matches!(byte, b'"' | b'\'' | b'[' | b',' | b'~');
            if byte.is_ascii_digit() {
                let number: u64 = text[start..place].replace('_', "").parse().unwrap_or(u64::MAX);
                tag.factor = tag.factor.saturating_mul(number.max(1));
            } else if tag.word.is_empty() && byte.is_ascii_alphabetic() && tag.tokens == 1 {
                (tag.word, tag.word_at) = (&text[start..place], start);
            }
        }
        tag
    }

    /// An upper bound of the bytes that a repetition of constants in the tag may make.
    fn repeated_bytes(&self) -> u64 {
        if self.stars == 0 || !self.repeatable || self.factor == 1 {
            return 0;
        }
        self.factor.saturating_mul(self.bytes as u64)
    }
}

fn after_string(bytes: &[u8], start: usize) -> usize {
    let mut place = start + 1;
    while let Some(&byte) = bytes.get(place) {
        place += 1;
        if byte == bytes[start] {
            break;
        }
        place += usize::from(byte == b'\\');
    }
    place.min(bytes.len())
}
