//! Writes an answer down: its items as they grow, and the events that tell of them in OpenAI's order.

use std::time::Duration;

use serde_json::{Value, json};

use super::asking::Asking;
use crate::chat::{Event, ToolCall};
use crate::engine::frames::{Done, Reason};
use crate::server::openai::asked::{Delivery, now};
use crate::server::openai::finish::{self, Finish};
use crate::server::openai::ids;
use crate::server::openai::logprobs::of_chat;
use crate::server::openai::timings::{self, Clock};
use crate::server::openai::wire::{
    CachedTokens, Content, Incomplete, Item, Logprob, ReasoningTokens, Response, ResponseError,
    ResponseUsage,
};
use crate::server::problem::{Kind, Problem};

/// An event of a stream.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Said {
    pub(super) kind: &'static str,
    pub(super) body: Value,
}

impl Said {
    /// Whether nothing comes after it.
    pub(super) fn is_last(&self) -> bool {
        matches!(self.kind, "response.completed" | "response.incomplete" | "response.failed")
    }
}

/// An answer on its way.
#[derive(Debug, Clone)]
pub(super) struct Scribe {
    response: Response,
    /// Events so far.
    sequence: u64,
    /// Whether the last item still grows.
    is_open: bool,
    /// Pieces of thinking: one a token, as a rule.
    thoughts: u32,
    /// Tokens whose text has not come.
    pending: Vec<Logprob>,
    delivery: Delivery,
    clock: Clock,
    finish: Finish,
}

impl Scribe {
    pub(super) fn new(asking: &Asking) -> Self {
        let response = Response {
            id: asking.id.clone(),
            object: "response",
            created_at: now(),
            status: "in_progress",
            background: asking.is_in_background,
            completed_at: None,
            error: None,
            incomplete_details: None,
            model: asking.asked.model.asked.clone(),
            output: Vec::new(),
            usage: None,
            asked: asking.repeated.clone(),
        };
        Self {
            response,
            sequence: 0,
            is_open: false,
            thoughts: 0,
            pending: Vec::new(),
            delivery: asking.asked.delivery,
            clock: Clock::start(),
            finish: Finish::default(),
        }
    }

    /// How long the stream may be silent.
    pub(super) fn ping(&self) -> Option<Duration> {
        self.delivery.ping
    }

    /// The answer as it is now.
    pub(super) fn response(&self) -> Value {
        serde_json::to_value(&self.response).unwrap_or_default()
    }

    /// The first events.
    pub(super) fn begin(&mut self) -> Vec<Said> {
        ["response.created", "response.in_progress"].map(|kind| self.about_all(kind)).to_vec()
    }

    /// Writes down what happens and tells of it.
    pub(super) fn hear(&mut self, event: Event) -> Result<Vec<Said>, Problem> {
        self.clock.hear(&event);
        self.finish.hear(&event);
        Ok(match event {
            Event::Reading(_) => Vec::new(),
            Event::Read { .. } => self.read(),
            Event::Token(chances) => {
                self.pending.push(of_chat(*chances));
                Vec::new()
            }
            Event::Thinking(text) => self.thinking(&text),
            Event::Text(text) => self.text(&text),
            Event::ToolCall(call) => self.call(&call),
            Event::Done(done) => self.done(&done)?,
        })
    }

    /// The answer ends in an error.
    pub(super) fn fail(&mut self, problem: &Problem) -> Said {
        let code = match problem.kind {
            Kind::RateLimited => "rate_limit_exceeded",
            Kind::Invalid | Kind::TooLong => "invalid_prompt",
            _ => "server_error",
        };
        self.response.status = "failed";
        self.response.error = Some(ResponseError { code, message: problem.text() });
        self.about_all("response.failed")
    }

    fn say(&mut self, kind: &'static str, body: Value) -> Said {
        let mut said = json!({"type": kind, "sequence_number": self.sequence});
        self.sequence += 1;
        if let (Some(said), Value::Object(body)) = (said.as_object_mut(), body) {
            said.extend(body);
        }
        Said { kind, body: said }
    }

    /// An event about the whole answer.
    fn about_all(&mut self, kind: &'static str) -> Said {
        let response = self.response();
        self.say(kind, json!({ "response": response }))
    }

    /// An event about the last item.
    fn about_item(&mut self, kind: &'static str) -> Said {
        let (index, item) =
            (self.response.output.len().saturating_sub(1), self.response.output.last());
        let body = json!({"output_index": index, "item": item});
        self.say(kind, body)
    }

    /// An event about the last item's content.
    fn about_part(&mut self, kind: &'static str, body: &Value) -> Said {
        let id = self.response.output.last().map_or("", Item::id);
        let index = self.response.output.len().saturating_sub(1);
        let mut place = json!({"item_id": id, "output_index": index, "content_index": 0});
        if let (Some(place), Value::Object(body)) = (place.as_object_mut(), body.clone()) {
            if self.delivery.timings && body.contains_key("delta") {
                place.insert("timings".to_owned(), json!(self.clock.timings()));
            }
            place.extend(body);
        }
        self.say(kind, place)
    }

    /// The prompt is read: told to those who want to know.
    fn read(&mut self) -> Vec<Said> {
        if !self.delivery.progress {
            return Vec::new();
        }
        let mut said = self.about_all("response.in_progress");
        said.body["prompt_progress"] = json!(self.clock.progress());
        vec![said]
    }

    fn thinking(&mut self, piece: &str) -> Vec<Said> {
        self.pending.clear();
        self.thoughts += 1;
        let mut said = self.open(true);
        said.push(self.about_part("response.reasoning_text.delta", &json!({"delta": piece})));
        if let Some(Content::ReasoningText { text }) = self.part() {
            text.push_str(piece);
        }
        said
    }

    fn text(&mut self, piece: &str) -> Vec<Said> {
        let mut said = self.open(false);
        let mut pending = std::mem::take(&mut self.pending);
        let body = json!({"delta": piece, "logprobs": pending});
        said.push(self.about_part("response.output_text.delta", &body));
        if let Some(Content::OutputText { text, logprobs, .. }) = self.part() {
            text.push_str(piece);
            logprobs.append(&mut pending);
        }
        said
    }

    fn call(&mut self, call: &ToolCall) -> Vec<Said> {
        self.pending.clear();
        let mut said = self.close("completed");
        let arguments = finish::arguments(call);
        let id = ids::fresh("fc_");
        let item = |status, arguments| Item::FunctionCall {
            id: id.clone(),
            status,
            call_id: call.id.clone(),
            name: call.name.clone(),
            arguments,
        };
        self.response.output.push(item("in_progress", String::new()));
        said.push(self.about_item("response.output_item.added"));
        let index = self.response.output.len() - 1;
        let delta = json!({"item_id": id, "output_index": index, "delta": arguments});
        said.push(self.say("response.function_call_arguments.delta", delta));
        let done = json!({"item_id": id, "output_index": index, "name": call.name, "arguments": arguments});
        said.push(self.say("response.function_call_arguments.done", done));
        self.response.output[index] = item("completed", arguments);
        said.push(self.about_item("response.output_item.done"));
        said
    }

    /// Sees that the last item is one of thinking, or of text, and grows.
    fn open(&mut self, thinks: bool) -> Vec<Said> {
        let last = self.response.output.last().filter(|_| self.is_open);
        if last.is_some_and(|item| matches!(item, Item::Reasoning { .. }) == thinks) {
            return Vec::new();
        }
        let mut said = self.close("completed");
        let status = "in_progress";
        let content = Vec::new();
        self.response.output.push(if thinks {
            let (id, summary) = (ids::fresh("rs_"), []);
            Item::Reasoning { id, status, summary, content, encrypted_content: None }
        } else {
            Item::Message { id: ids::fresh("msg_"), status, role: "assistant", content }
        });
        self.is_open = true;
        said.push(self.about_item("response.output_item.added"));
        let part = if thinks {
            Content::ReasoningText { text: String::new() }
        } else {
            Content::OutputText { text: String::new(), annotations: [], logprobs: Vec::new() }
        };
        said.push(self.about_part("response.content_part.added", &json!({ "part": part })));
        if let Some(item) = self.response.output.last_mut() {
            item.add(part);
        }
        said
    }

    /// The last item grows no more.
    fn close(&mut self, status: &'static str) -> Vec<Said> {
        if !std::mem::replace(&mut self.is_open, false) {
            return Vec::new();
        }
        let Some(part) = self.part().map(|part| part.clone()) else { return Vec::new() };
        let (kind, body) = match &part {
            Content::ReasoningText { text } => {
                ("response.reasoning_text.done", json!({ "text": text }))
            }
            Content::OutputText { text, logprobs, .. } => {
                ("response.output_text.done", json!({"text": text, "logprobs": logprobs}))
            }
        };
        let mut said = vec![self.about_part(kind, &body)];
        said.push(self.about_part("response.content_part.done", &json!({ "part": part })));
        if let Some(item) = self.response.output.last_mut() {
            item.set_status(status);
        }
        said.push(self.about_item("response.output_item.done"));
        said
    }

    fn part(&mut self) -> Option<&mut Content> {
        self.response.output.last_mut()?.parts().last_mut()
    }

    fn done(&mut self, done: &Done) -> Result<Vec<Said>, Problem> {
        self.finish.reason()?;
        // An answer has an item at least.
        let mut said = if self.response.output.is_empty() { self.open(false) } else { Vec::new() };
        let is_cut = matches!(done.reason, Reason::Length | Reason::ContextFull);
        let status = if is_cut { "incomplete" } else { "completed" };
        said.append(&mut self.close(status));
        self.response.status = status;
        self.response.completed_at = (!is_cut).then(now);
        self.response.incomplete_details =
            is_cut.then_some(Incomplete { reason: "max_output_tokens" });
        self.response.usage = Some(ResponseUsage {
            input_tokens: done.prompt_tokens,
            input_tokens_details: CachedTokens { cached_tokens: done.cached_tokens },
            output_tokens: done.generated_tokens,
            output_tokens_details: ReasoningTokens { reasoning_tokens: self.thoughts },
            total_tokens: done.prompt_tokens + done.generated_tokens,
        });
        let kind = if is_cut { "response.incomplete" } else { "response.completed" };
        let mut last = self.about_all(kind);
        last.body["timings"] = json!(timings::of(done));
        said.push(last);
        Ok(said)
    }
}
