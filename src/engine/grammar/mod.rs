//! Grammars that a reply must follow: GBNF in, the tokens that may come next out.
//!
//! llama.cpp has such an engine; ours takes its place because that one cannot be bounded: it keeps a
//! list of stacks that an ambiguous grammar doubles with every character, recurses as deep as a
//! grammar is nested, and aborts the process where a token does not fit. Here a grammar is compiled
//! to bytes (so that no token can break a character), its stacks share their tails, sets of stacks
//! are numbered and their transitions remembered like those of an automaton, and every loop has a
//! limit that ends in an error. llama.cpp's engine is the judge of the tests.
//!
//! A grammar is pruned of what can never be finished; from every state that is reached some text
//! leads to the end.

mod compile;
mod gbnf;
mod matcher;
mod pieces;
mod program;
pub mod schema;
mod utf8;

use nfl_models::Hint;
use thiserror::Error;

pub use compile::{Grammar, TokenNames};
pub use matcher::Matcher;
pub use pieces::{Pieces, TokenMask};
pub use schema::SchemaError;

/// Bytes of a grammar in its source form.
pub const GRAMMAR_BYTES_MAX: usize = 1 << 20;

/// Symbols of a compiled grammar, repetitions written out.
pub const SYMBOLS_MAX: usize = 1 << 20;

/// How deep parentheses may be nested.
pub const NESTING_MAX: usize = 100;

/// How often something may be repeated by number.
pub const REPETITIONS_MAX: u32 = 100_000;

/// Places of one grammar at which a text may be at once.
pub const STACKS_MAX: usize = 1 << 14;

/// Steps that one token may cost before its grammar is called too complex.
pub const WORK_MAX: u64 = 1 << 21;

/// Why a grammar cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum GrammarError {
    /// The source is larger than [`GRAMMAR_BYTES_MAX`].
    #[error("grammar: {0} bytes, {GRAMMAR_BYTES_MAX} are the most")]
    TooLong(usize),
    /// The source is no GBNF.
    #[error("grammar, line {line}, column {column}: {problem}")]
    Syntax {
        /// From 1.
        line: usize,
        /// From 1, in characters.
        column: usize,
        /// What was wrong.
        problem: String,
    },
    /// No rule has the name that a grammar begins with.
    #[error("grammar: there is no rule named root")]
    NoRoot,
    /// Written out, the grammar has too many symbols.
    #[error("grammar: more than {SYMBOLS_MAX} symbols with all repetitions written out")]
    TooLarge,
    /// No text ever fulfils it.
    #[error("grammar: rule {0} can generate nothing: each alternative needs a rule without end")]
    Endless(String),
    /// Only the empty text fulfils it.
    #[error("grammar: it allows no text but the empty one")]
    Empty,
    /// A rule that begins with itself.
    #[error("grammar: rule {0} begins with itself (left recursion)")]
    LeftRecursion(String),
    /// Too many readings of a text at once.
    #[error("grammar: too ambiguous: the text so far has more than {STACKS_MAX} readings")]
    Ambiguous,
    /// Too much work for one token.
    #[error("grammar: too complex: testing one token takes more than {WORK_MAX} steps")]
    TooComplex,
    /// A schema that cannot be enforced.
    #[error(transparent)]
    Schema(#[from] SchemaError),
}

impl Hint for GrammarError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::Syntax { .. } | Self::NoRoot => Some(
                "a grammar is GBNF: rules such as root ::= \"yes\" | \"no\", one a line".to_owned(),
            ),
            Self::LeftRecursion(_) => Some(
                "write the recursion at the end (list ::= item (\",\" item)*) instead".to_owned(),
            ),
            Self::Schema(error) => error.hint(),
            _ => None,
        }
    }
}
