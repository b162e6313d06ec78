//! A look at examples as they will be learned, before anything is.

use std::path::Path;

use nfl_models::gguf::Gguf;
use nfl_models::template::{self, ChatTemplate};

use super::data::{Data, Example};
use super::error::LearnError;
use super::spans::Tokenizer;
use crate::engine::runner::Runner;
use crate::training::samples::Sample;

/// An example as it will be learned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shown {
    /// Where it stands in the file.
    pub place: String,
    /// Tokens.
    pub tokens: usize,
    /// Tokens that are learned.
    pub learned: usize,
    /// Its text, in parts that are learned or are not.
    pub parts: Vec<(String, bool)>,
}

/// The first examples of a file as a model would learn them; a preference as its two answers.
pub fn preview(
    model: &Path,
    data: &Path,
    count: usize,
    runner: &dyn Runner,
) -> Result<Vec<Shown>, LearnError> {
    let gguf = Gguf::open(model)?;
    let chat = gguf.metadata().text(template::METADATA_KEY).map(ChatTemplate::parse).transpose()?;
    let tokenizer = Tokenizer::new(runner, chat.as_ref());
    let data = Data::read(data, true)?;
    let mut all = Vec::new();
    for (place, example) in data.examples.iter().take(count) {
        match example {
            Example::Preference { .. } => {
                for (name, sample) in ["chosen", "rejected"].iter().zip(tokenizer.pair(example)?) {
                    all.push(shown(format!("{place}, {name}"), &sample, &tokenizer)?);
                }
            }
            _ => {
                for sample in tokenizer.samples(example)? {
                    all.push(shown(place.clone(), &sample, &tokenizer)?);
                }
            }
        }
    }
    Ok(all)
}

fn shown(place: String, sample: &Sample, tokenizer: &Tokenizer<'_>) -> Result<Shown, LearnError> {
    let mut parts: Vec<(Vec<u8>, bool)> = Vec::new();
    for (token, learned) in sample.tokens.iter().zip(&sample.learned) {
        let piece = tokenizer.piece(token.cast_signed())?;
        match parts.last_mut() {
            Some((bytes, is_learned)) if is_learned == learned => bytes.extend(piece),
            _ => parts.push((piece, *learned)),
        }
    }
    let text =
        |(bytes, learned): (Vec<u8>, bool)| (String::from_utf8_lossy(&bytes).into_owned(), learned);
    Ok(Shown {
        place,
        tokens: sample.tokens.len(),
        learned: sample.learned.iter().filter(|yes| **yes).count(),
        parts: parts.into_iter().map(text).collect(),
    })
}
