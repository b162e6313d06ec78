//! `tojson` as transformers defines it: `json.dumps` with Python's separators, nothing escaped for
//! HTML.

use std::fmt::Write as _;

use minijinja::value::{Kwargs, ValueKind, from_args};
use minijinja::{Error, State, Value};

use super::meter::{DEPTH_MAX, Meter, limit};
use super::python::{self, type_error, type_name};

/// Serde's values as the machine's, in their order.
pub(super) fn to_value(json: &serde_json::Value) -> Value {
    use serde_json::Value as Json;
    match json {
        Json::Null => Value::from(()),
        Json::Bool(flag) => Value::from(*flag),
        Json::Number(number) => match (number.as_i64(), number.as_u64()) {
            (Some(whole), _) => Value::from(whole),
            (None, Some(whole)) => Value::from(whole),
            (None, None) => Value::from(number.as_f64().unwrap_or(f64::NAN)),
        },
        Json::String(text) => Value::from(text.as_str()),
        Json::Array(items) => Value::from(items.iter().map(to_value).collect::<Vec<_>>()),
        Json::Object(entries) => object(entries),
    }
}

/// A JSON object as a value of the machine.
pub(super) fn object(entries: &serde_json::Map<String, serde_json::Value>) -> Value {
    Value::from_pairs(entries.iter().map(|(key, item)| (key.as_str(), to_value(item))))
}

/// How JSON is laid out.
struct Layout {
    ascii: bool,
    indent: Option<String>,
    item_separator: String,
    key_separator: String,
    sorted: bool,
}

impl Layout {
    /// `tojson(ensure_ascii=False, indent=None, separators=None, sort_keys=False)`
    fn read(arguments: &[Value]) -> Result<Layout, Error> {
        let (positional, named): (&[Value], Kwargs) = from_args(arguments)?;
        let names = ["ensure_ascii", "indent", "separators", "sort_keys"];
        let mut given: [Option<Value>; 4] = Default::default();
        for (place, value) in positional.iter().enumerate() {
            let slot = given.get_mut(place);
            *slot.ok_or_else(|| type_error("too many arguments for tojson".to_owned()))? =
                Some(value.clone());
        }
        for (name, slot) in names.iter().zip(&mut given) {
            if named.has(name) {
                *slot = Some(named.get(name)?);
            }
        }
        named.assert_all_used()?;
        let [ascii, indent, separators, sorted] = given.map(|value| value.filter(|v| !v.is_none()));
        let indent = indent.as_ref().map(indentation).transpose()?;
        let (item_separator, key_separator) = match &separators {
            Some(pair) => (
                python::text(&pair.get_item_by_index(0)?),
                python::text(&pair.get_item_by_index(1)?),
            ),
            None if indent.is_some() => (",".to_owned(), ": ".to_owned()),
            None => (", ".to_owned(), ": ".to_owned()),
        };
        Ok(Layout {
            ascii: ascii.is_some_and(|value| value.is_true()),
            indent,
            item_separator,
            key_separator,
            sorted: sorted.is_some_and(|value| value.is_true()),
        })
    }
}

fn indentation(value: &Value) -> Result<String, Error> {
    /// A wider indentation than any that someone wants to read.
    const WIDTH_MAX: usize = 64;
    if let Some(text) = value.as_str() {
        return if text.len() <= WIDTH_MAX {
            Ok(text.to_owned())
        } else {
            Err(limit("its indentation is too wide"))
        };
    }
    let width =
        if value.is_true() && value.kind() == ValueKind::Bool { Some(1) } else { value.as_i64() };
    let width = width.ok_or_else(|| type_error("indent is no integer".to_owned()))?.max(0) as usize;
    if width > WIDTH_MAX {
        return Err(limit("its indentation is too wide"));
    }
    Ok(" ".repeat(width))
}

/// The filter `tojson`.
pub(super) fn dump(state: &mut State<'_, '_>, arguments: &[Value]) -> Result<Value, Error> {
    let (value, options) = arguments
        .split_first()
        .ok_or_else(|| type_error("tojson has nothing to write".to_owned()))?;
    let layout = Layout::read(options)?;
    let meter = Meter::of(state);
    let bytes = meter.read(value)?;
    meter.make_text(bytes)?;
    let mut target = String::new();
    write_value(&mut target, value, &layout, 0)?;
    meter.make_text(target.len().saturating_sub(bytes))?;
    Ok(Value::from(target))
}

fn write_value(
    target: &mut String,
    value: &Value,
    layout: &Layout,
    depth: usize,
) -> Result<(), Error> {
    if depth > DEPTH_MAX {
        return Err(limit("its values nest too deep"));
    }
    match value.kind() {
        ValueKind::None => target.push_str("null"),
        ValueKind::Bool => target.push_str(if value.is_true() { "true" } else { "false" }),
        ValueKind::Number if value.is_integer() => target.push_str(&value.to_string()),
        ValueKind::Number => target.push_str(&number(f64::try_from(value.clone())?)),
        ValueKind::String => write_text(target, value.as_str().unwrap_or_default(), layout.ascii),
        ValueKind::Seq => {
            let items = python::items(value)?;
            target.push('[');
            for (index, item) in items.iter().enumerate() {
                start_item(target, layout, index == 0, depth + 1);
                write_value(target, item, layout, depth + 1)?;
            }
            end_items(target, layout, items.is_empty(), depth);
            target.push(']');
        }
        ValueKind::Map => write_object(target, value, layout, depth)?,
        _ => {
            let name = type_name(value);
            return Err(type_error(format!("Object of type {name} is not JSON serializable")));
        }
    }
    Ok(())
}

fn write_object(
    target: &mut String,
    value: &Value,
    layout: &Layout,
    depth: usize,
) -> Result<(), Error> {
    let mut pairs: Vec<(Value, Value)> = python::entries(value).collect();
    if layout.sorted {
        pairs.sort_by(|(left, _), (right, _)| left.cmp(right));
    }
    target.push('{');
    for (index, (key, item)) in pairs.iter().enumerate() {
        start_item(target, layout, index == 0, depth + 1);
        let name = match key.kind() {
            ValueKind::String => python::text(key),
            ValueKind::None => "null".to_owned(),
            ValueKind::Bool => key.is_true().to_string(),
            ValueKind::Number if key.is_integer() => key.to_string(),
            ValueKind::Number => number(f64::try_from(key.clone())?),
            _ => {
                let name = type_name(key);
                return Err(type_error(format!(
                    "keys must be str, int, float, bool or None, not {name}"
                )));
            }
        };
        write_text(target, &name, layout.ascii);
        target.push_str(&layout.key_separator);
        write_value(target, item, layout, depth + 1)?;
    }
    end_items(target, layout, pairs.is_empty(), depth);
    target.push('}');
    Ok(())
}

fn start_item(target: &mut String, layout: &Layout, first: bool, depth: usize) {
    if !first {
        target.push_str(&layout.item_separator);
    }
    break_line(target, layout, depth);
}

fn end_items(target: &mut String, layout: &Layout, empty: bool, depth: usize) {
    if !empty {
        break_line(target, layout, depth);
    }
}

fn break_line(target: &mut String, layout: &Layout, depth: usize) {
    if let Some(indent) = &layout.indent {
        target.push('\n');
        target.extend(std::iter::repeat_n(indent.as_str(), depth));
    }
}

fn number(value: f64) -> String {
    if value.is_finite() {
        return python::float(value);
    }
    let name = if value.is_nan() { "NaN" } else { "Infinity" };
    format!("{}{name}", if value == f64::NEG_INFINITY { "-" } else { "" })
}

fn write_text(target: &mut String, text: &str, ascii: bool) {
    target.push('"');
    for character in text.chars() {
        match character {
            '"' => target.push_str("\\\""),
            '\\' => target.push_str("\\\\"),
            '\n' => target.push_str("\\n"),
            '\r' => target.push_str("\\r"),
            '\t' => target.push_str("\\t"),
            '\x08' => target.push_str("\\b"),
            '\x0c' => target.push_str("\\f"),
            _ if character < ' ' || (ascii && !(' '..='~').contains(&character)) => {
                for unit in character.encode_utf16(&mut [0; 2]) {
                    let _ = write!(target, "\\u{unit:04x}");
                }
            }
            _ => target.push(character),
        }
    }
    target.push('"');
}
