//! Objects: properties in the order of the schema.

use std::collections::{BTreeMap, HashSet};
use std::fmt::Write as _;

use serde_json::{Map, Value};

use super::{Compiler, Place, SchemaError, literal};

/// The empty text; written out, because a rule that ends in `|` would go on in the next line.
const NOTHING: &str = "\"\"";

/// Letters of a name that other names must differ from.
const NAME_LETTERS_MAX: usize = 256;

/// A property: its name, its member in the grammar, whether it must be there.
struct Property {
    member: String,
    required: bool,
}

impl Compiler<'_> {
    pub(super) fn object(
        &mut self,
        schema: &Map<String, Value>,
        place: &Place,
    ) -> Result<String, SchemaError> {
        let empty = Map::new();
        let properties = match schema.get("properties") {
            None => &empty,
            Some(Value::Object(properties)) => properties,
            Some(_) => return Err(place.invalid("properties is no object")),
        };
        let required = required(schema, place)?;
        let needed: HashSet<&str> = required.iter().copied().collect();
        let extra = match (schema.get("additionalProperties"), schema.get("unevaluatedProperties"))
        {
            (Some(extra), None) | (None, Some(extra)) => Some(extra),
            (None, None) => None,
            (Some(_), Some(_)) => return Err(place.unsupported("unevaluatedProperties")),
        };
        let mut members = Vec::new();
        for (name, property) in properties {
            let is_required = needed.contains(name.as_str());
            let value = match self.schema(property, &place.at("properties").at(name)) {
                Ok(value) => value,
                // A property that cannot be is left out, if it may.
                Err(SchemaError::Impossible { .. }) if !is_required => continue,
                Err(error) => return Err(error),
            };
            members.push(Property { member: self.member(name, &value)?, required: is_required });
        }
        for name in required.iter().filter(|name| !properties.contains_key(**name)) {
            let value = match extra {
                None => "value".to_owned(),
                Some(extra) => self.schema(extra, &place.at("additionalProperties"))?,
            };
            members.push(Property { member: self.member(name, &value)?, required: true });
        }
        let extra = match extra {
            // Whoever names properties wants these; whoever names none wants any.
            None if members.is_empty() && properties.is_empty() => return Ok("object".to_owned()),
            None | Some(Value::Bool(false)) => None,
            Some(extra) => match self.schema(extra, &place.at("additionalProperties")) {
                Ok(value) => {
                    let names = properties.keys().map(String::as_str).chain(required);
                    Some(self.extra_member(names, &value)?)
                }
                Err(SchemaError::Impossible { .. }) => None,
                Err(error) => return Err(error),
            },
        };
        self.members(&members, extra.as_deref())
    }

    fn member(&mut self, name: &str, value: &str) -> Result<String, SchemaError> {
        let key = literal(&Value::from(name).to_string());
        self.rule(format!("{key} \":\" ws {value} ws"))
    }

    /// Members in order, each with a comma in front unless it is the first that is there. Built from
    /// the end: `rest` when something stands before, `first` when nothing does.
    fn members(
        &mut self,
        members: &[Property],
        extra: Option<&str>,
    ) -> Result<String, SchemaError> {
        let (mut rest, mut first) = (NOTHING.to_owned(), NOTHING.to_owned());
        if let Some(extra) = extra {
            rest = self.rule(format!("(\",\" ws {extra})*"))?;
            first = self.rule(format!("({extra} (\",\" ws {extra})*)?"))?;
        }
        for Property { member, required } in members.iter().rev() {
            first = if *required {
                self.rule(format!("{member} {rest}"))?
            } else {
                self.rule(format!("{member} {rest} | {first}"))?
            };
            let times = if *required { "" } else { "?" };
            rest = self.rule(format!("(\",\" ws {member}){times} {rest}"))?;
        }
        self.rule(format!("\"{{\" ws {first} \"}}\""))
    }

    /// A member with a name that is none of those given. Its name has no escapes, so that it cannot
    /// spell one of them in another way.
    fn extra_member<'n>(
        &mut self,
        names: impl Iterator<Item = &'n str>,
        value: &str,
    ) -> Result<String, SchemaError> {
        let mut trie = Trie::default();
        for name in names {
            if name.chars().count() > NAME_LETTERS_MAX {
                return Err(SchemaError::TooLarge);
            }
            trie.insert(name);
        }
        let key = if trie.children.is_empty() && !trie.ends {
            "plain*".to_owned()
        } else {
            self.not_in(&trie)?
        };
        let key = key.replace("plain", "[^\"\\\\\\x00-\\x1F\\x7F]");
        self.rule(format!("\"\\\"\" {key} \"\\\"\" \":\" ws {value} ws"))
    }

    fn not_in(&mut self, trie: &Trie) -> Result<String, SchemaError> {
        let mut alternatives = Vec::new();
        let mut taken = String::new();
        for (letter, child) in &trie.children {
            let escaped = escape(*letter);
            taken.push_str(&escaped);
            // Names with such letters cannot be spelled without escapes.
            if !matches!(letter, '"' | '\\' | '\0'..='\x1F' | '\x7F') {
                let inside = self.not_in(child)?;
                alternatives.push(format!("[{escaped}] {inside}"));
            }
        }
        alternatives.push(format!("[^\"\\\\\\x00-\\x1F\\x7F{taken}] [^\"\\\\\\x00-\\x1F\\x7F]*"));
        if !trie.ends {
            alternatives.push(NOTHING.to_owned());
        }
        self.rule(alternatives.join(" | "))
    }
}

/// Names, letter by letter.
#[derive(Default)]
struct Trie {
    children: BTreeMap<char, Trie>,
    ends: bool,
}

impl Trie {
    fn insert(&mut self, name: &str) {
        let mut node = self;
        for letter in name.chars() {
            node = node.children.entry(letter).or_default();
        }
        node.ends = true;
    }
}

/// A letter inside a class of GBNF.
pub(super) fn escape(letter: char) -> String {
    let mut text = String::new();
    if letter.is_ascii_alphanumeric() {
        text.push(letter);
    } else {
        let _ = write!(text, "\\U{:08X}", u32::from(letter));
    }
    text
}

fn required<'s>(
    schema: &'s Map<String, Value>,
    place: &Place,
) -> Result<Vec<&'s str>, SchemaError> {
    let listed = match schema.get("required") {
        None => return Ok(Vec::new()),
        Some(Value::Array(listed)) => listed,
        Some(_) => return Err(place.invalid("required is no list of names")),
    };
    let mut seen = HashSet::new();
    let mut names: Vec<&str> = Vec::new();
    for name in listed {
        match name.as_str() {
            Some(name) if !seen.insert(name) => {}
            Some(name) => names.push(name),
            None => return Err(place.invalid("required is no list of names")),
        }
    }
    Ok(names)
}
