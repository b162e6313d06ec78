//! Calls as they come: looked for between steps and, for cancellations, in the middle of one.
//!
//! One thread does everything. A second one that reads while the first computes would have to wake
//! the first for every request, and on a busy machine that can take milliseconds; looking costs a
//! microsecond.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::platform::Input;
use crate::engine::frames::{Call, FrameBuffer, Request};

/// How often a running computation looks for cancellations.
const LOOK_EVERY: Duration = Duration::from_millis(1);

/// What the program has sent.
#[derive(Debug)]
pub(super) struct Inbox {
    input: Input,
    frames: FrameBuffer,
    calls: VecDeque<Call>,
    cancelled: Vec<u64>,
    /// The calls that are being computed.
    running: Vec<u64>,
    ended: bool,
    looked: Instant,
}

impl Inbox {
    pub(super) fn new(input: Input) -> Self {
        Self {
            input,
            frames: FrameBuffer::default(),
            calls: VecDeque::new(),
            cancelled: Vec::new(),
            running: Vec::new(),
            ended: false,
            looked: Instant::now(),
        }
    }

    /// Takes in what has come; waits for something when `wait` and nothing is there.
    pub(super) fn look(&mut self, wait: bool) {
        self.looked = Instant::now();
        let mut wait = wait && self.calls.is_empty() && self.cancelled.is_empty();
        while !self.ended {
            match self.input.read(wait) {
                Ok(Some([])) | Err(_) => self.ended = true,
                Ok(Some(bytes)) => self.frames.push(bytes),
                Ok(None) => return,
            }
            // A frame may be cut in the middle: then the rest is waited for.
            let found = self.sort();
            wait = wait && !found;
        }
    }

    /// Sorts the frames that are complete. Returns whether there was one.
    fn sort(&mut self) -> bool {
        let mut found = false;
        loop {
            match self.frames.take::<Call>() {
                Ok(Some(Call { number, request: Request::Cancel })) => self.cancelled.push(number),
                Ok(Some(call)) => self.calls.push_back(call),
                Ok(None) => return found,
                // The program talks nonsense: what follows means nothing.
                Err(_) => {
                    self.ended = true;
                    return true;
                }
            }
            found = true;
        }
    }

    /// Whether nobody waits for answers any more.
    pub(super) fn has_ended(&self) -> bool {
        self.ended
    }

    pub(super) fn next_call(&mut self) -> Option<Call> {
        self.calls.pop_front()
    }

    /// The calls that were cancelled since this was asked last.
    pub(super) fn take_cancelled(&mut self) -> Vec<u64> {
        std::mem::take(&mut self.cancelled)
    }

    /// Says which calls the next computation is for.
    pub(super) fn set_running(&mut self, running: impl Iterator<Item = u64>) {
        self.running.clear();
        self.running.extend(running);
    }

    /// Whether a running computation is for nobody any more: asked in the middle of it, very often.
    pub(super) fn is_pointless(&mut self) -> bool {
        if self.looked.elapsed() >= LOOK_EVERY {
            self.look(false);
        }
        let all_cancelled = || self.running.iter().all(|call| self.cancelled.contains(call));
        self.ended || (!self.running.is_empty() && !self.cancelled.is_empty() && all_cancelled())
    }
}
