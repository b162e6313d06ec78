//! Accounts: tokens as OpenAI counts them, and time as llama-server tells it.

use std::time::Instant;

use super::wire::{CachedTokens, Progress, Timings, Usage};
use crate::chat::Event;
use crate::engine::frames::Done;

/// Counts the tokens of one reply or several.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Account {
    prompt: u32,
    cached: u32,
    made: u32,
}

impl Account {
    /// Takes the end of a reply; its prompt counts when it `is_first` to it.
    pub(super) fn add(&mut self, done: &Done, is_first: bool) {
        if is_first {
            self.prompt += done.prompt_tokens;
            self.cached += done.cached_tokens;
        }
        self.made += done.generated_tokens;
    }

    /// Takes a prompt that was read without a reply.
    pub(super) fn read(&mut self, tokens: u32) {
        self.prompt += tokens;
    }

    pub(super) fn usage(self) -> Usage {
        Usage {
            prompt_tokens: self.prompt,
            completion_tokens: Some(self.made),
            total_tokens: self.prompt + self.made,
            prompt_tokens_details: Some(CachedTokens { cached_tokens: self.cached }),
        }
    }
}

/// The account of a prompt without a reply.
pub(super) fn prompt_usage(tokens: u32) -> Usage {
    Usage { prompt_tokens: tokens, total_tokens: tokens, ..Usage::default() }
}

/// A clock beside a reply, for those who want to know while it is made.
#[derive(Debug, Clone, Copy)]
pub(super) struct Clock {
    started: Instant,
    read: Option<Instant>,
    prompt: u32,
    cached: u32,
    made: u32,
}

impl Clock {
    pub(super) fn start() -> Self {
        Self { started: Instant::now(), read: None, prompt: 0, cached: 0, made: 0 }
    }

    /// Hears what happens. A piece of text is a token, as a rule; the account at the end is exact.
    pub(super) fn hear(&mut self, event: &Event) {
        match event {
            Event::Read { tokens, cached_tokens } => {
                self.read = Some(Instant::now());
                self.prompt = *tokens;
                self.cached = *cached_tokens;
            }
            Event::Text(_) | Event::Thinking(_) => self.made += 1,
            _ => {}
        }
    }

    /// The account so far.
    pub(super) fn timings(&self) -> Timings {
        let read = self.read.unwrap_or_else(Instant::now);
        let made = (self.made, read.elapsed().as_secs_f64() * 1000.0);
        timings(self.cached, (self.prompt - self.cached, self.prompt_ms()), made)
    }

    /// How much of the prompt is read: all of it, for it is told when that is certain.
    pub(super) fn progress(&self) -> Progress {
        let (total, cache) = (self.prompt, self.cached);
        Progress { total, cache, processed: total, time_ms: self.prompt_ms() }
    }

    fn prompt_ms(&self) -> f64 {
        let read = self.read.unwrap_or_else(Instant::now);
        (read - self.started).as_secs_f64() * 1000.0
    }
}

/// The account of a reply that is over.
pub(super) fn of(done: &Done) -> Timings {
    let prompt = (done.prompt_tokens.saturating_sub(done.cached_tokens), done.prompt_ms);
    let timings = timings(done.cached_tokens, prompt, (done.generated_tokens, done.decode_ms));
    let drafted = done.drafted_tokens > 0;
    Timings {
        draft_n: drafted.then_some(done.drafted_tokens),
        draft_n_accepted: drafted.then_some(done.accepted_tokens),
        ..timings
    }
}

fn timings(cache_n: u32, prompt: (u32, f64), made: (u32, f64)) -> Timings {
    let each = |(tokens, ms): (u32, f64)| ms / f64::from(tokens.max(1));
    let rate =
        |(tokens, ms): (u32, f64)| if ms > 0.0 { f64::from(tokens) * 1000.0 / ms } else { 0.0 };
    Timings {
        cache_n,
        prompt_n: prompt.0,
        prompt_ms: prompt.1,
        prompt_per_token_ms: each(prompt),
        prompt_per_second: rate(prompt),
        predicted_n: made.0,
        predicted_ms: made.1,
        predicted_per_token_ms: each(made),
        predicted_per_second: rate(made),
        draft_n: None,
        draft_n_accepted: None,
    }
}
