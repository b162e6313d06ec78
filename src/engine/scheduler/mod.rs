//! Many conversations on one context: who is computed next, and what of each is computed already.
//!
//! A *slot* is a sequence of the context with the tokens it holds. A request waits in a fair queue
//! until a slot is free, and takes the one that holds the longest beginning of its prompt. Every
//! [`Scheduler::step`] computes one batch: the next token of each reply, then as much of the waiting
//! prompts as keeps the replies flowing. Nothing here knows of processes or pipes: a program that
//! accepts llama.cpp in its own process may use it directly.

mod admit;
#[cfg(test)]
mod guessing_tests;
#[cfg(test)]
mod material_tests;
mod measure;
mod pace;
#[cfg(test)]
mod prediction_tests;
mod queue;
mod reply;
#[cfg(test)]
mod side_by_side_tests;
mod slot;
mod states;
#[cfg(test)]
mod steering_tests;
mod step;

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use super::frames::{Done, Event, Failure, Generation, Prompt, Status};
use super::llama::{
    AbortFlag, Adapters, Batch, Context, Infill, LlamaError, Steered, Token, TokenizeOptions,
};
use super::options::{OptionError, Speculation};
use super::speculate::{DraftModel, Learned, PredictionLayer};
use super::steering::Steering;
use measure::Measure;
use pace::Pace;
use queue::Queue;
use reply::Reply;
use slot::{Slot, Task, Work};

pub(super) use states::create_private;
pub use states::{Fingerprint, StateError, States};

/// Where events go: the number of a call, and what happened to it.
pub type Emit<'a> = &'a mut dyn FnMut(u64, Event);

/// Requests of one context, and the slots that answer them.
#[derive(Debug)]
pub struct Scheduler {
    context: Context,
    abort: AbortFlag,
    slots: Vec<Slot>,
    queue: Queue,
    states: Option<States>,
    adapters: Option<Adapters>,
    /// The adapters that are set on the context.
    steered: Arc<Steered>,
    batch: Batch,
    pace: Pace,
    /// What guessing taught.
    learned: Learned,
    /// Whether replies must not depend on who else is answered.
    batch_invariant: bool,
    /// Counts steps; a slot remembers when it was used last.
    clock: u64,
    finished: u64,
    /// The number of the next call of [`Scheduler::generate`] and its like.
    own_call: u64,
}

impl Scheduler {
    /// Slots on a fresh context that was created with this flag; `queue_max` requests may wait.
    pub fn new(context: Context, abort: AbortFlag, queue_max: usize) -> Self {
        let slots = (0..context.sequences()).map(Slot::new).collect();
        Self {
            context,
            abort,
            slots,
            queue: Queue::new(queue_max),
            states: None,
            adapters: None,
            steered: Arc::default(),
            batch: Batch::default(),
            pace: Pace::default(),
            learned: Learned::default(),
            batch_invariant: false,
            clock: 0,
            finished: 0,
            own_call: 0,
        }
    }

    /// Lets prompts begin with what was saved, and saves what has to make room.
    #[must_use]
    pub fn with_states(self, states: States) -> Self {
        Self { states: Some(states), ..self }
    }

    /// Lets requests name adapters and control vectors.
    #[must_use]
    pub fn with_adapters(self, adapters: Adapters) -> Self {
        Self { adapters: Some(adapters), ..self }
    }

    /// Lets a small model guess.
    #[must_use]
    pub fn with_draft(self, draft: DraftModel) -> Self {
        Self { learned: self.learned.with_draft(draft), ..self }
    }

    /// Lets no reply depend on who else is answered: `ContextOptions::batch_invariant`.
    #[must_use]
    pub fn with_batch_invariance(self, batch_invariant: bool) -> Self {
        Self { batch_invariant, ..self }
    }

    /// Lets the model's own prediction layer guess, in place of a small model.
    #[must_use]
    pub fn with_prediction(self, layer: PredictionLayer) -> Self {
        Self { learned: self.learned.with_prediction(layer), ..self }
    }

    /// The context.
    pub fn context(&self) -> &Context {
        &self.context
    }

    /// The tokens of a text.
    pub fn tokenize(&self, text: &str, options: TokenizeOptions) -> Result<Vec<Token>, Failure> {
        Ok(self.context.vocabulary().tokenize(text, options)?)
    }

    /// Whether no request runs or waits.
    pub fn is_idle(&self) -> bool {
        self.queue.is_empty() && self.slots.iter().all(|slot| slot.task.is_none())
    }

    /// The calls that are being answered; those that wait are not among them.
    pub fn running(&self) -> impl Iterator<Item = u64> + '_ {
        self.slots.iter().filter_map(|slot| slot.task.as_ref()).map(|task| task.call)
    }

    /// Takes a request in. An error means that it was refused and nothing follows.
    pub fn submit(&mut self, call: u64, request: &Generation) -> Result<(), Failure> {
        let started = Instant::now();
        let tokens = self.prompt_tokens(&request.prompt)?;
        let mut reply = Reply::new(request, tokens.len(), &self.context, started)?;
        if self.may_guess(request) {
            reply.guess_with(request.speculation, &self.learned);
        }
        let steered = self.steered(&request.steering)?;
        let work = Work::Generate(Box::new(reply));
        let task = Task { steered, ..Task::new(call, tokens, started, work) };
        self.queue.push(request.client, task)
    }

    /// Asks for the natural logarithm of the probability of each token from index `from` (at least
    /// 1) on, given all before it.
    pub fn submit_score(
        &mut self,
        call: u64,
        tokens: Vec<Token>,
        from: usize,
    ) -> Result<(), Failure> {
        check_from(&tokens, from)?;
        self.submit_measure(call, tokens, Measure::scores(from))
    }

    /// Asks what the model thinks of the tokens from index `from` (at least 1) on, with so many of the likeliest.
    pub fn submit_logprobs(
        &mut self,
        call: u64,
        tokens: Vec<Token>,
        (from, top): (usize, u32),
    ) -> Result<(), Failure> {
        check_from(&tokens, from)?;
        self.submit_measure(call, tokens, Measure::logprobs(from, top))
    }

    /// Asks for the logits after each of the positions, which ascend.
    pub fn submit_logits(
        &mut self,
        call: u64,
        mut tokens: Vec<Token>,
        positions: Vec<usize>,
    ) -> Result<(), Failure> {
        self.check_tokens(&tokens)?;
        let row = self.context.vocabulary().len();
        let measure = Measure::logits(&mut tokens, positions, row)?;
        self.submit_measure(call, tokens, measure)
    }

    fn submit_measure(
        &mut self,
        call: u64,
        tokens: Vec<Token>,
        measure: Measure,
    ) -> Result<(), Failure> {
        self.check_tokens(&tokens)?;
        let work = Work::Measure(Box::new(measure));
        let task = Task::new(call, tokens, Instant::now(), work);
        self.queue.push(0, task)
    }

    /// Ends a call, whether it runs or waits; its last event comes with the next step.
    pub fn cancel(&mut self, call: u64) {
        for task in self.slots.iter_mut().filter_map(|slot| slot.task.as_mut()) {
            task.cancelled |= task.call == call;
        }
        self.queue.cancel(call);
    }

    /// Ends all calls.
    pub fn cancel_all(&mut self) {
        let calls: Vec<u64> = self.running().chain(self.queue.calls()).collect();
        for call in calls {
            self.cancel(call);
        }
    }

    /// Forgets all conversations.
    pub fn forget(&mut self) {
        for slot in self.slots.iter_mut().filter(|slot| slot.task.is_none()) {
            slot.forget(&mut self.context);
        }
    }

    /// Saves what the idle slots hold: before the model is unloaded. Returns how many states were
    /// written.
    pub fn save_states(&mut self) -> Result<usize, StateError> {
        let Some(states) = &mut self.states else { return Ok(0) };
        let mut saved = 0;
        for slot in self.slots.iter_mut().filter(|slot| slot.task.is_none()) {
            saved += usize::from(slot.save(&mut self.context, states)?);
        }
        Ok(saved)
    }

    /// How many slots, requests and tokens there are.
    pub fn status(&self) -> Status {
        Status {
            slots: self.slots.len() as u32,
            busy: self.running().count() as u32,
            waiting: self.queue.len() as u32,
            held_tokens: self.slots.iter().map(|slot| slot.held.len() as u64).sum(),
            context_tokens: self.context.context_tokens() as u32,
            steps: self.clock,
            finished: self.finished,
        }
    }

    /// Continues a prompt and tells of every token as it comes; Break stops. For programs that have
    /// nothing else to do meanwhile.
    pub fn generate(
        &mut self,
        request: &Generation,
        on_event: &mut dyn FnMut(Event) -> ControlFlow<()>,
    ) -> Result<Done, Failure> {
        self.own_call += 1;
        let call = self.own_call;
        self.submit(call, request)?;
        let mut result = None;
        while result.is_none() {
            let mut stopped = false;
            self.step(&mut |_, event| match event {
                Event::Done(done) => result = Some(Ok(done)),
                Event::Failed(failure) => result = Some(Err(failure)),
                event => stopped |= on_event(event).is_break(),
            });
            if stopped || self.abort.load(Ordering::Relaxed) {
                self.cancel(call);
            }
        }
        result.unwrap_or(Err(Failure::Cancelled))
    }

    /// The natural logarithm of the probability of each token from index `from` (at least 1) on.
    pub fn score(&mut self, tokens: &[Token], from: usize) -> Result<Vec<f64>, Failure> {
        self.own_call += 1;
        self.submit_score(self.own_call, tokens.to_vec(), from)?;
        match self.last_event()? {
            Event::Scores(scores) => Ok(scores),
            _ => Err(Failure::Cancelled),
        }
    }

    fn last_event(&mut self) -> Result<Event, Failure> {
        let mut last = None;
        while last.is_none() {
            self.step(&mut |_, event| match event {
                Event::Progress(_) => {}
                event => last = Some(event),
            });
        }
        match last {
            Some(Event::Failed(failure)) => Err(failure),
            Some(event) => Ok(event),
            None => Err(Failure::Cancelled),
        }
    }

    /// Whether guesses may be checked for a request: the cache must take wrong ones back, and what is sampled must stay what
    /// it is without them, unless they were asked for by name.
    fn may_guess(&self, request: &Generation) -> bool {
        let changes_nothing = self.context.can_be_steady() || !request.sampling.is_greedy();
        let is_wanted = match request.speculation {
            Speculation::Off => false,
            Speculation::Auto => changes_nothing,
            Speculation::Ngram | Speculation::Draft | Speculation::Mtp => true,
        };
        is_wanted && self.context.model().takes_back()
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
            Prompt::Infill { prefix, suffix } => {
                let (prefix, suffix) = (prefix.clone(), suffix.clone());
                let infill = Infill { prefix, suffix, ..Infill::default() };
                infill.prompt(self.context.vocabulary())?
            }
        };
        self.check_tokens(&tokens)?;
        Ok(tokens)
    }

    /// The adapters and control vectors of a request, read and checked.
    fn steered(&mut self, steering: &Steering) -> Result<Arc<Steered>, Failure> {
        if steering.is_empty() {
            return Ok(Arc::default());
        }
        steering.check()?;
        let Some(adapters) = &mut self.adapters else {
            return Err(Failure::Request("adapters cannot be used here".to_owned()));
        };
        Ok(Arc::new(adapters.resolve(steering)?))
    }

    fn check_tokens(&self, tokens: &[Token]) -> Result<(), Failure> {
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

/// Milliseconds since a moment.
pub(crate) fn ms_since(start: Instant) -> f64 {
    start.elapsed().as_secs_f64() * 1000.0
}

impl From<LlamaError> for Failure {
    fn from(error: LlamaError) -> Self {
        match error {
            LlamaError::NotFinite(_) => Self::NotFinite(error.to_string()),
            LlamaError::NoClassifier => Self::NoClassifier,
            LlamaError::Aborted | LlamaError::Cancelled => Self::Cancelled,
            LlamaError::Load { .. } | LlamaError::Context { .. } => Self::Load(error.to_string()),
            LlamaError::Path(_)
            | LlamaError::Pattern(_)
            | LlamaError::Token { .. }
            | LlamaError::NoTokenizer
            | LlamaError::Infill(_)
            | LlamaError::Adapter { .. }
            | LlamaError::NoSeparator
            | LlamaError::EmptyText
            | LlamaError::NoInfill
            | LlamaError::NoInfillFiles
            | LlamaError::NothingToChoose
            | LlamaError::NothingFollows
            | LlamaError::Grammar(_)
            | LlamaError::TextTooLong(_) => Self::Request(error.to_string()),
            LlamaError::ContextFull { .. }
            | LlamaError::Batch { .. }
            | LlamaError::Decode { .. }
            | LlamaError::NoLogits(_)
            | LlamaError::NoEmbedding
            | LlamaError::Steering(_)
            | LlamaError::Sampler => Self::Compute(error.to_string()),
        }
    }
}

impl From<OptionError> for Failure {
    fn from(error: OptionError) -> Self {
        Self::Request(error.to_string())
    }
}

/// The first token of all has nothing before it.
fn check_from(tokens: &[Token], from: usize) -> Result<(), Failure> {
    let length = tokens.len();
    if (1..=length).contains(&from) {
        return Ok(());
    }
    Err(Failure::Request(format!("score: from {from} of {length} tokens")))
}
