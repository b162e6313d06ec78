//! Examples as people have them: texts, conversations, instructions, prompts with their completions, preferences.
//!
//! | an object with | is |
//! |---|---|
//! | `messages` (and `tools`) | a conversation, as OpenAI writes it |
//! | `conversations` (and `tools`) | one as ShareGPT writes it: `from` (human, gpt, function_call, …) and `value` |
//! | `instruction`, `output` (and `input`) | an instruction, as Alpaca writes it |
//! | `prompt`, `completion` | a text and how it goes on |
//! | `prompt`, `chosen`, `rejected` | a better and a worse answer, as texts or turns |
//! | `text` | a text |
//!
//! One object a line (JSONL), a JSON array of them, CSV or TSV with a head line, or Parquet; `.txt` is one text.

mod error;
mod form;
mod rows;

use std::collections::{BTreeMap, HashSet};
use std::path::Path;

use serde_json::Value;
use sha2::{Digest as _, Sha256};

pub use error::{Bad, DATA_BYTES_MAX, DataError};
pub use form::Form;

/// Messages of a conversation, as chat templates read them.
pub type Turns = Vec<Value>;

/// A conversation.
#[derive(Debug, Clone, PartialEq)]
pub struct Talk {
    /// What was said.
    pub messages: Turns,
    /// The tools on offer, in OpenAI's form.
    pub tools: Option<Value>,
}

/// A part of a conversation or of a text.
#[derive(Debug, Clone, PartialEq)]
pub enum Answer {
    /// Of a text.
    Text(String),
    /// Of a conversation.
    Turns(Turns),
}

/// One example.
#[derive(Debug, Clone, PartialEq)]
pub enum Example {
    /// A text of which everything is learned.
    Text(String),
    /// A text and how it goes on, of which only that is learned.
    Completion {
        /// What is given.
        prompt: String,
        /// What is learned.
        completion: String,
    },
    /// A conversation, of which the assistant's turns are learned.
    Conversation(Talk),
    /// Two answers, of which one is better; all three are texts, or all three are turns.
    Preference {
        /// What is given.
        prompt: Answer,
        /// The better answer.
        chosen: Answer,
        /// The worse answer.
        rejected: Answer,
    },
}

/// The examples of a file.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Data {
    /// Each once, with its place in the file.
    pub examples: Vec<(String, Example)>,
    /// How many of each form there are.
    pub forms: BTreeMap<Form, usize>,
    /// Examples that are there already.
    pub duplicates: usize,
    /// Examples that make no sense, where they are skipped.
    pub bad: Bad,
}

impl Data {
    /// Reads a file. Without `skip_bad` an example that makes no sense fails all, when all were looked at.
    pub fn read(path: &Path, skip_bad: bool) -> Result<Self, DataError> {
        let rows = rows::read(path, rows::bytes_of(path, DATA_BYTES_MAX)?)?;
        let total = rows.len();
        let mut data = Self::default();
        let mut seen = HashSet::new();
        for (place, row) in rows {
            match row.and_then(|row| form::example(&row)) {
                Ok((form, example)) => {
                    *data.forms.entry(form).or_default() += 1;
                    // What is exactly the same behind the form's reader, by a hash that nothing else has.
                    if seen.insert(<[u8; 32]>::from(Sha256::digest(format!("{example:?}")))) {
                        data.examples.push((place, example));
                    } else {
                        data.duplicates += 1;
                    }
                }
                Err(reason) => data.bad.add(|| place, reason),
            }
        }
        let path = path.to_owned();
        if data.bad.count > 0 && !skip_bad {
            return Err(DataError::Bad { path, bad: data.bad, total });
        }
        if data.examples.is_empty() {
            return Err(DataError::Empty { path });
        }
        Ok(data)
    }

    /// Takes a share of the examples out, at least one, as `shuffled` puts numbers of examples into an order.
    pub fn split(
        &mut self,
        share: f64,
        shuffled: impl FnOnce(&mut [usize]),
    ) -> Result<Vec<(String, Example)>, DataError> {
        let examples = self.examples.len();
        let taken = ((examples as f64 * share).round() as usize).max(1);
        if taken >= examples {
            return Err(DataError::Split { share, examples });
        }
        let mut order: Vec<usize> = (0..examples).collect();
        shuffled(&mut order);
        let away: HashSet<usize> = order[..taken].iter().copied().collect();
        let all = std::mem::take(&mut self.examples).into_iter().enumerate();
        let (out, stay): (Vec<_>, Vec<_>) = all.partition(|(number, _)| away.contains(number));
        self.examples = stay.into_iter().map(|(_, example)| example).collect();
        Ok(out.into_iter().map(|(_, example)| example).collect())
    }
}

#[cfg(test)]
mod tests;
