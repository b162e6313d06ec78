//! Answers that are kept in memory for a while, so that they can be read again and continued.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::Value;
use tokio::task::AbortHandle;

use crate::server::openai::refusal::{Answer, Refusal};

/// Answers that are kept; those that nobody used for longest go first.
const KEPT_MAX: usize = 1024;

/// Bytes of all of them, as JSON.
const BYTES_MAX: usize = 64 << 20;

/// An answer that is kept.
#[derive(Debug, Clone)]
pub(super) struct Kept {
    pub(super) response: Value,
    /// The answer that it continues.
    pub(super) previous: Option<String>,
    /// The items of its request.
    pub(super) input: Arc<Vec<Value>>,
    /// Makes it, in the background.
    pub(super) task: Option<AbortHandle>,
}

/// Kept answers, by name.
#[derive(Debug, Default)]
pub(super) struct Store(Mutex<Shelves>);

#[derive(Debug, Default)]
struct Shelves {
    kept: HashMap<String, Entry>,
    bytes: usize,
    /// Grows with every use.
    clock: u64,
}

#[derive(Debug)]
struct Entry {
    kept: Kept,
    bytes: usize,
    used: u64,
}

impl Store {
    fn shelves(&self) -> MutexGuard<'_, Shelves> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps an answer.
    pub(super) fn put(&self, id: &str, kept: Kept) {
        let input: usize = kept.input.iter().map(|item| item.to_string().len()).sum();
        let bytes = input + kept.response.to_string().len();
        let mut shelves = self.shelves();
        shelves.remove(id);
        shelves.clock += 1;
        let used = shelves.clock;
        shelves.bytes += bytes;
        shelves.kept.insert(id.to_owned(), Entry { kept, bytes, used });
        while shelves.kept.len() > KEPT_MAX || shelves.bytes > BYTES_MAX {
            let oldest = shelves.kept.iter().min_by_key(|(_, entry)| entry.used);
            let Some(oldest) = oldest.map(|(id, _)| id.clone()) else { break };
            shelves.remove(&oldest);
        }
    }

    /// Puts the end of an answer into the place of its beginning, unless it was deleted or cancelled.
    pub(super) fn finish(&self, id: &str, response: Value) {
        let kept = self.shelves().kept.get(id).map(|entry| entry.kept.clone());
        if let Some(kept) = kept.filter(|kept| kept.response["status"] == "in_progress") {
            self.put(id, Kept { response, task: None, ..kept });
        }
    }

    /// Notes the task that makes an answer.
    pub(super) fn watch(&self, id: &str, task: AbortHandle) {
        if let Some(entry) = self.shelves().kept.get_mut(id) {
            entry.kept.task = Some(task);
        }
    }

    /// An answer that is kept.
    pub(super) fn get(&self, id: &str) -> Answer<Kept> {
        let mut shelves = self.shelves();
        shelves.clock += 1;
        let now = shelves.clock;
        let missing = || Refusal::missing(Some("id"), format!("response {id:?} not found"));
        let entry = shelves.kept.get_mut(id).ok_or_else(missing)?;
        entry.used = now;
        Ok(entry.kept.clone())
    }

    /// Forgets an answer, and stops what makes it.
    pub(super) fn remove(&self, id: &str) -> Answer<()> {
        let kept = self.get(id)?;
        if let Some(task) = kept.task {
            task.abort();
        }
        self.shelves().remove(id);
        Ok(())
    }

    /// All items up to an answer and with it, from the beginning.
    pub(super) fn conversation(&self, id: &str) -> Answer<Vec<Value>> {
        let mut answers = Vec::new();
        let mut next = Some(id.to_owned());
        while let Some(id) = next.take() {
            let kept = self.get(&id).map_err(|_| {
                let text =
                    format!("previous response {id:?} not found: it was deleted or is long ago");
                let param = Some("previous_response_id");
                Refusal::invalid(param, text).code("previous_response_not_found")
            })?;
            if kept.response["status"] == "in_progress" {
                let text = format!("previous response {id:?} is not finished");
                return Err(Refusal::invalid(Some("previous_response_id"), text));
            }
            next.clone_from(&kept.previous);
            answers.push(kept);
        }
        let items = answers.into_iter().rev().flat_map(|kept| {
            let output = kept.response["output"].as_array().cloned().unwrap_or_default();
            kept.input.iter().cloned().chain(output).collect::<Vec<_>>()
        });
        Ok(items.collect())
    }
}

impl Shelves {
    fn remove(&mut self, id: &str) {
        if let Some(entry) = self.kept.remove(id) {
            self.bytes -= entry.bytes;
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn kept(text: &str, previous: Option<&str>) -> Kept {
        Kept {
            response: json!({"status": "completed", "output": [{"answer": text}]}),
            previous: previous.map(str::to_owned),
            input: Arc::new(vec![json!({"question": text})]),
            task: None,
        }
    }

    #[test]
    fn a_conversation_is_followed_to_its_beginning() {
        let store = Store::default();
        store.put("a", kept("one", None));
        store.put("b", kept("two", Some("a")));
        let expected = [
            json!({"question": "one"}),
            json!({"answer": "one"}),
            json!({"question": "two"}),
            json!({"answer": "two"}),
        ];
        assert_eq!(store.conversation("b").unwrap(), expected);
        store.remove("a").unwrap();
        assert!(store.conversation("b").is_err());
        assert!(store.get("a").is_err());
    }

    #[test]
    fn the_longest_unused_go_first() {
        let store = Store::default();
        for index in 0..KEPT_MAX {
            store.put(&index.to_string(), kept("x", None));
        }
        store.get("0").unwrap();
        store.put("new", kept("x", None));
        assert!(store.get("0").is_ok() && store.get("new").is_ok() && store.get("1").is_err());
        let large = "x".repeat(BYTES_MAX - 1000);
        store.put("large", kept(&large, None));
        assert!(store.get("0").is_err(), "twice that many bytes are too many");
        let shelves = store.shelves();
        let sum: usize = shelves.kept.values().map(|each| each.bytes).sum();
        assert_eq!(shelves.bytes, sum);
    }
}
