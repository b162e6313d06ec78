//! From examples to tokens, and which of them are learned.
//!
//! In a conversation that is what the assistant says, in the model's own chat template: a conversation is rendered up
//! to each of its turns, and what a turn adds to the text belongs to it, its end included. A template that writes
//! earlier turns differently once there are later ones (some drop what was thought) has its conversations learned turn
//! by turn, each as the model will see it.
//!
//! A text becomes tokens as one, as it does when the model runs; a token is learned that has a byte to be learned.

use std::cell::RefCell;
use std::collections::HashMap;
use std::ops::Range;

use nfl_models::template::{ChatTemplate, Clock, Conversation};
use serde_json::{Map, Value};

use super::data::{Answer, Example, Talk};
use super::error::LearnError;
use crate::engine::frames::SpecialToken;
use crate::engine::runner::Runner;
use crate::training::samples::Sample;

/// A part of a text.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Span {
    text: String,
    learned: bool,
}

impl Span {
    fn new(text: &str, learned: bool) -> Self {
        Self { text: text.to_owned(), learned }
    }
}

/// A turn of a conversation in its template: what stands before it, and what it adds.
struct Turn {
    given: String,
    said: String,
}

/// Makes tokens of examples.
#[derive(Debug)]
pub struct Tokenizer<'a> {
    runner: &'a dyn Runner,
    template: Option<&'a ChatTemplate>,
    /// The bytes of tokens that were met.
    pieces: RefCell<HashMap<i32, Vec<u8>>>,
}

impl<'a> Tokenizer<'a> {
    /// One for a model's vocabulary and its chat template.
    pub fn new(runner: &'a dyn Runner, template: Option<&'a ChatTemplate>) -> Self {
        Self { runner, template, pieces: RefCell::default() }
    }

    /// The tokens of an example; what ends a text is learned with it. They are several where a template rewrites
    /// earlier turns.
    pub fn samples(&self, example: &Example) -> Result<Vec<Sample>, LearnError> {
        match example {
            Example::Text(text) => Ok(vec![self.sample(&[Span::new(text, true)], false)?]),
            Example::Completion { prompt, completion } => {
                Ok(vec![self.continued(prompt, completion)?])
            }
            Example::Conversation(talk) => {
                let parts = self.conversation(talk)?;
                parts.iter().map(|spans| self.sample(spans, true)).collect()
            }
            Example::Preference { .. } => Err(LearnError::Preferences),
        }
    }

    /// The better and the worse answer of a preference, each behind its prompt.
    pub fn pair(&self, example: &Example) -> Result<[Sample; 2], LearnError> {
        let Example::Preference { prompt, chosen, rejected } = example else {
            return Err(LearnError::NoPreferences);
        };
        Ok([self.answer(prompt, chosen)?, self.answer(prompt, rejected)?])
    }

    fn answer(&self, prompt: &Answer, answer: &Answer) -> Result<Sample, LearnError> {
        match (prompt, answer) {
            (Answer::Turns(prompt), Answer::Turns(answer)) => {
                let messages: Vec<Value> = prompt.iter().chain(answer).cloned().collect();
                let last = messages.len() - 1;
                let Turn { given, said } = self.turn(&Talk { messages, tools: None }, last)?;
                self.sample(&self.said(&given, &said), true)
            }
            (Answer::Text(prompt), Answer::Text(answer)) => self.continued(prompt, answer),
            _ => Err(LearnError::NoPreferences),
        }
    }

    /// A text and how it goes on.
    fn continued(&self, prompt: &str, completion: &str) -> Result<Sample, LearnError> {
        self.sample(&[Span::new(prompt, false), Span::new(completion, true)], false)
    }

    /// The bytes of a token, as it stands in a text.
    pub fn piece(&self, token: i32) -> Result<Vec<u8>, LearnError> {
        if let Some(piece) = self.pieces.borrow().get(&token) {
            return Ok(piece.clone());
        }
        let piece = self.runner.detokenize(&[token], true)?;
        self.pieces.borrow_mut().insert(token, piece.clone());
        Ok(piece)
    }

    fn sample(&self, spans: &[Span], is_rendered: bool) -> Result<Sample, LearnError> {
        let text: String = spans.iter().map(|span| span.text.as_str()).collect();
        let begin = self.begin();
        let writes_begin =
            begin.is_some_and(|token| !token.text.is_empty() && text.starts_with(&token.text));
        let adds_begin = !(is_rendered && writes_begin);
        let tokens = self.runner.tokenize(&text, adds_begin, is_rendered)?;
        let mut sample = match self.places(&tokens, text.as_bytes(), adds_begin)? {
            Some(places) => {
                let mut learned = Vec::new();
                let mut end = 0;
                for span in spans {
                    learned.push((end..end + span.text.len(), span.learned));
                    end += span.text.len();
                }
                let is_learned = |place: &Range<usize>| {
                    let meets =
                        |part: &Range<usize>| part.start < place.end && place.start < part.end;
                    learned.iter().any(|(part, is_learned)| *is_learned && meets(part))
                };
                Sample {
                    tokens: tokens.iter().map(|token| token.cast_unsigned()).collect(),
                    learned: places.iter().map(is_learned).collect(),
                }
            }
            None => self.part_by_part(spans, adds_begin, is_rendered)?,
        };
        if let (false, Some(end)) = (is_rendered, &self.runner.info().end)
            && sample.tokens.last() != Some(&end.id.cast_unsigned())
        {
            sample.tokens.push(end.id.cast_unsigned());
            sample.learned.push(true);
        }
        if let Some(first) = sample.learned.first_mut() {
            *first = false;
        }
        Ok(sample)
    }

    /// Where each token stands in the text; None for a tokenizer that does not write texts as they were.
    fn places(
        &self,
        tokens: &[i32],
        text: &[u8],
        adds_begin: bool,
    ) -> Result<Option<Vec<Range<usize>>>, LearnError> {
        let begin = self.begin().map(|token| token.id);
        let mut places = Vec::with_capacity(tokens.len());
        let mut at = 0;
        for (number, token) in tokens.iter().enumerate() {
            if number == 0 && adds_begin && begin == Some(*token) {
                places.push(0..0);
                continue;
            }
            let piece = self.piece(*token)?;
            // Some vocabularies put a space in front of a text; some leave spaces beside special tokens out.
            let bare = piece.strip_prefix(b" ").unwrap_or(&piece);
            let skipped = text[at..].iter().take_while(|byte| byte.is_ascii_whitespace()).count();
            let found =
                [(at, piece.as_slice()), (at, bare), (at + skipped, &piece), (at + skipped, bare)]
                    .into_iter()
                    .find(|(start, piece)| text[*start..].starts_with(piece));
            let Some((start, piece)) = found else { return Ok(None) };
            at = start + piece.len();
            places.push(start..at);
        }
        Ok(text[at..].trim_ascii().is_empty().then_some(places))
    }

    /// Each span as tokens of its own.
    fn part_by_part(
        &self,
        spans: &[Span],
        adds_begin: bool,
        is_rendered: bool,
    ) -> Result<Sample, LearnError> {
        let mut sample = Sample { tokens: Vec::new(), learned: Vec::new() };
        for (number, span) in spans.iter().enumerate() {
            let tokens =
                self.runner.tokenize(&span.text, adds_begin && number == 0, is_rendered)?;
            sample.learned.resize(sample.tokens.len() + tokens.len(), span.learned);
            sample.tokens.extend(tokens.iter().map(|token| token.cast_unsigned()));
        }
        Ok(sample)
    }

    fn begin(&self) -> Option<&SpecialToken> {
        self.runner.info().begin.as_ref()
    }

    /// The parts of a conversation's text; several texts where the template rewrites earlier turns.
    fn conversation(&self, talk: &Talk) -> Result<Vec<Vec<Span>>, LearnError> {
        let places = talk.messages.iter().enumerate();
        let places = places.filter(|(_, message)| message["role"] == "assistant");
        let turns = places.map(|(place, _)| self.turn(talk, place));
        let turns = turns.collect::<Result<Vec<Turn>, _>>()?;
        let mut whole = Vec::new();
        let mut done = String::new();
        for turn in &turns {
            let Some(given) = turn.given.strip_prefix(&done) else {
                return Ok(turns.iter().map(|turn| self.said(&turn.given, &turn.said)).collect());
            };
            whole.extend(self.said(given, &turn.said));
            done = format!("{}{}", turn.given, turn.said);
        }
        Ok(vec![whole])
    }

    /// A turn as spans. Behind the token that ends it nothing is ever generated: a line's end there is not learned.
    fn said(&self, given: &str, said: &str) -> Vec<Span> {
        let trimmed = said.trim_end();
        let info = self.runner.info();
        let ends = |token: &SpecialToken| !token.text.is_empty() && trimmed.ends_with(&token.text);
        let length = if info.control.iter().any(ends) { trimmed.len() } else { said.len() };
        let (said, rest) = said.split_at(length);
        let spans = [Span::new(given, false), Span::new(said, true), Span::new(rest, false)];
        spans.into_iter().filter(|span| !span.text.is_empty()).collect()
    }

    /// What a turn adds to the text of a conversation that ends with it.
    fn turn(&self, talk: &Talk, place: usize) -> Result<Turn, LearnError> {
        let opened = self.render(talk, place, true)?;
        let through = self.render(talk, place + 1, false)?;
        if let Some(said) = through.strip_prefix(&opened) {
            return Ok(Turn { said: said.to_owned(), given: opened });
        }
        // The opening of a reply may have more than turns begin with: a thought is opened that this turn does not have.
        let same =
            opened.bytes().zip(through.bytes()).take_while(|(one, other)| one == other).count();
        let same = (0..=same).rev().find(|length| through.is_char_boundary(*length)).unwrap_or(0);
        if same < self.render(talk, place, false)?.len() {
            return Err(LearnError::TemplateChanges { turn: place + 1 });
        }
        let (given, said) = through.split_at(same);
        Ok(Turn { given: given.to_owned(), said: said.to_owned() })
    }

    /// The text of the first `count` messages.
    fn render(
        &self,
        talk: &Talk,
        count: usize,
        add_generation_prompt: bool,
    ) -> Result<String, LearnError> {
        let template = self.template.ok_or(LearnError::NoTemplate)?;
        if count == 0 && !add_generation_prompt {
            return Ok(String::new());
        }
        let text =
            |token: Option<&SpecialToken>| token.map_or(String::new(), |token| token.text.clone());
        let (begin, end) = (text(self.begin()), text(self.runner.info().end.as_ref()));
        let conversation = Conversation {
            messages: &talk.messages[..count],
            tools: talk.tools.clone(),
            bos_token: &begin,
            eos_token: &end,
            add_generation_prompt,
            extra: Map::new(),
            now: Clock::now_utc(),
        };
        Ok(template.render(&conversation)?)
    }
}

#[cfg(test)]
#[path = "spans_tests.rs"]
mod tests;
