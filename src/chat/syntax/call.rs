//! Reading one call by the description of its notation.

use serde_json::{Map, Value};

use super::cursor::{Cursor, Read, Stop};
use super::{ObjectId, Part, value};
use crate::chat::tools::Tool;

/// A call as it was written.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Written {
    /// The model's own identifier, when it is one that results refer to.
    pub(super) id: Option<String>,
    /// The tool's name.
    pub(super) name: String,
    /// The arguments.
    pub(super) arguments: Map<String, Value>,
}

/// What is known of a call that is being read.
#[derive(Debug, Clone, Default)]
struct Found<'t> {
    tool: Option<&'t Tool>,
    id_from: Option<usize>,
    id: Option<String>,
    arguments: Option<Map<String, Value>>,
}

/// Parts that follow others.
struct Rest<'p> {
    parts: &'p [Part],
    then: Option<&'p Rest<'p>>,
}

/// Reads a call that is written in one of these ways, of a tool on offer, behind other parts and white space.
pub(super) fn read(
    cursor: &mut Cursor<'_>,
    before: &[Part],
    ways: &[&[Part]],
    tools: &[Tool],
) -> Read<Written> {
    for way in ways {
        let way = Rest { parts: way, then: None };
        let rest = Rest { parts: &[Part::Space], then: Some(&way) };
        match go(*cursor, before, Some(&rest), tools, Found::default()) {
            Ok((found, place)) => {
                cursor.place = place;
                let tool = found.tool.ok_or(Stop::Wrong)?;
                let arguments = found.arguments.unwrap_or_default();
                return Ok(Written { id: found.id, name: tool.name.clone(), arguments });
            }
            Err(Stop::More) => return Err(Stop::More),
            Err(Stop::Wrong) => {}
        }
    }
    Err(Stop::Wrong)
}

/// Goes over parts that name no tool.
pub(super) fn skip(cursor: &mut Cursor<'_>, parts: &[Part]) -> Read<()> {
    let (_, place) = go(*cursor, parts, None, &[], Found::default())?;
    cursor.place = place;
    Ok(())
}

fn go<'t>(
    mut cursor: Cursor<'_>,
    parts: &[Part],
    then: Option<&Rest<'_>>,
    tools: &'t [Tool],
    mut found: Found<'t>,
) -> Read<(Found<'t>, usize)> {
    let Some((part, parts)) = parts.split_first() else {
        return match then {
            Some(rest) => go(cursor, rest.parts, rest.then, tools, found),
            None => Ok((found, cursor.place)),
        };
    };
    match part {
        Part::Is(text) | Part::From(text) => cursor.is(text)?,
        Part::Space => cursor.space(),
        Part::Maybe(inside) => {
            let rest = Rest { parts, then };
            match go(cursor, inside, Some(&rest), tools, found.clone()) {
                Err(Stop::Wrong) => {}
                other => return other,
            }
        }
        Part::Name => return named(cursor, parts, then, tools, &found),
        Part::IdBegins => found.id_from = Some(cursor.place),
        Part::IdEnds => {
            found.id = found.id_from.map(|from| cursor.text[from..cursor.place].to_owned());
        }
        Part::Word(most) => {
            let fits = |next: char| next.is_ascii_alphanumeric() || next == '-' || next == '_';
            cursor.run(*most as usize, fits)?;
        }
        Part::Count => {
            cursor.run(9, |next| next.is_ascii_digit())?;
        }
        Part::Arguments(notation) => {
            let schema = found.tool.map_or(&Value::Null, |tool| &tool.parameters);
            found.arguments = Some(value::arguments(&mut cursor, *notation, schema)?);
        }
        Part::Object { name, arguments, id } => {
            let object = value::json_object(&mut cursor)?;
            take_object(&object, (name, arguments, *id), tools, &mut found)?;
        }
        Part::Keyed => {
            let object = value::json_object(&mut cursor)?;
            let Some((name, arguments)) = object.iter().next().filter(|_| object.len() == 1) else {
                return Err(Stop::Wrong);
            };
            found.tool = tools.iter().find(|tool| tool.name == *name);
            found.arguments = Some(object_of(Some(arguments))?);
        }
    }
    go(cursor, parts, then, tools, found)
}

/// Tries the tools on offer, the longest names first, so that a name that begins another is not taken for it.
fn named<'t>(
    cursor: Cursor<'_>,
    parts: &[Part],
    then: Option<&Rest<'_>>,
    tools: &'t [Tool],
    found: &Found<'t>,
) -> Read<(Found<'t>, usize)> {
    let mut order: Vec<&Tool> = tools.iter().collect();
    order.sort_by_key(|tool| std::cmp::Reverse(tool.name.len()));
    for tool in order {
        let mut ahead = cursor;
        let attempt = ahead.is(&tool.name).and_then(|()| {
            go(ahead, parts, then, tools, Found { tool: Some(tool), ..found.clone() })
        });
        match attempt {
            Err(Stop::Wrong) => {}
            other => return other,
        }
    }
    Err(Stop::Wrong)
}

fn take_object<'t>(
    object: &Map<String, Value>,
    (name, arguments, id): (&str, &str, Option<ObjectId>),
    tools: &'t [Tool],
    found: &mut Found<'t>,
) -> Read<()> {
    let name = object.get(name).and_then(Value::as_str).ok_or(Stop::Wrong)?;
    found.tool = tools.iter().find(|tool| tool.name == name);
    if found.tool.is_none() {
        return Err(Stop::Wrong);
    }
    found.arguments = Some(object_of(object.get(arguments))?);
    found.id = id
        .filter(|id| id.is_kept)
        .and_then(|id| object.get(id.name)?.as_str())
        .filter(|id| !id.is_empty())
        .map(str::to_owned);
    Ok(())
}

/// Arguments in a JSON object: an object, or one as a text; none is an empty one.
fn object_of(value: Option<&Value>) -> Read<Map<String, Value>> {
    match value {
        None | Some(Value::Null) => Ok(Map::new()),
        Some(Value::Object(object)) => Ok(object.clone()),
        Some(Value::String(text)) => serde_json::from_str(text).map_err(|_| Stop::Wrong),
        Some(_) => Err(Stop::Wrong),
    }
}
