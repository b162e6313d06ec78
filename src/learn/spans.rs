//! From examples to tokens, and which of them are learned.
//!
//! In a conversation that is what the assistant says, in the model's own chat template: a conversation is rendered up to
//! each of its turns, and what a turn adds to the text belongs to it. A template in which earlier turns look different once
//! there are later ones (some drop what was thought) is told apart by that, and refused where it matters.

use nfl_models::template::{ChatTemplate, Clock, Conversation};
use serde_json::{Map, Value};

use super::data::Example;
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

/// Makes tokens of examples.
#[derive(Debug)]
pub struct Tokenizer<'a> {
    /// The vocabulary.
    pub runner: &'a dyn Runner,
    /// The model's chat template.
    pub template: Option<&'a ChatTemplate>,
}

impl Tokenizer<'_> {
    /// The tokens of an example; what ends a text is learned with it.
    pub fn sample(&self, example: &Example) -> Result<Sample, LearnError> {
        let (spans, is_rendered) = match example {
            Example::Text(text) => (vec![Span { text: text.clone(), learned: true }], false),
            Example::Completion { prompt, completion } => {
                let given = Span { text: prompt.clone(), learned: false };
                (vec![given, Span { text: completion.clone(), learned: true }], false)
            }
            Example::Conversation(messages) => (self.conversation(messages)?, true),
        };
        let begin = self.begin();
        let writes_begin = spans.first().is_some_and(|first| {
            begin.is_some_and(|token| !token.text.is_empty() && first.text.starts_with(&token.text))
        });
        let mut sample = Sample { tokens: Vec::new(), learned: Vec::new() };
        for (number, span) in spans.iter().enumerate() {
            let adds_begin = number == 0 && !(is_rendered && writes_begin);
            let tokens = self.runner.tokenize(&span.text, adds_begin, is_rendered)?;
            sample.learned.resize(sample.tokens.len() + tokens.len(), span.learned);
            sample.tokens.extend(tokens.iter().map(|token| token.cast_unsigned()));
        }
        if let (false, Some(end)) = (is_rendered, &self.runner.info().end) {
            sample.tokens.push(end.id.cast_unsigned());
            sample.learned.push(true);
        }
        if let Some(first) = sample.learned.first_mut() {
            *first = false;
        }
        Ok(sample)
    }

    fn begin(&self) -> Option<&SpecialToken> {
        self.runner.info().begin.as_ref()
    }

    fn conversation(&self, messages: &[Value]) -> Result<Vec<Span>, LearnError> {
        let mut spans: Vec<Span> = Vec::new();
        let mut done = String::new();
        for (place, message) in messages.iter().enumerate() {
            if message["role"] != "assistant" {
                continue;
            }
            let before = self.render(&messages[..place], true)?;
            let through = self.render(&messages[..=place], false)?;
            let (Some(given), Some(said)) =
                (before.strip_prefix(&done), through.strip_prefix(&before))
            else {
                return Err(LearnError::TemplateChanges { turn: place + 1 });
            };
            spans.push(Span { text: given.to_owned(), learned: false });
            spans.push(Span { text: said.to_owned(), learned: true });
            done = through;
        }
        Ok(spans)
    }

    fn render(
        &self,
        messages: &[Value],
        add_generation_prompt: bool,
    ) -> Result<String, LearnError> {
        let template = self.template.ok_or(LearnError::NoTemplate)?;
        let text =
            |token: Option<&SpecialToken>| token.map_or(String::new(), |token| token.text.clone());
        let (begin, end) = (text(self.begin()), text(self.runner.info().end.as_ref()));
        let conversation = Conversation {
            messages,
            tools: None,
            bos_token: &begin,
            eos_token: &end,
            add_generation_prompt,
            extra: Map::new(),
            now: Clock::now_utc(),
        };
        Ok(template.render(&conversation)?)
    }
}
