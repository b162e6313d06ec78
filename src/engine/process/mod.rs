//! The program's side: starts a worker, talks to it, and survives its death.

mod child;
mod error;

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::frames::{
    Call, Done, Event, FrameError, Generation, LoadInfo, MemoryUse, PROTOCOL, Reply, Request,
};
use super::options::LoadRequest;
use child::{Child, Shared};

pub use error::{Death, EngineError};

/// A model in a worker process of its own. Dropping it ends the worker and gives the memory back.
#[derive(Debug)]
pub struct Engine {
    program: PathBuf,
    request: LoadRequest,
    shared: Arc<Shared>,
    child: Child,
    info: LoadInfo,
    calls: u64,
    /// How the worker died, once it has.
    death: Option<Death>,
}

/// Loading progress, 0 to 1, in; whether to go on, out.
pub type OnProgress<'a> = &'a mut dyn FnMut(f32) -> ControlFlow<()>;

impl Engine {
    /// Starts `program` (this executable, or in tests the built one) as a worker and loads a model
    /// into it.
    pub fn start(
        program: &Path,
        request: &LoadRequest,
        on_progress: OnProgress<'_>,
    ) -> Result<Self, EngineError> {
        let path = std::path::absolute(&request.path).unwrap_or_else(|_| request.path.clone());
        let request = LoadRequest { path, ..request.clone() };
        Self::launch(program, &request, &Arc::new(Shared::default()), on_progress)
    }

    fn launch(
        program: &Path,
        request: &LoadRequest,
        shared: &Arc<Shared>,
        on_progress: OnProgress<'_>,
    ) -> Result<Self, EngineError> {
        let child = Child::spawn(program, shared)?;
        let mut engine = Self {
            program: program.to_owned(),
            request: request.clone(),
            shared: Arc::clone(shared),
            child,
            info: LoadInfo::default(),
            calls: 0,
            death: None,
        };
        engine.greet()?;
        let number = engine.call(Request::Load(request.clone()))?;
        engine.info = loop {
            match engine.next(number)? {
                Event::Loaded(info) => break *info,
                Event::Progress(share) if on_progress(share).is_break() => {
                    return Err(EngineError::Cancelled);
                }
                Event::Progress(_) => {}
                event => return Err(unexpected(&event)),
            }
        };
        Ok(engine)
    }

    /// Replaces the worker by a fresh one with the same model; the only way back after
    /// [`EngineError::WorkerDied`].
    pub fn restart(&mut self, on_progress: OnProgress<'_>) -> Result<(), EngineError> {
        self.shared.kill();
        // With its death on record, dropping the old engine leaves the new worker alone.
        self.death = Some(self.child.reap());
        *self = Self::launch(&self.program, &self.request, &self.shared, on_progress)?;
        Ok(())
    }

    /// What was loaded.
    pub fn info(&self) -> &LoadInfo {
        &self.info
    }

    /// Whether the worker has not died, as far as is known.
    pub fn is_alive(&self) -> bool {
        self.death.is_none()
    }

    /// The worker's process number.
    pub fn process_id(&self) -> u32 {
        self.child.process_id()
    }

    /// A handle that stops replies from other threads, across restarts.
    pub fn cancel_handle(&self) -> CancelHandle {
        CancelHandle { shared: Arc::clone(&self.shared) }
    }

    /// Continues a prompt. Events arrive as they happen: Progress while a long prompt is read,
    /// PromptDone, Token. When `on_event` returns Break the reply is stopped, and no further events
    /// are handed out.
    pub fn generate(
        &mut self,
        request: &Generation,
        on_event: &mut dyn FnMut(Event) -> ControlFlow<()>,
    ) -> Result<Done, EngineError> {
        let number = self.call(Request::Generate(request.clone()))?;
        let mut listening = true;
        loop {
            match self.next(number)? {
                Event::Done(done) => return Ok(done),
                event => {
                    if listening && on_event(event).is_break() {
                        listening = false;
                        self.shared.cancel();
                    }
                }
            }
        }
    }

    /// The tokens of a text.
    pub fn tokenize(
        &mut self,
        text: &str,
        add_special: bool,
        parse_special: bool,
    ) -> Result<Vec<i32>, EngineError> {
        let text = text.to_owned();
        match self.ask(Request::Tokenize { text, add_special, parse_special })? {
            Event::Tokens(tokens) => Ok(tokens),
            event => Err(unexpected(&event)),
        }
    }

    /// The bytes of tokens; special ones are written out when `special`.
    pub fn detokenize(&mut self, tokens: &[i32], special: bool) -> Result<Vec<u8>, EngineError> {
        match self.ask(Request::Detokenize { tokens: tokens.to_vec(), special })? {
            Event::Bytes(bytes) => Ok(bytes),
            event => Err(unexpected(&event)),
        }
    }

    /// The natural logarithm of the probability of each token from index `from` (at least 1) on.
    pub fn score(&mut self, tokens: &[i32], from: usize) -> Result<Vec<f64>, EngineError> {
        match self.ask(Request::Score { tokens: tokens.to_vec(), from })? {
            Event::Scores(scores) => Ok(scores),
            event => Err(unexpected(&event)),
        }
    }

    /// The logits after each of the positions, which ascend; one row a position.
    pub fn logits(
        &mut self,
        tokens: &[i32],
        positions: &[usize],
    ) -> Result<Vec<Vec<f32>>, EngineError> {
        let request = Request::Logits { tokens: tokens.to_vec(), positions: positions.to_vec() };
        match self.ask(request)? {
            Event::Logits { vocabulary_tokens, values } => {
                Ok(values.chunks(vocabulary_tokens.max(1)).map(<[f32]>::to_vec).collect())
            }
            event => Err(unexpected(&event)),
        }
    }

    /// The worker's memory now.
    pub fn memory(&mut self) -> Result<MemoryUse, EngineError> {
        match self.ask(Request::Memory)? {
            Event::Memory(memory) => Ok(memory),
            event => Err(unexpected(&event)),
        }
    }

    /// The first frame of a worker, without which the program is something else.
    fn greet(&mut self) -> Result<(), EngineError> {
        let refuse =
            |reason: String| EngineError::NotAWorker { program: self.program.clone(), reason };
        match self.child.read() {
            Ok(Reply { event: Event::Hello { protocol: PROTOCOL }, .. }) => Ok(()),
            Ok(Reply { event: Event::Hello { protocol }, .. }) => {
                let reason = format!("it speaks protocol {protocol}, not {PROTOCOL}");
                Err(refuse(reason))
            }
            Ok(_) => Err(refuse("its first message is no greeting".to_owned())),
            Err(FrameError::Closed) => Err(self.died()),
            Err(error) => Err(refuse(error.to_string())),
        }
    }

    /// Sends a call and returns its number.
    fn call(&mut self, request: Request) -> Result<u64, EngineError> {
        if self.death.is_some() {
            return Err(self.died());
        }
        self.calls += 1;
        let call = Call { number: self.calls, request };
        match self.shared.send(&call) {
            Ok(()) => Ok(call.number),
            Err(FrameError::TooLong(bytes)) => Err(EngineError::TooLong(bytes)),
            Err(_) => Err(self.died()),
        }
    }

    /// The next event of a call; a failure becomes an error.
    fn next(&mut self, number: u64) -> Result<Event, EngineError> {
        loop {
            let reply = match self.child.read() {
                Ok(reply) => reply,
                Err(FrameError::Closed) => return Err(self.died()),
                Err(error) => {
                    // After a broken frame nothing that follows means anything.
                    self.shared.kill();
                    let _ = self.died();
                    return Err(EngineError::Protocol(error.to_string()));
                }
            };
            if reply.number != number {
                continue;
            }
            let is_last = !matches!(
                reply.event,
                Event::Progress(_) | Event::PromptDone { .. } | Event::Token { .. }
            );
            if is_last {
                self.shared.finished(number);
            }
            return match reply.event {
                Event::Failed(failure) => Err(EngineError::Failed(failure)),
                event => Ok(event),
            };
        }
    }

    fn ask(&mut self, request: Request) -> Result<Event, EngineError> {
        let number = self.call(request)?;
        loop {
            match self.next(number)? {
                Event::Progress(_) => {}
                event => return Ok(event),
            }
        }
    }

    /// The worker is gone: how, and what it said last.
    fn died(&mut self) -> EngineError {
        let death = *self.death.get_or_insert_with(|| self.child.reap());
        EngineError::WorkerDied { death, words: self.child.last_words() }
    }
}

fn unexpected(event: &Event) -> EngineError {
    let name = format!("{event:?}");
    let name = name.split(|c: char| !c.is_alphanumeric()).next().unwrap_or_default();
    EngineError::Protocol(format!("an answer to another question: {name}"))
}

impl Drop for Engine {
    fn drop(&mut self) {
        if self.death.is_none() {
            self.shared.kill();
            self.child.reap();
        }
    }
}

/// Stops replies from another thread.
#[derive(Debug, Clone)]
pub struct CancelHandle {
    shared: Arc<Shared>,
}

impl CancelHandle {
    /// Stops the running reply, which then ends with [`Reason::Cancelled`](super::frames::Reason);
    /// does nothing when none is running.
    pub fn cancel(&self) {
        self.shared.cancel();
    }

    /// Ends the worker at once: for one that does not answer.
    pub fn kill(&self) {
        self.shared.kill();
    }
}
