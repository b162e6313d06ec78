//! A reply in pieces in; thoughts, text and calls out.
//!
//! Wherever the pieces are cut, the same comes out. No sign of a notation comes out unless what it begins turns out
//! to be no call: then it is text.

use std::ops::Range;

use super::call::{self, Written};
use super::cursor::{Cursor, Stop};
use super::{Family, Thinking};
use crate::chat::tools::Tool;
use crate::engine::stop::beginning_at_end;

/// A part of a reply.
#[derive(Debug, Clone, PartialEq)]
pub enum Piece {
    /// What the model thinks.
    Thinking(String),
    /// What it says.
    Text(String),
    /// A call: the model's own identifier if it has one, the tool's name, the arguments.
    Call(Option<String>, String, serde_json::Map<String, serde_json::Value>),
}

/// Bytes of a call from which on it is looked at again only when it may have ended.
const EAGER_BYTES: usize = 4096;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    Text,
    Thinking,
    /// Behind a call, where others or the end of all calls may follow.
    Calls,
}

/// Reads a reply.
#[expect(clippy::struct_excessive_bools, reason = "each is a circumstance of its own")]
#[derive(Debug)]
pub struct Stream {
    family: Option<&'static Family>,
    thinking: Option<&'static Thinking>,
    tools: Vec<Tool>,
    mode: Mode,
    /// What is not certain yet.
    held: String,
    /// Whether nothing was said since the beginning, a thought or a call: what it thinks may begin here.
    is_fresh: bool,
    /// Whether white space is left out here.
    drops_space: bool,
    /// Whether what is held began something whose end has to come.
    waits: bool,
    is_whole: bool,
}

/// What stands at a place.
enum Found {
    Nothing,
    /// More has to come.
    Wait,
    Silent(usize),
    Thought(usize),
    ThoughtEnd(usize),
    Call(Written, usize),
}

impl Stream {
    /// A reader of replies of models of this family, who think so, and may call these tools.
    pub fn new(
        family: Option<&'static Family>,
        thinking: Option<&'static Thinking>,
        tools: &[Tool],
    ) -> Self {
        Self {
            family: family.filter(|_| !tools.is_empty()),
            thinking,
            tools: tools.to_vec(),
            mode: Mode::Text,
            held: String::new(),
            is_fresh: true,
            drops_space: false,
            waits: false,
            is_whole: false,
        }
    }

    /// The reply goes on with a text: what it thinks, or a call without a sign of its own, cannot begin here.
    pub fn go_on(&mut self) {
        self.is_fresh = false;
    }

    /// Adds text, and tells what is certain.
    pub fn push(&mut self, text: &str, on_piece: &mut dyn FnMut(Piece)) {
        self.held.push_str(text);
        let may_end = !self.waits || text.contains(['>', '}', ']', ')', '`']);
        if may_end || self.held.len() < EAGER_BYTES || self.mode == Mode::Thinking {
            self.advance(on_piece);
        }
    }

    /// Ends the reply: tells the rest.
    pub fn finish(&mut self, on_piece: &mut dyn FnMut(Piece)) {
        self.is_whole = true;
        self.advance(on_piece);
    }

    fn advance(&mut self, on_piece: &mut dyn FnMut(Piece)) {
        let mut held = std::mem::take(&mut self.held);
        let mut place = 0;
        self.waits = false;
        while self.step(&held, &mut place, on_piece) {}
        held.drain(..place);
        self.held = held;
    }

    /// Goes on from a place in the held text; false when nothing more is certain.
    fn step(&mut self, held: &str, place: &mut usize, on_piece: &mut dyn FnMut(Piece)) -> bool {
        if self.mode == Mode::Calls {
            return self.step_calls(held, place, on_piece);
        }
        let start = *place;
        let mut at = start;
        loop {
            let Some(next) = self.next_mark(held, at) else {
                self.tell(held, start..self.certain_end(held, start), place, on_piece);
                return false;
            };
            // Only the beginning of a reply may be a sign of what stands for itself elsewhere.
            let leads = held[start..next].trim().is_empty();
            match self.look(held, next, leads) {
                Found::Nothing => at = next + held[next..].chars().next().map_or(1, char::len_utf8),
                Found::Wait => {
                    self.waits = true;
                    let end = start + held[start..next].trim_end().len();
                    self.tell(held, start..end, place, on_piece);
                    return false;
                }
                found => {
                    let end = start + held[start..next].trim_end().len();
                    self.tell(held, start..end, place, on_piece);
                    self.take(found, next, place, on_piece);
                    return true;
                }
            }
        }
    }

    fn take(
        &mut self,
        found: Found,
        next: usize,
        place: &mut usize,
        on_piece: &mut dyn FnMut(Piece),
    ) {
        self.drops_space = true;
        let length = match found {
            Found::Silent(length) => length,
            Found::Thought(length) => {
                self.mode = Mode::Thinking;
                length
            }
            Found::ThoughtEnd(length) => {
                self.mode = Mode::Text;
                self.is_fresh = true;
                length
            }
            Found::Call(written, length) => {
                self.mode = Mode::Calls;
                tell_call(written, on_piece);
                length
            }
            Found::Nothing | Found::Wait => 0,
        };
        *place = next + length;
    }

    /// Behind a call: another one, the end of all, or something else.
    fn step_calls(
        &mut self,
        held: &str,
        place: &mut usize,
        on_piece: &mut dyn FnMut(Piece),
    ) -> bool {
        let Some(family) = self.family else { return false };
        let mut cursor = Cursor { text: held, place: *place, is_whole: self.is_whole };
        cursor.space();
        let mut another = cursor;
        match call::read(&mut another, family.between, family.calls, &self.tools) {
            Ok(written) => {
                *place = another.place;
                tell_call(written, on_piece);
                return true;
            }
            Err(Stop::More) => {
                self.waits = true;
                return false;
            }
            Err(Stop::Wrong) => {}
        }
        match call::skip(&mut cursor, family.close) {
            Ok(()) => *place = cursor.place,
            Err(Stop::More) => {
                self.waits = true;
                return false;
            }
            Err(Stop::Wrong) => {}
        }
        self.mode = Mode::Text;
        self.is_fresh = true;
        self.drops_space = true;
        true
    }

    /// What stands at a place where some sign may begin. `leads`: nothing but white space was said before.
    fn look(&self, held: &str, next: usize, leads: bool) -> Found {
        let cursor = Cursor { text: held, place: next, is_whole: self.is_whole };
        let mut waits = false;
        let mut is = |text: &str| {
            let mut ahead = cursor;
            match ahead.is(text) {
                Ok(()) => true,
                Err(Stop::More) => {
                    waits = true;
                    false
                }
                Err(Stop::Wrong) => false,
            }
        };
        let in_thought = self.mode == Mode::Thinking;
        if let Some(thinking) = self.thinking {
            if in_thought && is(thinking.close) {
                return Found::ThoughtEnd(thinking.close.len());
            }
            // Channels say what they are wherever they begin.
            let may_begin = (self.is_fresh && leads) || !thinking.then.is_empty();
            if !in_thought && may_begin && is(thinking.open) {
                return Found::Thought(thinking.open.len());
            }
            if !in_thought && self.is_fresh && leads && is(thinking.close) {
                return Found::Silent(thinking.close.len());
            }
            let silent = thinking.silent.iter().filter(|_| !in_thought).find(|text| is(text));
            if let Some(text) = silent {
                return Found::Silent(text.len());
            }
        }
        if let Some(family) = self.family {
            let opens = family.text_open;
            if !in_thought && !opens.is_empty() && is(opens) {
                return Found::Silent(opens.len());
            }
            if !family.is_bare || (self.is_fresh && leads && !in_thought) {
                let mut ahead = cursor;
                match call::read(&mut ahead, family.open, family.calls, &self.tools) {
                    Ok(written) => return Found::Call(written, ahead.place - next),
                    Err(Stop::More) => waits = true,
                    Err(Stop::Wrong) => {}
                }
            }
        }
        if waits { Found::Wait } else { Found::Nothing }
    }

    fn marks(&self) -> impl Iterator<Item = &'static str> {
        let thinking = self.thinking.into_iter().flat_map(Thinking::texts);
        let family = self.family.into_iter();
        let text_open = family.clone().map(|family| family.text_open);
        thinking
            .chain(family.flat_map(Family::marks))
            .chain(text_open)
            .filter(|text| !text.is_empty())
    }

    /// The first place from `at` on where a whole sign stands, or the beginning of one ends the text.
    fn next_mark(&self, held: &str, at: usize) -> Option<usize> {
        let rest = &held[at..];
        let whole = self.marks().filter_map(|mark| rest.find(mark)).min();
        let begun = match beginning_at_end(rest, self.marks()) {
            0 => None,
            _ if self.is_whole => None,
            length => Some(rest.len() - length),
        };
        whole.into_iter().chain(begun).min().map(|found| at + found)
    }

    /// How much of the text is certain when no sign is in sight: white space at its end may stand before one.
    fn certain_end(&self, held: &str, start: usize) -> usize {
        if self.is_whole || self.marks().next().is_none() {
            return held.len();
        }
        start + held[start..].trim_end().len()
    }

    /// Tells text up to a place.
    fn tell(
        &mut self,
        held: &str,
        span: Range<usize>,
        place: &mut usize,
        on_piece: &mut dyn FnMut(Piece),
    ) {
        let end = span.end;
        let mut text = &held[span];
        if self.drops_space {
            text = text.trim_start();
        }
        if text.is_empty() {
            if self.drops_space {
                *place = end;
            }
            return;
        }
        *place = end;
        self.drops_space = false;
        if self.mode == Mode::Thinking {
            on_piece(Piece::Thinking(text.to_owned()));
        } else {
            self.is_fresh = false;
            on_piece(Piece::Text(text.to_owned()));
        }
    }
}

fn tell_call(written: Written, on_piece: &mut dyn FnMut(Piece)) {
    on_piece(Piece::Call(written.id, written.name, written.arguments));
}
