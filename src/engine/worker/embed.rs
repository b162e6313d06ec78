//! Embeddings and scores for documents: texts of any number of calls, computed together.
//!
//! Calls take turns text by text, so that one with a thousand texts holds nobody up, and texts of several calls share a
//! batch. The worker computes one batch between two steps of its replies. The computation has a context of its own, made
//! when it is needed first and made anew for a longer text; only one is kept, that of the latest way of pooling.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use nfl_models::gguf::Gguf;

use super::inbox::Inbox;
use super::state::lock;
use crate::engine::embedding::{
    Abilities, Embedding, EmbeddingOptions, EmbeddingRequest, Embeddings, Passage, Pooling,
};
use crate::engine::frames::{Event, FRAME_BYTES_MAX, Failure};
use crate::engine::llama::{
    AbortFlag, Embedder, EmbedderSize, LlamaError, Model, TEXTS_MAX, Token, TokenizeOptions,
    ranking,
};
use crate::engine::options::{ContextOptions, OptionError};
use crate::engine::scheduler::Emit;

/// The least room for a batch, in tokens.
const BATCH_TOKENS_MIN: usize = 512;

/// The least step of progress that is told.
const PROGRESS_STEP: f32 = 0.01;

/// Embeds texts with one loaded model.
#[derive(Debug)]
pub(super) struct Reader {
    model: Arc<Model>,
    options: ContextOptions,
    inbox: Arc<Mutex<Inbox>>,
    abilities: Abilities,
    /// The most tokens of one text.
    limit_tokens: usize,
    embedder: Option<Embedder>,
    /// In the order of their turns.
    jobs: VecDeque<Job>,
}

/// A call on its way.
#[derive(Debug)]
struct Job {
    call: u64,
    pooling: Pooling,
    options: EmbeddingOptions,
    texts: Vec<Vec<Token>>,
    /// Of the first texts, in their order.
    found: Vec<Embedding>,
    /// The share of the texts that was told.
    told: f32,
}

impl Reader {
    /// For the model of a file, in contexts as described.
    pub(super) fn new(
        model: &Arc<Model>,
        gguf: &Gguf,
        options: &ContextOptions,
        inbox: &Arc<Mutex<Inbox>>,
    ) -> Result<Self, OptionError> {
        let context_tokens = options.context_for(model.context_trained_tokens())?;
        let abilities = Abilities {
            pooling: Pooling::of(gguf),
            ranks: ranking::classifier_scores(gguf) == Some(model.classes() as u64),
            width: model.embedding_length(),
        };
        Ok(Self {
            model: Arc::clone(model),
            options: options.clone(),
            inbox: Arc::clone(inbox),
            abilities,
            limit_tokens: context_tokens as usize,
            embedder: None,
            jobs: VecDeque::new(),
        })
    }

    pub(super) fn abilities(&self) -> Abilities {
        self.abilities
    }

    pub(super) fn limit_tokens(&self) -> usize {
        self.limit_tokens
    }

    pub(super) fn is_idle(&self) -> bool {
        self.jobs.is_empty()
    }

    /// Takes a call in. An error means that it was refused and nothing follows.
    pub(super) fn submit(&mut self, call: u64, request: &EmbeddingRequest) -> Result<(), Failure> {
        let waiting = self.jobs.len();
        if waiting >= self.options.queue_max as usize {
            return Err(Failure::Busy { waiting });
        }
        let options = request.options.clone();
        let pooling = self.abilities.pooling_for(&options)?;
        let mut texts = Vec::with_capacity(request.passages.len());
        for (index, passage) in request.passages.iter().enumerate() {
            texts.push(self.tokens(passage, index + 1)?);
        }
        let vectors = match pooling {
            Pooling::None => texts.iter().map(Vec::len).sum(),
            _ => texts.len(),
        };
        let bytes = vectors.saturating_mul(self.abilities.width).saturating_mul(size_of::<f32>());
        if bytes > FRAME_BYTES_MAX / 2 {
            let most = FRAME_BYTES_MAX / 2;
            let message = format!("embeddings of {bytes} bytes, {most} are the most at once");
            return Err(Failure::Request(message));
        }
        self.jobs.push_back(Job { call, pooling, options, texts, found: Vec::new(), told: 0.0 });
        Ok(())
    }

    /// The tokens of a passage, the `number`th of its call, checked.
    fn tokens(&self, passage: &Passage, number: usize) -> Result<Vec<Token>, Failure> {
        let vocabulary = self.model.vocabulary();
        let tokens = match passage {
            Passage::Text(text) => {
                let options = TokenizeOptions { add_special: true, parse_special: false };
                vocabulary.tokenize(text, options)?
            }
            Passage::Tokens(tokens) => tokens.clone(),
            Passage::Pair { query, document } => ranking::pair(&self.model, query, document)?,
        };
        if tokens.is_empty() {
            return Err(Failure::Request(format!("text {number}: {}", LlamaError::EmptyText)));
        }
        if tokens.len() > self.limit_tokens {
            let (tokens, limit_tokens) = (tokens.len(), self.limit_tokens);
            return Err(Failure::TextTooLong { text: number, tokens, limit_tokens });
        }
        for &token in &tokens {
            vocabulary.check(token)?;
        }
        Ok(tokens)
    }

    /// Ends a call.
    pub(super) fn cancel(&mut self, call: u64, emit: Emit<'_>) {
        if self.jobs.iter().any(|job| job.call == call) {
            self.end(call, Event::Failed(Failure::Cancelled), emit);
        }
    }

    /// Ends all calls.
    pub(super) fn cancel_all(&mut self, emit: Emit<'_>) {
        for job in self.jobs.drain(..) {
            emit(job.call, Event::Failed(Failure::Cancelled));
        }
    }

    fn end(&mut self, call: u64, event: Event, emit: Emit<'_>) {
        self.jobs.retain(|job| job.call != call);
        emit(call, event);
    }

    /// Computes one batch and tells what came of it. Does nothing when idle.
    pub(super) fn step(&mut self, emit: Emit<'_>) {
        let done: Vec<u64> =
            self.jobs.iter().filter(|job| job.is_done()).map(|job| job.call).collect();
        for call in done {
            self.finish(call, emit);
        }
        let Some(first) = self.jobs.front() else { return };
        let pooling = first.pooling;
        let (calls, texts) = self.next_batch(pooling);
        let calls_once =
            || self.jobs.iter().map(|job| job.call).filter(|call| calls.contains(call));
        lock(&self.inbox).set_running(calls_once());
        let outcome = self.compute(pooling, &texts);
        lock(&self.inbox).set_running(std::iter::empty());
        match outcome {
            Ok(embeddings) => self.take(&calls, embeddings, emit),
            // Whoever cancelled is told when the cancellation is taken in; the others are computed again.
            Err(LlamaError::Aborted) => {}
            Err(error) => {
                let mut failed = calls;
                failed.dedup();
                for call in failed {
                    self.end(call, Event::Failed(Failure::from(error.clone())), emit);
                }
            }
        }
    }

    /// The texts of the next batch and the calls that they belong to: of each call with this pooling the next text, then
    /// the one after it, as long as there is room.
    fn next_batch(&self, pooling: Pooling) -> (Vec<u64>, Vec<Vec<Token>>) {
        let (mut calls, mut texts, mut tokens) = (Vec::new(), Vec::new(), 0);
        let jobs: Vec<&Job> = self.jobs.iter().filter(|job| job.pooling == pooling).collect();
        let rounds = jobs.iter().map(|job| job.texts.len() - job.found.len()).max().unwrap_or(0);
        for (round, job) in
            (0..rounds.min(TEXTS_MAX)).flat_map(|r| jobs.iter().map(move |j| (r, j)))
        {
            let Some(text) = job.texts.get(job.found.len() + round) else { continue };
            let fits = texts.is_empty() || tokens + text.len() <= BATCH_TOKENS_MIN;
            if !fits || texts.len() == TEXTS_MAX {
                break;
            }
            tokens += text.len();
            calls.push(job.call);
            texts.push(text.clone());
        }
        (calls, texts)
    }

    /// Reads texts as one batch, in a context that is large enough.
    fn compute(
        &mut self,
        pooling: Pooling,
        texts: &[Vec<Token>],
    ) -> Result<Vec<Embedding>, LlamaError> {
        let tokens: usize = texts.iter().map(Vec::len).sum();
        let suits = |embedder: &Embedder| {
            embedder.pooling() == pooling && embedder.capacity_tokens() >= tokens
        };
        if !self.embedder.as_ref().is_some_and(suits) {
            // Two of them may be more than the memory holds.
            self.embedder = None;
            self.embedder = Some(self.open(pooling, tokens)?);
        }
        match &mut self.embedder {
            Some(embedder) => embedder.embed(texts),
            None => Err(LlamaError::NoEmbedding),
        }
    }

    fn open(&self, pooling: Pooling, tokens: usize) -> Result<Embedder, LlamaError> {
        let room = self.limit_tokens.max(BATCH_TOKENS_MIN) as u32;
        let batch_tokens = (tokens.next_power_of_two() as u32).clamp(BATCH_TOKENS_MIN as u32, room);
        let size = EmbedderSize { context_tokens: room, batch_tokens };
        let kind = (pooling, self.abilities.ranks);
        let mut embedder =
            Embedder::new(&self.model, &self.options, size, kind, AbortFlag::default())?;
        let watched = Arc::clone(&self.inbox);
        embedder.set_watch(Box::new(move || lock(&watched).is_pointless()));
        Ok(embedder)
    }

    /// Gives what was computed to those who asked.
    fn take(&mut self, calls: &[u64], embeddings: Vec<Embedding>, emit: Emit<'_>) {
        for (call, mut embedding) in calls.iter().zip(embeddings) {
            let Some(job) = self.jobs.iter_mut().find(|job| job.call == *call) else { continue };
            embedding.finish(&job.options);
            job.found.push(embedding);
            let share = job.found.len() as f32 / job.texts.len() as f32;
            if job.is_done() {
                self.finish(*call, emit);
            } else if share - job.told >= PROGRESS_STEP {
                job.told = share;
                emit(*call, Event::Progress(share));
            }
        }
        // The next turn is another's.
        if let Some(first) = self.jobs.pop_front() {
            self.jobs.push_back(first);
        }
    }

    fn finish(&mut self, call: u64, emit: Emit<'_>) {
        let Some(place) = self.jobs.iter().position(|job| job.call == call) else { return };
        let Some(job) = self.jobs.remove(place) else { return };
        let labels = match job.pooling {
            Pooling::Rank => ranking::labels(&self.model),
            _ => Vec::new(),
        };
        let embeddings = Embeddings { embeddings: job.found, pooling: job.pooling, labels };
        emit(call, Event::Embeddings(Box::new(embeddings)));
    }
}

impl Job {
    fn is_done(&self) -> bool {
        self.found.len() == self.texts.len()
    }
}
