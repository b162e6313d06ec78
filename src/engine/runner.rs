//! What can run a model: the worker process, or in tests a script that plays one.

use std::fmt;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::embedding::{EmbeddingRequest, Embeddings};
use super::frames::{Done, Event, Failure, Generation, LoadInfo, MemoryUse, Status};
use super::llama::Logprobs;
use super::process::{Engine, EngineError};

/// A loaded model. Any number of threads may ask at the same time.
pub trait Runner: Send + Sync + fmt::Debug {
    /// What was loaded.
    fn info(&self) -> &LoadInfo;

    /// Whether it has not died.
    fn is_alive(&self) -> bool;

    /// Continues a prompt, see [`Engine::generate`]; ends with [`Reason::Cancelled`](super::frames::Reason) soon after
    /// `cancel` was asked for.
    fn generate(
        &self,
        generation: &Generation,
        cancel: &Cancel,
        on_event: &mut dyn FnMut(Event) -> ControlFlow<()>,
    ) -> Result<Done, EngineError>;

    /// The embeddings of texts or the scores of documents; fails with [`Failure::Cancelled`] soon after `cancel` was
    /// asked for.
    fn embed(&self, request: EmbeddingRequest, cancel: &Cancel) -> Result<Embeddings, EngineError>;

    /// The tokens of a text.
    fn tokenize(
        &self,
        text: &str,
        add_special: bool,
        parse_special: bool,
    ) -> Result<Vec<i32>, EngineError>;

    /// The bytes of tokens; special ones are written out when `special`.
    fn detokenize(&self, tokens: &[i32], special: bool) -> Result<Vec<u8>, EngineError>;

    /// The natural logarithm of the probability of each token from index `from` (at least 1) on.
    fn score(&self, tokens: &[i32], from: usize) -> Result<Vec<f64>, EngineError>;

    /// What the model thinks of each token from index `from` (at least 1) on, with `top` of the likeliest in its place.
    fn logprobs(&self, tokens: &[i32], from: usize, top: u32)
    -> Result<Vec<Logprobs>, EngineError>;

    /// What it is doing now.
    fn status(&self) -> Result<Status, EngineError>;

    /// Its memory now.
    fn memory(&self) -> Result<MemoryUse, EngineError>;

    /// Takes the place of one that died.
    fn restart(&mut self) -> Result<(), EngineError>;

    /// Unloads the model, after saving what it is to save.
    fn unload(self: Box<Self>) -> Result<(), EngineError>;

    /// Ends it at once: for one that does not answer.
    fn kill(&self);

    /// What does the same from elsewhere, also while it is being unloaded.
    fn killer(&self) -> Box<dyn Fn() + Send + Sync> {
        Box::new(|| ())
    }
}

/// Stops one piece of work from any thread, before it starts or while it runs.
#[derive(Clone, Default)]
pub struct Cancel(Arc<Inner>);

type Stop = Box<dyn Fn() + Send>;

#[derive(Default)]
struct Inner {
    requested: AtomicBool,
    stop: Mutex<Option<Stop>>,
}

impl fmt::Debug for Cancel {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_tuple("Cancel").field(&self.is_requested()).finish()
    }
}

impl Cancel {
    /// Asks for the end.
    pub fn cancel(&self) {
        self.0.requested.store(true, Ordering::SeqCst);
        let stop = self.0.stop.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(stop) = &*stop {
            stop();
        }
    }

    /// Whether it was asked for.
    pub fn is_requested(&self) -> bool {
        self.0.requested.load(Ordering::SeqCst)
    }

    /// Runs `work`, and `stop` when the end is asked for before or meanwhile.
    pub fn during<T>(&self, stop: impl Fn() + Send + 'static, work: impl FnOnce() -> T) -> T {
        let set = |stop: Option<Stop>| {
            *self.0.stop.lock().unwrap_or_else(PoisonError::into_inner) = stop;
        };
        set(Some(Box::new(stop)));
        if self.is_requested() {
            self.cancel();
        }
        let result = work();
        set(None);
        result
    }
}

impl Runner for Engine {
    fn info(&self) -> &LoadInfo {
        Engine::info(self)
    }

    fn is_alive(&self) -> bool {
        Engine::is_alive(self)
    }

    fn generate(
        &self,
        generation: &Generation,
        cancel: &Cancel,
        on_event: &mut dyn FnMut(Event) -> ControlFlow<()>,
    ) -> Result<Done, EngineError> {
        let mut answer = self.submit(generation)?;
        let handle = answer.cancel_handle();
        let again = handle.clone();
        cancel.during(
            move || handle.cancel(),
            || {
                let mut is_heard = true;
                loop {
                    match answer.next_event()? {
                        Event::Done(done) => return Ok(done),
                        event => {
                            if is_heard && on_event(event).is_break() {
                                is_heard = false;
                                again.cancel();
                            }
                        }
                    }
                }
            },
        )
    }

    fn embed(&self, request: EmbeddingRequest, cancel: &Cancel) -> Result<Embeddings, EngineError> {
        let mut answer = self.submit_embedding(request)?;
        let handle = answer.cancel_handle();
        cancel.during(
            move || handle.cancel(),
            || loop {
                match answer.next_event()? {
                    Event::Embeddings(embeddings) => return Ok(*embeddings),
                    Event::Progress(_) => {}
                    _ if cancel.is_requested() => {
                        return Err(EngineError::Failed(Failure::Cancelled));
                    }
                    event => {
                        let text = format!("{event:?} in answer to a text to embed");
                        return Err(EngineError::Protocol(text));
                    }
                }
            },
        )
    }

    fn tokenize(
        &self,
        text: &str,
        add_special: bool,
        parse_special: bool,
    ) -> Result<Vec<i32>, EngineError> {
        Engine::tokenize(self, text, add_special, parse_special)
    }

    fn detokenize(&self, tokens: &[i32], special: bool) -> Result<Vec<u8>, EngineError> {
        Engine::detokenize(self, tokens, special)
    }

    fn score(&self, tokens: &[i32], from: usize) -> Result<Vec<f64>, EngineError> {
        Engine::score(self, tokens, from)
    }

    fn logprobs(
        &self,
        tokens: &[i32],
        from: usize,
        top: u32,
    ) -> Result<Vec<Logprobs>, EngineError> {
        Engine::logprobs(self, tokens, from, top)
    }

    fn status(&self) -> Result<Status, EngineError> {
        Engine::status(self)
    }

    fn memory(&self) -> Result<MemoryUse, EngineError> {
        Engine::memory(self)
    }

    fn restart(&mut self) -> Result<(), EngineError> {
        Engine::restart(self, &mut |_| ControlFlow::Continue(()))
    }

    fn unload(self: Box<Self>) -> Result<(), EngineError> {
        Engine::unload(*self).map(drop)
    }

    fn kill(&self) {
        self.cancel_handle().kill();
    }

    fn killer(&self) -> Box<dyn Fn() + Send + Sync> {
        let handle = self.cancel_handle();
        Box::new(move || handle.kill())
    }
}
