//! How models write what is no plain text: calls of tools, and what they think before they speak.
//!
//! Each family of models has a notation of its own. [`FAMILIES`] describes them as data; [`Stream`] reads a reply by
//! such a description, and [`Writer`] makes the grammar of one.

mod call;
mod cursor;
mod families;
mod grammar;
mod notation;
mod stream;
mod value;

use serde_json::{Value, json};

use super::tools::ToolCall;

pub use families::{FAMILIES, GENERIC, THINKING};
pub use grammar::Writer;
pub use stream::{Piece, Stream};

/// One part of the text of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// This text.
    Is(&'static str),
    /// This text; a constraint that waits for calls begins with it.
    From(&'static str),
    /// All of this or nothing of it.
    Maybe(&'static [Part]),
    /// White space, as much as there is.
    Space,
    /// The tool's name.
    Name,
    /// What lies between these two is the call's own identifier.
    IdBegins,
    /// The end of the identifier.
    IdEnds,
    /// Letters and digits, so many of them at the most.
    Word(u32),
    /// Digits.
    Count,
    /// The arguments.
    Arguments(Notation),
    /// A JSON object with the tool's name and the arguments under these names, and with an identifier.
    Object {
        /// Under which name the tool's name is.
        name: &'static str,
        /// Under which name the arguments are.
        arguments: &'static str,
        /// The identifier, if there is one.
        id: Option<ObjectId>,
    },
    /// A JSON object whose only name is the tool's; the arguments are its value.
    Keyed,
}

/// The identifier in the JSON object of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ObjectId {
    /// Its name in the object.
    pub name: &'static str,
    /// Whether it stands in front of all else; else behind.
    pub is_first: bool,
    /// Whether it is unique in a conversation, so that results may refer to it.
    pub is_kept: bool,
}

/// How arguments are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Notation {
    /// A JSON object.
    Json,
    /// `name=value, …` with Python's values.
    Python,
    /// `name:value,…` without quotes around names, and texts between these marks.
    Bare(&'static str),
    /// Each between tags; texts as they are, all else as JSON.
    Tags(&'static Tags),
    /// Each between tags of its own name, lists and objects as tags within tags, each tag behind this mark.
    Nested(&'static str),
}

/// The tags around arguments. A line end within one may be there or not.
#[derive(Debug, PartialEq, Eq)]
pub struct Tags {
    /// In front of a name.
    pub open: &'static str,
    /// Between a name and its value that is a text.
    pub text: &'static str,
    /// Between a name and its value that is none; the same as `text` when the schema has to tell.
    pub json: &'static str,
    /// Behind a value.
    pub close: &'static str,
}

/// How a family of models writes calls.
#[derive(Debug)]
pub struct Family {
    /// What people call it.
    pub name: &'static str,
    /// A template that has all texts of one of these lists is of this family.
    pub signs: &'static [&'static [&'static str]],
    /// What stands before all calls of a reply.
    pub open: &'static [Part],
    /// The ways to write a call; the first is the one that a grammar asks for.
    pub calls: &'static [&'static [Part]],
    /// What stands between two calls of a reply.
    pub between: &'static [Part],
    /// What stands behind all calls of a reply.
    pub close: &'static [Part],
    /// Words that begin nothing but a call and start a waiting constraint; none: the first text of `open` or of a
    /// call is.
    pub triggers: &'static [&'static str],
    /// Whether a call begins a reply without any sign of its own.
    pub is_bare: bool,
    /// What the template writes at the end of a prompt, although it belongs to the notation of the reply.
    pub begun: &'static str,
    /// What a reply without a call begins with, where the notation demands it.
    pub text_open: &'static str,
}

/// How a family of models writes what it thinks.
#[derive(Debug)]
pub struct Thinking {
    /// What stands in front.
    pub open: &'static str,
    /// What stands behind.
    pub close: &'static str,
    /// Signs of it in a template: each alone suffices.
    pub signs: &'static [&'static str],
    /// What stands between the thoughts and what follows them.
    pub then: &'static str,
    /// What stands in front of the reply proper.
    pub text_open: &'static str,
    /// Texts that structure a reply and are not shown.
    pub silent: &'static [&'static str],
}

impl Family {
    /// The family of a template; None when it does not show tools, or in a way that is not known.
    pub fn of(template: &str) -> Option<&'static Family> {
        FAMILIES.iter().find(|family| {
            family.signs.iter().any(|signs| signs.iter().all(|sign| template.contains(sign)))
        })
    }

    /// The texts by which the beginning of a call is known.
    pub fn marks(&self) -> impl Iterator<Item = &'static str> {
        let calls: &'static [&'static [Part]] = self.calls;
        let of_calls = calls.iter().filter_map(|call| first_text(call));
        let of_all = first_text(self.open);
        let is_open = of_all.is_some();
        of_all.into_iter().chain(of_calls.filter(move |_| !is_open))
    }

    /// All texts of its notation.
    pub fn texts(&self) -> Vec<&'static str> {
        let mut found = vec![self.begun, self.text_open];
        for parts in
            [self.open, self.between, self.close].into_iter().chain(self.calls.iter().copied())
        {
            texts_of(parts, &mut found);
        }
        found.retain(|text| !text.is_empty());
        found
    }

    /// Calls as a model of this family writes them, where the template does not: arguments are JSON, whatever else
    /// they are.
    pub fn spelled(&self, calls: &[ToolCall]) -> String {
        let mut text = String::new();
        spell(self.open, None, &mut text);
        for (index, call) in calls.iter().enumerate() {
            if index > 0 {
                spell(self.between, None, &mut text);
                text.push_str(if self.open.is_empty() { "\n" } else { " " });
            }
            spell(self.calls.first().copied().unwrap_or_default(), Some(call), &mut text);
        }
        spell(self.close, None, &mut text);
        text
    }

    /// How its arguments are written.
    pub fn notation(&self) -> Notation {
        let notation = |part: &Part| match part {
            Part::Arguments(notation) => Some(*notation),
            _ => None,
        };
        self.calls.iter().copied().flatten().find_map(notation).unwrap_or(Notation::Json)
    }
}

impl Thinking {
    /// How a template's model thinks; None when it does not.
    pub fn of(template: &str) -> Option<&'static Thinking> {
        THINKING.iter().find(|thinking| thinking.signs.iter().any(|sign| template.contains(sign)))
    }

    /// All texts of its notation.
    pub fn texts(&self) -> impl Iterator<Item = &'static str> {
        let silent: &'static [&'static str] = self.silent;
        [self.open, self.close, self.then, self.text_open]
            .into_iter()
            .chain(silent.iter().copied())
            .filter(|text| !text.is_empty())
    }
}

fn first_text(parts: &[Part]) -> Option<&'static str> {
    parts.iter().find_map(|part| match part {
        Part::Is(text) | Part::From(text) => Some(*text),
        Part::Object { .. } | Part::Keyed => Some("{"),
        _ => None,
    })
}

fn spell(parts: &[Part], call: Option<&ToolCall>, target: &mut String) {
    for part in parts {
        match (part, call) {
            (Part::Is(text) | Part::From(text), _) => target.push_str(text),
            (Part::Name, Some(call)) => target.push_str(&call.name),
            (Part::Count, _) => target.push('0'),
            (Part::Word(_), Some(call)) => target.push_str(&call.id),
            (Part::Arguments(Notation::Python), Some(call)) => {
                let members: Vec<String> =
                    call.arguments.iter().map(|(name, value)| format!("{name}={value}")).collect();
                target.push_str(&members.join(", "));
            }
            (Part::Arguments(_), Some(call)) => {
                target.push_str(&Value::Object(call.arguments.clone()).to_string());
            }
            (Part::Object { name, arguments, .. }, Some(call)) => {
                target.push_str(&json!({*name: call.name, *arguments: call.arguments}).to_string());
            }
            (Part::Keyed, Some(call)) => {
                target.push_str(&json!({&*call.name: call.arguments}).to_string());
            }
            _ => {}
        }
    }
}

fn texts_of(parts: &[Part], found: &mut Vec<&'static str>) {
    for part in parts {
        match part {
            Part::Is(text) | Part::From(text) => found.push(text),
            Part::Maybe(inside) => texts_of(inside, found),
            Part::Arguments(Notation::Bare(mark) | Notation::Nested(mark)) => found.push(mark),
            Part::Arguments(Notation::Tags(tags)) => {
                found.extend([tags.open, tags.text, tags.json, tags.close]);
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests;
