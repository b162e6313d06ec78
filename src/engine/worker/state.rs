//! The worker's state: at most one model, and the calls that it answers.

use std::fs::File;
use std::ops::ControlFlow;
use std::sync::Arc;

use super::control::Control;
use super::load::{Loaded, load};
use super::memory::memory_use;
use crate::engine::frames::{Call, Event, Failure, FrameError, FrameWriter, Reply, Request};
use crate::engine::llama::TokenizeOptions;
use crate::engine::session::Session;

/// The least step of progress that is told.
const PROGRESS_STEP: f32 = 0.01;

pub(super) struct Worker {
    outbox: Outbox,
    control: Arc<Control>,
    loaded: Option<Loaded>,
}

impl Worker {
    pub(super) fn new(writer: FrameWriter<File>, control: Arc<Control>) -> Self {
        Self { outbox: Outbox { writer, number: 0, told: 0.0, error: None }, control, loaded: None }
    }

    /// Answers one call. An error means that the pipe is gone.
    pub(super) fn answer(&mut self, call: Call) -> Result<(), FrameError> {
        self.control.begin(call.number);
        self.outbox.begin(call.number);
        let event = self.carry_out(call.request).unwrap_or_else(Event::Failed);
        // A pipe that failed is reported by the line after.
        let _ = self.outbox.send(event);
        self.outbox.error.take().map_or(Ok(()), Err)
    }

    fn carry_out(&mut self, request: Request) -> Result<Event, Failure> {
        match request {
            Request::Load(request) => {
                // Two models at once may be more than the memory holds.
                self.loaded = None;
                let outbox = &mut self.outbox;
                let (loaded, info) =
                    load(&request, &self.control, &mut |share| outbox.progress(share))?;
                self.loaded = Some(loaded);
                Ok(Event::Loaded(Box::new(info)))
            }
            Request::Tokenize { text, add_special, parse_special } => {
                let options = TokenizeOptions { add_special, parse_special };
                Ok(Event::Tokens(self.loaded()?.vocabulary.tokenize(&text, options)?))
            }
            Request::Detokenize { tokens, special } => {
                Ok(Event::Bytes(self.loaded()?.vocabulary.pieces(&tokens, special)?))
            }
            Request::Generate(request) => {
                let (session, outbox) = self.session()?;
                let done = session.generate(&request, &mut |event| match event {
                    Event::Progress(share) => {
                        outbox.progress(share);
                        outbox.state()
                    }
                    event => outbox.send(event),
                })?;
                Ok(Event::Done(done))
            }
            Request::Score { tokens, from } => {
                let (session, outbox) = self.session()?;
                let scores = session.score(&tokens, from, &mut |share| outbox.progress(share))?;
                Ok(Event::Scores(scores))
            }
            Request::Logits { tokens, positions } => {
                let vocabulary_tokens = self.loaded()?.vocabulary.len();
                let values = self.session()?.0.logits(&tokens, &positions)?;
                Ok(Event::Logits { vocabulary_tokens, values })
            }
            Request::Memory => Ok(Event::Memory(memory_use(&self.loaded()?.files))),
            Request::Cancel => Err(Failure::Request("a cancellation is no call".to_owned())),
        }
    }

    fn loaded(&self) -> Result<&Loaded, Failure> {
        self.loaded.as_ref().ok_or(Failure::NotLoaded)
    }

    fn session(&mut self) -> Result<(&mut Session, &mut Outbox), Failure> {
        let loaded = self.loaded.as_mut().ok_or(Failure::NotLoaded)?;
        let session = loaded.session.as_mut().ok_or(Failure::VocabularyOnly)?;
        Ok((session, &mut self.outbox))
    }
}

/// Sends the events of the running call.
struct Outbox {
    writer: FrameWriter<File>,
    number: u64,
    /// The progress that was told last.
    told: f32,
    error: Option<FrameError>,
}

impl Outbox {
    fn begin(&mut self, number: u64) {
        self.number = number;
        self.told = 0.0;
    }

    fn send(&mut self, event: Event) -> ControlFlow<()> {
        if self.error.is_none() {
            self.error = self.writer.write(&Reply { number: self.number, event }).err();
        }
        self.state()
    }

    fn state(&self) -> ControlFlow<()> {
        if self.error.is_some() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }

    fn progress(&mut self, share: f32) {
        if share - self.told >= PROGRESS_STEP {
            self.told = share;
            let _ = self.send(Event::Progress(share));
        }
    }
}
