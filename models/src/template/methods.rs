//! Methods of Python's strings, lists and dictionaries; those that grow text are ours, the rest
//! minijinja-contrib's.

use minijinja::formatting::FormatStyle;
use minijinja::value::{Tuple, ValueKind, from_args};
use minijinja::{Error, ErrorKind, State, Value};
use minijinja_contrib::pycompat;

use super::meter::{Meter, limit};
use super::python::{self, type_error};
use super::{filters, operators};

/// The widest that a text may be padded to.
const PADDED_WIDTH_MAX: usize = 9_999;
/// Methods that change their object; the sandbox of transformers refuses them, and our values
/// cannot change.
const CHANGING: [&str; 11] = [
    "append",
    "clear",
    "extend",
    "insert",
    "pop",
    "popitem",
    "remove",
    "reverse",
    "setdefault",
    "sort",
    "update",
];

/// Calls the method of a value, for minijinja's hook.
pub(super) fn call(
    state: &mut State<'_, '_>,
    value: &Value,
    name: &str,
    arguments: &[Value],
) -> Result<Value, Error> {
    let meter = Meter::of(state);
    meter.look(value)?;
    for argument in arguments {
        meter.look(argument)?;
    }
    if name.contains("split") {
        // At worst there are as many parts as bytes.
        meter.visit(python::size(value) / 2)?;
    }
    let result = match (value.as_str(), value.kind()) {
        (Some(text), _) => string_method(state, text, name, arguments)?,
        (None, ValueKind::Map) => return dictionary_method(state, value, name, arguments),
        (None, ValueKind::Seq) if name == "index" => {
            let (item,): (&Value,) = from_args(arguments)?;
            Meter::of(state).read(value)?;
            let items = python::items(value)?;
            let place = items.iter().position(|candidate| candidate == item);
            Some(Value::from(
                place.ok_or_else(|| type_error("the item is not in the list".to_owned()))?,
            ))
        }
        _ => None,
    };
    if let Some(result) = result {
        return Ok(result);
    }
    if CHANGING.contains(&name) && !matches!(value.kind(), ValueKind::String) {
        return Err(type_error(format!("a template may not change its values with '{name}'")));
    }
    let result = pycompat::unknown_method_callback(state, value, name, arguments)?;
    let meter = Meter::of(state);
    match result.as_str() {
        Some(made) => meter.make_text(made.len())?,
        None => meter.visit(python::size(&result))?,
    }
    Ok(result)
}

/// The pairs of a dictionary, as tuples.
pub(super) fn pairs(value: &Value) -> Vec<Value> {
    python::entries(value).map(|(key, item)| Tuple::from([key, item]).into()).collect()
}

fn dictionary_method(
    state: &mut State<'_, '_>,
    value: &Value,
    name: &str,
    arguments: &[Value],
) -> Result<Value, Error> {
    let listed: Vec<Value> = match name {
        "items" => pairs(value),
        "keys" => value.try_iter()?.collect(),
        "values" => python::entries(value).map(|(_, item)| item).collect(),
        "copy" => return Ok(value.clone()),
        "get" => return pycompat::unknown_method_callback(state, value, name, arguments),
        _ if CHANGING.contains(&name) => {
            return Err(type_error(format!("a template may not change its values with '{name}'")));
        }
        _ => return Err(Error::from(ErrorKind::UnknownMethod)),
    };
    let () = from_args(arguments)?;
    let listed = Value::from(listed);
    Meter::of(state).read(&listed)?;
    Ok(listed)
}

fn string_method(
    state: &mut State<'_, '_>,
    text: &str,
    name: &str,
    arguments: &[Value],
) -> Result<Option<Value>, Error> {
    let made = match name {
        "strip" | "lstrip" | "rstrip" => {
            let (characters,): (Option<Value>,) = from_args(arguments)?;
            let characters = characters.as_ref().and_then(Value::as_str);
            strip(text, characters, name != "rstrip", name != "lstrip").to_owned()
        }
        "replace" => {
            let (old, new, count): (&str, &str, Option<i64>) = from_args(arguments)?;
            let count = count.and_then(|count| usize::try_from(count).ok());
            return replaced(state, text, old, new, count).map(|made| Some(Value::from(made)));
        }
        "join" => {
            let (parts,): (&Value,) = from_args(arguments)?;
            Meter::of(state).visit(python::size(parts))?;
            let parts = python::items(parts)?;
            if let Some(other) = parts.iter().find(|part| part.as_str().is_none()) {
                let name = python::type_name(other);
                return Err(type_error(format!("expected str instance, {name} found")));
            }
            return filters::joined(state, text, &parts).map(Some);
        }
        "format" => {
            return operators::formatted(state, FormatStyle::StrFormat, text, arguments).map(Some);
        }
        "splitlines" => {
            let lines = lines(text, false);
            Meter::of(state).visit(lines.len())?;
            return Ok(Some(lines.into_iter().map(Value::from).collect()));
        }
        "rsplit" | "partition" | "rpartition" => {
            return divided(state, text, name, arguments).map(Some);
        }
        "removeprefix" => {
            let (prefix,): (&str,) = from_args(arguments)?;
            text.strip_prefix(prefix).unwrap_or(text).to_owned()
        }
        "removesuffix" => {
            let (suffix,): (&str,) = from_args(arguments)?;
            text.strip_suffix(suffix).unwrap_or(text).to_owned()
        }
        "index" | "rindex" => {
            let (part,): (&str,) = from_args(arguments)?;
            let place = if name == "index" { text.find(part) } else { text.rfind(part) };
            let place = place.ok_or_else(|| type_error("substring not found".to_owned()))?;
            return Ok(Some(Value::from(text[..place].chars().count())));
        }
        "casefold" => text.to_lowercase(),
        "swapcase" => text
            .chars()
            .flat_map(|c| {
                if c.is_uppercase() {
                    c.to_lowercase().collect::<Vec<_>>()
                } else {
                    c.to_uppercase().collect()
                }
            })
            .collect(),
        "center" | "ljust" | "rjust" | "zfill" => padded(text, name, arguments)?,
        _ => return Ok(None),
    };
    Meter::of(state).make_text(made.len())?;
    Ok(Some(Value::from(made)))
}

/// `text.strip(characters)`, from either side or both.
pub(super) fn strip<'t>(
    text: &'t str,
    characters: Option<&str>,
    start: bool,
    end: bool,
) -> &'t str {
    // Python counts the separators of ASCII as white space, Rust does not.
    let unwanted = |character: char| match characters {
        Some(set) => set.contains(character),
        None => character.is_whitespace() || ('\x1c'..='\x1f').contains(&character),
    };
    let text = if start { text.trim_start_matches(unwanted) } else { text };
    if end { text.trim_end_matches(unwanted) } else { text }
}

/// `text.replace(old, new, count)`
pub(super) fn replaced(
    state: &mut State<'_, '_>,
    text: &str,
    old: &str,
    new: &str,
    count: Option<usize>,
) -> Result<String, Error> {
    let found = text.matches(old).count().min(count.unwrap_or(usize::MAX));
    Meter::of(state).make_text(text.len().saturating_add(found.saturating_mul(new.len())))?;
    Ok(count.map_or_else(|| text.replace(old, new), |count| text.replacen(old, new, count)))
}

/// The lines of a text as Python splits them. With `quirk`, a final line break leaves an empty last
/// line, which is what Jinja's `indent` arranges.
pub(super) fn lines(text: &str, quirk: bool) -> Vec<&str> {
    let breaks = |c: char| {
        matches!(
            c,
            '\n' | '\r' | '\x0b' | '\x0c' | '\x1c'..='\x1e' | '\u{85}' | '\u{2028}' | '\u{2029}'
        )
    };
    let mut lines = Vec::new();
    let mut rest = text;
    while let Some(place) = rest.find(breaks) {
        lines.push(&rest[..place]);
        let broken = &rest[place..];
        let one = broken.chars().next().map_or(0, char::len_utf8);
        rest = &broken[if broken.starts_with("\r\n") { 2 } else { one }..];
    }
    if !rest.is_empty() || quirk {
        lines.push(rest);
    }
    lines
}

fn divided(
    state: &mut State<'_, '_>,
    text: &str,
    name: &str,
    arguments: &[Value],
) -> Result<Value, Error> {
    Meter::of(state).make_text(text.len())?;
    if name == "rsplit" {
        let (separator, times): (Option<&str>, Option<i64>) = from_args(arguments)?;
        let times = times.and_then(|times| usize::try_from(times).ok()).unwrap_or(usize::MAX);
        let Some(separator) = separator else {
            if times != usize::MAX {
                return Err(type_error("rsplit needs a separator with a count".to_owned()));
            }
            return Ok(text.split_whitespace().map(Value::from).collect());
        };
        let mut parts: Vec<Value> =
            text.rsplitn(times.saturating_add(1), separator).map(Value::from).collect();
        Meter::of(state).visit(parts.len())?;
        parts.reverse();
        return Ok(Value::from(parts));
    }
    let (separator,): (&str,) = from_args(arguments)?;
    let parts = match name {
        "partition" => text.split_once(separator).map(|(before, after)| [before, separator, after]),
        _ => text.rsplit_once(separator).map(|(before, after)| [before, separator, after]),
    };
    let parts = parts.unwrap_or(if name == "partition" { [text, "", ""] } else { ["", "", text] });
    Ok(Tuple::from(parts.map(Value::from)).into())
}

fn padded(text: &str, name: &str, arguments: &[Value]) -> Result<String, Error> {
    let (width, fill): (i64, Option<char>) = from_args(arguments)?;
    let width = usize::try_from(width).unwrap_or_default();
    if width > PADDED_WIDTH_MAX {
        return Err(limit("it pads a text too wide"));
    }
    let missing = width.saturating_sub(text.chars().count());
    let fill = |times: usize| {
        fill.unwrap_or(if name == "zfill" { '0' } else { ' ' }).to_string().repeat(times)
    };
    Ok(match name {
        "ljust" => text.to_owned() + &fill(missing),
        "rjust" => fill(missing) + text,
        "zfill" => {
            let sign = if text.starts_with(['+', '-']) { &text[..1] } else { "" };
            sign.to_owned() + &fill(missing) + &text[sign.len()..]
        }
        _ => {
            // Python puts the odd blank on the left of an even width, on the right of an odd one.
            let left = missing / 2 + (missing & width & 1);
            fill(left) + text + &fill(missing - left)
        }
    })
}
