//! From events to Anthropic's blocks: what is open, what is closed, and what the clients are told of it.

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::chat::{Event, ToolCall};
use crate::engine::frames::{Done, Reason};
use crate::server::security::hexadecimal;

/// The blocks of one message.
#[derive(Debug, Default)]
pub(super) struct Blocks {
    /// Those that are complete.
    closed: Vec<Value>,
    open: Option<Open>,
    has_calls: bool,
}

/// A block that is being written.
#[derive(Debug)]
enum Open {
    Text(String),
    Thinking(String),
}

impl Blocks {
    /// Takes in what happened and appends what a client that listens is told.
    pub(super) fn hear(&mut self, event: Event, told: &mut Vec<Value>) {
        match event {
            Event::Text(text) => {
                if !matches!(self.open, Some(Open::Text(_))) {
                    self.close(told);
                    self.open = Some(Open::Text(String::new()));
                    self.start(&json!({"type": "text", "text": ""}), told);
                }
                self.delta(&json!({"type": "text_delta", "text": text}), told);
                if let Some(Open::Text(all)) = &mut self.open {
                    all.push_str(&text);
                }
            }
            Event::Thinking(text) => {
                if !matches!(self.open, Some(Open::Thinking(_))) {
                    self.close(told);
                    self.open = Some(Open::Thinking(String::new()));
                    self.start(&json!({"type": "thinking", "thinking": "", "signature": ""}), told);
                }
                self.delta(&json!({"type": "thinking_delta", "thinking": text}), told);
                if let Some(Open::Thinking(all)) = &mut self.open {
                    all.push_str(&text);
                }
            }
            Event::ToolCall(call) => self.call(&call, told),
            _ => {}
        }
    }

    fn call(&mut self, call: &ToolCall, told: &mut Vec<Value>) {
        self.close(told);
        let block = |input: Value| json!({"type": "tool_use", "id": call.id, "name": call.name, "input": input});
        self.start(&block(json!({})), told);
        let arguments = Value::Object(call.arguments.clone());
        let delta = json!({"type": "input_json_delta", "partial_json": arguments.to_string()});
        self.delta(&delta, told);
        self.stop(told);
        self.closed.push(block(arguments));
        self.has_calls = true;
    }

    /// Closes the open block.
    pub(super) fn close(&mut self, told: &mut Vec<Value>) {
        let block = match self.open.take() {
            None => return,
            Some(Open::Text(text)) => json!({"type": "text", "text": text}),
            Some(Open::Thinking(thinking)) => {
                let signature = signature(&thinking);
                self.delta(&json!({"type": "signature_delta", "signature": signature}), told);
                json!({"type": "thinking", "thinking": thinking, "signature": signature})
            }
        };
        self.stop(told);
        self.closed.push(block);
    }

    /// The complete blocks.
    pub(super) fn finish(mut self) -> Vec<Value> {
        self.close(&mut Vec::new());
        self.closed
    }

    /// Why the message ended, in Anthropic's words, and at which of the strings in `stop`.
    pub(super) fn reason<'a>(
        &self,
        done: &Done,
        stop: &'a [String],
    ) -> (&'static str, Option<&'a str>) {
        match done.reason {
            Reason::Length => ("max_tokens", None),
            Reason::ContextFull => ("model_context_window_exceeded", None),
            Reason::Stop => match done.stop.and_then(|place| stop.get(place as usize)) {
                Some(stop) => ("stop_sequence", Some(stop)),
                // One of the model's own.
                None => ("end_turn", None),
            },
            Reason::EndOfText | Reason::Cancelled if self.has_calls => ("tool_use", None),
            Reason::EndOfText | Reason::Cancelled => ("end_turn", None),
        }
    }

    /// The place of the block that is open, or of the next one.
    fn index(&self) -> usize {
        self.closed.len()
    }

    fn start(&self, block: &Value, told: &mut Vec<Value>) {
        let index = self.index();
        told.push(json!({"type": "content_block_start", "index": index, "content_block": block}));
    }

    fn delta(&self, delta: &Value, told: &mut Vec<Value>) {
        told.push(json!({"type": "content_block_delta", "index": self.index(), "delta": delta}));
    }

    fn stop(&self, told: &mut Vec<Value>) {
        told.push(json!({"type": "content_block_stop", "index": self.index()}));
    }
}

/// A thought's signature, which clients want there to be one. Ours proves nothing: it is the digest of the thought.
fn signature(thinking: &str) -> String {
    hexadecimal(&Sha256::digest(thinking.as_bytes()))
}
