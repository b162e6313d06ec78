//! GBNF, llama.cpp's notation of grammars, read into a tree.

use super::compile::TokenNames;
use super::{GRAMMAR_BYTES_MAX, GrammarError, NESTING_MAX, REPETITIONS_MAX};

/// A part of an alternative.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Node {
    /// Characters one after the other.
    Text(String),
    /// One character of these ranges (both ends in), or of none of them.
    Class { ranges: Vec<(u32, u32)>, negated: bool },
    /// The rule of this number.
    Rule(usize),
    /// The token of this number, or any other.
    Token { id: u32, negated: bool },
    /// Alternatives in parentheses.
    Group(Vec<Vec<Node>>),
    /// Something several times; without end when `most` is None.
    Repeat { node: Box<Node>, least: u32, most: Option<u32> },
}

/// A rule as written.
#[derive(Debug)]
pub(super) struct Rule {
    pub(super) name: String,
    /// None until it is defined.
    pub(super) alternatives: Option<Vec<Vec<Node>>>,
    /// Where it was named first.
    place: usize,
}

/// Reads a grammar. Rules are numbered in the order in which they are named.
pub(super) fn parse(source: &str, names: &dyn TokenNames) -> Result<Vec<Rule>, GrammarError> {
    if source.len() > GRAMMAR_BYTES_MAX {
        return Err(GrammarError::TooLong(source.len()));
    }
    let mut parser = Parser {
        source,
        place: 0,
        depth: 0,
        rules: Vec::new(),
        numbers: std::collections::HashMap::new(),
        names,
    };
    parser.skip(true);
    while parser.peek().is_some() {
        parser.rule()?;
    }
    if let Some(rule) = parser.rules.iter().find(|rule| rule.alternatives.is_none()) {
        return Err(parser.error(rule.place, format!("rule {} is not defined", rule.name)));
    }
    Ok(parser.rules)
}

struct Parser<'a> {
    source: &'a str,
    /// In bytes, always between characters.
    place: usize,
    depth: usize,
    rules: Vec<Rule>,
    numbers: std::collections::HashMap<String, usize>,
    names: &'a dyn TokenNames,
}

impl<'a> Parser<'a> {
    fn rest(&self) -> &'a str {
        &self.source[self.place..]
    }

    fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    fn next(&mut self) -> Option<char> {
        let found = self.peek()?;
        self.place += found.len_utf8();
        Some(found)
    }

    fn eat(&mut self, expected: &str) -> bool {
        let found = self.rest().starts_with(expected);
        if found {
            self.place += expected.len();
        }
        found
    }

    fn error(&self, place: usize, problem: impl Into<String>) -> GrammarError {
        let before = &self.source[..place.min(self.source.len())];
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().unwrap_or("").chars().count() + 1;
        GrammarError::Syntax { line, column, problem: problem.into() }
    }

    fn fail<T>(&self, problem: impl Into<String>) -> Result<T, GrammarError> {
        Err(self.error(self.place, problem))
    }

    /// Skips blanks and comments, and line ends where they mean nothing.
    fn skip(&mut self, line_ends: bool) {
        while let Some(next) = self.peek() {
            match next {
                ' ' | '\t' => self.place += 1,
                '\r' | '\n' if line_ends => self.place += 1,
                '#' => {
                    let length = self.rest().find(['\r', '\n']).unwrap_or(self.rest().len());
                    self.place += length;
                }
                _ => break,
            }
        }
    }

    fn name(&mut self) -> Option<&'a str> {
        let rest = self.rest();
        let other = |letter: char| !(letter.is_ascii_alphanumeric() || letter == '-');
        let length = rest.find(other).unwrap_or(rest.len());
        self.place += length;
        (length > 0).then(|| &rest[..length])
    }

    fn number_of(&mut self, name: &str, place: usize) -> usize {
        if let Some(number) = self.numbers.get(name) {
            return *number;
        }
        self.rules.push(Rule { name: name.to_owned(), alternatives: None, place });
        self.numbers.insert(name.to_owned(), self.rules.len() - 1);
        self.rules.len() - 1
    }

    fn rule(&mut self) -> Result<(), GrammarError> {
        let place = self.place;
        let Some(name) = self.name() else { return self.fail("the name of a rule is expected") };
        self.skip(false);
        if !self.eat("::=") {
            return self.fail("::= is expected");
        }
        let number = self.number_of(name, place);
        if self.rules[number].alternatives.is_some() {
            return Err(self.error(place, format!("rule {name} is defined twice")));
        }
        self.skip(true);
        let alternatives = self.alternatives()?;
        self.rules[number].alternatives = Some(alternatives);
        match self.peek() {
            None | Some('\r' | '\n') => {}
            Some(other) => return self.fail(format!("{other:?} is not expected")),
        }
        self.skip(true);
        Ok(())
    }

    fn alternatives(&mut self) -> Result<Vec<Vec<Node>>, GrammarError> {
        let mut alternatives = vec![self.sequence()?];
        while self.eat("|") {
            self.skip(true);
            alternatives.push(self.sequence()?);
        }
        Ok(alternatives)
    }

    fn sequence(&mut self) -> Result<Vec<Node>, GrammarError> {
        let mut nodes: Vec<Node> = Vec::new();
        while let Some(next) = self.peek() {
            let place = self.place;
            let node = match next {
                '"' => self.text()?,
                '[' => self.class()?,
                '<' | '!' => self.token()?,
                '.' => {
                    self.place += 1;
                    Node::Class { ranges: Vec::new(), negated: true }
                }
                '(' => self.group()?,
                '*' | '+' | '?' | '{' => {
                    let Some(node) = nodes.pop() else {
                        return self.fail(format!("{next} follows nothing that it could repeat"));
                    };
                    let (least, most) = self.repetition()?;
                    Node::Repeat { node: Box::new(node), least, most }
                }
                letter if letter.is_ascii_alphanumeric() || letter == '-' => {
                    let name = self.name().unwrap_or_default();
                    Node::Rule(self.number_of(name, place))
                }
                _ => break,
            };
            nodes.push(node);
            self.skip(self.depth > 0);
        }
        Ok(nodes)
    }

    fn group(&mut self) -> Result<Node, GrammarError> {
        if self.depth == NESTING_MAX {
            return self.fail(format!("parentheses are nested deeper than {NESTING_MAX}"));
        }
        self.place += 1;
        self.depth += 1;
        self.skip(true);
        let alternatives = self.alternatives()?;
        if !self.eat(")") {
            return self.fail(") is expected");
        }
        self.depth -= 1;
        Ok(Node::Group(alternatives))
    }

    fn repetition(&mut self) -> Result<(u32, Option<u32>), GrammarError> {
        let nested = self.depth > 0;
        let place = self.place;
        match self.next() {
            Some('*') => return Ok((0, None)),
            Some('+') => return Ok((1, None)),
            Some('?') => return Ok((0, Some(1))),
            _ => self.skip(nested),
        }
        let least = self.count()?;
        self.skip(nested);
        if self.eat("}") {
            return Ok((least, Some(least)));
        }
        if !self.eat(",") {
            return self.fail("a comma or } is expected");
        }
        self.skip(nested);
        let most = if self.rest().starts_with(|next: char| next.is_ascii_digit()) {
            Some(self.count()?)
        } else {
            None
        };
        self.skip(nested);
        if !self.eat("}") {
            return self.fail("} is expected");
        }
        if most.is_some_and(|most| most < least) {
            return Err(self.error(place, "the most is less than the least"));
        }
        Ok((least, most))
    }

    fn count(&mut self) -> Result<u32, GrammarError> {
        let rest = self.rest();
        let length = rest.find(|next: char| !next.is_ascii_digit()).unwrap_or(rest.len());
        let count = rest[..length].parse::<u32>().ok().filter(|count| *count <= REPETITIONS_MAX);
        let Some(count) = count else {
            return self.fail(format!("a number up to {REPETITIONS_MAX} is expected"));
        };
        self.place += length;
        Ok(count)
    }

    fn text(&mut self) -> Result<Node, GrammarError> {
        self.place += 1;
        let mut text = String::new();
        loop {
            if self.eat("\"") {
                return Ok(Node::Text(text));
            }
            let place = self.place;
            let value = self.character("the text has no closing quote")?;
            let Some(letter) = char::from_u32(value) else {
                return Err(self.error(place, "this is no character"));
            };
            text.push(letter);
        }
    }

    fn class(&mut self) -> Result<Node, GrammarError> {
        self.place += 1;
        let negated = self.eat("^");
        let mut ranges = Vec::new();
        loop {
            if self.eat("]") {
                return Ok(Node::Class { ranges, negated });
            }
            let place = self.place;
            let first = self.character("the class has no closing bracket")?;
            let mut last = first;
            if self.rest().starts_with('-') && !self.rest().starts_with("-]") {
                self.place += 1;
                last = self.character("the class has no closing bracket")?;
            }
            if last < first {
                return Err(self.error(place, "the range ends before it begins"));
            }
            ranges.push((first, last));
        }
    }

    /// A character of a text or class, escapes resolved.
    fn character(&mut self, at_end: &str) -> Result<u32, GrammarError> {
        let place = self.place;
        let Some(letter) = self.next() else { return self.fail(at_end) };
        if letter != '\\' {
            return Ok(letter.into());
        }
        let digits = match self.next() {
            Some('n') => return Ok('\n'.into()),
            Some('r') => return Ok('\r'.into()),
            Some('t') => return Ok('\t'.into()),
            Some(same @ ('\\' | '"' | '[' | ']' | '-')) => return Ok(same.into()),
            Some('x') => 2,
            Some('u') => 4,
            Some('U') => 8,
            _ => return Err(self.error(place, "there is no such escape")),
        };
        let value = self
            .rest()
            .get(..digits)
            .filter(|digits| digits.bytes().all(|digit| digit.is_ascii_hexdigit()))
            .and_then(|digits| u32::from_str_radix(digits, 16).ok())
            .filter(|value| *value <= u32::from(char::MAX));
        let Some(value) = value else {
            let problem = format!("{digits} hexadecimal digits of a character are expected");
            return Err(self.error(place, problem));
        };
        self.place += digits;
        Ok(value)
    }

    /// `<[7]>`, `<text of the token>`, with `!` in front any other token.
    fn token(&mut self) -> Result<Node, GrammarError> {
        let place = self.place;
        let negated = self.eat("!");
        if !self.eat("<") {
            return self.fail("< is expected");
        }
        let Some(length) = self.rest().find('>') else { return self.fail("> is missing") };
        let inside = &self.rest()[..length];
        self.place += length + 1;
        let number = inside.strip_prefix('[').and_then(|inside| inside.strip_suffix(']'));
        let id = match number {
            Some(number) => match number.parse() {
                Ok(number) => self.names.check(number),
                Err(_) => return Err(self.error(place, "this is no number of a token")),
            },
            None => self.names.token(&format!("<{inside}>")),
        };
        match id {
            Ok(id) => Ok(Node::Token { id, negated }),
            Err(problem) => Err(self.error(place, problem)),
        }
    }
}
