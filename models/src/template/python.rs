//! Values as Python prints them: `str`, `repr`, and how it reads an index.

use std::fmt::Write as _;

use minijinja::value::{DynObject, Object, ObjectRepr, ValueKind};
use minijinja::{Error, ErrorKind, Value};

/// `str(value)`; an undefined value prints as nothing.
pub(super) fn text(value: &Value) -> String {
    let mut text = String::new();
    write_text(&mut text, value);
    text
}

/// Appends `str(value)`.
pub(super) fn write_text(target: &mut String, value: &Value) {
    match value.as_str() {
        Some(text) => target.push_str(text),
        None => write_repr(target, value),
    }
}

/// Appends `repr(value)`.
fn write_repr(target: &mut String, value: &Value) {
    if let Some(text) = value.as_str() {
        return write_quoted(target, text);
    }
    match value.kind() {
        ValueKind::Undefined => {}
        ValueKind::Number if !value.is_integer() => {
            target.push_str(&float(f64::try_from(value.clone()).unwrap_or(f64::NAN)));
        }
        ValueKind::Map => {
            target.push('{');
            for (index, (key, item)) in entries(value).enumerate() {
                target.push_str(if index == 0 { "" } else { ", " });
                write_repr(target, &key);
                target.push_str(": ");
                write_repr(target, &item);
            }
            target.push('}');
        }
        ValueKind::Seq | ValueKind::Iterable => {
            let (open, close) = if value.is_tuple() { ('(', ')') } else { ('[', ']') };
            target.push(open);
            let mut items = 0;
            for item in value.as_object().and_then(DynObject::try_iter).into_iter().flatten() {
                target.push_str(if items == 0 { "" } else { ", " });
                write_repr(target, &item);
                items += 1;
            }
            target.push_str(if value.is_tuple() && items == 1 { "," } else { "" });
            target.push(close);
        }
        _ => {
            let _ = write!(target, "{value}");
        }
    }
}

fn write_quoted(target: &mut String, text: &str) {
    let quote = if text.contains('\'') && !text.contains('"') { '"' } else { '\'' };
    target.push(quote);
    for character in text.chars() {
        match character {
            '\n' => target.push_str("\\n"),
            '\r' => target.push_str("\\r"),
            '\t' => target.push_str("\\t"),
            '\\' => target.push_str("\\\\"),
            _ if character == quote => target.extend(['\\', quote]),
            '\0'..='\x1f' | '\x7f'..='\u{a0}' | '\u{ad}' => {
                let _ = write!(target, "\\x{:02x}", character as u32);
            }
            _ => target.push(character),
        }
    }
    target.push(quote);
}

/// `repr` of a float: the shortest digits that read back, with an exponent below 1e-4 and from
/// 1e16.
pub(super) fn float(value: f64) -> String {
    if value.is_nan() {
        return "nan".to_owned();
    }
    if value.is_infinite() {
        return if value > 0.0 { "inf" } else { "-inf" }.to_owned();
    }
    let scientific = format!("{value:e}");
    let (mantissa, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or_default();
    if (-4..16).contains(&exponent) || value == 0.0 {
        let plain = format!("{value}");
        return if plain.contains('.') { plain } else { plain + ".0" };
    }
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{mantissa}e{sign}{:02}", exponent.abs())
}

/// The name that Python gives to a value's type.
pub(super) fn type_name(value: &Value) -> &'static str {
    match value.kind() {
        ValueKind::Undefined => "Undefined",
        ValueKind::None => "NoneType",
        ValueKind::Bool => "bool",
        ValueKind::Number if value.is_integer() => "int",
        ValueKind::Number => "float",
        ValueKind::String => "str",
        ValueKind::Bytes => "bytes",
        ValueKind::Seq if value.is_tuple() => "tuple",
        ValueKind::Seq => "list",
        ValueKind::Map => "dict",
        ValueKind::Iterable => "generator",
        _ => "object",
    }
}

/// An error as Python's `TypeError`.
pub(super) fn type_error(message: String) -> Error {
    Error::new(ErrorKind::InvalidOperation, message)
}

/// Whether Python could iterate over a value of this kind.
pub(super) fn is_iterable(value: &Value) -> bool {
    !matches!(
        value.kind(),
        ValueKind::None | ValueKind::Bool | ValueKind::Number | ValueKind::Plain
    )
}

/// Python's error for what cannot be iterated over.
pub(super) fn check_iterable(value: &Value) -> Result<(), Error> {
    if is_iterable(value) {
        return Ok(());
    }
    Err(type_error(format!("'{}' object is not iterable", type_name(value))))
}

/// The items of a value that Python can iterate over.
pub(super) fn items(value: &Value) -> Result<Vec<Value>, Error> {
    check_iterable(value)?;
    value.try_iter()?.checked().collect()
}

/// How much there is to walk through: bytes of a text, else items.
pub(super) fn size(value: &Value) -> usize {
    value.as_str().map_or_else(|| value.len().unwrap_or_default(), str::len)
}

/// The entries of a dictionary; none for anything else.
pub(super) fn entries(value: &Value) -> impl Iterator<Item = (Value, Value)> + use<> {
    value.as_object().and_then(DynObject::try_iter_pairs).into_iter().flatten()
}

/// What Python calls a generator: it can be walked through, and neither measured nor written as
/// JSON.
#[derive(Debug)]
pub(super) struct Generator(pub(super) Vec<Value>);

impl Object for Generator {
    fn repr(self: &std::sync::Arc<Self>) -> ObjectRepr {
        ObjectRepr::Iterable
    }

    fn enumerate(self: &std::sync::Arc<Self>) -> minijinja::value::Enumerator {
        minijinja::value::Enumerator::Values(self.0.clone())
    }

    fn is_true(self: &std::sync::Arc<Self>) -> bool {
        true
    }
}
