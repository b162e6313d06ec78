//! What a template can call and test: `range`, `namespace`, `dict`, `raise_exception`,
//! `strftime_now`, and Jinja's tests.

use minijinja::functions as theirs;
use minijinja::tests;
use minijinja::value::{DynObject, Kwargs, Rest, ValueKind, ValueOrKwargs};
use minijinja::{Environment, Error, ErrorKind, State, Value};

use super::clock::Clock;
use super::meter::Meter;
use super::operators::{contains, equal};
use super::python::{is_iterable, text, type_error};

/// What a template said with `raise_exception`.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct Raised(pub(super) String);

/// Puts the functions into an environment.
pub(super) fn register(environment: &mut Environment<'_>, now: Clock) {
    environment.add_function("raise_exception", |message: &Value| -> Result<Value, Error> {
        let message = text(message);
        let error = Error::new(ErrorKind::InvalidOperation, message.clone());
        Err(error.with_source(Raised(message)))
    });
    environment.add_function("strftime_now", move |state: &mut State<'_, '_>, format: &str| {
        // The longest directive, %c, makes 24 bytes of two.
        Meter::of(state).make_text(format.len().saturating_mul(16))?;
        now.format(format).map_err(type_error)
    });
    environment.add_function("range", theirs::range);
    let mut read_first = |name: &'static str, function: Value| {
        environment.add_function(
            name,
            move |state: &mut State<'_, '_>, arguments: Rest<ValueOrKwargs>| {
                let arguments = arguments.into_values();
                for argument in &arguments {
                    Meter::of(state).read(argument)?;
                }
                function.call(state, &arguments)
            },
        );
    };
    read_first("dict", Value::from_function(theirs::dict));
    read_first("namespace", Value::from_function(theirs::namespace));
    environment.add_function("joiner", |separator: Option<String>, named: Kwargs| {
        let separator = separator.or(named.get("sep")?).unwrap_or_else(|| ", ".to_owned());
        named.assert_all_used()?;
        let used = std::sync::atomic::AtomicBool::new(false);
        Ok::<_, Error>(Value::from_function(move || {
            if used.swap(true, std::sync::atomic::Ordering::Relaxed) {
                separator.clone()
            } else {
                String::new()
            }
        }))
    });
}

/// Puts the tests (`is …`) into an environment.
pub(super) fn register_tests(environment: &mut Environment<'_>) {
    environment.add_test("defined", tests::is_defined);
    environment.add_test("undefined", tests::is_undefined);
    environment.add_test("none", tests::is_none);
    environment.add_test("boolean", tests::is_boolean);
    environment.add_test("true", tests::is_true);
    environment.add_test("false", tests::is_false);
    environment.add_test("number", tests::is_number);
    environment.add_test("integer", tests::is_integer);
    environment.add_test("float", tests::is_float);
    environment.add_test("odd", tests::is_odd);
    environment.add_test("even", tests::is_even);
    environment.add_test("divisibleby", divisible_by);
    environment.add_test("string", tests::is_string);
    environment.add_test("mapping", tests::is_mapping);
    environment.add_test("sequence", |value: &Value| {
        matches!(
            value.kind(),
            ValueKind::Undefined | ValueKind::String | ValueKind::Seq | ValueKind::Map
        )
    });
    environment.add_test("iterable", is_iterable);
    environment.add_test("callable", |value: &Value| {
        let name = value.as_object().map(DynObject::type_name).unwrap_or_default();
        name.ends_with("BoxedFunction") || name.ends_with("Macro")
    });
    environment.add_test("lower", |state: &mut State<'_, '_>, value: &Value| {
        Meter::of(state).look(value).map(|()| tests::is_lower(value))
    });
    environment.add_test("upper", |state: &mut State<'_, '_>, value: &Value| {
        Meter::of(state).look(value).map(|()| tests::is_upper(value))
    });
    environment.add_test("sameas", tests::is_sameas);
    environment.add_test("escaped", tests::is_safe);
    environment.add_test("in", |state: &mut State<'_, '_>, item: &Value, container: &Value| {
        contains(state, container, item)
    });
    for name in ["eq", "equalto", "=="] {
        environment.add_test(name, equal);
    }
    for name in ["ne", "!="] {
        environment.add_test(name, |state: &mut State<'_, '_>, left: &Value, right: &Value| {
            equal(state, left, right).map(|equal| !equal)
        });
    }
    let mut compare = |names: [&'static str; 3], compare: fn(&Value, &Value) -> bool| {
        for name in names {
            environment.add_test(
                name,
                move |state: &mut State<'_, '_>, left: &Value, right: &Value| {
                    equal(state, left, right).map(|_| compare(left, right))
                },
            );
        }
    };
    compare(["lt", "lessthan", "<"], |left, right| left < right);
    compare(["le", "lessthanorequal", "<="], |left, right| left <= right);
    compare(["gt", "greaterthan", ">"], |left, right| left > right);
    compare(["ge", "greaterthanorequal", ">="], |left, right| left >= right);
}

/// minijinja's own divides by zero.
fn divisible_by(value: i64, divisor: i64) -> Result<bool, Error> {
    match value.checked_rem_euclid(divisor) {
        Some(remainder) => Ok(remainder == 0),
        None => Err(type_error("division by zero".to_owned())),
    }
}
