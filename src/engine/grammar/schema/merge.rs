//! Schemas that hold together: `allOf`, and what stands beside `$ref`, `anyOf` and `oneOf`.

use serde_json::{Map, Value, json};

use super::{ANNOTATIONS, Compiler, Place, SchemaError, VISITS_MAX, types};

impl Compiler<'_> {
    /// A schema with `allOf` or with keywords beside `$ref`.
    pub(super) fn combined(
        &mut self,
        schema: &Map<String, Value>,
        place: &Place,
    ) -> Result<String, SchemaError> {
        let merged = self.merged(&[Value::Object(schema.clone())], place)?;
        self.schema(&merged, &Place { pointer: place.pointer.clone(), depth: place.depth + 1 })
    }

    /// One schema that says what all of them say, without `allOf` and `$ref` at its top.
    pub(super) fn merged(
        &mut self,
        schemas: &[Value],
        place: &Place,
    ) -> Result<Value, SchemaError> {
        let mut open: Vec<(Value, usize)> =
            schemas.iter().enumerate().rev().map(|(place, s)| (s.clone(), place)).collect();
        let mut result = Map::new();
        while let Some((schema, depth)) = open.pop() {
            self.visits += 1;
            if self.visits > VISITS_MAX || depth > super::DEPTH_MAX {
                return Err(SchemaError::TooLarge);
            }
            let mut schema = match schema {
                Value::Object(schema) => schema,
                Value::Bool(true) => continue,
                Value::Bool(false) => return Err(place.impossible("false allows nothing")),
                _ => return Err(place.invalid("a schema is an object, true or false")),
            };
            if let Some(all) = schema.remove("allOf") {
                let Value::Array(all) = all else {
                    return Err(place.invalid("allOf is no list of schemas"));
                };
                open.extend(all.into_iter().rev().map(|schema| (schema, depth + 1)));
            }
            if let Some(reference) = schema.remove("$ref") {
                open.push((self.target(&reference, place)?.1, depth + 1));
            }
            if depth > 0
                && schema.get("unevaluatedProperties").is_some_and(|v| v != &Value::Bool(true))
            {
                // It would forbid what its neighbours speak of.
                return Err(place.unsupported("unevaluatedProperties of one part of allOf"));
            }
            Self::check_closed(&result, &schema, place)?;
            for (keyword, value) in schema {
                match result.remove(&keyword) {
                    None => drop(result.insert(keyword, value)),
                    Some(other) => {
                        let both = both(&keyword, other, value, place)?;
                        result.insert(keyword, both);
                    }
                }
            }
        }
        Ok(Value::Object(result))
    }

    /// A schema that forbids further properties forbids those of its neighbours: what is allowed
    /// then is not told by the two lists alone.
    fn check_closed(
        one: &Map<String, Value>,
        other: &Map<String, Value>,
        place: &Place,
    ) -> Result<(), SchemaError> {
        for (closed, open) in [(one, other), (other, one)] {
            let Some(extra) = closed.get("additionalProperties") else { continue };
            if extra == &Value::Bool(true) {
                continue;
            }
            let names = |schema: &Map<String, Value>| {
                let properties = schema.get("properties").and_then(Value::as_object);
                properties.map(|p| p.keys().cloned().collect::<Vec<_>>()).unwrap_or_default()
            };
            let known = names(closed);
            if names(open).iter().any(|name| !known.contains(name)) {
                return Err(place.unsupported("additionalProperties of one part of allOf"));
            }
        }
        Ok(())
    }

    /// Whether at most one branch of `oneOf` can hold: only then it means the same as `anyOf`.
    pub(super) fn check_exclusive(
        &mut self,
        branches: &[Value],
        place: &Place,
    ) -> Result<(), SchemaError> {
        let mut whole = Vec::new();
        for branch in branches {
            whole.push(self.merged(std::slice::from_ref(branch), place)?);
        }
        for (number, one) in whole.iter().enumerate() {
            for other in &whole[..number] {
                self.visits += 1;
                if self.visits > VISITS_MAX {
                    return Err(SchemaError::TooLarge);
                }
                if !self.excludes(one, other, place)? {
                    return Err(place.unsupported("oneOf with branches that can hold together"));
                }
            }
        }
        Ok(())
    }

    fn excludes(&mut self, one: &Value, other: &Value, place: &Place) -> Result<bool, SchemaError> {
        let (Value::Object(one), Value::Object(other)) = (one, other) else { return Ok(false) };
        if let (Some(mine), Some(others)) = (listed(one), listed(other)) {
            return Ok(!mine.iter().any(|value| others.iter().any(|other| same(value, other))));
        }
        let (mine, others) = (possible_types(one, place)?, possible_types(other, place)?);
        let overlap = |a: &String, b: &String| {
            a == b
                || matches!((a.as_str(), b.as_str()), ("integer", "number") | ("number", "integer"))
        };
        if !mine.iter().any(|a| others.iter().any(|b| overlap(a, b))) {
            return Ok(true);
        }
        if mine != ["object"] || others != ["object"] {
            return Ok(false);
        }
        // A property that both need and that cannot have the same value.
        let needs = |schema: &Map<String, Value>, name: &str| {
            let required = schema.get("required").and_then(Value::as_array);
            required.is_some_and(|names| names.iter().any(|other| other == name))
        };
        let properties = |schema: &Map<String, Value>| {
            schema.get("properties").and_then(Value::as_object).cloned().unwrap_or_default()
        };
        let theirs = properties(other);
        for (name, mine) in properties(one) {
            let Some(their) = theirs.get(&name) else { continue };
            if !needs(one, &name) || !needs(other, &name) {
                continue;
            }
            let (Value::Object(mine), Value::Object(their)) =
                (self.merged(&[mine], place)?, self.merged(std::slice::from_ref(their), place)?)
            else {
                continue;
            };
            if let (Some(mine), Some(their)) = (listed(&mine), listed(&their))
                && !mine.iter().any(|value| their.iter().any(|other| same(value, other)))
            {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// The values that `enum` or `const` lists.
fn listed(schema: &Map<String, Value>) -> Option<Vec<Value>> {
    match (schema.get("const"), schema.get("enum")) {
        (Some(only), _) => Some(vec![only.clone()]),
        (None, Some(Value::Array(listed))) => Some(listed.clone()),
        _ => None,
    }
}

/// Whether two values are equal to a validator: 1 and 1.0 are.
fn same(one: &Value, other: &Value) -> bool {
    match (one, other) {
        (Value::Number(one), Value::Number(other)) => one.as_f64() == other.as_f64(),
        (Value::Array(_) | Value::Object(_), Value::Array(_) | Value::Object(_)) => true,
        _ => one == other,
    }
}

/// The types of the values that a schema allows.
fn possible_types(schema: &Map<String, Value>, place: &Place) -> Result<Vec<String>, SchemaError> {
    let Some(listed) = listed(schema) else { return types(schema, place) };
    let name = |value: &Value| match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    };
    Ok(listed.iter().map(|value| name(value).to_owned()).collect())
}

/// What a keyword must say so that both values of it hold.
fn both(keyword: &str, one: Value, other: Value, place: &Place) -> Result<Value, SchemaError> {
    if one == other || ANNOTATIONS.contains(&keyword) || keyword.starts_with("x-") {
        return Ok(one);
    }
    let larger = |a: Value, b: Value| if a.as_f64() >= b.as_f64() { a } else { b };
    let smaller = |a: Value, b: Value| if a.as_f64() <= b.as_f64() { a } else { b };
    match (keyword, one, other) {
        ("minimum" | "exclusiveMinimum" | "minLength" | "minItems", one, other) => {
            Ok(larger(one, other))
        }
        ("maximum" | "exclusiveMaximum" | "maxLength" | "maxItems", one, other) => {
            Ok(smaller(one, other))
        }
        ("required", Value::Array(mut one), Value::Array(other)) => {
            one.extend(other);
            Ok(Value::Array(one))
        }
        ("enum", Value::Array(mut one), Value::Array(other)) => {
            one.retain(|value| other.contains(value));
            Ok(Value::Array(one))
        }
        ("properties", Value::Object(mut one), Value::Object(other)) => {
            for (name, schema) in other {
                match one.get_mut(&name) {
                    Some(mine) if *mine == schema => {}
                    Some(mine) => *mine = json!({ "allOf": [mine.take(), schema] }),
                    None => drop(one.insert(name, schema)),
                }
            }
            Ok(Value::Object(one))
        }
        ("items" | "additionalProperties", one, other) => Ok(json!({ "allOf": [one, other] })),
        ("type", one, other) => {
            let schema = |named: Value| Map::from_iter([("type".to_owned(), named)]);
            let (one, other) = (types(&schema(one), place)?, types(&schema(other), place)?);
            let mut common: Vec<&str> = Vec::new();
            for name in &one {
                let wider = name == "integer" && other.iter().any(|other| other == "number");
                if wider || other.contains(name) {
                    common.push(name);
                } else if name == "number" && other.iter().any(|other| other == "integer") {
                    common.push("integer");
                }
            }
            match common.as_slice() {
                [] => Err(place.impossible("the types exclude each other")),
                _ => Ok(json!(common)),
            }
        }
        ("const", _, _) => Err(place.impossible("const has two values")),
        (keyword, _, _) => Err(place.unsupported(format!("{keyword} twice, from allOf or $ref"))),
    }
}
