//! Schemas that are enforced, schemas that are refused, and what their grammars allow.

use super::{SchemaError, to_gbnf};

/// Schemas of all that is enforced; the engine's tests hold replies under each against a validator.
pub(crate) fn examples() -> &'static [&'static str] {
    &[
        r#"{"type": "string", "maxLength": 12}"#,
        r#"{"type": "string", "minLength": 3, "maxLength": 5}"#,
        r#"{"type": "integer"}"#,
        r#"{"type": "number"}"#,
        r#"{"type": "integer", "minimum": 5, "maximum": 137}"#,
        r#"{"type": "integer", "minimum": -42, "exclusiveMaximum": 9}"#,
        r#"{"type": "integer", "exclusiveMinimum": 99}"#,
        r#"{"type": "integer", "maximum": -100}"#,
        r#"{"type": "integer", "minimum": 0, "maximum": 0}"#,
        r#"{"type": "integer", "minimum": 1234567, "maximum": 1234599}"#,
        r#"{"type": "number", "minimum": 0, "maximum": 1}"#,
        r#"{"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1}"#,
        r#"{"type": "number", "minimum": -273.15, "maximum": 99.5}"#,
        r#"{"type": "number", "exclusiveMinimum": 0.25, "maximum": 0.3}"#,
        r#"{"type": "number", "exclusiveMaximum": -1e2}"#,
        r#"{"type": "number", "minimum": 1.5}"#,
        r#"{"type": "integer", "format": "int32"}"#,
        r#"{"type": ["boolean", "null"]}"#,
        r#"{"enum": ["red", "green", 7, null, {"a": [1]}, "q\"\\\n"]}"#,
        r#"{"const": "only this"}"#,
        r#"{"type": "string", "enum": ["a", 1, "b"]}"#,
        r#"{"type": "object", "properties": {"name": {"type": "string", "maxLength": 8}, "age": {"type": "integer", "minimum": 0, "maximum": 150}}, "required": ["name", "age"], "additionalProperties": false}"#,
        r#"{"type": "object", "properties": {"a": {"type": "null"}, "b": {"type": "boolean"}, "c": {"type": "integer", "minimum": 1, "maximum": 3}}, "required": ["b"]}"#,
        r#"{"type": "object", "properties": {"a": {"const": 1}, "b": {"const": 2}}, "additionalProperties": {"type": "boolean"}}"#,
        r#"{"type": "object", "properties": {"an": {"const": 1}, "and": {"const": 2}, "": {"const": 3}, "né": {"const": 4}, "q\"uote": {"const": 5}}, "additionalProperties": {"type": "null"}, "required": ["né"]}"#,
        r#"{"type": "object", "additionalProperties": {"enum": [1, 2]}}"#,
        r#"{"type": "object", "required": ["x"], "additionalProperties": {"type": "boolean"}}"#,
        r#"{"type": "object", "properties": {}, "additionalProperties": false}"#,
        r#"{"type": "array", "items": {"type": "integer", "minimum": 0, "maximum": 9}, "minItems": 2, "maxItems": 4}"#,
        r#"{"type": "array", "items": {"enum": ["x", "y"]}, "maxItems": 3}"#,
        r#"{"type": "array", "items": {"type": "boolean"}, "minItems": 1}"#,
        r#"{"type": "array", "prefixItems": [{"type": "boolean"}, {"const": "second"}], "items": false}"#,
        r#"{"type": "array", "prefixItems": [{"const": 1}], "items": {"type": "null"}, "minItems": 3, "maxItems": 5}"#,
        r#"{"type": "array", "items": {"type": "array", "items": {"const": 0}, "maxItems": 2}, "maxItems": 3}"#,
        r#"{"type": "array", "maxItems": 0}"#,
        r#"{"anyOf": [{"type": "boolean"}, {"type": "integer", "minimum": 10, "maximum": 19}, false]}"#,
        r#"{"oneOf": [{"type": "string", "maxLength": 3}, {"type": "null"}, {"const": 5}]}"#,
        r#"{"oneOf": [{"type": "object", "properties": {"kind": {"const": "cat"}, "lives": {"type": "integer", "minimum": 1, "maximum": 9}}, "required": ["kind", "lives"]}, {"type": "object", "properties": {"kind": {"const": "dog"}, "good": {"const": true}}, "required": ["kind"]}]}"#,
        r#"{"allOf": [{"type": "object", "properties": {"a": {"type": "integer", "minimum": 0}}, "required": ["a"]}, {"properties": {"a": {"maximum": 5}, "b": {"type": "null"}}, "required": ["b"]}]}"#,
        r#"{"type": "object", "properties": {"a": {"type": "boolean"}, "b": {"type": "boolean"}}, "anyOf": [{"required": ["a"]}, {"required": ["b"]}]}"#,
        r##"{"$ref": "#/$defs/node", "$defs": {"node": {"type": "object", "properties": {"value": {"enum": [1, 2]}, "next": {"anyOf": [{"$ref": "#/$defs/node"}, {"type": "null"}]}}, "required": ["value", "next"]}}}"##,
        r##"{"type": "array", "items": {"$ref": "#/definitions/a~1b"}, "maxItems": 2, "definitions": {"a/b": {"const": "slash"}, "a-b": {"const": "dash"}}}"##,
        r##"{"allOf": [{"$ref": "#/$defs/base"}], "properties": {"more": {"type": "null"}}, "required": ["more"], "unevaluatedProperties": false, "$defs": {"base": {"type": "object", "properties": {"id": {"const": 1}}, "required": ["id"]}}}"##,
        r#"{"type": "string", "pattern": "^[a-e]{2,4}-[0-9]+$"}"#,
        r#"{"type": "string", "pattern": "^(yes|no|\\d\\.\\d)$"}"#,
        r#"{"type": "string", "pattern": "^[^\"a]\\w{1,3}\\s?\\\\$|^x+?\"$"}"#,
        r#"{"type": "string", "pattern": "b[0-9]"}"#,
        r#"{"type": "string", "pattern": "^\\S{1,3}\\D\\W.$"}"#,
        r#"{"type": "string", "pattern": "^[\\n\\t\\x00-\\x1f\\u00e9]{2}$"}"#,
        r#"{"type": "string", "format": "date"}"#,
        r#"{"type": "string", "format": "time"}"#,
        r#"{"type": "string", "format": "date-time"}"#,
        r#"{"type": "string", "format": "uuid"}"#,
        r#"{"type": "string", "format": "ipv4"}"#,
        r#"{"type": "string", "format": "ipv6"}"#,
        r#"{"type": "string", "format": "email"}"#,
        r#"{"type": "string", "format": "hostname"}"#,
        r#"{"type": "string", "format": "uri"}"#,
        r#"{"properties": {"a": {"const": 1}}, "required": ["a"], "title": "without a type", "x-internal": true}"#,
    ]
}

#[test]
fn what_cannot_be_enforced_is_refused_by_name() {
    for (schema, keyword) in [
        (r#"{"not": {"type": "string"}}"#, "not"),
        (r#"{"if": {"type": "string"}, "then": true}"#, "if"),
        (r#"{"type": "array", "uniqueItems": true}"#, "uniqueItems"),
        (r#"{"type": "array", "contains": {"const": 1}}"#, "contains"),
        (r#"{"type": "number", "multipleOf": 0.5}"#, "multipleOf 0.5"),
        (r#"{"type": "object", "patternProperties": {"^a": true}}"#, "patternProperties"),
        (r#"{"type": "object", "propertyNames": {"maxLength": 3}}"#, "propertyNames"),
        (r#"{"type": "object", "minProperties": 1}"#, "minProperties"),
        (r#"{"type": "object", "dependentRequired": {"a": ["b"]}}"#, "dependentRequired"),
        (r#"{"type": "string", "maxLenght": 3}"#, "maxLenght"),
        (r#"{"type": "string", "nullable": true}"#, "nullable"),
        (r#"{"type": "string", "format": "color"}"#, "format \"color\""),
        (r#"{"type": "string", "pattern": "^(?=a)"}"#, "pattern \"^(?=a)\""),
        (
            r#"{"type": "string", "pattern": "^a$", "maxLength": 3}"#,
            "pattern together with other bounds",
        ),
        (r#"{"type": "integer", "maxLength": 3}"#, "maxLength in a schema of another type"),
        (r#"{"oneOf": [{"type": "integer"}, {"type": "number"}]}"#, "oneOf with branches"),
        (r#"{"oneOf": [{"const": 1}, {"const": 1.0}]}"#, "oneOf with branches"),
        (r#"{"$ref": "https://example.com/schema"}"#, "$ref"),
        (
            r#"{"allOf": [{"properties": {"a": true}, "additionalProperties": false}, {"properties": {"b": true}}]}"#,
            "additionalProperties of one part",
        ),
        (r#"{"allOf": [{"anyOf": [{"const": 1}]}, {"anyOf": [{"const": 2}]}]}"#, "anyOf twice"),
        (r#"{"enum": ["a"], "maxLength": 3}"#, "maxLength beside enum"),
    ] {
        match to_gbnf(schema) {
            Err(SchemaError::Unsupported { keyword: found, .. }) => {
                assert!(found.starts_with(keyword), "{schema}: {found}");
            }
            other => panic!("{schema}: {other:?}"),
        }
    }
}

#[test]
fn contradictions_and_nonsense_are_errors_with_their_place() {
    for (schema, message) in [
        ("{", "JSON schema: EOF while parsing"),
        ("7", "JSON schema, #: a schema is an object, true or false"),
        ("false", "JSON schema, #: false allows nothing"),
        (r#"{"type": "text"}"#, "JSON schema, #: type \"text\" does not exist"),
        (r#"{"enum": []}"#, "JSON schema, #: no value of enum or const fits"),
        (
            r#"{"type": "string", "minLength": 5, "maxLength": 3}"#,
            "JSON schema, #: maxLength is less",
        ),
        (
            r#"{"type": "integer", "minimum": 3, "maximum": 2}"#,
            "JSON schema, #: no number is within",
        ),
        (r##"{"properties": {"a": {"$ref": "#/nowhere"}}}"##, "JSON schema, #/properties/a: $ref"),
        (
            r#"{"properties": {"a": {"minimum": "x"}}}"#,
            "JSON schema, #/properties/a: minimum is no number",
        ),
        (
            r#"{"allOf": [{"type": "string"}, {"type": "null"}]}"#,
            "JSON schema, #: the types exclude each other",
        ),
        (
            r#"{"type": "object", "required": ["a"], "additionalProperties": false}"#,
            "JSON schema, #/additionalProperties: false allows nothing",
        ),
    ] {
        let error = to_gbnf(schema).unwrap_err().to_string();
        assert!(error.starts_with(message), "{schema}: {error}");
    }
}

/// Schemas made to exhaust a converter.
#[test]
fn hostile_schemas_end_in_an_error() {
    let deep = format!("{}true{}", r#"{"items":"#.repeat(100_000), "}".repeat(100_000));
    let doubling = (0..60).fold(String::new(), |text, n| {
        let next = n + 1;
        text + &format!(
            r##""d{n}":{{"allOf":[{{"$ref":"#/$defs/d{next}"}},{{"$ref":"#/$defs/d{next}"}}]}},"##
        )
    });
    let doubling = format!(r##"{{"$ref":"#/$defs/d0","$defs":{{{doubling}"d60":true}}}}"##);
    let long_name = format!(
        r#"{{"properties":{{"{}":true}},"additionalProperties":true}}"#,
        "a".repeat(500_000)
    );
    let own_part = r##"{"allOf": [{"$ref": "#"}]}"##.to_owned();
    let huge = r#"{"type":"string","minLength":99999999}"#.to_owned();
    for schema in [deep, doubling, long_name, own_part, huge] {
        let error = to_gbnf(&schema).unwrap_err();
        let bounded = matches!(error, SchemaError::TooLarge | SchemaError::Json(_));
        assert!(bounded, "{schema:.80}: {error}");
    }
}
