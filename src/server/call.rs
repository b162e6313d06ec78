//! A request on its way through the server: what the log and the audit say of it when it is over.
//!
//! It travels beside the request's task, so that dialects need not hand it on. It has no place for texts of
//! conversations, nor for keys.

use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use serde::Deserialize;

use super::problem::{Kind, Problem};
use super::routes::{Access, Words};
use crate::chat::Event;

/// Characters of names that come from outside, as they are logged.
const NAME_CHARACTERS_MAX: usize = 200;

tokio::task_local! {
    static CURRENT: Arc<Call>;
}

/// A request on its way.
#[derive(Debug)]
pub(super) struct Call {
    /// The client's name for it, or ours.
    pub(super) id: String,
    pub(super) started: Instant,
    pub(super) method: String,
    /// Without the query, where people put secrets.
    pub(super) path: String,
    pub(super) address: Option<IpAddr>,
    pub(super) access: Access,
    /// How the route's dialect words problems.
    pub(super) words: Words,
    /// The key that it came with: its name, and whether it is good for managing.
    key: OnceLock<(String, bool)>,
    model: OnceLock<String>,
    prompt_tokens: AtomicU32,
    reply_tokens: AtomicU32,
    failed: AtomicBool,
    /// Whether it wanted to manage something.
    manages: AtomicBool,
}

/// Names of models in the bodies of Ollama's management routes.
#[derive(Debug, Deserialize)]
struct Named {
    model: Option<String>,
    name: Option<String>,
    source: Option<String>,
    destination: Option<String>,
}

impl Call {
    /// A request that begins; `path` and `words` are of its route.
    pub(super) fn new(id: String, method: &str, path: &str, access: Access, words: Words) -> Self {
        Self {
            id,
            started: Instant::now(),
            method: short(method),
            path: short(path),
            address: None,
            access,
            words,
            key: OnceLock::new(),
            model: OnceLock::new(),
            prompt_tokens: AtomicU32::new(0),
            reply_tokens: AtomicU32::new(0),
            failed: AtomicBool::new(false),
            manages: AtomicBool::new(false),
        }
    }

    /// The request that this task works for.
    pub(super) fn current() -> Option<Arc<Self>> {
        CURRENT.try_with(Arc::clone).ok()
    }

    /// Does work for a request, or for none.
    pub(super) async fn work<F: Future>(call: Option<Arc<Self>>, work: F) -> F::Output {
        match call {
            Some(call) => CURRENT.scope(call, work).await,
            None => work.await,
        }
    }

    pub(super) fn came_with(&self, key: String, manages: bool) {
        let _ = self.key.set((key, manages));
    }

    pub(super) fn key(&self) -> Option<&str> {
        self.key.get().map(|(name, _)| name.as_str())
    }

    /// Refuses what needs a key for managing, when it came with another one. For requests that manage something by
    /// what is in their body; those that always do say so where they are registered.
    pub(super) fn must_manage(&self) -> Result<(), Problem> {
        self.manages.store(true, Ordering::Relaxed);
        match self.key.get() {
            Some((name, false)) => Err(Problem {
                hint: Some("nfl keys add NAME --scope manage makes one that is".to_owned()),
                ..Problem::new(
                    Kind::Forbidden,
                    format!("the key {name} is not for managing models"),
                )
            }),
            _ => Ok(()),
        }
    }

    /// Whether it managed something, or wanted to, by what is in its body.
    pub(super) fn manages_by_body(&self) -> bool {
        self.access != Access::Manage && self.manages.load(Ordering::Relaxed)
    }

    /// Notes which model is asked.
    pub(super) fn asks(&self, model: &str) {
        let _ = self.model.set(short(model));
    }

    pub(super) fn model(&self) -> Option<&str> {
        self.model.get().map(String::as_str)
    }

    /// Notes from the body of a request that manages which model it is about.
    pub(super) fn read(&self, body: &[u8]) {
        if self.access == Access::Manage
            && let Ok(named) = serde_json::from_slice::<Named>(body)
        {
            let copy = named.source.zip(named.destination);
            let copy = copy.map(|(source, target)| format!("{source} -> {target}"));
            if let Some(name) = named.model.or(named.name).or(copy) {
                self.asks(&name);
            }
        }
    }

    /// Notes what the account of a reply says.
    pub(super) fn note(&self, event: &Event) {
        match event {
            Event::Read { tokens, .. } => {
                self.prompt_tokens.fetch_add(*tokens, Ordering::Relaxed);
            }
            Event::Done(done) => {
                self.reply_tokens.fetch_add(done.generated_tokens, Ordering::Relaxed);
            }
            _ => {}
        }
    }

    /// Tokens read and tokens made; None when no model was asked.
    pub(super) fn tokens(&self) -> Option<(u32, u32)> {
        let read = self.prompt_tokens.load(Ordering::Relaxed);
        (read > 0).then(|| (read, self.reply_tokens.load(Ordering::Relaxed)))
    }

    /// Notes that it failed after its status was sent.
    pub(super) fn fail(&self) {
        self.failed.store(true, Ordering::Relaxed);
    }

    pub(super) fn has_failed(&self) -> bool {
        self.failed.load(Ordering::Relaxed)
    }
}

fn short(text: &str) -> String {
    text.chars().take(NAME_CHARACTERS_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_requests_that_manage_are_read_for_names() {
        let of =
            |access| Call::new("1".to_owned(), "POST", "/", access, super::super::body::refusal);
        let call = of(Access::Manage);
        call.read(br#"{"source": "a", "destination": "b", "messages": 3}"#);
        assert_eq!(call.model(), Some("a -> b"));
        let call = of(Access::Infer);
        call.read(br#"{"model": "a"}"#);
        assert_eq!(call.model(), None);
    }
}
