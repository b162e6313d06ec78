//! From a grammar's tree to symbols: characters become bytes, repetitions rules.

use std::collections::HashMap;
use std::sync::Arc;

use super::gbnf::{self, Node};
use super::program::{ByteSet, Program, Rules, Symbol, prune};
use super::utf8::{self, ByteRanges};
use super::{GrammarError, SYMBOLS_MAX};

/// What a grammar needs to know of a vocabulary: the tokens that it names.
pub trait TokenNames {
    /// The token of this text, or why there is none.
    fn token(&self, text: &str) -> Result<u32, String>;

    /// The token of this number, or why it cannot be used.
    fn check(&self, number: u32) -> Result<u32, String>;
}

/// A grammar that is ready to be followed; cheap to copy.
#[derive(Debug, Clone)]
pub struct Grammar {
    pub(super) program: Arc<Program>,
}

impl Grammar {
    /// Compiles GBNF; a text begins with the rule `root`.
    pub fn new(source: &str, names: &dyn TokenNames) -> Result<Self, GrammarError> {
        let tree = gbnf::parse(source, names)?;
        let root = tree.iter().position(|rule| rule.name == "root").ok_or(GrammarError::NoRoot)?;
        let mut lowering = Lowering {
            rules: vec![Vec::new(); tree.len()],
            sets: Vec::new(),
            set_numbers: HashMap::new(),
            classes: HashMap::new(),
            endless: HashMap::new(),
            optional: HashMap::new(),
            symbols: 0,
        };
        for (number, rule) in tree.iter().enumerate() {
            let alternatives = rule.alternatives.as_deref().unwrap_or_default();
            lowering.rules[number] = lowering.alternatives(alternatives)?;
        }
        let root = root as u32;
        let name = |rule: u32| {
            tree.get(rule as usize)
                .map_or_else(|| "in parentheses or repeated".to_owned(), |rule| rule.name.clone())
        };
        prune(&mut lowering.rules, &lowering.sets, root, &name)?;
        Ok(Self { program: Arc::new(Program::new(&lowering.rules, lowering.sets, root)) })
    }
}

struct Lowering {
    rules: Rules,
    sets: Vec<ByteSet>,
    set_numbers: HashMap<ByteSet, u32>,
    /// Rules of character classes that take more than one byte.
    classes: HashMap<Vec<(u32, u32)>, Symbol>,
    /// Rules that repeat a symbol without end.
    endless: HashMap<Symbol, u32>,
    /// Rules that repeat a symbol up to 1, 2, 3 … times.
    optional: HashMap<Symbol, Vec<u32>>,
    /// Symbols so far.
    symbols: usize,
}

impl Lowering {
    fn spend(&mut self, symbols: usize) -> Result<(), GrammarError> {
        self.symbols = self.symbols.saturating_add(symbols);
        if self.symbols > SYMBOLS_MAX { Err(GrammarError::TooLarge) } else { Ok(()) }
    }

    fn add_rule(&mut self, alternatives: Vec<Vec<Symbol>>) -> u32 {
        self.rules.push(alternatives);
        (self.rules.len() - 1) as u32
    }

    fn alternatives(&mut self, nodes: &[Vec<Node>]) -> Result<Vec<Vec<Symbol>>, GrammarError> {
        nodes
            .iter()
            .map(|alternative| {
                self.spend(1)?;
                let mut symbols = Vec::new();
                for node in alternative {
                    self.node(node, &mut symbols)?;
                }
                Ok(symbols)
            })
            .collect()
    }

    fn node(&mut self, node: &Node, symbols: &mut Vec<Symbol>) -> Result<(), GrammarError> {
        match node {
            Node::Text(text) => {
                self.spend(text.len())?;
                for byte in text.bytes() {
                    let symbol = self.bytes(byte, byte);
                    symbols.push(symbol);
                }
            }
            Node::Class { ranges, negated } => {
                self.spend(1)?;
                symbols.push(self.class(utf8::normalize(ranges, *negated))?);
            }
            Node::Rule(rule) => {
                self.spend(1)?;
                symbols.push(Symbol::Rule(*rule as u32));
            }
            Node::Token { id, negated } => {
                self.spend(1)?;
                symbols.push(if *negated { Symbol::NotToken(*id) } else { Symbol::Token(*id) });
            }
            Node::Group(alternatives) => {
                let alternatives = self.alternatives(alternatives)?;
                symbols.push(Symbol::Rule(self.add_rule(alternatives)));
            }
            Node::Repeat { node, least, most } => self.repeat(node, *least, *most, symbols)?,
        }
        Ok(())
    }

    fn repeat(
        &mut self,
        node: &Node,
        least: u32,
        most: Option<u32>,
        symbols: &mut Vec<Symbol>,
    ) -> Result<(), GrammarError> {
        let mut inner = Vec::new();
        self.node(node, &mut inner)?;
        let unit = match inner[..] {
            [unit] => unit,
            _ => Symbol::Rule(self.add_rule(vec![inner])),
        };
        self.spend(least as usize)?;
        symbols.extend(std::iter::repeat_n(unit, least as usize));
        match most {
            None => symbols.push(Symbol::Rule(self.endless(unit)?)),
            Some(most) if most > least => {
                symbols.push(Symbol::Rule(self.optional(unit, most - least)?));
            }
            Some(_) => {}
        }
        Ok(())
    }

    /// R ::= unit R | nothing
    fn endless(&mut self, unit: Symbol) -> Result<u32, GrammarError> {
        if let Some(rule) = self.endless.get(&unit) {
            return Ok(*rule);
        }
        self.spend(4)?;
        let rule = self.rules.len() as u32;
        self.add_rule(vec![vec![unit, Symbol::Rule(rule)], Vec::new()]);
        self.endless.insert(unit, rule);
        Ok(rule)
    }

    /// Rₙ ::= unit Rₙ₋₁ | nothing; shared by all repetitions of the same symbol.
    fn optional(&mut self, unit: Symbol, times: u32) -> Result<u32, GrammarError> {
        let mut rules = self.optional.remove(&unit).unwrap_or_default();
        while rules.len() < times as usize {
            self.spend(4)?;
            let mut more = vec![unit];
            more.extend(rules.last().map(|rule| Symbol::Rule(*rule)));
            rules.push(self.add_rule(vec![more, Vec::new()]));
        }
        let rule = rules[times as usize - 1];
        self.optional.insert(unit, rules);
        Ok(rule)
    }

    fn class(&mut self, ranges: Vec<(u32, u32)>) -> Result<Symbol, GrammarError> {
        if let Some(symbol) = self.classes.get(&ranges) {
            return Ok(*symbol);
        }
        let mut sequences: Vec<ByteRanges> = Vec::new();
        for &(first, last) in &ranges {
            utf8::sequences(first, last, &mut sequences);
        }
        self.spend(sequences.len())?;
        let mut single: ByteSet = [0; 4];
        for range in sequences.iter().filter(|sequence| sequence.len() == 1) {
            insert(&mut single, range[0]);
        }
        sequences.retain(|sequence| sequence.len() > 1);
        let single = self.set(single);
        let symbol = if sequences.is_empty() {
            single
        } else {
            let mut alternatives = vec![vec![single]];
            for sequence in sequences {
                let symbols = sequence.into_iter().map(|(low, high)| self.bytes(low, high));
                alternatives.push(symbols.collect());
            }
            Symbol::Rule(self.add_rule(alternatives))
        };
        self.classes.insert(ranges, symbol);
        Ok(symbol)
    }

    fn bytes(&mut self, low: u8, high: u8) -> Symbol {
        let mut set = [0; 4];
        insert(&mut set, (low, high));
        self.set(set)
    }

    fn set(&mut self, set: ByteSet) -> Symbol {
        let number = *self.set_numbers.entry(set).or_insert_with(|| {
            self.sets.push(set);
            (self.sets.len() - 1) as u32
        });
        Symbol::Bytes(number)
    }
}

fn insert(set: &mut ByteSet, (low, high): (u8, u8)) {
    for byte in low..=high {
        set[usize::from(byte >> 6)] |= 1 << (byte & 63);
    }
}
