//! Grammars of arguments that are not written as JSON.
//!
//! JSON is the engine's affair; here only what stands around it differs: names without quotes, texts between tags. A
//! schema that says more about its arguments than their names, or of a text within them what these notations cannot
//! tell, is refused.

use serde_json::{Map, Value, json};

use super::grammar::Writer;
use super::value::is_plain_text;
use super::{Notation, Tags};
use crate::chat::tools::Tool;
use crate::engine::grammar::SchemaError;
use crate::engine::grammar::schema::literal;

/// How deep schemas may be nested.
const DEPTH_MAX: usize = 32;

/// The schema of a tool's arguments: an object, whatever it says.
pub(super) fn parameters(tool: &Tool) -> Value {
    match &tool.parameters {
        Value::Object(schema) if !schema.is_empty() => {
            let mut schema = schema.clone();
            schema.entry("type").or_insert_with(|| json!("object"));
            Value::Object(schema)
        }
        _ => json!({"type": "object"}),
    }
}

/// An argument by its name: its schema and whether it has to be there.
struct Member<'s> {
    name: &'s str,
    schema: Value,
    is_required: bool,
}

/// The arguments of a schema in a notation.
pub(super) fn arguments(
    writer: &mut Writer<'_>,
    notation: Notation,
    schema: &Value,
) -> Result<String, SchemaError> {
    let members = members(schema, schema, "#")?;
    match notation {
        Notation::Json => writer.schema(&schema.to_string()),
        Notation::Python => {
            let value = |writer: &mut Writer<'_>, member: &Member<'_>| {
                let value = python_value(writer, &member.schema)?;
                Ok(format!("{} {value}", literal(&format!("{}=", member.name))))
            };
            listed(writer, &members, "\",\" \" \"?", &value)
        }
        Notation::Bare(mark) => bare_members(writer, mark, &members, schema, 0),
        Notation::Tags(tags) => {
            let mut texts = Vec::new();
            for member in &members {
                let text = tagged(writer, tags, member)?;
                texts.push(if member.is_required { text } else { format!("({text})?") });
            }
            Ok(writer.rule(&or_nothing(&texts.join(" "))))
        }
        Notation::Nested(mark) => nested_members(writer, mark, &members, schema, 0),
    }
}

fn or_nothing(text: &str) -> String {
    if text.is_empty() { "\"\"".to_owned() } else { text.to_owned() }
}

/// What an object's schema says about its members; an error for what only JSON can have enforced.
fn members<'s>(
    schema: &'s Value,
    root: &Value,
    place: &str,
) -> Result<Vec<Member<'s>>, SchemaError> {
    const KNOWN: [&str; 12] = [
        "type",
        "properties",
        "required",
        "additionalProperties",
        "description",
        "title",
        "$defs",
        "definitions",
        "$schema",
        "default",
        "examples",
        "strict",
    ];
    let refused = |keyword: &str| SchemaError::Unsupported {
        place: place.to_owned(),
        keyword: format!("{keyword} in this model's notation of calls"),
    };
    let Some(object) = schema.as_object() else {
        return Err(refused("a schema that is no object"));
    };
    if let Some(keyword) = object.keys().find(|keyword| !KNOWN.contains(&keyword.as_str())) {
        return Err(refused(keyword));
    }
    let properties = object.get("properties").and_then(Value::as_object);
    let required: Vec<&str> = object
        .get("required")
        .and_then(Value::as_array)
        .map(|names| names.iter().filter_map(Value::as_str).collect())
        .unwrap_or_default();
    if let Some(name) =
        required.iter().find(|name| !properties.is_some_and(|all| all.contains_key(**name)))
    {
        return Err(refused(&format!("required {name}, which has no schema,")));
    }
    Ok(properties
        .into_iter()
        .flatten()
        .map(|(name, schema)| Member {
            name,
            schema: with_definitions(schema, root),
            is_required: required.contains(&name.as_str()),
        })
        .collect())
}

/// A part of a schema with the definitions of the whole, to which it may refer.
fn with_definitions(part: &Value, root: &Value) -> Value {
    let mut part = part.clone();
    if let (Some(part), Some(root)) = (part.as_object_mut(), root.as_object()) {
        for name in ["$defs", "definitions"] {
            if let Some(definitions) = root.get(name) {
                part.entry(name).or_insert_with(|| definitions.clone());
            }
        }
    }
    part
}

type WriteMember<'f> = dyn Fn(&mut Writer<'_>, &Member<'_>) -> Result<String, SchemaError> + 'f;

/// Members in order with something between them; those that are not required may be missing. Built from the end:
/// `rest` when something stands before, `first` when nothing does.
fn listed(
    writer: &mut Writer<'_>,
    members: &[Member<'_>],
    between: &str,
    write: &WriteMember<'_>,
) -> Result<String, SchemaError> {
    let (mut rest, mut first) = ("\"\"".to_owned(), "\"\"".to_owned());
    for member in members.iter().rev() {
        let text = write(writer, member)?;
        let text = writer.rule(&text);
        let begins = format!("{text} {rest}");
        first = if member.is_required {
            writer.rule(&begins)
        } else {
            writer.rule(&format!("{begins} | {first}"))
        };
        let times = if member.is_required { "" } else { "?" };
        rest = writer.rule(&format!("({between} {text}){times} {rest}"));
    }
    Ok(first)
}

/// A value of Python's: texts stand in quotes of either kind.
fn python_value(writer: &mut Writer<'_>, schema: &Value) -> Result<String, SchemaError> {
    let value = writer.python(&schema.to_string())?;
    let is_bounded = schema.get("minLength").is_some() || schema.get("maxLength").is_some();
    if !is_plain_text(schema) || is_bounded {
        return Ok(value);
    }
    let simple = |text: &&&str| !text.contains(['\'', '\\', '\n']);
    let quoted = match listed_texts(schema) {
        Some(texts) => {
            let texts = texts.iter().filter(simple).map(|text| literal(&format!("'{text}'")));
            texts.collect::<Vec<_>>().join(" | ")
        }
        None => r#""'" ([^'\\\x00-\x1F\x7F] | "\\" ['"\\nt])* "'""#.to_owned(),
    };
    Ok(if quoted.is_empty() { value } else { format!("({value} | {quoted})") })
}

/// The texts that a schema lists, if it does.
fn listed_texts(schema: &Value) -> Option<Vec<&str>> {
    let listed = schema.get("enum")?.as_array()?;
    listed.iter().map(Value::as_str).collect()
}

/// A text without quotes, up to and with `end`.
fn plain_text(writer: &mut Writer<'_>, schema: &Value, end: &str) -> String {
    let close = writer.text(end);
    if let Some(texts) = listed_texts(schema) {
        let texts: Vec<String> = texts.iter().map(|text| literal(text)).collect();
        return format!("({}) {close}", texts.join(" | "));
    }
    let count = |name: &str| schema.get(name).and_then(Value::as_u64);
    let (least, most) = (count("minLength").unwrap_or(0), count("maxLength"));
    if least == 0 && most.is_none() {
        return writer.until(end);
    }
    // Without the first letter of what ends it: that is less than the schema allows, and what it allows.
    let first = end.chars().next().unwrap_or('<');
    let most = most.map_or(String::new(), |most| most.to_string());
    let class = format!("[^\\U{:08X}]", u32::from(first));
    format!("{class}{{{least},{most}}} {close}")
}

fn tagged(
    writer: &mut Writer<'_>,
    tags: &Tags,
    member: &Member<'_>,
) -> Result<String, SchemaError> {
    let between = |writer: &Writer<'_>, tag: &str| {
        tag.split('\n').map(|part| writer.text(part)).collect::<Vec<_>>().join(" \"\\n\"? ")
    };
    let open = format!("[ \\n]{{0,2}} {} {}", writer.text(tags.open), literal(member.name));
    if is_plain_text(&member.schema) {
        let middle = between(writer, tags.text);
        // A line end belongs to the tags, on either side.
        let pad = if tags.text == ">" { "\"\\n\"?" } else { "" };
        let end = plain_text(writer, &member.schema, tags.close);
        return Ok(format!("{open} {middle} {pad} {end}"));
    }
    let value = writer.schema(&member.schema.to_string())?;
    let (middle, close) = (between(writer, tags.json), writer.text(tags.close));
    Ok(format!("{open} {middle} \"\\n\"? {value} \"\\n\"? {close}"))
}

/// Whether a schema speaks of no text anywhere, so that its JSON is the same in these notations.
fn is_textless(schema: &Value) -> bool {
    let is_one = |name: &str| matches!(name, "integer" | "number" | "boolean" | "null");
    match schema.get("type") {
        Some(Value::String(name)) => is_one(name),
        Some(Value::Array(names)) => names.iter().all(|name| name.as_str().is_some_and(is_one)),
        _ => false,
    }
}

fn refused(schema: &Value) -> SchemaError {
    let shown: String = schema.to_string().chars().take(80).collect();
    SchemaError::Unsupported {
        place: "#".to_owned(),
        keyword: format!("{shown} in this model's notation of calls"),
    }
}

fn bare_members(
    writer: &mut Writer<'_>,
    mark: &'static str,
    members: &[Member<'_>],
    root: &Value,
    depth: usize,
) -> Result<String, SchemaError> {
    let value = |writer: &mut Writer<'_>, member: &Member<'_>| {
        let value = bare_value(writer, mark, &member.schema, root, depth + 1)?;
        Ok(format!("{} {value}", literal(&format!("{}:", member.name))))
    };
    listed(writer, members, "\",\"", &value)
}

fn bare_value(
    writer: &mut Writer<'_>,
    mark: &'static str,
    schema: &Value,
    root: &Value,
    depth: usize,
) -> Result<String, SchemaError> {
    if depth > DEPTH_MAX {
        return Err(SchemaError::TooLarge);
    }
    if is_plain_text(schema) {
        let open = writer.text(mark);
        let text = plain_text(writer, schema, mark);
        return Ok(format!("{open} {text}"));
    }
    if is_textless(schema) {
        return writer.schema(&schema.to_string());
    }
    match schema.get("type").and_then(Value::as_str) {
        Some("object") => {
            let members = members(schema, root, "#")?;
            let inside = bare_members(writer, mark, &members, root, depth)?;
            Ok(format!("\"{{\" {inside} \"}}\""))
        }
        Some("array") => {
            let items = items_of(schema)?;
            let item = bare_value(writer, mark, items, root, depth + 1)?;
            let item = writer.rule(&item);
            Ok(format!("\"[\" ({item} (\",\" {item})*)? \"]\""))
        }
        _ => Err(refused(schema)),
    }
}

/// The schema of a list's items, when nothing else is said about the list.
fn items_of(schema: &Value) -> Result<&Value, SchemaError> {
    const KNOWN: [&str; 7] =
        ["type", "items", "description", "title", "default", "$defs", "definitions"];
    let is_known = |object: &Map<String, Value>| object.keys().all(|key| KNOWN.contains(&&**key));
    let items =
        schema.as_object().filter(|object| is_known(object)).and_then(|_| schema.get("items"));
    items.ok_or_else(|| refused(schema))
}

fn nested_members(
    writer: &mut Writer<'_>,
    mark: &'static str,
    members: &[Member<'_>],
    root: &Value,
    depth: usize,
) -> Result<String, SchemaError> {
    let mut texts = Vec::new();
    for member in members {
        let text = nested_element(writer, (mark, member.name), &member.schema, root, depth)?;
        texts.push(if member.is_required { text } else { format!("({text})?") });
    }
    Ok(writer.rule(&or_nothing(&texts.join(" "))))
}

fn nested_element(
    writer: &mut Writer<'_>,
    (mark, name): (&'static str, &str),
    schema: &Value,
    root: &Value,
    depth: usize,
) -> Result<String, SchemaError> {
    if depth > DEPTH_MAX {
        return Err(SchemaError::TooLarge);
    }
    let open = writer.text(&format!("{mark}<{name}>"));
    let end = format!("{mark}</{name}>");
    let close = writer.text(&end);
    if is_plain_text(schema) {
        let text = plain_text(writer, schema, &end);
        return Ok(format!("{open} {text}"));
    }
    if is_textless(schema) {
        let value = writer.schema(&schema.to_string())?;
        return Ok(format!("{open} {value} {close}"));
    }
    match schema.get("type").and_then(Value::as_str) {
        Some("object") => {
            let members = members(schema, root, "#")?;
            let inside = nested_members(writer, mark, &members, root, depth + 1)?;
            Ok(format!("{open} {inside} {close}"))
        }
        Some("array") => {
            let item = nested_element(writer, (mark, "item"), items_of(schema)?, root, depth + 1)?;
            let item = writer.rule(&item);
            Ok(format!("{open} {item}* {close}"))
        }
        _ => Err(refused(schema)),
    }
}
