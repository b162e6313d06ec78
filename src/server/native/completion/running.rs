//! A completion on its way: from events to llama-server's objects.

use std::sync::Arc;
use std::time::Instant;

use serde_json::{Map, Value, json};

use super::asked::{Asked, Facts, Later};
use super::probabilities;
use super::timings::{self, Timings};
use crate::chat::Event;
use crate::engine::frames::{Done, Reason};
use crate::engine::runner::Cancel;
use crate::server::body::Lines;
use crate::server::native::failure;
use crate::server::problem::{Kind, Problem};
use crate::server::reply::{Reply, Step};

/// A reply and what came of it.
#[derive(Debug)]
pub(super) struct Running {
    pub(super) index: usize,
    pub(super) asked: Arc<Asked>,
    pub(super) later: Later,
    pub(super) reply: Reply,
    pub(super) cancel: Cancel,
    pub(super) made: Made,
}

/// What came so far.
#[derive(Debug)]
pub(super) struct Made {
    content: String,
    tokens: Vec<i32>,
    chances: Vec<Value>,
    /// What was not sent yet.
    waiting: Chunk,
    timings: Timings,
    started: Instant,
    first: Option<Instant>,
    is_out_of_time: bool,
}

/// What came at once.
#[derive(Debug, Default)]
struct Chunk {
    content: String,
    tokens: Vec<i32>,
    chances: Vec<Value>,
}

impl Default for Made {
    fn default() -> Self {
        Self {
            content: String::new(),
            tokens: Vec::new(),
            chances: Vec::new(),
            waiting: Chunk::default(),
            timings: Timings::default(),
            started: Instant::now(),
            first: None,
            is_out_of_time: false,
        }
    }
}

impl Running {
    /// The answer, when it is complete.
    pub(super) async fn finish(mut self) -> Result<Value, Problem> {
        loop {
            match self.reply.next().await {
                Some(Ok(Step::Event(Event::Done(done)))) => {
                    self.take_waiting();
                    return Ok(self.account(&done, true));
                }
                Some(Ok(Step::Event(event))) => {
                    self.hear(event);
                    self.take_waiting();
                }
                Some(Ok(Step::Ready { .. })) => {}
                Some(Err(problem)) => return Err(problem),
                None => return Err(Problem::new(Kind::Internal, "the reply broke off")),
            }
        }
    }

    /// Sends the answer as it comes.
    pub(super) async fn stream(mut self, lines: Lines) {
        if self.asked.tells_progress() && !lines.event(None, &self.progress(0.0)).await {
            return;
        }
        loop {
            let is_heard = match self.reply.next().await {
                Some(Ok(Step::Event(Event::Done(done)))) => {
                    self.flush(&lines).await;
                    lines.event(None, &self.account(&done, false)).await;
                    return;
                }
                Some(Ok(Step::Event(Event::Reading(share)))) if self.asked.tells_progress() => {
                    lines.event(None, &self.progress(share)).await
                }
                Some(Ok(Step::Event(event))) => {
                    // A token whose text is not certain yet has an event of its own all the same.
                    let is_next = matches!(event, Event::Token(_));
                    let was_heard = !is_next || self.flush(&lines).await;
                    let is_text = matches!(event, Event::Text(_));
                    self.hear(event);
                    was_heard && (!is_text || self.flush(&lines).await)
                }
                Some(Ok(Step::Ready { .. })) => true,
                Some(Err(problem)) => {
                    lines.event(None, &failure::value(&problem)).await;
                    return;
                }
                None => return,
            };
            if !is_heard {
                return;
            }
        }
    }

    fn facts(&self) -> &Facts {
        self.later.get().expect("a reply begins when its request is made")
    }

    /// Takes in what happened.
    fn hear(&mut self, event: Event) {
        let made = &mut self.made;
        match event {
            Event::Read { tokens, cached_tokens } => {
                made.timings.cached = cached_tokens;
                made.timings.read = tokens.saturating_sub(cached_tokens);
                made.timings.prompt_ms = made.started.elapsed().as_secs_f64() * 1e3;
            }
            Event::Token(chances) => {
                made.waiting.tokens.push(chances.chosen.id);
                if self.asked.tells_chances() {
                    made.waiting.chances.push(probabilities::value(&chances));
                }
                made.timings.generated += 1;
            }
            Event::Text(text) => made.waiting.content.push_str(&text),
            _ => {}
        }
        if !made.waiting.tokens.is_empty() || !made.waiting.content.is_empty() {
            made.first.get_or_insert_with(Instant::now);
            self.check_time();
        }
    }

    /// Ends a reply whose time is over, once it has a line.
    fn check_time(&mut self) {
        let Some(limit) = self.asked.time_max else { return };
        let made = &mut self.made;
        let has_line = made.content.contains('\n') || made.waiting.content.contains('\n');
        if has_line && made.first.is_some_and(|first| first.elapsed() > limit) {
            made.is_out_of_time = true;
            self.cancel.cancel();
        }
    }

    fn take_waiting(&mut self) -> Chunk {
        let made = &mut self.made;
        let chunk = std::mem::take(&mut made.waiting);
        made.content.push_str(&chunk.content);
        made.tokens.extend(&chunk.tokens);
        made.chances.extend(chunk.chances.iter().cloned());
        chunk
    }

    /// Sends what waits; false when nobody listens any more.
    async fn flush(&mut self, lines: &Lines) -> bool {
        if self.made.waiting.content.is_empty() && self.made.waiting.tokens.is_empty() {
            return true;
        }
        let chunk = self.take_waiting();
        let mut value = self.partial(&chunk.content, &chunk.tokens);
        if !chunk.chances.is_empty() {
            value["completion_probabilities"] = chunk.chances.into();
        }
        lines.event(None, &value).await
    }

    /// What is the same in all events but the last.
    fn partial(&self, content: &str, tokens: &[i32]) -> Value {
        let mut value = json!({
            "index": self.index,
            "content": content,
            "tokens": tokens,
            "stop": false,
            "id_slot": -1,
            "tokens_predicted": self.made.timings.generated,
            "tokens_evaluated": self.facts().prompt_tokens,
        });
        if self.asked.tells_timings() {
            let mut timings = self.made.timings;
            timings.decoded = timings.generated.saturating_sub(1);
            let since = |first: Instant| first.elapsed().as_secs_f64() * 1e3;
            timings.decode_ms = self.made.first.map_or(0.0, since);
            value["timings"] = timings.value();
        }
        value
    }

    /// How far the prompt is read.
    fn progress(&mut self, share: f32) -> Value {
        let total = self.facts().prompt_tokens;
        let time_ms = if share > 0.0 { self.made.started.elapsed().as_millis() as u64 } else { 0 };
        if share > 0.0 {
            self.made.timings.prompt_ms = self.made.started.elapsed().as_secs_f64() * 1e3;
        }
        self.made.timings.read = (share * total as f32) as u32;
        let mut value = self.partial("", &[]);
        value["prompt_progress"] = json!({
            "total": total,
            "cache": 0,
            "processed": self.made.timings.read,
            "time_ms": time_ms,
        });
        value
    }

    /// The last object; with everything that came when it is the only one.
    fn account(&self, done: &Done, is_whole: bool) -> Value {
        let (facts, made) = (self.facts(), &self.made);
        let stop = done.stop.and_then(|place| facts.stop.get(place as usize));
        let tokens = done.prompt_tokens + done.generated_tokens;
        let tells_tokens = is_whole && self.asked.tells_tokens();
        let mut value = json!({
            "index": self.index,
            "content": if is_whole { made.content.as_str() } else { "" },
            "tokens": if tells_tokens { made.tokens.as_slice() } else { &[] },
            "id_slot": -1,
            "stop": true,
            "model": facts.model,
            "tokens_predicted": done.generated_tokens,
            "tokens_evaluated": done.prompt_tokens,
            "generation_settings": facts.settings,
            "prompt": facts.prompt,
            "has_new_line": made.content.contains('\n'),
            "truncated": done.reason == Reason::ContextFull || tokens > facts.context_tokens,
            "stop_type": match done.reason {
                Reason::EndOfText => "eos",
                Reason::Stop => "word",
                Reason::Length | Reason::ContextFull => "limit",
                Reason::Cancelled if made.is_out_of_time => "limit",
                Reason::Cancelled => "none",
            },
            "stopping_word": stop.map_or("", String::as_str),
            "tokens_cached": done.prompt_tokens + done.decoded_tokens,
            "timings": timings::of(done),
        });
        if is_whole && !made.chances.is_empty() {
            value["completion_probabilities"] = made.chances.clone().into();
        }
        only(value, self.asked.fields())
    }
}

/// The fields that were asked for; a path with slashes becomes a field of that name.
fn only(value: Value, fields: &[String]) -> Value {
    if fields.is_empty() {
        return value;
    }
    let found = |path: &String| {
        let target = path.split('/').try_fold(&value, |value, name| value.get(name))?;
        Some((path.clone(), target.clone()))
    };
    Value::Object(fields.iter().filter_map(found).collect::<Map<_, _>>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found_by_their_paths() {
        let value = json!({"a": 1, "b": {"c": [2]}, "d": 3});
        let fields = ["b/c", "a", "b/x", "y"].map(str::to_owned);
        assert_eq!(only(value.clone(), &fields), json!({"b/c": [2], "a": 1}));
        assert_eq!(only(value.clone(), &[]), value);
    }
}
