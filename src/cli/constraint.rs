//! The flags that say what a reply must be.

use std::fs::File;
use std::io::Read;

use clap::Args;

use super::failure::Failure;
use crate::engine::grammar::GRAMMAR_BYTES_MAX;
use crate::engine::options::Constraint;

#[derive(Debug, Args)]
#[command(next_help_heading = "What the reply must be")]
#[group(multiple = false)]
pub(super) struct ConstraintArguments {
    /// JSON that is valid for this JSON Schema: a file, or the schema itself. What cannot be enforced is an error.
    #[arg(long, value_name = "FILE|SCHEMA")]
    json_schema: Option<String>,
    /// A JSON object.
    #[arg(long)]
    json_object: bool,
    /// A text of this grammar, in llama.cpp's GBNF: a file, or the grammar itself.
    #[arg(long, value_name = "FILE|GRAMMAR")]
    grammar: Option<String>,
}

impl ConstraintArguments {
    pub(super) fn read(&self) -> Result<Option<Constraint>, Failure> {
        if let Some(schema) = &self.json_schema {
            // A schema is an object or a truth value, and no file is named like that.
            let is_schema = schema.trim_start().starts_with('{') || schema == "true";
            let text = if is_schema { schema.clone() } else { contents(schema)? };
            return Ok(Some(Constraint::JsonSchema(text)));
        }
        if let Some(grammar) = &self.grammar {
            let is_grammar = grammar.contains("::=");
            let text = if is_grammar { grammar.clone() } else { contents(grammar)? };
            return Ok(Some(Constraint::Grammar(text)));
        }
        Ok(self.json_object.then_some(Constraint::Json))
    }
}

fn contents(path: &str) -> Result<String, Failure> {
    let failed = |error: std::io::Error| Failure::new(format!("{path}: {error}"), None);
    let mut text = String::new();
    let file = File::open(path).map_err(failed)?;
    file.take(GRAMMAR_BYTES_MAX as u64 + 1).read_to_string(&mut text).map_err(failed)?;
    if text.len() > GRAMMAR_BYTES_MAX {
        return Err(Failure::new(format!("{path}: more than {GRAMMAR_BYTES_MAX} bytes"), None));
    }
    Ok(text)
}
