//! A runner that plays a script: what a model "says" is given beforehand, what it was asked is kept. For tests that
//! want exact transcripts without a model.
//!
//! Its tokens: a byte is the token of its number, special tokens have the numbers from 256 on, and pieces of a script
//! the numbers behind those.

use std::collections::VecDeque;
use std::ops::ControlFlow;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::embedding::{Embedding, EmbeddingRequest, Embeddings, Passage, Pooling};
use super::frames::{
    Done, Event, Failure, Generation, LoadInfo, MemoryUse, Prompt, Reason, SpecialToken, Status,
};
use super::llama::Logprobs;
use super::process::EngineError;
use super::runner::{Cancel, Runner};
use super::stop::StopFilter;
use super::text::TextStream;

/// The first number that is no byte.
const BYTES: usize = 256;

/// The natural logarithm of the probability that every token of a script has.
const LOGPROB: f32 = -0.5;

/// A scripted runner. Copies share the script and what was heard, so that a test keeps one and hands the other on.
#[derive(Debug, Clone)]
pub struct Fake {
    info: Arc<LoadInfo>,
    /// Texts of special tokens.
    special: Arc<[String]>,
    shared: Arc<Mutex<Shared>>,
}

#[derive(Debug, Default)]
struct Shared {
    script: VecDeque<Turn>,
    heard: Vec<Generation>,
    /// Pieces of scripts that are no bytes and no special tokens.
    pieces: Vec<String>,
    is_dead: bool,
}

/// One answer of a script.
#[derive(Debug)]
enum Turn {
    Says { tokens: Vec<String>, pause: Duration, again: bool },
    Fails(EngineError),
}

impl Fake {
    /// A runner with special tokens of these texts; the first begins a sequence, the second ends it and its turns.
    pub fn new(special: &[&str]) -> Self {
        let token = |index: usize| {
            let text = (*special.get(index)?).to_owned();
            Some(SpecialToken { id: (BYTES + index) as i32, text })
        };
        let info = LoadInfo {
            architecture: "fake".to_owned(),
            context_tokens: 4096,
            context_trained_tokens: 4096,
            embedding_tokens: 4096,
            embedding_length: 4,
            vocabulary_tokens: (BYTES + special.len()) as u32,
            begin: token(0),
            end: token(1),
            end_of_turn: token(1),
            control: (0..special.len()).filter_map(token).collect(),
            ..LoadInfo::default()
        };
        let special = special.iter().map(|text| (*text).to_owned()).collect();
        Self { info: Arc::new(info), special, shared: Arc::default() }
    }

    /// The same runner, telling something else of itself.
    #[must_use]
    pub fn with_info(self, change: impl FnOnce(&mut LoadInfo)) -> Self {
        let mut info = LoadInfo::clone(&self.info);
        change(&mut info);
        Self { info: Arc::new(info), ..self }
    }

    /// The next request is answered with these tokens.
    pub fn says(&self, tokens: &[&str]) {
        self.add(tokens, Duration::ZERO, false);
    }

    /// The next request is answered with these tokens again and again, with a pause before each, until somebody stops
    /// it.
    pub fn says_without_end(&self, tokens: &[&str], pause: Duration) {
        self.add(tokens, pause, true);
    }

    /// The next request fails.
    pub fn fails(&self, error: EngineError) {
        self.shared().script.push_back(Turn::Fails(error));
    }

    /// What was asked so far, the oldest first.
    pub fn heard(&self) -> Vec<Generation> {
        self.shared().heard.clone()
    }

    fn add(&self, tokens: &[&str], pause: Duration, again: bool) {
        let tokens = tokens.iter().map(|token| (*token).to_owned()).collect();
        self.shared().script.push_back(Turn::Says { tokens, pause, again });
    }

    fn shared(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The number of a piece of a script.
    fn token(&self, piece: &str) -> i32 {
        if let Some(index) = self.special.iter().position(|text| text == piece) {
            return (BYTES + index) as i32;
        }
        if let &[byte] = piece.as_bytes() {
            return i32::from(byte);
        }
        let pieces = &mut self.shared().pieces;
        let index = pieces.iter().position(|known| known == piece).unwrap_or_else(|| {
            pieces.push(piece.to_owned());
            pieces.len() - 1
        });
        (BYTES + self.special.len() + index) as i32
    }

    /// The bytes of a token and whether it is a special one.
    fn piece(&self, token: i32) -> Option<(Vec<u8>, bool)> {
        if let Ok(byte) = u8::try_from(token) {
            return Some((vec![byte], false));
        }
        let index = usize::try_from(token).ok()? - BYTES;
        if let Some(text) = self.special.get(index) {
            return Some((text.clone().into_bytes(), true));
        }
        let text = self.shared().pieces.get(index - self.special.len())?.clone();
        Some((text.into_bytes(), false))
    }

    fn prompt_tokens(&self, prompt: &Prompt) -> Result<usize, EngineError> {
        Ok(match prompt {
            Prompt::Text { text, add_special, parse_special } => {
                self.tokenize(text, *add_special, *parse_special)?.len()
            }
            Prompt::Tokens(tokens) => tokens.len(),
            Prompt::Infill { prefix, suffix } => prefix.len() + suffix.len(),
        })
    }

    /// Plays a reply; returns why it ended, at which stop string, and how many tokens it had.
    fn play(
        &self,
        generation: &Generation,
        (tokens, pause, again): (&[String], Duration, bool),
        is_over: &dyn Fn() -> bool,
        on_event: &mut dyn FnMut(Event) -> ControlFlow<()>,
    ) -> Result<(Reason, Option<u32>, u32), EngineError> {
        let mut filter = StopFilter::new(&generation.stop)
            .map_err(|error| EngineError::Failed(Failure::Request(error.to_string())))?;
        let mut stream = TextStream::default();
        let mut generated = 0;
        let mut reason = Reason::EndOfText;
        let mut play = tokens.iter();
        loop {
            let Some(token) = play.next() else {
                if !again {
                    break;
                }
                play = tokens.iter();
                continue;
            };
            std::thread::sleep(pause);
            if is_over() {
                reason = Reason::Cancelled;
                break;
            }
            let id = self.token(token);
            let (bytes, is_special) = self.piece(id).unwrap_or_default();
            let (mut whole, mut text) = (String::new(), String::new());
            if generation.special || !is_special || generation.shown.contains(&id) {
                stream.push(&bytes, &mut whole);
            }
            let stopped = filter.push(&whole, &mut text);
            generated += 1;
            let logprobs = generation.logprobs.map(|top| {
                let top = [(id, LOGPROB)].into_iter().take(top as usize).collect();
                Box::new(Logprobs { logprob: LOGPROB, top })
            });
            if on_event(Event::Token { id: Some(id), text, logprobs }).is_break() {
                reason = Reason::Cancelled;
                break;
            }
            if stopped {
                return Ok((Reason::Stop, filter.found().map(|place| place as u32), generated));
            }
            if generation.tokens_max == Some(generated) {
                reason = Reason::Length;
                break;
            }
        }
        let (mut whole, mut text) = (String::new(), String::new());
        stream.finish(&mut whole);
        if !filter.push(&whole, &mut text) {
            filter.finish(&mut text);
        }
        if !text.is_empty() {
            let _ = on_event(Event::Token { id: None, text, logprobs: None });
        }
        Ok((reason, None, generated))
    }
}

impl Runner for Fake {
    fn info(&self) -> &LoadInfo {
        &self.info
    }

    fn is_alive(&self) -> bool {
        !self.shared().is_dead
    }

    fn generate(
        &self,
        generation: &Generation,
        cancel: &Cancel,
        on_event: &mut dyn FnMut(Event) -> ControlFlow<()>,
    ) -> Result<Done, EngineError> {
        let prompt_tokens = self.prompt_tokens(&generation.prompt)? as u32;
        let turn = {
            let mut shared = self.shared();
            shared.heard.push(generation.clone());
            shared.script.pop_front()
        };
        let failed = |reason: &str| EngineError::Failed(Failure::Request(reason.to_owned()));
        let (tokens, pause, again) = match turn {
            Some(Turn::Says { tokens, pause, again }) => (tokens, pause, again),
            Some(Turn::Fails(error)) => return Err(error),
            None => return Err(failed("the script has no further reply")),
        };
        let read = Event::PromptDone { tokens: prompt_tokens, cached_tokens: 0, ms: 1.0 };
        let mut is_left = on_event(read).is_break();
        let is_over = || cancel.is_requested() || !self.is_alive();
        let (reason, stop, generated) = if is_left {
            (Reason::Cancelled, None, 0)
        } else {
            let mut hear = |event| {
                // Who has gone hears nothing more.
                if is_left {
                    return ControlFlow::Break(());
                }
                let answer = on_event(event);
                is_left = answer.is_break();
                answer
            };
            self.play(generation, (&tokens, pause, again), &is_over, &mut hear)?
        };
        Ok(Done {
            reason,
            stop,
            prompt_tokens,
            generated_tokens: generated,
            decoded_tokens: generated,
            prompt_ms: 1.0,
            decode_ms: f64::from(generated),
            first_token_ms: (generated > 0).then_some(1.0),
            seed: generation.sampling.seed.unwrap_or(0),
            ..Done::cancelled()
        })
    }

    /// The vector of a text counts its bytes by their last two bits; the score of a pair is how many words they share.
    fn embed(&self, request: EmbeddingRequest, _: &Cancel) -> Result<Embeddings, EngineError> {
        let mut pooling = request.options.pooling.unwrap_or(Pooling::Mean);
        let mut embeddings = Vec::new();
        for passage in &request.passages {
            let (tokens, mut vector) = match passage {
                Passage::Text(text) => {
                    (self.tokenize(text, true, false)?.len(), counts(text.bytes()))
                }
                Passage::Tokens(tokens) => {
                    (tokens.len(), counts(tokens.iter().map(|token| *token as u8)))
                }
                Passage::Pair { query, document } => {
                    pooling = Pooling::Rank;
                    let shared = query.split(' ').filter(|word| document.contains(*word)).count();
                    (query.len() + document.len(), vec![shared as f32])
                }
            };
            if pooling != Pooling::Rank {
                vector.resize(self.info.embedding_length as usize, 0.0);
            }
            let mut embedding = Embedding { vectors: vec![vector], tokens: tokens as u32 };
            embedding.finish(&request.options);
            embeddings.push(embedding);
        }
        Ok(Embeddings { embeddings, pooling, labels: Vec::new() })
    }

    fn tokenize(
        &self,
        text: &str,
        add_special: bool,
        parse_special: bool,
    ) -> Result<Vec<i32>, EngineError> {
        let mut tokens = Vec::new();
        tokens.extend(self.info.begin.as_ref().filter(|_| add_special).map(|begin| begin.id));
        let mut rest = text;
        while let Some(next) = rest.chars().next() {
            let named =
                self.special.iter().position(|text| parse_special && rest.starts_with(&**text));
            let length = if let Some(index) = named {
                tokens.push((BYTES + index) as i32);
                self.special[index].len()
            } else {
                let length = next.len_utf8();
                tokens.extend(rest.bytes().take(length).map(i32::from));
                length
            };
            rest = &rest[length..];
        }
        Ok(tokens)
    }

    fn detokenize(&self, tokens: &[i32], special: bool) -> Result<Vec<u8>, EngineError> {
        let mut bytes = Vec::new();
        for &token in tokens {
            let Some((piece, is_special)) = self.piece(token) else {
                let reason = format!("there is no token {token}");
                return Err(EngineError::Failed(Failure::Request(reason)));
            };
            if special || !is_special {
                bytes.extend_from_slice(&piece);
            }
        }
        Ok(bytes)
    }

    fn score(&self, tokens: &[i32], from: usize) -> Result<Vec<f64>, EngineError> {
        Ok(tokens.iter().skip(from).map(|_| f64::from(LOGPROB)).collect())
    }

    fn logprobs(
        &self,
        tokens: &[i32],
        from: usize,
        top: u32,
    ) -> Result<Vec<Logprobs>, EngineError> {
        let likely = |&id: &i32| {
            let top = [(id, LOGPROB)].into_iter().take(top as usize).collect();
            Logprobs { logprob: LOGPROB, top }
        };
        Ok(tokens.iter().skip(from).map(likely).collect())
    }

    fn status(&self) -> Result<Status, EngineError> {
        Ok(Status { slots: 1, context_tokens: self.info.context_tokens, ..Status::default() })
    }

    fn memory(&self) -> Result<MemoryUse, EngineError> {
        Ok(MemoryUse::default())
    }

    fn restart(&mut self) -> Result<(), EngineError> {
        self.shared().is_dead = false;
        Ok(())
    }

    fn unload(self: Box<Self>) -> Result<(), EngineError> {
        self.kill();
        Ok(())
    }

    fn kill(&self) {
        self.shared().is_dead = true;
    }
}

fn counts(bytes: impl Iterator<Item = u8>) -> Vec<f32> {
    let mut counts = vec![0.0; 4];
    for byte in bytes {
        counts[usize::from(byte & 3)] += 1.0;
    }
    counts
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(fake: &Fake, generation: &Generation) -> (String, Done) {
        let mut text = String::new();
        let done = fake.generate(generation, &Cancel::default(), &mut |event| {
            if let Event::Token { text: piece, .. } = event {
                text.push_str(&piece);
            }
            ControlFlow::Continue(())
        });
        (text, done.unwrap())
    }

    #[test]
    fn it_says_what_it_was_told_and_keeps_what_it_was_asked() {
        let fake = Fake::new(&["<s>", "</s>", "<call>"]);
        fake.says(&["Hel", "lo", "<call>", " there"]);
        fake.says(&["<call>", "one\n", "two"]);
        let text = "<s>Hi".to_owned();
        let prompt = Prompt::Text { text, add_special: false, parse_special: true };
        let mut generation = Generation::greedy(prompt, 10);
        let (text, done) = ask(&fake, &generation);
        assert_eq!((text.as_str(), done.reason), ("Hello there", Reason::EndOfText));
        assert_eq!((done.prompt_tokens, done.generated_tokens), (3, 4));
        generation.stop = vec!["\nt".to_owned()];
        generation.special = true;
        let (text, done) = ask(&fake, &generation);
        assert_eq!((text.as_str(), done.reason), ("<call>one", Reason::Stop));
        assert_eq!(fake.heard()[1], generation);
        let error = fake.generate(&generation, &Cancel::default(), &mut |_| ControlFlow::Break(()));
        assert_eq!(error.unwrap_err().to_string(), "the script has no further reply");
    }

    #[test]
    fn it_ends_when_somebody_stops_it() {
        let fake = Fake::new(&[]);
        fake.says_without_end(&["a", "b"], Duration::ZERO);
        let (text, add_special) = (String::new(), false);
        let prompt = Prompt::Text { text, add_special, parse_special: false };
        let generation = Generation { tokens_max: None, ..Generation::greedy(prompt, 1) };
        let cancel = Cancel::default();
        let mut heard = 0;
        let done = fake.generate(&generation, &cancel, &mut |_| {
            heard += 1;
            if heard == 6 {
                cancel.cancel();
            }
            ControlFlow::Continue(())
        });
        assert_eq!(done.unwrap().reason, Reason::Cancelled);
        assert_eq!(heard, 6);
    }

    #[test]
    fn tokens_are_bytes_and_special_ones() {
        let fake = Fake::new(&["<s>", "</s>"]);
        assert_eq!(fake.tokenize("a</s>", true, true).unwrap(), [256, 97, 257]);
        assert_eq!(fake.tokenize("</s>", false, false).unwrap().len(), 4);
        assert_eq!(fake.detokenize(&[256, 97, 257], true).unwrap(), b"<s>a</s>");
        assert_eq!(fake.detokenize(&[256, 97, 257], false).unwrap(), b"a");
    }
}
