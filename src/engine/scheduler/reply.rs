//! A reply in the making: the choice of its tokens, its text so far, and its account.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::time::{Duration, Instant};

use super::ms_since;
use crate::engine::frames::{Done, Event, Failure, Generation, Reason};
use crate::engine::llama::{Context, Sampler, TOP_LOGPROBS_MAX, Token, Vocabulary};
use crate::engine::options::Speculation;
use crate::engine::speculate::{Learned, Others, Outcome, Speculator};
use crate::engine::stop::StopFilter;
use crate::engine::text::TextStream;

#[derive(Debug)]
pub(super) struct Reply {
    vocabulary: Vocabulary,
    sampler: Sampler,
    filter: StopFilter,
    stream: TextStream,
    tokens_max: Option<u32>,
    ignore_end: bool,
    special: bool,
    /// Special tokens that are written out in any case.
    shown: Vec<Token>,
    /// How many of the likeliest tokens are told of with each token.
    logprobs: Option<usize>,
    /// Whether the beginning of a full context may go.
    shifts: bool,
    done: Done,
    /// When the request came.
    started: Instant,
    /// When it got its slot.
    admitted: Instant,
    first_token: Option<Instant>,
    /// The token that was chosen last and is not in the cache yet.
    next: Option<Token>,
    speculator: Option<Speculator>,
    /// The guesses that are in the batch behind the next token, and how long they took.
    guesses: Vec<Token>,
    guessing: Duration,
    /// The tokens that the running step gave.
    sampled: Vec<Token>,
    bytes: Vec<u8>,
    text: String,
}

impl Reply {
    pub(super) fn new(
        request: &Generation,
        prompt_tokens: usize,
        context: &Context,
        started: Instant,
    ) -> Result<Self, Failure> {
        request.sampling.check()?;
        if request.logprobs.is_some_and(|top| top as usize > TOP_LOGPROBS_MAX) {
            let reason = format!("logprobs: more than {TOP_LOGPROBS_MAX} tokens");
            return Err(Failure::Request(reason));
        }
        let filter = StopFilter::new(&request.stop)?;
        let seed = request.sampling.seed.unwrap_or_else(random_seed);
        let vocabulary = context.vocabulary().clone();
        let sampler = Sampler::new(&request.sampling, seed, &vocabulary, context.context_tokens())?;
        Ok(Self {
            vocabulary,
            sampler,
            filter,
            stream: TextStream::default(),
            tokens_max: request.tokens_max,
            ignore_end: request.ignore_end,
            special: request.special,
            shown: request.shown.clone(),
            logprobs: request.logprobs.map(|top| top as usize),
            shifts: request.shift,
            done: Done { prompt_tokens: prompt_tokens as u32, seed, ..Done::cancelled() },
            started,
            admitted: started,
            first_token: None,
            next: None,
            speculator: None,
            guesses: Vec::new(),
            guessing: Duration::ZERO,
            sampled: Vec::new(),
            bytes: Vec::new(),
            text: String::new(),
        })
    }

    /// Guesses tokens from here on.
    pub(super) fn guess_with(&mut self, speculation: Speculation, learned: &Learned) {
        let copies = !matches!(speculation, Speculation::Draft | Speculation::Mtp);
        let drafts = speculation != Speculation::Ngram;
        self.speculator = Some(Speculator::new(learned, copies, drafts));
    }

    /// Fills in the guesses for the next step, at most `limit`.
    pub(super) fn guess(&mut self, limit: usize, others: Others) {
        self.guesses.clear();
        let Some(speculator) = &mut self.speculator else { return };
        let left = self.tokens_max.map_or(limit, |most| {
            (most - self.done.generated_tokens.min(most)).saturating_sub(1) as usize
        });
        let started = Instant::now();
        self.guesses.extend_from_slice(speculator.propose(limit.min(left), others));
        self.guessing = started.elapsed();
    }

    /// Whether it wants the state of each token that is computed.
    pub(super) fn follows(&self) -> bool {
        self.speculator.as_ref().is_some_and(Speculator::follows)
    }

    /// Tells of a token that was computed at a position, and of the state that it left.
    pub(super) fn follow(&mut self, position: usize, token: Token, state: &[f32]) {
        if let Some(speculator) = &mut self.speculator {
            speculator.follow(position, token, state);
        }
    }

    /// The guesses in the batch.
    pub(super) fn guesses(&self) -> &[Token] {
        &self.guesses
    }

    /// Tells what became of a step: `computed` is the time of its computation.
    pub(super) fn step_done(&mut self, guessed: usize, others: Others, computed: Duration) {
        if let Some(speculator) = &mut self.speculator {
            speculator.outcome(&Outcome {
                tokens: &self.sampled,
                guessed,
                others,
                elapsed: computed + self.guessing,
                guessing: self.guessing,
            });
            let counters = speculator.counters();
            self.done.drafts += u32::from(guessed > 0);
            self.done.drafted_tokens = counters.drafted;
            self.done.accepted_tokens = counters.accepted;
        }
        self.sampled.clear();
        self.guesses.clear();
    }

    /// The token to compute next; None while the prompt is read.
    pub(super) fn next_token(&self) -> Option<Token> {
        self.next
    }

    pub(super) fn shifts(&self) -> bool {
        self.shifts
    }

    /// It got a slot that holds this many tokens of its prompt, `restored` of them from a file.
    pub(super) fn admit(&mut self, cached: usize, restored: usize) {
        self.admitted = Instant::now();
        self.done.queue_ms = ms_since(self.started);
        self.done.cached_tokens = cached as u32;
        self.done.restored_tokens = restored as u32;
    }

    /// Its prompt is read.
    pub(super) fn prompt_done(&mut self, prompt: &[Token]) -> Event {
        self.done.prompt_ms = ms_since(self.admitted);
        self.sampler.accept(prompt);
        if let Some(speculator) = &mut self.speculator {
            speculator.prompt(prompt, self.admitted.elapsed());
        }
        Event::PromptDone {
            tokens: self.done.prompt_tokens,
            cached_tokens: self.done.cached_tokens,
            ms: self.done.prompt_ms,
        }
    }

    /// The first token was chosen from the prompt's last row.
    pub(super) fn begun(&mut self) {
        if let Some(speculator) = &mut self.speculator {
            speculator.prompt(&self.sampled, Duration::ZERO);
        }
        self.sampled.clear();
    }

    /// Whether no token was asked for.
    pub(super) fn wants_nothing(&self) -> bool {
        self.tokens_max == Some(0)
    }

    /// A token that was chosen is in the cache now.
    pub(super) fn computed(&mut self) {
        self.next = None;
        self.done.decoded_tokens += 1;
    }

    /// Chooses the next token from a row of logits and tells of it. Returns why the reply ends, if
    /// it does.
    pub(super) fn choose(
        &mut self,
        logits: &mut [f32],
        send: &mut dyn FnMut(Event),
    ) -> Result<Option<Reason>, Failure> {
        let (token, logprobs) = match self.logprobs {
            None => (self.sampler.sample(logits)?, None),
            Some(top) => {
                let (token, logprobs) = self.sampler.sample_with_logprobs(logits, top)?;
                (token, Some(Box::new(logprobs)))
            }
        };
        if self.first_token.is_none() {
            self.done.first_token_ms = Some(ms_since(self.started));
            self.first_token = Some(Instant::now());
        }
        if !self.ignore_end && self.vocabulary.is_end_of_generation(token) {
            return Ok(Some(Reason::EndOfText));
        }
        self.done.generated_tokens += 1;
        self.next = Some(token);
        self.sampled.push(token);
        // The event leaves before the next computation, so that the reader works while it runs.
        let (text, stopped) = self.write(token)?;
        send(Event::Token { id: Some(token), text, logprobs });
        if stopped {
            return Ok(Some(Reason::Stop));
        }
        // Nothing but an end could follow, so that none need be computed.
        if self.sampler.is_complete() {
            return Ok(Some(Reason::EndOfText));
        }
        let is_full = self.tokens_max == Some(self.done.generated_tokens);
        Ok(is_full.then_some(Reason::Length))
    }

    /// The text that a token makes certain, and whether a stop string came.
    fn write(&mut self, token: Token) -> Result<(String, bool), Failure> {
        self.bytes.clear();
        let special = self.special || self.shown.contains(&token);
        self.vocabulary.append_piece(token, special, &mut self.bytes)?;
        self.text.clear();
        self.stream.push(&self.bytes, &mut self.text);
        let mut shown = String::new();
        let stopped = self.filter.push(&self.text, &mut shown);
        Ok((shown, stopped))
    }

    /// Ends the reply: text that was held back comes out, then its account.
    pub(super) fn finish(mut self, reason: Reason, send: &mut dyn FnMut(Event)) {
        self.done.reason = reason;
        self.done.stop = self.filter.found().map(|place| place as u32);
        match self.first_token {
            Some(first) => self.done.decode_ms = ms_since(first),
            None if self.done.prompt_ms == 0.0 => self.done.prompt_ms = ms_since(self.admitted),
            None => {}
        }
        if reason != Reason::Stop {
            let text = self.held_back();
            if !text.is_empty() {
                send(Event::Token { id: None, text, logprobs: None });
            }
        }
        send(Event::Done(self.done));
    }

    fn held_back(&mut self) -> String {
        self.text.clear();
        self.stream.finish(&mut self.text);
        let mut shown = String::new();
        if !self.filter.push(&self.text, &mut shown) {
            self.filter.finish(&mut shown);
        }
        shown
    }
}

fn random_seed() -> u32 {
    RandomState::new().build_hasher().finish() as u32
}
