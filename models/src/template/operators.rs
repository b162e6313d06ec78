//! Python's operators, paid for: `+`, `~`, `*`, `%`, slices, comparisons and `in`.

use minijinja::formatting::{FormatStyle, format};
use minijinja::value::{Tuple, ValueKind};
use minijinja::{Environment, Error, HtmlEscape, State, Value};

use super::meter::{Meter, limit};
use super::python::{self, text, type_error, type_name};

/// The widest field and the highest precision that a format string may ask for.
const FORMAT_WIDTH_MAX: u32 = 9_999;

/// Puts the operators where the machine calls them.
pub(super) fn register(environment: &mut Environment<'_>) {
    environment.add_filter("+", add);
    environment.add_filter("~", concatenate);
    environment.add_filter("*", multiply);
    environment.add_filter("%", remainder);
    environment.add_filter("[]", item);
    environment.add_filter("[:]", slice);
    environment.add_filter("==", equal);
    environment.add_filter("in", |state: &mut State<'_, '_>, item: &Value, container: &Value| {
        contains(state, container, item)
    });
    environment.add_filter("<", |state: &mut State<'_, '_>, left: &Value, right: &Value| {
        comparable(state, "<", left, right).map(|()| left < right)
    });
    environment.add_filter("<=", |state: &mut State<'_, '_>, left: &Value, right: &Value| {
        comparable(state, "<=", left, right).map(|()| left <= right)
    });
    environment.add_filter(">", |state: &mut State<'_, '_>, left: &Value, right: &Value| {
        comparable(state, ">", left, right).map(|()| left > right)
    });
    environment.add_filter(">=", |state: &mut State<'_, '_>, left: &Value, right: &Value| {
        comparable(state, ">=", left, right).map(|()| left >= right)
    });
    environment.add_filter("=read", |state: &mut State<'_, '_>, value: Value| {
        Meter::of(state).read(&value).map(|_| value)
    });
    environment.add_filter("=attribute", |state: &mut State<'_, '_>, value: Value| {
        Meter::of(state).read(&value)?;
        if holds_namespace(&value) {
            return Err(type_error("a namespace cannot be kept in a namespace".to_owned()));
        }
        Ok(value)
    });
    environment.add_filter("=private", |_: &Value| -> Result<Value, Error> {
        Err(type_error(
            "a template may not set attributes that begin with an underscore".to_owned(),
        ))
    });
    environment.add_filter("=iterate", |state: &mut State<'_, '_>, value: Value| {
        Meter::of(state).look(&value)?;
        python::check_iterable(&value).map(|()| value)
    });
}

/// A namespace inside itself would be a ring that is never freed and never ends.
fn holds_namespace(value: &Value) -> bool {
    let Some(object) = value.as_object() else { return false };
    object.type_name().ends_with("Namespace")
        || match value.kind() {
            ValueKind::Map => object
                .try_iter_pairs()
                .into_iter()
                .flatten()
                .any(|(_, item)| holds_namespace(&item)),
            ValueKind::Seq | ValueKind::Iterable => {
                object.try_iter().into_iter().flatten().any(|item| holds_namespace(&item))
            }
            _ => false,
        }
}

fn unsupported(operator: &str, left: &Value, right: &Value) -> Error {
    let (left, right) = (type_name(left), type_name(right));
    type_error(format!("unsupported operand type(s) for {operator}: '{left}' and '{right}'"))
}

/// Text marked as safe stays so, and what is added to it is escaped, as with Python's Markup.
fn joined(left: &Value, right: &Value) -> Value {
    let plain = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    if !left.is_safe() && !right.is_safe() {
        return Value::from(plain(left) + &plain(right));
    }
    let marked =
        |value: &Value| if value.is_safe() { plain(value) } else { escaped(&plain(value)) };
    Value::from_safe_string(marked(left) + &marked(right))
}

/// HTML's special characters escaped the way that Python's markupsafe does.
pub(super) fn escaped(text: &str) -> String {
    HtmlEscape(text)
        .to_string()
        .replace("&quot;", "&#34;")
        .replace("&#x27;", "&#39;")
        .replace("&#x2f;", "/")
}

fn add(state: &mut State<'_, '_>, left: &Value, right: &Value) -> Result<Value, Error> {
    if let (Some(first), Some(second)) = (left.as_str(), right.as_str()) {
        Meter::of(state).make_text(first.len() + second.len())?;
        return Ok(joined(left, right));
    }
    match (left.kind(), right.kind()) {
        (ValueKind::Seq, ValueKind::Seq) if left.is_tuple() == right.is_tuple() => {
            Meter::of(state).visit(python::size(left).saturating_add(python::size(right)))?;
            let mut items = python::items(left)?;
            items.extend(python::items(right)?);
            Ok(if left.is_tuple() { Tuple::from(items).into() } else { Value::from(items) })
        }
        (ValueKind::String, _) => {
            let name = type_name(right);
            Err(type_error(format!("can only concatenate str (not \"{name}\") to str")))
        }
        _ => arithmetic("+", left, right, i128::checked_add, |a, b| a + b),
    }
}

fn arithmetic(
    operator: &str,
    left: &Value,
    right: &Value,
    whole: fn(i128, i128) -> Option<i128>,
    real: fn(f64, f64) -> f64,
) -> Result<Value, Error> {
    let numeric = |value: &Value| matches!(value.kind(), ValueKind::Number | ValueKind::Bool);
    let is_whole = |value: &Value| value.is_integer() || value.kind() == ValueKind::Bool;
    if !numeric(left) || !numeric(right) {
        return Err(unsupported(operator, left, right));
    }
    if is_whole(left) && is_whole(right) {
        let (a, b) = (i128::try_from(left.clone())?, i128::try_from(right.clone())?);
        let result = whole(a, b).ok_or_else(|| type_error(format!("{a} {operator} {b} fails")))?;
        return Ok(i64::try_from(result).map_or_else(|_| Value::from(result), Value::from));
    }
    Ok(Value::from(real(real_number(left)?, real_number(right)?)))
}

fn real_number(value: &Value) -> Result<f64, Error> {
    if value.kind() == ValueKind::Bool {
        return Ok(f64::from(u8::from(value.is_true())));
    }
    f64::try_from(value.clone())
}

fn concatenate(state: &mut State<'_, '_>, left: &Value, right: &Value) -> Result<Value, Error> {
    let meter = Meter::of(state);
    let bytes = meter.read(left)?.saturating_add(meter.read(right)?);
    meter.make_text(bytes)?;
    let mut joined = String::with_capacity(bytes);
    python::write_text(&mut joined, left);
    python::write_text(&mut joined, right);
    meter.make_text(joined.len().saturating_sub(bytes))?;
    Ok(Value::from(joined))
}

fn multiply(state: &mut State<'_, '_>, left: &Value, right: &Value) -> Result<Value, Error> {
    let (repeated, times) = match (left.kind(), right.kind()) {
        (ValueKind::String | ValueKind::Seq, _) => (left, right),
        (_, ValueKind::String | ValueKind::Seq) => (right, left),
        _ => return arithmetic("*", left, right, i128::checked_mul, |a, b| a * b),
    };
    let times = times.as_i64().ok_or_else(|| unsupported("*", left, right))?;
    let times = usize::try_from(times).unwrap_or_default();
    if let Some(part) = repeated.as_str() {
        Meter::of(state).make_text(part.len().saturating_mul(times))?;
        return Ok(Value::from(part.repeat(times)));
    }
    Meter::of(state).visit(python::size(repeated).saturating_mul(times))?;
    let items = python::items(repeated)?;
    let items: Vec<Value> = std::iter::repeat_n(items, times).flatten().collect();
    Ok(if repeated.is_tuple() { Tuple::from(items).into() } else { Value::from(items) })
}

fn remainder(state: &mut State<'_, '_>, left: &Value, right: &Value) -> Result<Value, Error> {
    if let Some(pattern) = left.as_str() {
        let arguments = if right.is_tuple() { python::items(right)? } else { vec![right.clone()] };
        return formatted(state, FormatStyle::Printf, pattern, &arguments);
    }
    if real_number(right).is_ok_and(|divisor| divisor == 0.0) {
        return Err(type_error("division by zero".to_owned()));
    }
    let floored = |a: f64, b: f64| a - b * (a / b).floor();
    arithmetic("%", left, right, |a, b| a.checked_rem_euclid(b).map(|r| signed(r, b)), floored)
}

/// Python's remainder has the sign of the divisor.
fn signed(remainder: i128, divisor: i128) -> i128 {
    if divisor < 0 && remainder != 0 { remainder + divisor } else { remainder }
}

/// `pattern % arguments` or `pattern.format(arguments)`.
pub(super) fn formatted(
    state: &mut State<'_, '_>,
    style: FormatStyle,
    pattern: &str,
    arguments: &[Value],
) -> Result<Value, Error> {
    let wide = pattern
        .split(|character: char| !character.is_ascii_digit())
        .any(|digits| digits.parse::<u32>().map_or(!digits.is_empty(), |n| n > FORMAT_WIDTH_MAX));
    let starred = pattern.contains('*') || pattern.contains(":{");
    if wide || starred {
        return Err(limit("a field of its format is too wide"));
    }
    let mut bytes = pattern.len();
    let meter = Meter::of(state);
    for argument in arguments {
        bytes = bytes.saturating_add(meter.read(argument)?);
    }
    // Each field may name the same argument again, and be as wide as allowed.
    let fields = pattern.matches(['%', '{']).count();
    meter.make_text(bytes.saturating_mul(fields.max(1)))?;
    let arguments: Vec<Value> = arguments.iter().map(printable).collect();
    let result = format(style, pattern, &arguments)?;
    meter.make_text(result.len())?;
    Ok(Value::from(result))
}

/// minijinja formats containers in its own way; Python's text goes in their place.
fn printable(argument: &Value) -> Value {
    let container = matches!(argument.kind(), ValueKind::Seq | ValueKind::Iterable);
    if container && !argument.is_kwargs() { Value::from(text(argument)) } else { argument.clone() }
}

/// `value[key]`
fn item(state: &mut State<'_, '_>, value: &Value, key: &Value) -> Result<Value, Error> {
    let meter = Meter::of(state);
    meter.look(value)?;
    meter.look(key)?;
    if value.kind() == ValueKind::Iterable {
        // The machine walks up to the place.
        meter.visit(python::size(value))?;
    }
    value.get_item(key)
}

/// `value[start:stop:step]`
fn slice(
    state: &mut State<'_, '_>,
    value: &Value,
    start: &Value,
    stop: &Value,
    step: &Value,
) -> Result<Value, Error> {
    if let Some(whole) = value.as_str() {
        let characters: Vec<char> = whole.chars().collect();
        let places = places(characters.len(), start, stop, step)?;
        Meter::of(state).make_text(whole.len())?;
        let part: String = places.into_iter().map(|place| characters[place]).collect();
        return Ok(if value.is_safe() { Value::from_safe_string(part) } else { part.into() });
    }
    if value.kind() != ValueKind::Seq {
        return Err(type_error(format!("'{}' object cannot be sliced", type_name(value))));
    }
    Meter::of(state).visit(python::size(value))?;
    let items = python::items(value)?;
    let places = places(items.len(), start, stop, step)?;
    let part: Vec<Value> = places.into_iter().map(|place| items[place].clone()).collect();
    Ok(if value.is_tuple() { Tuple::from(part).into() } else { Value::from(part) })
}

/// The places that a slice of something of this length takes.
fn places(length: usize, start: &Value, stop: &Value, step: &Value) -> Result<Vec<usize>, Error> {
    let bound = |value: &Value| match value.kind() {
        ValueKind::None => Ok(None),
        _ => value
            .as_i64()
            .map(Some)
            .ok_or_else(|| type_error("slice indices must be integers or None".to_owned())),
    };
    let length = length as i64;
    let step = bound(step)?.unwrap_or(1);
    if step == 0 {
        return Err(type_error("slice step cannot be zero".to_owned()));
    }
    let (lowest, highest) = if step > 0 { (0, length) } else { (-1, length - 1) };
    let clamp = |place: i64| {
        let place = if place < 0 { place.saturating_add(length) } else { place };
        place.clamp(lowest, highest)
    };
    let (first, last) = if step > 0 { (lowest, highest) } else { (highest, lowest) };
    let mut place = bound(start)?.map_or(first, clamp);
    let end = bound(stop)?.map_or(last, clamp);
    let mut places = Vec::new();
    while if step > 0 { place < end } else { place > end } {
        places.push(place as usize);
        place = place.saturating_add(step);
    }
    Ok(places)
}

fn read_both(state: &mut State<'_, '_>, left: &Value, right: &Value) -> Result<(), Error> {
    let meter = Meter::of(state);
    if left.as_object().is_some() && right.as_object().is_some() {
        meter.read(left)?;
        meter.read(right)?;
    } else if left.as_str().is_some() && right.as_str().is_some() {
        meter.look(left)?;
    }
    Ok(())
}

/// `left == right`
pub(super) fn equal(state: &mut State<'_, '_>, left: &Value, right: &Value) -> Result<bool, Error> {
    read_both(state, left, right)?;
    Ok(left == right)
}

fn comparable(
    state: &mut State<'_, '_>,
    operator: &str,
    left: &Value,
    right: &Value,
) -> Result<(), Error> {
    read_both(state, left, right)?;
    let family = |value: &Value| match value.kind() {
        ValueKind::Bool | ValueKind::Number => 1,
        ValueKind::String => 2,
        ValueKind::Seq if value.is_tuple() => 3,
        ValueKind::Seq => 4,
        _ => 0,
    };
    if family(left) == 0 || family(left) != family(right) {
        let (left, right) = (type_name(left), type_name(right));
        return Err(type_error(format!(
            "'{operator}' not supported between instances of '{left}' and '{right}'"
        )));
    }
    Ok(())
}

/// `item in container`
pub(super) fn contains(
    state: &mut State<'_, '_>,
    container: &Value,
    item: &Value,
) -> Result<bool, Error> {
    if let Some(whole) = container.as_str() {
        let part = item.as_str().ok_or_else(|| {
            let name = type_name(item);
            type_error(format!("'in <string>' requires string as left operand, not {name}"))
        })?;
        Meter::of(state).look(container)?;
        return Ok(whole.contains(part));
    }
    match container.kind() {
        ValueKind::Undefined => Ok(false),
        ValueKind::Map => {
            Meter::of(state).read(item)?;
            Ok(container.as_object().is_some_and(|object| object.get_value(item).is_some()))
        }
        ValueKind::Seq | ValueKind::Iterable => {
            if item.as_object().is_some() {
                Meter::of(state).read(container)?;
            }
            Meter::of(state).visit(python::size(container))?;
            Ok(python::items(container)?.contains(item))
        }
        _ => {
            let name = type_name(container);
            Err(type_error(format!("argument of type '{name}' is not iterable")))
        }
    }
}
