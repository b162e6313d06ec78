//! JSON Schema to GBNF: every text of the grammar is valid for the schema.
//!
//! llama.cpp has such a converter; ours takes its place because that one leaves keywords out without
//! a word (`not`, `if`, `uniqueItems`, `multipleOf`, `oneOf`'s "just one", patterns that it cannot
//! read …), so that a reply would look constrained and not be. Here a keyword is enforced, or known
//! to say nothing about validity, or an error with its place.
//!
//! The grammar may allow less than the schema, in ways that a writer of schemas means anyway:
//! properties come in the order of the schema, properties that are not named are left out unless
//! `additionalProperties` asks for them, a schema without `type` is of the type that its keywords
//! speak of, numbers with a bound on one side stay below 10^15.

mod array;
mod error;
mod merge;
mod number;
mod object;
mod pattern;
mod string;

use std::collections::HashMap;
use std::fmt::Write as _;

use serde_json::{Map, Value};

pub use error::SchemaError;

/// Bytes of a schema.
pub const SCHEMA_BYTES_MAX: usize = 1 << 20;

/// How deep subschemas may be nested.
const DEPTH_MAX: usize = 100;

/// Subschemas that may be looked at: a few references can name each other again and again.
const VISITS_MAX: usize = 100_000;

/// Bytes of the grammar that a schema may become.
const OUTPUT_BYTES_MAX: usize = super::GRAMMAR_BYTES_MAX;

/// What no text fulfils: a reference that turns out to be impossible stays so.
const NEVER: &str = "[]";

/// Keywords that say nothing about what is valid.
const ANNOTATIONS: &[&str] = &[
    "$schema",
    "$id",
    "id",
    "$comment",
    "$defs",
    "definitions",
    "title",
    "description",
    "default",
    "example",
    "examples",
    "deprecated",
    "readOnly",
    "writeOnly",
    "contentEncoding",
    "contentMediaType",
    "discriminator",
];

/// Keywords of each type; any other is refused by name.
const TYPED: &[(&str, &[&str])] = &[
    ("object", &["properties", "required", "additionalProperties", "unevaluatedProperties"]),
    ("array", &["items", "prefixItems", "additionalItems", "minItems", "maxItems"]),
    ("string", &["minLength", "maxLength", "pattern", "format"]),
    ("number", &["minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"]),
];

/// Keywords that choose or combine.
const GENERAL: &[&str] = &["type", "enum", "const", "anyOf", "oneOf", "allOf", "$ref"];

/// Rules that every grammar of a schema may use.
pub const COMMON: &str = r#"ws ::= | " " | "\n" [ \t]{0,20}
hex ::= [0-9a-fA-F]
char ::= [^"\\\x00-\x1F\x7F] | "\\" (["\\/bfnrt] | "u" ([0-9a-cA-Ce-fE-F] hex{3} | [dD] [0-7] hex{2}))
string ::= "\"" char* "\""
digits ::= [0] | [1-9] [0-9]{0,14}
integer ::= "-"? digits
number ::= "-"? digits ("." [0-9]{1,16})? ([eE] [-+]? [0-9]{1,2})?
value ::= object | array | string | number | "true" | "false" | "null"
object ::= "{" ws (member ("," ws member)*)? "}"
member ::= string ":" ws value ws
array ::= "[" ws (value ws ("," ws value ws)*)? "]"
"#;

/// The grammar of any JSON object.
pub fn any_object() -> String {
    format!("root ::= object\n{COMMON}")
}

/// The grammar of a schema.
pub fn to_gbnf(source: &str) -> Result<String, SchemaError> {
    Ok(format!("{}{COMMON}", rules(source, "root", "")?))
}

/// The rule `name` of a schema for a grammar that has [`COMMON`] too, and those rules that it needs, whose names begin with
/// `prefix`.
pub fn rules(source: &str, name: &str, prefix: &str) -> Result<String, SchemaError> {
    if source.len() > SCHEMA_BYTES_MAX {
        return Err(SchemaError::TooLarge);
    }
    let root: Value =
        serde_json::from_str(source).map_err(|error| SchemaError::Json(error.to_string()))?;
    let mut compiler = Compiler {
        root: &root,
        prefix,
        rules: Vec::new(),
        bytes: 0,
        references: HashMap::new(),
        visits: 0,
    };
    let start = compiler.schema(&root, &Place::default())?;
    let mut grammar = format!("{name} ::= {start}\n");
    for (number, rule) in compiler.rules.iter().enumerate() {
        let _ = writeln!(grammar, "{prefix}r{number} ::= {rule}");
    }
    Ok(grammar)
}

/// Where in a schema something stands.
#[derive(Debug, Clone, Default)]
struct Place {
    pointer: String,
    depth: usize,
}

impl Place {
    fn at(&self, name: &str) -> Self {
        Self { pointer: format!("{}/{name}", self.pointer), depth: self.depth + 1 }
    }

    fn invalid(&self, problem: impl Into<String>) -> SchemaError {
        SchemaError::Invalid { place: self.shown(), problem: problem.into() }
    }

    fn impossible(&self, problem: impl Into<String>) -> SchemaError {
        SchemaError::Impossible { place: self.shown(), problem: problem.into() }
    }

    fn unsupported(&self, keyword: impl Into<String>) -> SchemaError {
        SchemaError::Unsupported { place: self.shown(), keyword: keyword.into() }
    }

    fn shown(&self) -> String {
        format!("#{}", self.pointer)
    }
}

struct Compiler<'a> {
    root: &'a Value,
    /// What the names of its rules begin with.
    prefix: &'a str,
    /// The bodies of rules `r0`, `r1`, …
    rules: Vec<String>,
    bytes: usize,
    /// The rules of references.
    references: HashMap<String, String>,
    visits: usize,
}

impl Compiler<'_> {
    /// An expression of the grammar that can stand among others: a name or something in
    /// parentheses.
    fn schema(&mut self, schema: &Value, place: &Place) -> Result<String, SchemaError> {
        self.visits += 1;
        if self.visits > VISITS_MAX || place.depth > DEPTH_MAX {
            return Err(SchemaError::TooLarge);
        }
        match schema {
            Value::Bool(true) => Ok("value".to_owned()),
            Value::Bool(false) => Err(place.impossible("false allows nothing")),
            Value::Object(schema) => self.keywords(schema, place),
            _ => Err(place.invalid("a schema is an object, true or false")),
        }
    }

    fn keywords(
        &mut self,
        schema: &Map<String, Value>,
        place: &Place,
    ) -> Result<String, SchemaError> {
        for keyword in schema.keys() {
            let known = ANNOTATIONS.contains(&keyword.as_str())
                || GENERAL.contains(&keyword.as_str())
                || keyword.starts_with("x-")
                || TYPED.iter().any(|(_, keywords)| keywords.contains(&keyword.as_str()))
                || harmless(keyword, &schema[keyword]);
            if !known || (keyword == "$id" && !place.pointer.is_empty()) {
                return Err(place.unsupported(keyword));
            }
        }
        let others = |keyword: &str| constraints(schema).filter(|other| *other != keyword).count();
        if let Some(reference) = schema.get("$ref") {
            if others("$ref") == 0 {
                return self.reference(reference, place);
            }
            return self.combined(schema, place);
        }
        if schema.contains_key("allOf") {
            return self.combined(schema, place);
        }
        for keyword in ["anyOf", "oneOf"] {
            if schema.contains_key(keyword) {
                return self.alternatives(schema, keyword, place);
            }
        }
        if schema.contains_key("enum") || schema.contains_key("const") {
            return self.listed(schema, place);
        }
        self.typed(schema, place)
    }

    fn rule(&mut self, body: String) -> Result<String, SchemaError> {
        self.bytes += body.len() + 16;
        if self.bytes > OUTPUT_BYTES_MAX {
            return Err(SchemaError::TooLarge);
        }
        self.rules.push(body);
        Ok(format!("{}r{}", self.prefix, self.rules.len() - 1))
    }

    fn reference(&mut self, reference: &Value, place: &Place) -> Result<String, SchemaError> {
        let (name, target) = self.target(reference, place)?;
        if let Some(rule) = self.references.get(&name) {
            return Ok(rule.clone());
        }
        // Named before it is made, because it may need itself.
        let rule = self.rule(NEVER.to_owned())?;
        self.references.insert(name.clone(), rule.clone());
        let number = self.rules.len() - 1;
        let inside =
            Place { pointer: name.trim_start_matches('#').to_owned(), depth: place.depth + 1 };
        let body = self.schema(&target, &inside)?;
        self.bytes += body.len();
        self.rules[number] = body;
        Ok(rule)
    }

    /// The schema that a reference names.
    fn target(&self, reference: &Value, place: &Place) -> Result<(String, Value), SchemaError> {
        let Some(name) = reference.as_str() else {
            return Err(place.invalid("$ref is no text"));
        };
        let Some(pointer) = name.strip_prefix('#').filter(|p| p.is_empty() || p.starts_with('/'))
        else {
            return Err(place.unsupported(format!("$ref {name:?} (only #/… within the schema)")));
        };
        let pointer = percent_decoded(pointer);
        match self.root.pointer(&pointer) {
            Some(target) => Ok((format!("#{pointer}"), target.clone())),
            None => Err(place.invalid(format!("$ref {name:?} leads nowhere"))),
        }
    }

    /// `anyOf` and `oneOf`, with what stands beside them.
    fn alternatives(
        &mut self,
        schema: &Map<String, Value>,
        keyword: &str,
        place: &Place,
    ) -> Result<String, SchemaError> {
        let branches = match schema.get(keyword) {
            Some(Value::Array(branches)) if !branches.is_empty() => branches,
            _ => return Err(place.invalid(format!("{keyword} is no list of schemas"))),
        };
        let mut rest = schema.clone();
        rest.remove(keyword);
        let has_rest = constraints(&rest).next().is_some();
        let mut whole = Vec::new();
        for (number, branch) in branches.iter().enumerate() {
            let inside = place.at(keyword).at(&number.to_string());
            whole.push(if has_rest {
                self.merged(&[Value::Object(rest.clone()), branch.clone()], &inside)?
            } else {
                branch.clone()
            });
        }
        if keyword == "oneOf" {
            self.check_exclusive(&whole, place)?;
        }
        let mut texts = Vec::new();
        for (number, branch) in whole.iter().enumerate() {
            let inside = place.at(keyword).at(&number.to_string());
            match self.schema(branch, &inside) {
                Ok(text) => texts.push(text),
                // A branch that nothing fits leaves the others.
                Err(SchemaError::Impossible { .. }) if branches.len() > 1 => {}
                Err(error) => return Err(error),
            }
        }
        if texts.is_empty() {
            return Err(place.impossible(format!("no branch of {keyword} allows anything")));
        }
        self.rule(texts.join(" | "))
    }

    /// `enum` and `const`.
    fn listed(
        &mut self,
        schema: &Map<String, Value>,
        place: &Place,
    ) -> Result<String, SchemaError> {
        if let Some(other) =
            constraints(schema).find(|keyword| !["enum", "const", "type"].contains(keyword))
        {
            return Err(place.unsupported(format!("{other} beside enum or const")));
        }
        let listed = match (schema.get("enum"), schema.get("const")) {
            (Some(Value::Array(listed)), None) => listed.clone(),
            (Some(Value::Array(listed)), Some(only)) => {
                listed.iter().filter(|value| *value == only).cloned().collect()
            }
            (None, Some(only)) => vec![only.clone()],
            _ => return Err(place.invalid("enum is no list")),
        };
        let types = types(schema, place)?;
        let texts: Vec<String> = listed
            .iter()
            .filter(|value| types.iter().any(|name| is_of_type(value, name)))
            .map(|value| literal(&value.to_string()))
            .collect();
        if texts.is_empty() {
            return Err(place.impossible("no value of enum or const fits"));
        }
        self.rule(texts.join(" | "))
    }

    fn typed(&mut self, schema: &Map<String, Value>, place: &Place) -> Result<String, SchemaError> {
        let types = types(schema, place)?;
        if let Some(plain) = number::without_width(schema, &types) {
            let merged = self.merged(&plain, place)?;
            return self.schema(
                &merged,
                &Place { pointer: place.pointer.clone(), depth: place.depth + 1 },
            );
        }
        let explicit = schema.contains_key("type");
        // Keywords of other types say nothing about these types, but somebody meant them.
        let implied: Vec<&str> = TYPED
            .iter()
            .filter(|(_, keywords)| keywords.iter().any(|keyword| schema.contains_key(*keyword)))
            .map(|(name, _)| *name)
            .collect();
        if !explicit && implied.is_empty() {
            return Ok("value".to_owned());
        }
        let wanted =
            if explicit { types } else { implied.iter().map(|n| (*n).to_owned()).collect() };
        for name in implied {
            let fits =
                |wanted: &String| wanted == name || (name == "number" && wanted == "integer");
            if !wanted.iter().any(fits) {
                let keywords =
                    TYPED.iter().find(|(other, _)| *other == name).map_or(&[][..], |t| t.1);
                let keyword = keywords.iter().find(|keyword| schema.contains_key(**keyword));
                let keyword = keyword.copied().unwrap_or(name);
                return Err(place.unsupported(format!("{keyword} in a schema of another type")));
            }
        }
        let mut texts = Vec::new();
        let mut impossible = None;
        for name in &wanted {
            let text = match name.as_str() {
                "object" => self.object(schema, place),
                "array" => self.array(schema, place),
                "string" => self.string(schema, place),
                "integer" => self.number(schema, true, place),
                "number" => self.number(schema, false, place),
                "boolean" => Ok("(\"true\" | \"false\")".to_owned()),
                _ => Ok("\"null\"".to_owned()),
            };
            match text {
                Ok(text) => texts.push(text),
                Err(error @ SchemaError::Impossible { .. }) => impossible = Some(error),
                Err(error) => return Err(error),
            }
        }
        match (texts.as_slice(), impossible) {
            ([only], _) => Ok(only.clone()),
            ([], Some(error)) => Err(error),
            ([], None) => Err(place.impossible("type allows nothing")),
            _ => self.rule(texts.join(" | ")),
        }
    }
}

/// The keywords of a schema that say what is valid.
fn constraints(schema: &Map<String, Value>) -> impl Iterator<Item = &str> {
    schema
        .iter()
        .filter(|(keyword, value)| {
            !ANNOTATIONS.contains(&keyword.as_str())
                && !keyword.starts_with("x-")
                && !harmless(keyword, value)
        })
        .map(|(keyword, _)| keyword.as_str())
}

/// Keywords that are not enforced but exclude nothing with this value.
fn harmless(keyword: &str, value: &Value) -> bool {
    match keyword {
        "uniqueItems" | "nullable" => value == &Value::Bool(false),
        "minProperties" | "minContains" => value.as_u64() == Some(0),
        "patternProperties" | "dependentRequired" | "dependentSchemas" => {
            value.as_object().is_some_and(Map::is_empty)
        }
        "propertyNames" => value == &Value::Bool(true) || value == &Value::Object(Map::new()),
        _ => false,
    }
}

/// The types that a schema names; all when it names none.
fn types(schema: &Map<String, Value>, place: &Place) -> Result<Vec<String>, SchemaError> {
    const ALL: [&str; 7] = ["object", "array", "string", "number", "integer", "boolean", "null"];
    let named: Vec<&Value> = match schema.get("type") {
        None => return Ok(ALL.map(str::to_owned).to_vec()),
        Some(Value::Array(named)) => named.iter().collect(),
        Some(name) => vec![name],
    };
    let mut found = Vec::new();
    for name in named {
        match name.as_str().filter(|name| ALL.contains(name)) {
            Some(name) => found.push(name.to_owned()),
            None => return Err(place.invalid(format!("type {name} does not exist"))),
        }
    }
    // Every integer is a number.
    if found.iter().any(|name| name == "number") {
        found.retain(|name| name != "integer");
    }
    if found.is_empty() {
        return Err(place.impossible("type is an empty list"));
    }
    Ok(found)
}

fn is_of_type(value: &Value, name: &str) -> bool {
    match value {
        Value::Null => name == "null",
        Value::Bool(_) => name == "boolean",
        Value::String(_) => name == "string",
        Value::Array(_) => name == "array",
        Value::Object(_) => name == "object",
        Value::Number(number) => {
            name == "number"
                || (name == "integer"
                    && (number.is_i64()
                        || number.is_u64()
                        || number.as_f64().is_some_and(|number| number.fract() == 0.0)))
        }
    }
}

/// A text as GBNF spells it.
pub fn literal(text: &str) -> String {
    let mut literal = String::from("\"");
    for letter in text.chars() {
        match letter {
            '"' => literal.push_str("\\\""),
            '\\' => literal.push_str("\\\\"),
            '\n' => literal.push_str("\\n"),
            '\r' => literal.push_str("\\r"),
            '\t' => literal.push_str("\\t"),
            control if control.is_control() => {
                let _ = write!(literal, "\\u{:04X}", u32::from(control));
            }
            letter => literal.push(letter),
        }
    }
    literal.push('"');
    literal
}

/// A count of a schema: a whole number from 0.
fn count(
    schema: &Map<String, Value>,
    keyword: &str,
    place: &Place,
) -> Result<Option<u64>, SchemaError> {
    let Some(value) = schema.get(keyword) else { return Ok(None) };
    let whole = |number: f64| (number >= 0.0 && number.fract() == 0.0).then_some(number as u64);
    match value.as_u64().or_else(|| value.as_f64().and_then(whole)) {
        Some(count) => Ok(Some(count)),
        None => Err(place.invalid(format!("{keyword} is no count: {value}"))),
    }
}

/// A pointer in a reference, which is part of a URI.
fn percent_decoded(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut place = 0;
    while place < bytes.len() {
        let digits = text.get(place + 1..place + 3).filter(|_| bytes[place] == b'%');
        if let Some(byte) = digits.and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            decoded.push(byte);
            place += 3;
        } else {
            decoded.push(bytes[place]);
            place += 1;
        }
    }
    String::from_utf8_lossy(&decoded).into_owned()
}

#[cfg(test)]
mod tests;
#[cfg(test)]
pub(crate) use tests::examples;
