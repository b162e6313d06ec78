//! Generation: prompt in, one event a token out.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::ops::ControlFlow;
use std::time::Instant;

use super::{Session, ms_since};
use crate::engine::frames::{Done, Event, Failure, Generation, Prompt, Reason};
use crate::engine::llama::{LlamaError, Sampler, Token, TokenizeOptions, Vocabulary};
use crate::engine::stop::StopFilter;
use crate::engine::text::TextStream;

/// Where events go; Break ends the generation as a cancellation does.
type Emit<'a> = &'a mut dyn FnMut(Event) -> ControlFlow<()>;

impl Session {
    /// Continues a prompt and tells of every token as it comes.
    pub fn generate(&mut self, request: &Generation, emit: Emit<'_>) -> Result<Done, Failure> {
        let started = Instant::now();
        request.sampling.check()?;
        let filter = StopFilter::new(&request.stop)?;
        let prompt = self.prompt_tokens(&request.prompt)?;
        let seed = request.sampling.seed.unwrap_or_else(random_seed);
        let mut sampler = Sampler::new(&request.sampling, seed, self.context.context_tokens())?;
        let vocabulary = self.context.vocabulary().clone();
        let mut reply = Reply::new(request, &vocabulary, filter, account(prompt.len(), seed));
        reply.started = started;
        let read = self.read(&prompt, &mut |share| {
            // A closed pipe shows at the next event too; the reader's flag is what stops a prompt.
            let _ = emit(Event::Progress(share));
        });
        reply.done.prompt_ms = ms_since(reply.started);
        match read {
            Ok(cached) => reply.done.cached_tokens = cached as u32,
            Err(LlamaError::Aborted) => return Ok(reply.done),
            Err(error) => return Err(error.into()),
        }
        sampler.accept(&prompt);
        let prompt_done = Event::PromptDone {
            tokens: reply.done.prompt_tokens,
            cached_tokens: reply.done.cached_tokens,
            ms: reply.done.prompt_ms,
        };
        if emit(prompt_done).is_continue() {
            self.continue_text(&mut sampler, &mut reply, emit)?;
        }
        Ok(reply.done)
    }

    fn continue_text(
        &mut self,
        sampler: &mut Sampler,
        reply: &mut Reply<'_>,
        emit: Emit<'_>,
    ) -> Result<(), Failure> {
        if reply.request.tokens_max == Some(0) {
            reply.done.reason = Reason::Length;
            return Ok(());
        }
        let mut first_token = reply.started;
        reply.done.reason = loop {
            let token = sampler.sample(&mut self.context)?;
            if reply.done.first_token_ms.is_none() {
                reply.done.first_token_ms = Some(ms_since(reply.started));
                first_token = Instant::now();
            }
            if !reply.request.ignore_end && reply.vocabulary.is_end_of_generation(token) {
                break Reason::EndOfText;
            }
            reply.done.generated_tokens += 1;
            // The event leaves before the next computation, so that the reader works while it runs.
            let (text, stopped) = reply.write(token)?;
            let wanted = emit(Event::Token { id: Some(token), text }).is_continue();
            if stopped {
                break Reason::Stop;
            }
            if reply.request.tokens_max == Some(reply.done.generated_tokens) {
                break Reason::Length;
            }
            if !wanted || self.is_cancelled() {
                break Reason::Cancelled;
            }
            if self.held.len() >= self.context.context_tokens() {
                break Reason::ContextFull;
            }
            match self.advance(&[token], 0) {
                Ok(()) => reply.done.decoded_tokens += 1,
                Err(LlamaError::Aborted) => break Reason::Cancelled,
                Err(error) => return Err(error.into()),
            }
        };
        reply.done.decode_ms = ms_since(first_token);
        if reply.done.reason != Reason::Stop {
            let text = reply.finish();
            if !text.is_empty() {
                let _ = emit(Event::Token { id: None, text });
            }
        }
        Ok(())
    }

    /// The tokens of a prompt, checked against the vocabulary and the room of the context.
    fn prompt_tokens(&self, prompt: &Prompt) -> Result<Vec<Token>, Failure> {
        if !self.context.model().generates() {
            let message = "the model does not generate text: it is no plain decoder";
            return Err(Failure::Request(message.to_owned()));
        }
        let tokens = match prompt {
            Prompt::Text { text, add_special, parse_special } => {
                let options =
                    TokenizeOptions { add_special: *add_special, parse_special: *parse_special };
                self.tokenize(text, options)?
            }
            Prompt::Tokens(tokens) => tokens.clone(),
        };
        self.check_tokens(&tokens)?;
        Ok(tokens)
    }

    pub(super) fn check_tokens(&self, tokens: &[Token]) -> Result<(), Failure> {
        if tokens.is_empty() {
            return Err(Failure::Request("prompt: no tokens".to_owned()));
        }
        for &token in tokens {
            self.context.vocabulary().check(token)?;
        }
        let context_tokens = self.context.context_tokens();
        if tokens.len() > context_tokens {
            return Err(Failure::PromptTooLong { prompt_tokens: tokens.len(), context_tokens });
        }
        Ok(())
    }
}

/// A reply in the making: its text so far, and its account.
struct Reply<'a> {
    request: &'a Generation,
    vocabulary: &'a Vocabulary,
    started: Instant,
    done: Done,
    stream: TextStream,
    filter: StopFilter,
    bytes: Vec<u8>,
    text: String,
}

impl<'a> Reply<'a> {
    fn new(
        request: &'a Generation,
        vocabulary: &'a Vocabulary,
        filter: StopFilter,
        done: Done,
    ) -> Self {
        Self {
            request,
            vocabulary,
            started: Instant::now(),
            done,
            stream: TextStream::default(),
            filter,
            bytes: Vec::new(),
            text: String::new(),
        }
    }

    /// The text that a token makes certain, and whether a stop string came.
    fn write(&mut self, token: Token) -> Result<(String, bool), Failure> {
        self.bytes.clear();
        self.vocabulary.append_piece(token, self.request.special, &mut self.bytes)?;
        self.text.clear();
        self.stream.push(&self.bytes, &mut self.text);
        let mut shown = String::new();
        let stopped = self.filter.push(&self.text, &mut shown);
        Ok((shown, stopped))
    }

    /// What was held back.
    fn finish(&mut self) -> String {
        self.text.clear();
        self.stream.finish(&mut self.text);
        let mut shown = String::new();
        if !self.filter.push(&self.text, &mut shown) {
            self.filter.finish(&mut shown);
        }
        shown
    }
}

/// The account at the beginning; it stands when the prompt is cancelled.
fn account(prompt_tokens: usize, seed: u32) -> Done {
    Done {
        reason: Reason::Cancelled,
        prompt_tokens: prompt_tokens as u32,
        cached_tokens: 0,
        generated_tokens: 0,
        decoded_tokens: 0,
        prompt_ms: 0.0,
        decode_ms: 0.0,
        first_token_ms: None,
        seed,
    }
}

fn random_seed() -> u32 {
    RandomState::new().build_hasher().finish() as u32
}
