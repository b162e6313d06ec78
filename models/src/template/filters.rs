//! Jinja's filters, paid for: ours where Python's answer or the cost matters, else minijinja's
//! behind a meter.

use minijinja::filters as theirs;
use minijinja::value::{Kwargs, Rest, ValueKind, ValueOrKwargs, from_args};
use minijinja::{Environment, Error, ErrorKind, State, Value};

use super::meter::{Meter, limit};
use super::operators::escaped;
use super::python::{self, Generator, text, type_error, type_name};
use super::{json, methods};

/// What a filter of minijinja's costs, and what it gives.
#[derive(Clone, Copy, PartialEq)]
enum Cost {
    /// It looks at one value.
    Scalar,
    /// It looks at one end.
    Ends,
    /// It touches each item once.
    Items,
    /// It compares items, or makes values that nest deeper.
    Whole,
    /// It touches each item once, and Python would give a generator.
    Generator,
}

/// Puts the filters into an environment.
pub(super) fn register(environment: &mut Environment<'_>) {
    register_ours(environment);
    let mut add = |name: &'static str, filter: Value, cost: Cost| {
        environment.add_filter(
            name,
            move |state: &mut State<'_, '_>, arguments: Rest<ValueOrKwargs>| {
                let arguments = with_names(name, arguments.into_values())?;
                metered(state, &filter, cost, &arguments)
            },
        );
    };
    add("batch", Value::from_function(theirs::batch), Cost::Whole);
    add("slice", Value::from_function(theirs::slice), Cost::Whole);
    add("abs", Value::from_function(theirs::abs), Cost::Scalar);
    add("attr", Value::from_function(theirs::attr), Cost::Scalar);
    add("capitalize", Value::from_function(theirs::capitalize), Cost::Scalar);
    add("first", Value::from_function(theirs::first), Cost::Ends);
    add("last", Value::from_function(theirs::last), Cost::Ends);
    add("list", Value::from_function(theirs::list), Cost::Items);
    add("reverse", Value::from_function(theirs::reverse), Cost::Items);
    add("round", Value::from_function(theirs::round), Cost::Scalar);
    add("safe", Value::from_function(theirs::safe), Cost::Scalar);
    add("title", Value::from_function(theirs::title), Cost::Scalar);
    add("map", Value::from_function(theirs::map), Cost::Generator);
    add("select", Value::from_function(theirs::select), Cost::Generator);
    add("selectattr", Value::from_function(theirs::selectattr), Cost::Generator);
    add("reject", Value::from_function(theirs::reject), Cost::Generator);
    add("rejectattr", Value::from_function(theirs::rejectattr), Cost::Generator);
    add("dictsort", Value::from_function(theirs::dictsort), Cost::Whole);
    add("groupby", Value::from_function(theirs::groupby), Cost::Whole);
    add("max", Value::from_function(theirs::max), Cost::Whole);
    add("min", Value::from_function(theirs::min), Cost::Whole);
    add("sort", Value::from_function(theirs::sort), Cost::Whole);
    add("sum", Value::from_function(theirs::sum), Cost::Whole);
    add("unique", Value::from_function(theirs::unique), Cost::Whole);
}

fn register_ours(environment: &mut Environment<'_>) {
    environment.add_filter("count", length);
    environment.add_filter("length", length);
    environment.add_filter("d", default);
    environment.add_filter("default", default);
    environment.add_filter("e", escape);
    environment.add_filter("escape", escape);
    environment.add_filter(
        "format",
        |state: &mut State<'_, '_>, pattern: &str, arguments: Rest<ValueOrKwargs>| {
            let arguments = arguments.into_values();
            super::operators::formatted(
                state,
                minijinja::formatting::FormatStyle::Printf,
                pattern,
                &arguments,
            )
        },
    );
    environment.add_filter("float", float);
    environment.add_filter("indent", indent);
    environment.add_filter("int", int);
    environment.add_filter("items", items);
    environment.add_filter("join", join);
    environment.add_filter("lower", |state: &mut State<'_, '_>, value: &Value| {
        recased(state, value, str::to_lowercase)
    });
    environment.add_filter("upper", |state: &mut State<'_, '_>, value: &Value| {
        recased(state, value, str::to_uppercase)
    });
    environment.add_filter("replace", replace);
    environment.add_filter("string", string);
    environment.add_filter(
        "tojson",
        |state: &mut State<'_, '_>, arguments: Rest<ValueOrKwargs>| {
            json::dump(state, &arguments.into_values())
        },
    );
    environment.add_filter("trim", trim);
    environment.add_filter("wordcount", |state: &mut State<'_, '_>, value: &Value| {
        string(state, value)
            .map(|words| words.as_str().unwrap_or_default().split_whitespace().count())
    });
}

/// Optional arguments that Jinja takes by place too, and minijinja by name only.
fn with_names(filter: &str, arguments: Vec<Value>) -> Result<Vec<Value>, Error> {
    /// The most parts that `batch` and `slice` may be asked for: they fill up what is missing.
    const PARTS_MAX: usize = 10_000;
    let names: &[&str] = match filter {
        "dictsort" => &["case_sensitive", "by", "reverse"],
        "sort" => &["reverse", "case_sensitive", "attribute"],
        "unique" => &["case_sensitive", "attribute"],
        "batch" | "slice" => {
            let parts = arguments.get(1).and_then(Value::as_usize);
            if parts.is_some_and(|parts| parts > PARTS_MAX) {
                return Err(limit("it asks for too many parts"));
            }
            return Ok(arguments);
        }
        _ => return Ok(arguments),
    };
    let (placed, named): (&[Value], Kwargs) = from_args(&arguments)?;
    let mut all: Vec<(String, Value)> = Vec::new();
    for name in named.args() {
        all.push((name.to_owned(), named.get(name)?));
    }
    for (name, value) in names.iter().zip(placed.iter().skip(1)) {
        all.push(((*name).to_owned(), value.clone()));
    }
    let value = placed.first().cloned().unwrap_or_default();
    Ok(vec![value, all.into_iter().collect::<Kwargs>().into()])
}

/// Calls a filter of minijinja's: what goes in and what comes out is paid for.
fn metered(
    state: &mut State<'_, '_>,
    filter: &Value,
    cost: Cost,
    arguments: &[Value],
) -> Result<Value, Error> {
    let meter = Meter::of(state);
    for argument in arguments {
        match cost {
            Cost::Scalar => meter.look(argument)?,
            Cost::Ends => meter.visit(1 + python::size(argument) / 16)?,
            Cost::Items | Cost::Generator => meter.visit(1 + python::size(argument))?,
            Cost::Whole => {
                meter.visit(python::size(argument))?;
                meter.read(argument)?;
            }
        }
    }
    match arguments.first() {
        // Jinja's generators ask first whether there is anything at all.
        Some(value) if cost == Cost::Generator && !value.is_true() => {
            return Ok(Value::from_object(Generator(Vec::new())));
        }
        Some(value) if cost != Cost::Scalar => python::check_iterable(value)?,
        _ => {}
    }
    let result = filter.call(state, arguments)?;
    settle(state, result, cost)
}

/// Pays for what a filter made. Lazy sequences are walked now, or they would pile up unpaid on one
/// another.
fn settle(state: &mut State<'_, '_>, result: Value, cost: Cost) -> Result<Value, Error> {
    let meter = Meter::of(state);
    if let Some(made) = result.as_str() {
        meter.make_text(made.len())?;
        return Ok(result);
    }
    if !matches!(result.kind(), ValueKind::Seq | ValueKind::Iterable) {
        return Ok(result);
    }
    let items = python::items(&result)?;
    meter.visit(items.len())?;
    let result = match cost {
        Cost::Generator => Value::from_object(Generator(items)),
        _ if result.is_tuple() => result,
        _ => Value::from(items),
    };
    if cost == Cost::Whole {
        meter.read(&result)?;
    }
    Ok(result)
}

/// `str(value)`; text stays what it is.
pub(super) fn string(state: &mut State<'_, '_>, value: &Value) -> Result<Value, Error> {
    if value.as_str().is_some() {
        return Ok(value.clone());
    }
    let meter = Meter::of(state);
    let bytes = meter.read(value)?;
    meter.make_text(bytes)?;
    let made = text(value);
    meter.make_text(made.len().saturating_sub(bytes))?;
    Ok(Value::from(made))
}

/// Text made of `source`: safe when `source` is.
fn like(source: &Value, made: String) -> Value {
    if source.is_safe() { Value::from_safe_string(made) } else { Value::from(made) }
}

fn recased(
    state: &mut State<'_, '_>,
    value: &Value,
    recase: fn(&str) -> String,
) -> Result<Value, Error> {
    let source = string(state, value)?;
    let made = recase(source.as_str().unwrap_or_default());
    Meter::of(state).make_text(made.len())?;
    Ok(like(&source, made))
}

fn trim(
    state: &mut State<'_, '_>,
    value: &Value,
    characters: Option<&str>,
) -> Result<Value, Error> {
    let source = string(state, value)?;
    let made =
        methods::strip(source.as_str().unwrap_or_default(), characters, true, true).to_owned();
    Meter::of(state).make_text(made.len())?;
    Ok(like(&source, made))
}

fn length(state: &mut State<'_, '_>, value: &Value) -> Result<usize, Error> {
    Meter::of(state).look(value)?;
    match value.kind() {
        ValueKind::Undefined => Ok(0),
        ValueKind::Iterable if value.downcast_object_ref::<Generator>().is_some() => {
            Err(type_error("object of type 'generator' has no len()".to_owned()))
        }
        _ => value.len().ok_or_else(|| {
            type_error(format!("object of type '{}' has no len()", type_name(value)))
        }),
    }
}

/// `default(value, default_value="", boolean=False)`
fn default(value: &Value, arguments: Rest<ValueOrKwargs>) -> Result<Value, Error> {
    let arguments = arguments.into_values();
    let (other, boolean, named): (Option<Value>, Option<bool>, Kwargs) = from_args(&arguments)?;
    let other = match other {
        Some(other) => other,
        None => named.get::<Option<Value>>("default_value")?.unwrap_or_else(|| Value::from("")),
    };
    let boolean = match boolean {
        Some(boolean) => boolean,
        None => named.get::<Option<bool>>("boolean")?.unwrap_or_default(),
    };
    named.assert_all_used()?;
    let keep = if boolean { value.is_true() } else { !value.is_undefined() };
    Ok(if keep { value.clone() } else { other })
}

/// `int(value, default=0, base=10)`; minijinja fails where there is no default.
fn int(state: &mut State<'_, '_>, arguments: Rest<ValueOrKwargs>) -> Value {
    let arguments = arguments.into_values();
    let number = Value::from_function(theirs::int).call(state, &arguments);
    number.unwrap_or_else(|_| Value::from(0))
}

/// `float(value, default=0.0)`
fn float(value: &Value, default: Option<f64>) -> f64 {
    let number = match value.as_str() {
        Some(text) => text.trim().replace('_', "").parse().ok(),
        None if value.kind() == ValueKind::Bool => Some(f64::from(u8::from(value.is_true()))),
        None => f64::try_from(value.clone()).ok(),
    };
    number.or(default).unwrap_or_default()
}

fn escape(state: &mut State<'_, '_>, value: &Value) -> Result<Value, Error> {
    if value.is_safe() {
        return Ok(value.clone());
    }
    let made = escaped(string(state, value)?.as_str().unwrap_or_default());
    Meter::of(state).make_text(made.len())?;
    Ok(Value::from_safe_string(made))
}

fn items(state: &mut State<'_, '_>, value: &Value) -> Result<Value, Error> {
    match value.kind() {
        ValueKind::Undefined => Ok(Value::from_object(Generator(Vec::new()))),
        ValueKind::Map => {
            let pairs: Vec<Value> = methods::pairs(value);
            let result = Value::from_object(Generator(pairs));
            Meter::of(state).read(&result)?;
            Ok(result)
        }
        _ => Err(type_error("Can only get item pairs from a mapping.".to_owned())),
    }
}

/// `join(value, d="", attribute=None)`
fn join(
    state: &mut State<'_, '_>,
    value: &Value,
    arguments: Rest<ValueOrKwargs>,
) -> Result<Value, Error> {
    let arguments = arguments.into_values();
    let (separator, attribute, named): (Option<Value>, Option<&str>, Kwargs) =
        from_args(&arguments)?;
    let separator = match separator {
        Some(separator) => Some(separator),
        None => named.get::<Option<Value>>("d")?,
    };
    let attribute = match attribute {
        Some(attribute) => Some(attribute),
        None => named.get::<Option<&str>>("attribute")?,
    };
    named.assert_all_used()?;
    Meter::of(state).visit(python::size(value))?;
    let mut parts = python::items(value)?;
    if let Some(path) = attribute {
        parts = parts.iter().map(|part| part.get_attr(path)).collect::<Result<_, _>>()?;
    }
    let separator = separator.map(|separator| text(&separator)).unwrap_or_default();
    joined(state, &separator, &parts)
}

/// The parts as text, with a separator between them.
pub(super) fn joined(
    state: &mut State<'_, '_>,
    separator: &str,
    parts: &[Value],
) -> Result<Value, Error> {
    let meter = Meter::of(state);
    let mut bytes = separator.len().saturating_mul(parts.len().saturating_sub(1));
    for part in parts {
        bytes = bytes.saturating_add(meter.read(part)?);
    }
    meter.make_text(bytes)?;
    let mut target = String::with_capacity(bytes);
    for (index, part) in parts.iter().enumerate() {
        target.push_str(if index == 0 { "" } else { separator });
        python::write_text(&mut target, part);
    }
    meter.make_text(target.len().saturating_sub(bytes))?;
    Ok(Value::from(target))
}

fn replace(
    state: &mut State<'_, '_>,
    value: &Value,
    old: &Value,
    new: &Value,
    count: Option<usize>,
) -> Result<Value, Error> {
    let source = string(state, value)?;
    let made = methods::replaced(
        state,
        source.as_str().unwrap_or_default(),
        &text(old),
        &text(new),
        count,
    )?;
    Ok(like(&source, made))
}

/// `indent(s, width=4, first=False, blank=False)`
fn indent(
    state: &mut State<'_, '_>,
    value: &Value,
    arguments: Rest<ValueOrKwargs>,
) -> Result<Value, Error> {
    let arguments = arguments.into_values();
    let (width, first, blank, named): (Option<Value>, Option<bool>, Option<bool>, Kwargs) =
        from_args(&arguments)?;
    let width = match width {
        Some(width) => width,
        None => named.get::<Option<Value>>("width")?.unwrap_or_else(|| Value::from(4)),
    };
    let first = first
        .map_or_else(|| named.get::<Option<bool>>("first"), |given| Ok(Some(given)))?
        .unwrap_or_default();
    let blank = blank
        .map_or_else(|| named.get::<Option<bool>>("blank"), |given| Ok(Some(given)))?
        .unwrap_or_default();
    named.assert_all_used()?;
    let source = string(state, value)?;
    let lines = methods::lines(source.as_str().unwrap_or_default(), true);
    let width_bytes = width.as_str().map(str::len).or_else(|| width.as_usize());
    let width_bytes = width_bytes.ok_or_else(|| {
        Error::new(ErrorKind::InvalidOperation, "the width to indent by is no number")
    })?;
    let bytes = width_bytes.saturating_add(1).saturating_mul(lines.len());
    Meter::of(state).make_text(bytes.saturating_add(source.len().unwrap_or_default() * 4))?;
    let margin = width.as_str().map_or_else(|| " ".repeat(width_bytes), str::to_owned);
    let mut made = String::new();
    for (index, line) in lines.iter().enumerate() {
        made.push_str(if index == 0 { "" } else { "\n" });
        if if index == 0 { first } else { blank || !line.is_empty() } {
            made.push_str(&margin);
        }
        made.push_str(line);
    }
    Ok(like(&source, made))
}
