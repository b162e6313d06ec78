//! Where a text stands in a grammar, and what may follow.
//!
//! A text may be read in several ways at once; each is a stack of places in the grammar. Stacks
//! share their tails and are numbered, sets of stacks are states and numbered too, and a state
//! remembers where each byte leads. After a while a grammar is followed like an automaton.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::pieces::{Pieces, TokenMask};
use super::program::Symbol;
use super::{Grammar, GrammarError, STACKS_MAX, WORK_MAX};

/// Stacks that are kept before those out of use are thrown away.
const NODES_KEPT_MAX: usize = 1 << 18;

/// States that are kept before those out of use are thrown away; each may hold a kibibyte.
const STATES_KEPT_MAX: usize = 1 << 13;

/// Masks that are kept: strings and the like come back to the same state again and again.
const MASKS_KEPT_MAX: usize = 32;

/// The empty stack: the text is complete.
const COMPLETE: u32 = 0;

/// The state without stacks: the text was wrong.
const DEAD: u32 = 0;

/// A transition that was not tried yet.
const UNKNOWN: u32 = u32::MAX;

/// A stack: a place in the grammar above another stack.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Node {
    place: u32,
    below: u32,
}

#[derive(Debug)]
struct State {
    /// Sorted; each begins with a terminal or is complete.
    stacks: Box<[u32]>,
    next: Option<Box<[u32; 256]>>,
}

/// Follows a text token by token.
#[derive(Debug)]
pub struct Matcher {
    grammar: Grammar,
    pieces: Arc<Pieces>,
    nodes: Vec<Node>,
    node_numbers: HashMap<Node, u32>,
    states: Vec<State>,
    state_numbers: HashMap<Box<[u32]>, u32>,
    masks: HashMap<u32, Arc<TokenMask>>,
    current: u32,
    /// Steps since the last token.
    work: u64,
}

impl Matcher {
    /// At the beginning of a text.
    pub fn new(grammar: Grammar, pieces: Arc<Pieces>) -> Result<Self, GrammarError> {
        let mut matcher = Self {
            grammar,
            pieces,
            nodes: Vec::new(),
            node_numbers: HashMap::new(),
            states: Vec::new(),
            state_numbers: HashMap::new(),
            masks: HashMap::new(),
            current: DEAD,
            work: 0,
        };
        matcher.clear();
        let root = matcher.grammar.program.root;
        let mut seeds = Vec::new();
        matcher.push_alternatives(root, COMPLETE, &mut seeds);
        matcher.current = matcher.close(seeds)?;
        Ok(matcher)
    }

    /// Whether the text may end here.
    pub fn may_end(&self) -> bool {
        self.states[self.current as usize].stacks.first() == Some(&COMPLETE)
    }

    /// Whether the text can only end here.
    pub fn is_complete(&self) -> bool {
        *self.states[self.current as usize].stacks == [COMPLETE]
    }

    /// Whether a token may follow.
    pub fn allows(&mut self, token: usize) -> Result<bool, GrammarError> {
        if self.pieces.is_end(token) {
            return Ok(self.may_end());
        }
        Ok(self.after(token)? != DEAD)
    }

    /// Whether these bytes may follow.
    pub fn allows_bytes(&mut self, bytes: &[u8]) -> Result<bool, GrammarError> {
        Ok(self.over(self.current, bytes)? != DEAD)
    }

    /// Goes over a token; false, and nothing changes, when it may not follow.
    pub fn accept(&mut self, token: usize) -> Result<bool, GrammarError> {
        if self.pieces.is_end(token) {
            return Ok(self.may_end());
        }
        let next = self.after(token)?;
        Ok(self.go(next))
    }

    /// Goes over bytes; false, and nothing changes, when they may not follow.
    pub fn accept_bytes(&mut self, bytes: &[u8]) -> Result<bool, GrammarError> {
        let next = self.over(self.current, bytes)?;
        Ok(self.go(next))
    }

    /// All tokens that may follow.
    pub fn mask(&mut self) -> Result<Arc<TokenMask>, GrammarError> {
        if let Some(mask) = self.masks.get(&self.current) {
            return Ok(Arc::clone(mask));
        }
        let pieces = Arc::clone(&self.pieces);
        let mut mask = TokenMask::empty(pieces.tokens());
        let start = self.current;
        let mut step = |state: u32, byte: u8| {
            let next = self.step(state, byte)?;
            Ok((next != DEAD).then_some(next))
        };
        pieces.walk(start, &mut step, &mut mask)?;
        for &stack in &self.states[self.current as usize].stacks {
            match self.top(stack) {
                Symbol::Token(token) => mask.insert(token as usize),
                Symbol::NotToken(token) => {
                    for other in (0..pieces.tokens()).filter(|other| *other != token as usize) {
                        if !pieces.of(other).is_empty() {
                            mask.insert(other);
                        }
                    }
                }
                _ => {}
            }
        }
        if self.may_end() {
            for &end in pieces.end_tokens() {
                mask.insert(end as usize);
            }
        }
        let mask = Arc::new(mask);
        if self.masks.len() >= MASKS_KEPT_MAX {
            self.masks.clear();
        }
        self.masks.insert(self.current, Arc::clone(&mask));
        Ok(mask)
    }

    fn go(&mut self, next: u32) -> bool {
        if next == DEAD {
            return false;
        }
        self.current = next;
        self.work = 0;
        if self.nodes.len() > NODES_KEPT_MAX || self.states.len() > STATES_KEPT_MAX {
            self.compact();
        }
        true
    }

    /// The state after a token: what its bytes lead to and what its number leads to.
    fn after(&mut self, token: usize) -> Result<u32, GrammarError> {
        let pieces = Arc::clone(&self.pieces);
        let piece = pieces.of(token);
        let by_bytes = if piece.is_empty() { DEAD } else { self.over(self.current, piece)? };
        let mut seeds = Vec::new();
        for place in 0..self.states[self.current as usize].stacks.len() {
            let stack = self.states[self.current as usize].stacks[place];
            let matches = match self.top(stack) {
                Symbol::Token(wanted) => wanted as usize == token,
                Symbol::NotToken(other) => other as usize != token && !piece.is_empty(),
                _ => false,
            };
            if matches {
                let next = self.behind(stack);
                seeds.push(next);
            }
        }
        if seeds.is_empty() {
            return Ok(by_bytes);
        }
        seeds.extend_from_slice(&self.states[by_bytes as usize].stacks);
        self.close(seeds)
    }

    fn over(&mut self, mut state: u32, bytes: &[u8]) -> Result<u32, GrammarError> {
        for &byte in bytes {
            state = self.step(state, byte)?;
            if state == DEAD {
                break;
            }
        }
        Ok(state)
    }

    /// The state after a byte.
    fn step(&mut self, state: u32, byte: u8) -> Result<u32, GrammarError> {
        if let Some(next) = &self.states[state as usize].next {
            let known = next[usize::from(byte)];
            if known != UNKNOWN {
                return Ok(known);
            }
        }
        let stacks = self.states[state as usize].stacks.clone();
        self.spend(stacks.len())?;
        let mut seeds = Vec::new();
        for &stack in &stacks {
            if let Symbol::Bytes(set) = self.top(stack) {
                let set = &self.grammar.program.sets[set as usize];
                if set[usize::from(byte >> 6)] >> (byte & 63) & 1 == 1 {
                    let next = self.behind(stack);
                    seeds.push(next);
                }
            }
        }
        let next = if seeds.is_empty() { DEAD } else { self.close(seeds)? };
        let table = &mut self.states[state as usize].next;
        table.get_or_insert_with(|| Box::new([UNKNOWN; 256]))[usize::from(byte)] = next;
        Ok(next)
    }

    /// The state of all terminals that can be reached from stacks without text.
    fn close(&mut self, mut open: Vec<u32>) -> Result<u32, GrammarError> {
        let mut seen: HashSet<u32> = HashSet::new();
        let mut stacks = Vec::new();
        while let Some(stack) = open.pop() {
            if !seen.insert(stack) {
                continue;
            }
            self.spend(1)?;
            if let Symbol::Rule(rule) = self.top(stack) {
                let base = self.behind(stack);
                self.push_alternatives(rule, base, &mut open);
            } else {
                stacks.push(stack);
                if stacks.len() > STACKS_MAX {
                    return Err(GrammarError::Ambiguous);
                }
            }
        }
        stacks.sort_unstable();
        let stacks: Box<[u32]> = stacks.into();
        if let Some(&state) = self.state_numbers.get(&stacks) {
            return Ok(state);
        }
        let number = self.states.len() as u32;
        self.states.push(State { stacks: stacks.clone(), next: None });
        self.state_numbers.insert(stacks, number);
        Ok(number)
    }

    fn push_alternatives(&mut self, rule: u32, base: u32, open: &mut Vec<u32>) {
        let program = Arc::clone(&self.grammar.program);
        for &start in &program.starts[rule as usize] {
            let stack = match program.symbols[start as usize] {
                Symbol::End => base,
                _ => self.node(Node { place: start, below: base }),
            };
            open.push(stack);
        }
    }

    /// The symbol that a stack begins with; the end for a complete one.
    fn top(&self, stack: u32) -> Symbol {
        if stack == COMPLETE {
            return Symbol::End;
        }
        self.grammar.program.symbols[self.nodes[stack as usize].place as usize]
    }

    /// A stack without its first symbol.
    fn behind(&mut self, stack: u32) -> u32 {
        let Node { place, below } = self.nodes[stack as usize];
        match self.grammar.program.symbols[place as usize + 1] {
            Symbol::End => below,
            _ => self.node(Node { place: place + 1, below }),
        }
    }

    fn node(&mut self, node: Node) -> u32 {
        *self.node_numbers.entry(node).or_insert_with(|| {
            self.nodes.push(node);
            (self.nodes.len() - 1) as u32
        })
    }

    fn spend(&mut self, steps: usize) -> Result<(), GrammarError> {
        self.work += steps as u64;
        if self.work > WORK_MAX { Err(GrammarError::TooComplex) } else { Ok(()) }
    }

    /// The tables with the complete stack and the dead state only.
    fn clear(&mut self) {
        self.nodes.clear();
        self.node_numbers.clear();
        self.states.clear();
        self.state_numbers.clear();
        self.masks.clear();
        self.nodes.push(Node { place: u32::MAX, below: COMPLETE });
        self.states.push(State { stacks: Box::default(), next: Some(Box::new([DEAD; 256])) });
        self.state_numbers.insert(Box::default(), DEAD);
    }

    /// Keeps the current state and its stacks only.
    fn compact(&mut self) {
        let stacks = self.states[self.current as usize].stacks.clone();
        let old = std::mem::take(&mut self.nodes);
        self.clear();
        let mut moved: HashMap<u32, u32> = HashMap::from([(COMPLETE, COMPLETE)]);
        let mut kept = Vec::with_capacity(stacks.len());
        for &stack in &stacks {
            // From the first node that is known already upwards.
            let mut path = Vec::new();
            let mut node = stack;
            while !moved.contains_key(&node) {
                path.push(node);
                node = old[node as usize].below;
            }
            let mut below = moved[&node];
            for node in path.into_iter().rev() {
                below = self.node(Node { place: old[node as usize].place, below });
                moved.insert(node, below);
            }
            kept.push(below);
        }
        kept.sort_unstable();
        let kept: Box<[u32]> = kept.into();
        self.current = self.states.len() as u32;
        self.states.push(State { stacks: kept.clone(), next: None });
        self.state_numbers.insert(kept, self.current);
    }
}
