//! The program's side: starts a worker, talks to it, and survives its death.

mod child;
mod error;
mod mailbox;

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use super::embedding::{EmbeddingRequest, Embeddings};
use super::frames::{
    Call, Done, Event, Failure, FrameError, Generation, LoadInfo, MemoryUse, PROTOCOL, Reply,
    Request, Status,
};
use super::llama::Logprobs;
use super::options::{DraftRequest, LoadRequest};
use child::{Child, Shared};
use mailbox::Mailbox;

pub use error::{Death, EngineError};

/// A model in a worker process of its own. Dropping it ends the worker and gives the memory back.
/// Any number of threads may ask at the same time.
#[derive(Debug)]
pub struct Engine {
    program: PathBuf,
    request: LoadRequest,
    shared: Arc<Shared>,
    mailbox: Arc<Mailbox>,
    child: Child,
    info: LoadInfo,
}

/// How often a caller is asked whether loading is to go on, when nothing else happens.
const TICK: Duration = Duration::from_millis(100);

/// Loading progress, 0 to 1, in; whether to go on, out. Asked ten times a second, whether anything moved or not.
pub type OnProgress<'a> = &'a mut dyn FnMut(f32) -> ControlFlow<()>;

impl Engine {
    /// Starts `program` (this executable, or in tests the built one) as a worker and loads a model
    /// into it.
    pub fn start(
        program: &Path,
        request: &LoadRequest,
        on_progress: OnProgress<'_>,
    ) -> Result<Self, EngineError> {
        let absolute = |path: &PathBuf| std::path::absolute(path).unwrap_or_else(|_| path.clone());
        let draft = request.draft.as_ref();
        let draft =
            draft.map(|draft| DraftRequest { path: absolute(&draft.path), ..draft.clone() });
        let path = absolute(&request.path);
        let request = LoadRequest { path, draft, ..request.clone() };
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
            mailbox: shared.mailbox(),
            child,
            info: LoadInfo::default(),
        };
        engine.info = engine.load_or_kill(on_progress)?;
        Ok(engine)
    }

    /// Loads, and kills a worker whose caller does not want to go on: it may hang in a driver or on a disk.
    fn load_or_kill(&self, on_progress: OnProgress<'_>) -> Result<LoadInfo, EngineError> {
        let (sender, receiver) = mpsc::channel();
        thread::scope(|scope| {
            scope.spawn(move || {
                let loaded = self.load(&|share| _ = sender.send(Loading::Share(share)));
                let _ = sender.send(Loading::Over(loaded.map(Box::new)));
            });
            let (mut share, mut is_wanted) = (0.0, true);
            loop {
                match receiver.recv_timeout(TICK) {
                    Ok(Loading::Over(_)) if !is_wanted => return Err(EngineError::Cancelled),
                    Ok(Loading::Over(loaded)) => return loaded.map(|info| *info),
                    Ok(Loading::Share(new)) => share = new,
                    Err(mpsc::RecvTimeoutError::Timeout) => {}
                    Err(mpsc::RecvTimeoutError::Disconnected) => {
                        let text = "the thread that loads ended".to_owned();
                        return Err(EngineError::Protocol(text));
                    }
                }
                if is_wanted && on_progress(share).is_break() {
                    is_wanted = false;
                    self.shared.kill();
                }
            }
        })
    }

    fn load(&self, told: &dyn Fn(f32)) -> Result<LoadInfo, EngineError> {
        self.greet()?;
        let number = self.call(Request::Load(Box::new(self.request.clone())))?;
        loop {
            match self.next(number)? {
                Event::Loaded(info) => return Ok(*info),
                Event::Progress(share) => told(share),
                event => return Err(unexpected(&event)),
            }
        }
    }

    /// Replaces the worker by a fresh one with the same model; the only way back after
    /// [`EngineError::WorkerDied`].
    pub fn restart(&mut self, on_progress: OnProgress<'_>) -> Result<(), EngineError> {
        self.shared.kill();
        // With its end on record, dropping the old engine leaves the new worker alone.
        self.died();
        *self = Self::launch(&self.program, &self.request, &self.shared, on_progress)?;
        Ok(())
    }

    /// Unloads the model. What was computed is saved when there is a place for it; returns how many
    /// states were.
    pub fn unload(self) -> Result<usize, EngineError> {
        match self.ask(Request::Unload)? {
            Event::Unloaded { states, error: None } => Ok(states),
            Event::Unloaded { error: Some(message), .. } => {
                Err(EngineError::Failed(Failure::Request(message)))
            }
            event => Err(unexpected(&event)),
        }
    }

    /// What was loaded.
    pub fn info(&self) -> &LoadInfo {
        &self.info
    }

    /// Whether the worker has not died.
    pub fn is_alive(&self) -> bool {
        self.mailbox.end().is_none() && !self.shared.is_dead()
    }

    /// The worker's process number.
    pub fn process_id(&self) -> u32 {
        self.child.process_id()
    }

    /// A handle that stops all replies from other threads, across restarts.
    pub fn cancel_handle(&self) -> CancelHandle {
        CancelHandle { shared: Arc::clone(&self.shared), call: None }
    }

    /// Asks for the continuation of a prompt. The reply is stopped when what is returned is dropped
    /// before its end.
    pub fn submit(&self, request: &Generation) -> Result<Answer<'_>, EngineError> {
        self.answer(Request::Generate(Box::new(request.clone())))
    }

    /// Asks for the embeddings of texts or the scores of documents; the last event is
    /// [`Event::Embeddings`]. The work is stopped when what is returned is dropped before its end.
    pub fn submit_embedding(&self, request: EmbeddingRequest) -> Result<Answer<'_>, EngineError> {
        self.answer(Request::Embed(Box::new(request)))
    }

    fn answer(&self, request: Request) -> Result<Answer<'_>, EngineError> {
        let call = self.call(request)?;
        Ok(Answer { engine: self, call, is_over: false })
    }

    /// The embeddings of texts or the scores of documents. `on_progress` gets the share of the texts that is done, and
    /// says whether to go on.
    pub fn embed(
        &self,
        request: EmbeddingRequest,
        on_progress: OnProgress<'_>,
    ) -> Result<Embeddings, EngineError> {
        let mut answer = self.submit_embedding(request)?;
        loop {
            match answer.next_event()? {
                Event::Embeddings(embeddings) => return Ok(*embeddings),
                Event::Progress(share) if on_progress(share).is_break() => {
                    return Err(EngineError::Failed(Failure::Cancelled));
                }
                Event::Progress(_) => {}
                event => return Err(unexpected(&event)),
            }
        }
    }

    /// Continues a prompt. Events arrive as they happen: Progress while a long prompt is read,
    /// PromptDone, Token. When `on_event` returns Break the reply is stopped, and no further events
    /// are handed out.
    pub fn generate(
        &self,
        request: &Generation,
        on_event: &mut dyn FnMut(Event) -> ControlFlow<()>,
    ) -> Result<Done, EngineError> {
        let mut answer = self.submit(request)?;
        let mut listening = true;
        loop {
            match answer.next_event()? {
                Event::Done(done) => return Ok(done),
                event => {
                    if listening && on_event(event).is_break() {
                        listening = false;
                        answer.cancel_handle().cancel();
                    }
                }
            }
        }
    }

    /// The tokens of a text.
    pub fn tokenize(
        &self,
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
    pub fn detokenize(&self, tokens: &[i32], special: bool) -> Result<Vec<u8>, EngineError> {
        match self.ask(Request::Detokenize { tokens: tokens.to_vec(), special })? {
            Event::Bytes(bytes) => Ok(bytes),
            event => Err(unexpected(&event)),
        }
    }

    /// The natural logarithm of the probability of each token from index `from` (at least 1) on.
    pub fn score(&self, tokens: &[i32], from: usize) -> Result<Vec<f64>, EngineError> {
        match self.ask(Request::Score { tokens: tokens.to_vec(), from })? {
            Event::Scores(scores) => Ok(scores),
            event => Err(unexpected(&event)),
        }
    }

    /// What the model thinks of each token from index `from` (at least 1) on, with `top` of the likeliest in its place.
    pub fn logprobs(
        &self,
        tokens: &[i32],
        from: usize,
        top: u32,
    ) -> Result<Vec<Logprobs>, EngineError> {
        match self.ask(Request::Logprobs { tokens: tokens.to_vec(), from, top })? {
            Event::Logprobs(logprobs) => Ok(logprobs),
            event => Err(unexpected(&event)),
        }
    }

    /// The logits after each of the positions, which ascend; one row a position.
    pub fn logits(
        &self,
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
    pub fn memory(&self) -> Result<MemoryUse, EngineError> {
        match self.ask(Request::Memory)? {
            Event::Memory(memory) => Ok(memory),
            event => Err(unexpected(&event)),
        }
    }

    /// What the worker is doing now.
    pub fn status(&self) -> Result<Status, EngineError> {
        match self.ask(Request::Status)? {
            Event::Status(status) => Ok(status),
            event => Err(unexpected(&event)),
        }
    }

    /// The first frame of a worker, without which the program is something else.
    fn greet(&self) -> Result<(), EngineError> {
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
    fn call(&self, request: Request) -> Result<u64, EngineError> {
        let number = self.shared.next_number();
        self.mailbox.open(number)?;
        let sent = self.shared.send(&Call { number, request });
        let Err(error) = sent else { return Ok(number) };
        self.mailbox.close(number);
        match error {
            FrameError::TooLong(bytes) => Err(EngineError::TooLong(bytes)),
            _ => Err(self.died()),
        }
    }

    /// The next event of a call; a failure becomes an error. After the last one the call is over.
    fn next(&self, number: u64) -> Result<Event, EngineError> {
        let event = self.mailbox.next(number, &|replies| match self.child.read_all(replies) {
            Ok(()) => Ok(()),
            Err(FrameError::Closed) => Err(self.death()),
            Err(error) => {
                // After a broken frame nothing that follows means anything.
                self.shared.kill();
                self.child.reap();
                Err(EngineError::Protocol(error.to_string()))
            }
        });
        let is_last = !matches!(
            event,
            Ok(Event::Progress(_) | Event::PromptDone { .. } | Event::Token { .. })
        );
        if is_last {
            self.mailbox.close(number);
        }
        match event? {
            Event::Failed(failure) => Err(EngineError::Failed(failure)),
            event => Ok(event),
        }
    }

    fn ask(&self, request: Request) -> Result<Event, EngineError> {
        let number = self.call(request)?;
        loop {
            match self.next(number)? {
                Event::Progress(_) => {}
                event => return Ok(event),
            }
        }
    }

    /// The worker is gone: how, and what it said last.
    fn death(&self) -> EngineError {
        let death = self.child.reap();
        EngineError::WorkerDied { death, words: self.child.last_words() }
    }

    /// Puts the worker's death on record.
    fn died(&self) -> EngineError {
        self.mailbox.set_end(self.death())
    }
}

fn unexpected(event: &Event) -> EngineError {
    let name = format!("{event:?}");
    let name = name.split(|c: char| !c.is_alphanumeric()).next().unwrap_or_default();
    EngineError::Protocol(format!("an answer to another question: {name}"))
}

/// What the thread that loads tells of it.
enum Loading {
    Share(f32),
    Over(Result<Box<LoadInfo>, EngineError>),
}

impl Drop for Engine {
    fn drop(&mut self) {
        if self.mailbox.end().is_none() {
            self.shared.kill();
            self.child.reap();
        }
    }
}

/// A reply that is on its way.
#[derive(Debug)]
pub struct Answer<'a> {
    engine: &'a Engine,
    call: u64,
    is_over: bool,
}

impl Answer<'_> {
    /// The next event, waiting for it; the last one is [`Event::Done`] or [`Event::Embeddings`].
    pub fn next_event(&mut self) -> Result<Event, EngineError> {
        let event = self.engine.next(self.call);
        self.is_over |= matches!(event, Ok(Event::Done(_) | Event::Embeddings(_)) | Err(_));
        event
    }

    /// A handle that stops this reply from another thread.
    pub fn cancel_handle(&self) -> CancelHandle {
        CancelHandle { shared: Arc::clone(&self.engine.shared), call: Some(self.call) }
    }
}

impl Drop for Answer<'_> {
    fn drop(&mut self) {
        if !self.is_over {
            self.engine.shared.cancel(self.call);
            self.engine.mailbox.close(self.call);
        }
    }
}

/// Stops replies from another thread.
#[derive(Debug, Clone)]
pub struct CancelHandle {
    shared: Arc<Shared>,
    /// None stops all.
    call: Option<u64>,
}

impl CancelHandle {
    /// Stops the reply, which then ends with [`Reason::Cancelled`](super::frames::Reason); does
    /// nothing when none is running.
    pub fn cancel(&self) {
        match self.call {
            Some(call) => self.shared.cancel(call),
            None => {
                for call in self.shared.mailbox().calls() {
                    self.shared.cancel(call);
                }
            }
        }
    }

    /// Ends the worker at once: for one that does not answer.
    pub fn kill(&self) {
        self.shared.kill();
    }
}
