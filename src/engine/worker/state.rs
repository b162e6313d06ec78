//! The worker's state: at most one model, and the calls that it answers.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::cage::CageInfo;
use super::embed::Reader;
use super::inbox::Inbox;
use super::load::{Loaded, enter_cage, load};
use super::platform::Output;
use crate::engine::frames::{
    Call, Event, Failure, FrameError, FrameWriter, LoadInfo, Reply, Request, Status,
};
use crate::engine::llama::TokenizeOptions;
use crate::engine::scheduler::Scheduler;

/// The least step of loading progress that is told.
const PROGRESS_STEP: f32 = 0.01;

pub(super) struct Worker {
    outbox: Outbox,
    inbox: Arc<Mutex<Inbox>>,
    /// Closed around the first model; a later one has to do with what is left.
    cage: Option<CageInfo>,
    loaded: Option<Loaded>,
    ended: bool,
}

impl Worker {
    pub(super) fn new(writer: FrameWriter<Output>, inbox: Arc<Mutex<Inbox>>) -> Self {
        let outbox = Outbox { writer, error: None };
        Self { outbox, inbox, cage: None, loaded: None, ended: false }
    }

    /// Answers what has come and computes one step. Returns whether to go on.
    pub(super) fn turn(&mut self) -> bool {
        let reader = self.loaded.as_ref().and_then(|loaded| loaded.reader.as_ref());
        let is_idle =
            self.scheduler().is_none_or(Scheduler::is_idle) && reader.is_none_or(Reader::is_idle);
        lock(&self.inbox).look(is_idle);
        while let Some(call) = { lock(&self.inbox).next_call() } {
            self.answer(call);
        }
        let cancelled = lock(&self.inbox).take_cancelled();
        let Self { outbox, inbox, loaded, .. } = self;
        let Some(Loaded { scheduler, reader, .. }) = loaded else { return self.goes_on() };
        if let Some(reader) = reader {
            let mut emit = |call, event| outbox.send(call, event);
            for &call in &cancelled {
                reader.cancel(call, &mut emit);
            }
            reader.step(&mut emit);
        }
        if let Some(scheduler) = scheduler {
            for call in cancelled {
                scheduler.cancel(call);
            }
            scheduler.admit(&mut |call, event| outbox.add(call, event));
            outbox.flush();
            lock(inbox).set_running(scheduler.running());
            scheduler.step(&mut |call, event| outbox.add(call, event));
            outbox.flush();
            lock(inbox).set_running(std::iter::empty());
        }
        self.goes_on()
    }

    fn goes_on(&self) -> bool {
        !self.ended && self.outbox.error.is_none() && !lock(&self.inbox).has_ended()
    }

    /// Answers a call, or takes it in to be answered step by step.
    fn answer(&mut self, call: Call) {
        let number = call.number;
        match self.carry_out(number, call.request) {
            Ok(Some(event)) => self.outbox.send(number, event),
            Ok(None) => {}
            Err(failure) => self.outbox.send(number, Event::Failed(failure)),
        }
    }

    fn carry_out(&mut self, number: u64, request: Request) -> Result<Option<Event>, Failure> {
        let event = match request {
            Request::Load(request) => {
                self.stop_all();
                // Two models at once may be more than the memory holds.
                self.loaded = None;
                let cage = self.cage.get_or_insert_with(|| enter_cage(&request)).clone();
                lock(&self.inbox).set_running(std::iter::once(number));
                let (outbox, mut told) = (&mut self.outbox, 0.0);
                let (loaded, info) = load(&request, &self.inbox, &mut |share| {
                    if share - told >= PROGRESS_STEP {
                        told = share;
                        outbox.send(number, Event::Progress(share));
                    }
                })?;
                self.loaded = Some(loaded);
                Event::Loaded(Box::new(LoadInfo { cage, ..info }))
            }
            Request::Tokenize { text, add_special, parse_special } => {
                let options = TokenizeOptions { add_special, parse_special };
                Event::Tokens(self.loaded()?.vocabulary.tokenize(&text, options)?)
            }
            Request::Detokenize { tokens, special } => {
                Event::Bytes(self.loaded()?.vocabulary.pieces(&tokens, special)?)
            }
            Request::Generate(request) => {
                self.scheduler_mut()?.submit(number, &request)?;
                return Ok(None);
            }
            Request::Score { tokens, from } => {
                self.scheduler_mut()?.submit_score(number, tokens, from)?;
                return Ok(None);
            }
            Request::Logprobs { tokens, from, top } => {
                self.scheduler_mut()?.submit_logprobs(number, tokens, (from, top))?;
                return Ok(None);
            }
            Request::Logits { tokens, positions } => {
                self.scheduler_mut()?.submit_logits(number, tokens, positions)?;
                return Ok(None);
            }
            Request::Embed(request) => {
                let loaded = self.loaded.as_mut().ok_or(Failure::NotLoaded)?;
                let reader = loaded.reader.as_mut().ok_or(Failure::VocabularyOnly)?;
                reader.submit(number, &request)?;
                return Ok(None);
            }
            Request::Memory => Event::Memory(self.loaded()?.memory()),
            Request::Status => {
                Event::Status(self.scheduler().map_or_else(Status::default, Scheduler::status))
            }
            Request::Unload => {
                self.stop_all();
                self.ended = true;
                self.save_states()
            }
            Request::Cancel => {
                return Err(Failure::Request("a cancellation is no call".to_owned()));
            }
        };
        Ok(Some(event))
    }

    /// Ends everything that runs or waits.
    fn stop_all(&mut self) {
        let Self { outbox, loaded: Some(Loaded { scheduler, reader, .. }), .. } = self else {
            return;
        };
        let mut emit = |call, event| outbox.send(call, event);
        if let Some(reader) = reader {
            reader.cancel_all(&mut emit);
        }
        if let Some(scheduler) = scheduler {
            scheduler.cancel_all();
            scheduler.admit(&mut emit);
        }
    }

    fn save_states(&mut self) -> Event {
        let scheduler = self.loaded.as_mut().and_then(|loaded| loaded.scheduler.as_mut());
        match scheduler.map_or(Ok(0), Scheduler::save_states) {
            Ok(states) => Event::Unloaded { states, error: None },
            Err(error) => Event::Unloaded { states: 0, error: Some(error.to_string()) },
        }
    }

    fn loaded(&self) -> Result<&Loaded, Failure> {
        self.loaded.as_ref().ok_or(Failure::NotLoaded)
    }

    fn scheduler(&self) -> Option<&Scheduler> {
        self.loaded.as_ref()?.scheduler.as_ref()
    }

    fn scheduler_mut(&mut self) -> Result<&mut Scheduler, Failure> {
        let loaded = self.loaded.as_mut().ok_or(Failure::NotLoaded)?;
        let why = match loaded.reader {
            Some(_) => Failure::EmbeddingsOnly,
            None => Failure::VocabularyOnly,
        };
        loaded.scheduler.as_mut().ok_or(why)
    }
}

/// Sends events.
struct Outbox {
    writer: FrameWriter<Output>,
    error: Option<FrameError>,
}

impl Outbox {
    fn send(&mut self, number: u64, event: Event) {
        self.add(number, event);
        self.flush();
    }

    /// Keeps an event until the next flush, so that a step of many replies is one write.
    fn add(&mut self, number: u64, event: Event) {
        if self.error.is_none() {
            self.error = self.writer.add(&Reply { number, event }).err();
        }
    }

    fn flush(&mut self) {
        if self.error.is_none() {
            self.error = self.writer.flush().err();
        }
    }
}

/// The inbox; a panic elsewhere ends the worker anyway.
pub(super) fn lock(inbox: &Mutex<Inbox>) -> MutexGuard<'_, Inbox> {
    inbox.lock().unwrap_or_else(PoisonError::into_inner)
}
