//! Arguments in the notations that models have for them.

use serde_json::{Map, Number, Value};

use super::cursor::{Cursor, Read, Stop};
use super::{Notation, Tags};

/// How deep values may be nested.
const DEPTH_MAX: usize = 64;

/// Bytes of the name of an argument.
const NAME_BYTES_MAX: usize = 256;

/// The arguments of a call, whose schema this is.
pub(super) fn arguments(
    cursor: &mut Cursor<'_>,
    notation: Notation,
    schema: &Value,
) -> Read<Map<String, Value>> {
    match notation {
        Notation::Json => json_object(cursor),
        Notation::Python => members(cursor, Style::PYTHON, ')', 0),
        Notation::Bare(mark) => members(cursor, Style::bare(mark), '}', 0),
        Notation::Tags(tags) => tagged(cursor, tags, schema),
        Notation::Nested(mark) => nested(cursor, mark, schema, 0),
    }
}

/// The schema of an argument; null when there is none.
pub(super) fn schema_of<'s>(schema: &'s Value, name: &str) -> &'s Value {
    schema.get("properties").and_then(|all| all.get(name)).unwrap_or(&Value::Null)
}

/// Whether a value of this schema is written as it stands between tags, because it can only be a text. Texts with a
/// pattern or format are written as JSON, because that is how a grammar enforces them.
pub(super) fn is_plain_text(schema: &Value) -> bool {
    const OTHERS: [&str; 9] =
        ["pattern", "format", "$ref", "anyOf", "oneOf", "allOf", "not", "if", "const"];
    let kind = schema.get("type");
    let all_texts =
        |value: &Value| value.as_array().is_some_and(|all| all.iter().all(Value::is_string));
    let listed = schema.get("enum").map(all_texts);
    let is_text = match listed {
        Some(listed) => listed && kind.is_none_or(|kind| kind == "string"),
        None => kind.is_some_and(|kind| kind == "string"),
    };
    is_text && !OTHERS.iter().any(|keyword| schema.get(keyword).is_some())
}

/// A JSON object.
pub(super) fn json_object(cursor: &mut Cursor<'_>) -> Read<Map<String, Value>> {
    let rest = cursor.rest();
    if rest.is_empty() {
        return cursor.short();
    }
    if !rest.starts_with('{') {
        return Err(Stop::Wrong);
    }
    let Some(length) = json_end(rest) else { return cursor.short() };
    let object = serde_json::from_str(&rest[..length]).map_err(|_| Stop::Wrong)?;
    cursor.place += length;
    Ok(object)
}

/// The length of the object or list that a text begins with; None when it does not end.
fn json_end(text: &str) -> Option<usize> {
    let (mut depth, mut in_text, mut escaped) = (0_usize, false, false);
    for (place, byte) in text.bytes().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_text => escaped = true,
            b'"' => in_text = !in_text,
            _ if in_text => {}
            b'{' | b'[' => depth += 1,
            b'}' | b']' => {
                depth = depth.saturating_sub(1);
                if depth == 0 {
                    return Some(place + 1);
                }
            }
            _ => {}
        }
    }
    None
}

/// A text of which the schema says what it is.
fn typed(text: &str, schema: &Value) -> Value {
    let as_text = || Value::String(text.to_owned());
    if is_plain_text(schema) {
        return as_text();
    }
    serde_json::from_str(text.trim())
        .ok()
        // Some templates, and so some models, write lists and objects as Python prints them.
        .or_else(|| python(text.trim()))
        .unwrap_or_else(as_text)
}

/// A whole text as a value of Python's.
fn python(text: &str) -> Option<Value> {
    let mut cursor = Cursor { text, place: 0, is_whole: true };
    let value = value(&mut cursor, Style::PYTHON, 0).ok()?;
    cursor.rest().is_empty().then_some(value)
}

fn tagged(cursor: &mut Cursor<'_>, tags: &Tags, schema: &Value) -> Read<Map<String, Value>> {
    let mut all = Map::new();
    loop {
        let mut ahead = *cursor;
        ahead.space();
        if !ahead.may(tags.open)? {
            return Ok(all);
        }
        let (name, is_text) = tagged_name(&mut ahead, tags)?;
        let of_it = schema_of(schema, name);
        let raw = ahead.until(tags.close)?;
        let value = if is_text == Some(true) {
            Value::String(raw.to_owned())
        } else {
            // Models that write tags on lines of their own put one line end on either side.
            let inner = raw.strip_prefix('\n').unwrap_or(raw);
            let inner = inner.strip_suffix('\n').unwrap_or(inner);
            let inner = inner
                .strip_prefix("<![CDATA[")
                .and_then(|inner| inner.strip_suffix("]]>"))
                .unwrap_or(inner);
            typed(inner, of_it)
        };
        all.insert(name.to_owned(), value);
        *cursor = ahead;
    }
}

/// The name of an argument, and whether the tag says that its value is a text or is none.
fn tagged_name<'t>(cursor: &mut Cursor<'t>, tags: &Tags) -> Read<(&'t str, Option<bool>)> {
    let rest = cursor.rest();
    let first = tags.text.chars().next().unwrap_or('>');
    let Some(length) = rest.find(first) else {
        return if rest.len() > NAME_BYTES_MAX { Err(Stop::Wrong) } else { cursor.short() };
    };
    let name = &rest[..length];
    if name.is_empty() || name.contains('\n') {
        return Err(Stop::Wrong);
    }
    cursor.place += length;
    if tags.text == tags.json {
        for part in tags.text.split('\n') {
            cursor.space();
            cursor.is(part)?;
        }
        return Ok((name, None));
    }
    if cursor.may(tags.text)? {
        return Ok((name, Some(true)));
    }
    cursor.is(tags.json)?;
    Ok((name, Some(false)))
}

/// How members and values are written where it is not JSON.
#[derive(Debug, Clone, Copy)]
struct Style {
    /// Between a name and its value.
    assign: char,
    /// What texts stand between, instead of quotes.
    mark: Option<&'static str>,
}

impl Style {
    const PYTHON: Self = Self { assign: '=', mark: None };

    fn bare(mark: &'static str) -> Self {
        Self { assign: ':', mark: Some(mark) }
    }
}

/// Names with values up to `end`, which stays unread.
fn members(
    cursor: &mut Cursor<'_>,
    style: Style,
    end: char,
    depth: usize,
) -> Read<Map<String, Value>> {
    let mut all = Map::new();
    if depth > DEPTH_MAX {
        return Err(Stop::Wrong);
    }
    cursor.space();
    if cursor.next()? == end {
        return Ok(all);
    }
    loop {
        cursor.space();
        let name = match cursor.next()? {
            '"' | '\'' | '<' => text(cursor, style)?,
            _ => {
                let fits = |next: char| {
                    !next.is_whitespace()
                        && !matches!(next, ':' | '=' | ',' | '{' | '}' | '(' | ')')
                };
                cursor.run(NAME_BYTES_MAX, fits)?.to_owned()
            }
        };
        cursor.space();
        let assign = cursor.next()?;
        if assign != style.assign && (depth == 0 || assign != ':') {
            return Err(Stop::Wrong);
        }
        cursor.place += assign.len_utf8();
        let value = value(cursor, style, depth)?;
        all.insert(name, value);
        cursor.space();
        match cursor.next()? {
            ',' => cursor.place += 1,
            next if next == end => return Ok(all),
            _ => return Err(Stop::Wrong),
        }
    }
}

fn value(cursor: &mut Cursor<'_>, style: Style, depth: usize) -> Read<Value> {
    cursor.space();
    match cursor.next()? {
        '{' => {
            cursor.place += 1;
            let all = members(cursor, style, '}', depth + 1)?;
            cursor.place += 1;
            Ok(Value::Object(all))
        }
        '[' => list(cursor, style, depth + 1),
        '"' | '\'' | '<' => text(cursor, style).map(Value::String),
        _ => {
            let word = cursor.run(NAME_BYTES_MAX, |next| {
                next.is_ascii_alphanumeric() || matches!(next, '+' | '-' | '.' | '_')
            })?;
            match word {
                "true" | "True" => Ok(Value::Bool(true)),
                "false" | "False" => Ok(Value::Bool(false)),
                "null" | "None" => Ok(Value::Null),
                _ => word.parse::<Number>().map(Value::Number).map_err(|_| Stop::Wrong),
            }
        }
    }
}

fn list(cursor: &mut Cursor<'_>, style: Style, depth: usize) -> Read<Value> {
    let mut all = Vec::new();
    if depth > DEPTH_MAX {
        return Err(Stop::Wrong);
    }
    cursor.place += 1;
    loop {
        cursor.space();
        if cursor.may("]")? {
            return Ok(Value::Array(all));
        }
        if !all.is_empty() {
            cursor.is(",")?;
        }
        all.push(value(cursor, style, depth)?);
    }
}

/// A text in quotes or between marks.
fn text(cursor: &mut Cursor<'_>, style: Style) -> Read<String> {
    if let Some(mark) = style.mark
        && cursor.may(mark)?
    {
        return cursor.until(mark).map(str::to_owned);
    }
    let quote = cursor.next()?;
    if !matches!(quote, '"' | '\'') {
        return Err(Stop::Wrong);
    }
    let mut letters = cursor.rest()[1..].char_indices();
    let mut found = String::new();
    while let Some((place, letter)) = letters.next() {
        match letter {
            '\\' => match letters.next() {
                None => return cursor.short(),
                Some((_, 'n')) => found.push('\n'),
                Some((_, 't')) => found.push('\t'),
                Some((_, 'r')) => found.push('\r'),
                Some((_, 'b')) => found.push('\u{8}'),
                Some((_, 'f')) => found.push('\u{c}'),
                Some((place, 'u')) => {
                    let digits = cursor.rest()[1..].get(place + 1..place + 5);
                    let Some(digits) = digits else { return cursor.short() };
                    let number = u32::from_str_radix(digits, 16).map_err(|_| Stop::Wrong)?;
                    found.push(char::from_u32(number).unwrap_or(char::REPLACEMENT_CHARACTER));
                    letters.nth(3);
                }
                Some((_, same)) => found.push(same),
            },
            _ if letter == quote => {
                cursor.place += 1 + place + 1;
                return Ok(found);
            }
            _ => found.push(letter),
        }
    }
    cursor.short()
}

/// Tags of arguments up to one that closes.
fn nested(
    cursor: &mut Cursor<'_>,
    mark: &str,
    schema: &Value,
    depth: usize,
) -> Read<Map<String, Value>> {
    let mut all = Map::new();
    if depth > DEPTH_MAX {
        return Err(Stop::Wrong);
    }
    loop {
        let Some((name, mut ahead)) = nested_open(cursor, mark)? else { return Ok(all) };
        let value = nested_value(&mut ahead, mark, schema_of(schema, &name), depth)?;
        ahead.is(mark)?;
        ahead.is(&format!("</{name}>"))?;
        all.insert(name, value);
        *cursor = ahead;
    }
}

/// The name in an opening tag, and the place behind it.
fn nested_open<'t>(cursor: &Cursor<'t>, mark: &str) -> Read<Option<(String, Cursor<'t>)>> {
    let mut ahead = *cursor;
    ahead.space();
    if !ahead.may(mark)? || !ahead.may("<")? || ahead.may("/")? {
        return Ok(None);
    }
    let name = ahead.run(NAME_BYTES_MAX, |next| !matches!(next, '>' | '<' | '\n'))?;
    ahead.is(">")?;
    Ok(Some((name.to_owned(), ahead)))
}

fn nested_value(cursor: &mut Cursor<'_>, mark: &str, schema: &Value, depth: usize) -> Read<Value> {
    let kind = schema.get("type").and_then(Value::as_str);
    let first = nested_open(cursor, mark)?.map(|(name, _)| name);
    match (kind, first.as_deref()) {
        (Some("array"), _) | (None, Some("item")) => {
            let items = schema.get("items").unwrap_or(&Value::Null);
            let mut all = Vec::new();
            while let Some((name, mut ahead)) = nested_open(cursor, mark)? {
                if name != "item" || depth > DEPTH_MAX {
                    return Err(Stop::Wrong);
                }
                all.push(nested_value(&mut ahead, mark, items, depth + 1)?);
                ahead.is(mark)?;
                ahead.is("</item>")?;
                *cursor = ahead;
            }
            Ok(Value::Array(all))
        }
        (Some("object"), _) | (_, Some(_)) => {
            nested(cursor, mark, schema, depth + 1).map(Value::Object)
        }
        _ => {
            let Some(length) = cursor.rest().find(mark) else { return cursor.short() };
            let raw = &cursor.rest()[..length];
            cursor.place += length;
            Ok(typed(raw, schema))
        }
    }
}
