//! Grammars of replies: what a family writes as GBNF, for the tools on offer.

use std::fmt::Write as _;

use super::notation;
use super::{Family, Notation, Part, Thinking};
use crate::chat::tools::Tool;
use crate::engine::frames::SpecialToken;
use crate::engine::grammar::SchemaError;
use crate::engine::grammar::schema::{self, literal};

/// White space between the parts of a notation, bounded so that a model cannot write nothing else.
const SPACE: &str = "[ \\n]{0,8}";

/// Makes a grammar rule by rule.
#[derive(Debug)]
pub struct Writer<'v> {
    /// Special tokens that are no text of a reply; their texts in a notation may be written as these tokens.
    control: &'v [SpecialToken],
    rules: String,
    count: usize,
    needs_common: bool,
}

impl<'v> Writer<'v> {
    /// For a vocabulary with these special tokens.
    pub fn new(control: &'v [SpecialToken]) -> Self {
        Self { control, rules: String::new(), count: 0, needs_common: false }
    }

    /// The grammar that begins with this expression.
    pub fn finish(self, root: &str) -> String {
        let common = if self.needs_common { schema::COMMON } else { "" };
        format!("root ::= {root}\n{}{common}", self.rules)
    }

    /// A rule of its own for an expression; returns its name.
    pub fn rule(&mut self, body: &str) -> String {
        self.count += 1;
        let _ = writeln!(self.rules, "nfl-{} ::= {body}", self.count);
        format!("nfl-{}", self.count)
    }

    /// A text of a notation: special tokens in it may be written as tokens or letter by letter.
    pub fn text(&self, text: &str) -> String {
        let mut parts: Vec<String> = Vec::new();
        let mut rest = text;
        while !rest.is_empty() {
            let (length, found) = self.next_control(rest);
            if length > 0 {
                parts.push(literal(&rest[..length]));
            }
            if let Some(token) = found {
                parts.push(format!("(<[{}]> | {})", token.id, literal(&token.text)));
                rest = &rest[length + token.text.len()..];
            } else {
                rest = "";
            }
        }
        if parts.is_empty() { "\"\"".to_owned() } else { parts.join(" ") }
    }

    /// Where the next special token stands in a text, the longest of those that begin there.
    fn next_control(&self, text: &str) -> (usize, Option<&'v SpecialToken>) {
        let stands = |token: &'v SpecialToken| text.find(&*token.text).map(|place| (place, token));
        let first = self
            .control
            .iter()
            .filter(|token| !token.text.is_empty())
            .filter_map(stands)
            .min_by_key(|(place, token)| (*place, std::cmp::Reverse(token.text.len())));
        first.map_or((text.len(), None), |(place, token)| (place, Some(token)))
    }

    /// Any text that ends with the first occurrence of `end`.
    pub fn until(&mut self, end: &str) -> String {
        self.automaton(end, "", false)
    }

    /// Any text; when `end` occurs in it, `then` follows.
    pub fn until_or_end(&mut self, end: &str, then: &str) -> String {
        self.automaton(end, then, true)
    }

    /// One rule for each number of letters of `end` that stand at the end of the text so far (the automaton of Knuth,
    /// Morris and Pratt).
    fn automaton(&mut self, end: &str, then: &str, may_end: bool) -> String {
        let letters: Vec<char> = end.chars().collect();
        let from = self.count;
        self.count += letters.len();
        let name = |matched: usize| format!("nfl-{}", from + 1 + matched);
        let token = self.control.iter().find(|token| token.text == end);
        for matched in 0..letters.len() {
            let mut others: Vec<char> = Vec::new();
            let mut ways = Vec::new();
            for letter in &letters {
                if others.contains(letter) {
                    continue;
                }
                let next = longest_match(&letters, matched, *letter);
                if next == 0 {
                    continue;
                }
                others.push(*letter);
                let class = class_letter(*letter);
                ways.push(if next == letters.len() {
                    format!("[{class}] {then}")
                } else {
                    format!("[{class}] {}", name(next))
                });
            }
            let classes: String = others.iter().map(|letter| class_letter(*letter)).collect();
            ways.push(format!("[^{classes}] {}", name(0)));
            ways.extend(token.map(|token| format!("<[{}]> {then}", token.id)));
            ways.extend(may_end.then(|| "\"\"".to_owned()));
            let _ = writeln!(self.rules, "{} ::= {}", name(matched), ways.join(" | "));
        }
        name(0)
    }

    /// A JSON text of a schema.
    ///
    /// # Errors
    /// [`SchemaError`] says what cannot be enforced.
    pub fn schema(&mut self, source: &str) -> Result<String, SchemaError> {
        self.count += 1;
        let name = format!("nfl-{}", self.count);
        self.rules.push_str(&schema::rules(source, &name, &format!("{name}-"))?);
        self.needs_common = true;
        Ok(name)
    }

    /// A value in Python's notation; see [`Writer::schema`].
    pub(super) fn python(&mut self, source: &str) -> Result<String, SchemaError> {
        self.count += 1;
        let name = format!("nfl-{}", self.count);
        // Words stand in grammars as texts of their own, and a quoted text of a schema never looks like one: its
        // quotes are escaped.
        let rules = schema::rules(source, &name, &format!("{name}-"))?
            .replace("\"true\"", "\"True\"")
            .replace("\"false\"", "\"False\"")
            .replace("\"null\"", "\"None\"");
        self.rules.push_str(&rules);
        self.needs_common = true;
        Ok(name)
    }

    /// A text of somebody else's grammar: its rule `root` gets another name.
    pub fn grammar(&mut self, source: &str) -> String {
        self.count += 1;
        let name = format!("nfl-{}", self.count);
        self.rules.push_str(&with_root_named(source, &name));
        self.rules.push('\n');
        name
    }

    /// Any JSON object.
    pub fn any_object(&mut self) -> String {
        self.needs_common = true;
        "object".to_owned()
    }

    /// What a model may think before it speaks: perhaps nothing, unless it `has_begun`. Behind it stands what leads
    /// over to the reply.
    pub fn thoughts(&mut self, thinking: &Thinking, has_begun: bool) -> String {
        let rest = self.until(thinking.close);
        let then = self.text(thinking.then);
        if has_begun {
            return format!("{rest} {then} {SPACE}");
        }
        format!("({SPACE} {} {rest} {then})? {SPACE}", self.text(thinking.open))
    }

    /// The calls of a reply: at least one, or just one. `waits`: it begins with a trigger. `has_begun`: the prompt
    /// ends with the family's own beginning.
    ///
    /// # Errors
    /// The name of the tool, and [`SchemaError`] for what cannot be enforced of its arguments.
    pub fn calls(
        &mut self,
        family: &Family,
        tools: &[Tool],
        (one, waits, has_begun): (bool, bool, bool),
    ) -> Result<String, (String, SchemaError)> {
        let ways = if waits { family.calls.len() } else { 1 };
        let mut first = Vec::new();
        let mut further = Vec::new();
        for tool in tools {
            for (index, way) in family.calls.iter().take(ways).enumerate() {
                let error = |error| (tool.name.clone(), error);
                let from = way.iter().position(|part| matches!(part, Part::From(_)));
                let start = from.filter(|_| waits);
                if waits && start.is_none() && !family.triggers.is_empty() {
                    continue;
                }
                let whole = self.call(way, tool).map_err(error)?;
                if index == 0 {
                    further.push(whole.clone());
                }
                let begun = way.first() == Some(&Part::Is(family.begun)) && has_begun;
                let start = start.unwrap_or(usize::from(begun));
                first.push(if start == 0 {
                    whole
                } else {
                    self.call(&way[start..], tool).map_err(error)?
                });
            }
        }
        let is_open = !family.open.is_empty();
        let space = if is_open { SPACE } else { "" };
        let open = format!("{} {space}", self.fixed(family.open));
        let close = format!("{space} {}", self.fixed(family.close));
        let first = self.rule(&first.join(" | "));
        if one {
            return Ok(format!("{open} {first} {close}"));
        }
        let between = self.fixed(family.between);
        let further = self.rule(&further.join(" | "));
        Ok(format!("{open} {first} ({between} {further})* {close}"))
    }

    /// Parts that name no tool.
    fn fixed(&mut self, parts: &[Part]) -> String {
        parts.iter().map(|part| self.plain(part)).collect::<Vec<_>>().join(" ")
    }

    fn plain(&mut self, part: &Part) -> String {
        match part {
            Part::Is(text) | Part::From(text) => self.text(text),
            Part::Maybe(inside) => format!("({})?", self.fixed(inside)),
            Part::Space => SPACE.to_owned(),
            Part::Word(most) => format!("[a-zA-Z0-9]{{1,{most}}}"),
            Part::Count => "[0-9]{1,3}".to_owned(),
            _ => String::new(),
        }
    }

    /// One call of a tool.
    fn call(&mut self, parts: &[Part], tool: &Tool) -> Result<String, SchemaError> {
        let mut texts = Vec::new();
        for part in parts {
            texts.push(match part {
                Part::Name => literal(&tool.name),
                Part::Arguments(notation) => self.arguments(*notation, tool)?,
                Part::Object { name, arguments, id } => {
                    let inside = self.arguments(Notation::Json, tool)?;
                    let quoted = |text: &str| literal(&serde_json::Value::from(text).to_string());
                    let member =
                        |name: &str, value: &str| format!("{} \":\" ws {value} ws", quoted(name));
                    let mut members =
                        vec![member(name, &quoted(&tool.name)), member(arguments, &inside)];
                    if let Some(id) = id {
                        let text = "\"\\\"\" [a-zA-Z0-9]{1,9} \"\\\"\"";
                        let at = if id.is_first { 0 } else { members.len() };
                        members.insert(at, member(id.name, text));
                    }
                    format!("\"{{\" ws {} \"}}\"", members.join(" \",\" ws "))
                }
                Part::Keyed => {
                    let inside = self.arguments(Notation::Json, tool)?;
                    let name = literal(&serde_json::Value::from(&*tool.name).to_string());
                    format!("\"{{\" ws {name} \":\" ws {inside} ws \"}}\"")
                }
                other => self.plain(other),
            });
        }
        Ok(self.rule(&texts.join(" ")))
    }

    fn arguments(&mut self, notation: Notation, tool: &Tool) -> Result<String, SchemaError> {
        let parameters = notation::parameters(tool);
        match notation {
            Notation::Json => self.schema(&parameters.to_string()),
            other => notation::arguments(self, other, &parameters),
        }
    }
}

/// A grammar whose rule `root` is called `name`; texts, classes, tokens and comments stay.
fn with_root_named(source: &str, name: &str) -> String {
    let is_name = |letter: char| letter.is_ascii_alphanumeric() || letter == '-';
    let mut named = String::new();
    let mut rest = source;
    while let Some(letter) = rest.chars().next() {
        let length = match letter {
            '"' | '[' | '<' => {
                let close = match letter {
                    '[' => b']',
                    '<' => b'>',
                    _ => b'"',
                };
                let mut escaped = false;
                let end = rest.bytes().skip(1).position(|byte| {
                    let was_escaped = std::mem::take(&mut escaped);
                    escaped = byte == b'\\' && !was_escaped && letter != '<';
                    byte == close && !was_escaped
                });
                end.map_or(rest.len(), |end| end + 2)
            }
            '#' => rest.find('\n').unwrap_or(rest.len()),
            _ if is_name(letter) => rest.find(|next| !is_name(next)).unwrap_or(rest.len()),
            _ => letter.len_utf8(),
        };
        named.push_str(if &rest[..length] == "root" { name } else { &rest[..length] });
        rest = &rest[length..];
    }
    named
}

/// How many letters of `letters` end a text that ended with `matched` of them, after another letter.
fn longest_match(letters: &[char], matched: usize, letter: char) -> usize {
    let mut text: Vec<char> = letters[..matched].to_vec();
    text.push(letter);
    (1..=text.len().min(letters.len()))
        .rev()
        .find(|&length| text.ends_with(&letters[..length]))
        .unwrap_or(0)
}

/// A letter in a class of GBNF.
fn class_letter(letter: char) -> String {
    if letter.is_ascii_alphanumeric() {
        letter.to_string()
    } else {
        format!("\\U{:08X}", u32::from(letter))
    }
}
