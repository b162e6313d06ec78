//! A compiled grammar: alternatives as runs of symbols, and what follows from their shape.

use super::GrammarError;

/// A set of bytes.
pub(super) type ByteSet = [u64; 4];

/// One symbol of an alternative.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Symbol {
    /// The end of an alternative.
    End,
    /// One byte of the set of this number.
    Bytes(u32),
    /// A rule.
    Rule(u32),
    /// One token.
    Token(u32),
    /// Any token but one.
    NotToken(u32),
}

/// Rules as lists of alternatives, before they are laid out.
pub(super) type Rules = Vec<Vec<Vec<Symbol>>>;

/// The symbols of a grammar in one list.
#[derive(Debug)]
pub(super) struct Program {
    pub(super) symbols: Vec<Symbol>,
    pub(super) sets: Vec<ByteSet>,
    /// Where the alternatives of each rule begin.
    pub(super) starts: Vec<Vec<u32>>,
    pub(super) root: u32,
}

impl Program {
    pub(super) fn new(rules: &Rules, sets: Vec<ByteSet>, root: u32) -> Self {
        let mut symbols = Vec::new();
        let starts = rules
            .iter()
            .map(|alternatives| {
                let start = |alternative: &Vec<Symbol>| {
                    let place = symbols.len() as u32;
                    symbols.extend_from_slice(alternative);
                    symbols.push(Symbol::End);
                    place
                };
                alternatives.iter().map(start).collect()
            })
            .collect();
        Self { symbols, sets, starts, root }
    }
}

/// Takes alternatives away that no text can finish, and refuses grammars that could then only run
/// for ever.
pub(super) fn prune(
    rules: &mut Rules,
    sets: &[ByteSet],
    root: u32,
    name: &dyn Fn(u32) -> String,
) -> Result<(), GrammarError> {
    let finishes = fulfilled(rules, &|symbol| match symbol {
        Symbol::Bytes(set) => sets[set as usize] != [0; 4],
        _ => true,
    });
    if !finishes[root as usize] {
        return Err(GrammarError::Endless(name(root)));
    }
    for alternatives in rules.iter_mut() {
        alternatives.retain(|alternative| {
            alternative.iter().all(|symbol| match symbol {
                Symbol::Rule(rule) => finishes[*rule as usize],
                Symbol::Bytes(set) => sets[*set as usize] != [0; 4],
                _ => true,
            })
        });
    }
    if !reaches_terminal(rules, root) {
        return Err(GrammarError::Empty);
    }
    let empty = fulfilled(rules, &|_| false);
    match left_recursion(rules, &empty) {
        Some(rule) => Err(GrammarError::LeftRecursion(name(rule))),
        None => Ok(()),
    }
}

/// The rules with an alternative of which all symbols are fulfilled: terminals as `terminal` says,
/// rules when they are of this kind themselves. Linear in the symbols.
fn fulfilled(rules: &Rules, terminal: &dyn Fn(Symbol) -> bool) -> Vec<bool> {
    // Of each alternative, the rules that it waits for; None when a terminal fails it.
    let mut waiting: Vec<(u32, usize)> = Vec::new();
    let mut users: Vec<Vec<u32>> = vec![Vec::new(); rules.len()];
    let mut found = vec![false; rules.len()];
    let mut ready: Vec<u32> = Vec::new();
    for (rule, alternatives) in rules.iter().enumerate() {
        for alternative in alternatives {
            let is_terminal = |symbol: &&Symbol| !matches!(symbol, Symbol::Rule(_));
            if !alternative.iter().filter(is_terminal).all(|symbol| terminal(*symbol)) {
                continue;
            }
            let mut count = 0;
            for symbol in alternative {
                if let Symbol::Rule(used) = symbol {
                    users[*used as usize].push(waiting.len() as u32);
                    count += 1;
                }
            }
            waiting.push((rule as u32, count));
            if count == 0 && !std::mem::replace(&mut found[rule], true) {
                ready.push(rule as u32);
            }
        }
    }
    while let Some(rule) = ready.pop() {
        for &alternative in &users[rule as usize] {
            let (owner, count) = &mut waiting[alternative as usize];
            *count -= 1;
            if *count == 0 && !std::mem::replace(&mut found[*owner as usize], true) {
                ready.push(*owner);
            }
        }
    }
    found
}

fn reaches_terminal(rules: &Rules, root: u32) -> bool {
    let mut seen = vec![false; rules.len()];
    let mut open = vec![root];
    seen[root as usize] = true;
    while let Some(rule) = open.pop() {
        for symbol in rules[rule as usize].iter().flatten() {
            match symbol {
                Symbol::Rule(next) if !std::mem::replace(&mut seen[*next as usize], true) => {
                    open.push(*next);
                }
                Symbol::Rule(_) => {}
                _ => return true,
            }
        }
    }
    false
}

/// A rule that comes back to itself before any text, with something left to do behind it: its
/// stacks would grow for ever. Coming back as the last symbol is harmless: the stack stays the same.
fn left_recursion(rules: &Rules, empty: &[bool]) -> Option<u32> {
    let edges: Vec<Vec<(u32, bool)>> = rules
        .iter()
        .map(|alternatives| {
            let mut edges = Vec::new();
            for alternative in alternatives {
                for (place, symbol) in alternative.iter().enumerate() {
                    let Symbol::Rule(next) = *symbol else { break };
                    edges.push((next, place + 1 == alternative.len()));
                    if !empty[next as usize] {
                        break;
                    }
                }
            }
            edges
        })
        .collect();
    let component = components(&edges);
    let grows = |rule: &usize| {
        edges[*rule]
            .iter()
            .any(|&(next, last)| !last && component[next as usize] == component[*rule])
    };
    (0..rules.len()).find(grows).map(|rule| rule as u32)
}

/// Tarjan's strongly connected components, without recursion.
fn components(edges: &[Vec<(u32, bool)>]) -> Vec<usize> {
    const NONE: usize = usize::MAX;
    let mut order = vec![NONE; edges.len()];
    let mut low = vec![0; edges.len()];
    let mut component = vec![NONE; edges.len()];
    let (mut next, mut count) = (0, 0);
    let mut held: Vec<usize> = Vec::new();
    for start in 0..edges.len() {
        if order[start] != NONE {
            continue;
        }
        let mut path: Vec<(usize, usize)> = vec![(start, 0)];
        while let Some((node, edge)) = path.pop() {
            if edge == 0 {
                order[node] = next;
                low[node] = next;
                next += 1;
                held.push(node);
            }
            if let Some(&(target, _)) = edges[node].get(edge) {
                path.push((node, edge + 1));
                let target = target as usize;
                if order[target] == NONE {
                    path.push((target, 0));
                } else if component[target] == NONE {
                    low[node] = low[node].min(order[target]);
                }
                continue;
            }
            if low[node] == order[node] {
                while let Some(member) = held.pop() {
                    component[member] = count;
                    if member == node {
                        break;
                    }
                }
                count += 1;
            }
            if let Some(&(parent, _)) = path.last() {
                low[parent] = low[parent].min(low[node]);
            }
        }
    }
    component
}
