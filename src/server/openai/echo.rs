//! Prompts that come back with the answer, and how likely their tokens were.

use super::logprobs::TextLogprobs;
use super::prompt::Prompt;
use crate::chat::{Responder, TokenChance};
use crate::server::problem::Problem;

/// A prompt as it comes back.
#[derive(Debug, Default)]
pub(super) struct Echo {
    pub(super) text: String,
    /// Tokens of the prompt.
    pub(super) tokens: u32,
    /// What the model thought of each; nothing when that was not asked.
    pub(super) chances: Vec<Echoed>,
}

/// A token of a prompt.
#[derive(Debug, Clone)]
pub(super) struct Echoed {
    token: TokenChance,
    /// The likeliest tokens in its place; None for the first one, which has nothing before it.
    top: Option<Vec<TokenChance>>,
}

impl Echo {
    /// Reads a prompt; with `logprobs`, tells of so many of the likeliest tokens in each place.
    pub(super) fn of(
        prompt: &Prompt,
        model: &Responder,
        logprobs: Option<u32>,
    ) -> Result<Self, Problem> {
        let tokens = prompt.tokens(model)?;
        let mut bytes = Vec::with_capacity(tokens.len());
        for token in &tokens {
            bytes.push(model.piece(*token)?);
        }
        let is_text = matches!(prompt, Prompt::Text(_));
        let begin = model.info().begin.as_ref().map(|begin| begin.id);
        if is_text && tokens.first().copied() == begin && begin.is_some() {
            // The model's own beginning is no part of the text.
            bytes[0].clear();
        }
        let text = match prompt {
            Prompt::Text(text) => text.clone(),
            _ => String::from_utf8_lossy(&bytes.concat()).into_owned(),
        };
        let count = tokens.len() as u32;
        let chances = match logprobs {
            Some(top) if !tokens.is_empty() => chances(&tokens, bytes, model, top)?,
            _ => Vec::new(),
        };
        Ok(Self { text, tokens: count, chances })
    }

    /// Puts its tokens in front of those of the answer.
    pub(super) fn tell(&self, logprobs: &mut TextLogprobs) {
        for Echoed { token, top } in &self.chances {
            logprobs.token(token, top.as_deref());
        }
    }
}

fn chances(
    tokens: &[i32],
    bytes: Vec<Vec<u8>>,
    model: &Responder,
    top: u32,
) -> Result<Vec<Echoed>, Problem> {
    let found = match tokens.len() {
        1 => Vec::new(),
        _ => model.runner().logprobs(tokens, 1, top)?,
    };
    let pairs = tokens.iter().zip(bytes);
    let mut found = found.into_iter();
    pairs
        .enumerate()
        .map(|(index, (&id, bytes))| {
            let found = if index == 0 { None } else { found.next() };
            let Some(found) = found else {
                return Ok(Echoed { token: TokenChance { id, bytes, logprob: 0.0 }, top: None });
            };
            let top = found.top.into_iter().map(|(id, logprob)| -> Result<TokenChance, Problem> {
                Ok(TokenChance { id, bytes: model.piece(id)?, logprob })
            });
            let token = TokenChance { id, bytes, logprob: found.logprob };
            Ok(Echoed { token, top: Some(top.collect::<Result<_, _>>()?) })
        })
        .collect()
}
