//! The log of llama.cpp and ggml: kept in a ring for error reports, never printed.

use std::collections::VecDeque;
use std::ffi::{CStr, c_char, c_void};
use std::sync::{Mutex, MutexGuard};

use llama_cpp_sys_2 as sys;

/// Lines that the ring holds.
const LINES_MAX: usize = 512;

/// Bytes of one line; the rest of a longer one is cut.
const LINE_BYTES_MAX: usize = 1024;

/// Lines that make up the reason of a failure.
const REASON_LINES_MAX: usize = 4;

/// How serious a line is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum LogLevel {
    /// Details.
    Debug,
    /// Facts.
    Info,
    /// Something that may be wrong.
    Warning,
    /// Something that is wrong.
    Error,
}

/// One line of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// How serious it is.
    pub level: LogLevel,
    /// Its text without the line break.
    pub text: String,
}

impl Line {
    /// The text without the name of the function that logged it.
    pub fn message(&self) -> &str {
        let text = self.text.trim();
        match text.split_once(": ") {
            Some((function, rest)) if !function.contains(char::is_whitespace) => rest.trim(),
            _ => text,
        }
    }
}

/// A position in the log.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Mark(u64);

struct Ring {
    lines: VecDeque<Line>,
    /// Lines that were ever pushed.
    pushed: u64,
    level: LogLevel,
    /// The text since the last line break.
    open: String,
}

static RING: Mutex<Ring> = Mutex::new(Ring {
    lines: VecDeque::new(),
    pushed: 0,
    level: LogLevel::Info,
    open: String::new(),
});

impl Ring {
    fn push(&mut self, level: Option<LogLevel>, text: &str) {
        if let Some(level) = level {
            self.close();
            self.level = level;
        }
        for piece in text.split_inclusive('\n') {
            let body = piece.trim_end_matches(['\n', '\r']);
            let room = LINE_BYTES_MAX.saturating_sub(self.open.len());
            self.open.push_str(&body[..body.floor_char_boundary(room)]);
            if piece.ends_with('\n') {
                self.close();
            }
        }
    }

    fn close(&mut self) {
        let text = std::mem::take(&mut self.open);
        if text.trim().is_empty() {
            return;
        }
        if self.lines.len() == LINES_MAX {
            self.lines.pop_front();
        }
        self.lines.push_back(Line { level: self.level, text });
        self.pushed += 1;
    }
}

fn ring() -> MutexGuard<'static, Ring> {
    RING.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// Routes the log of llama.cpp and ggml here.
pub(super) fn install() {
    // SAFETY: the callback is a plain function without state of its own and lives as long as the
    // process.
    unsafe { sys::llama_log_set(Some(receive), std::ptr::null_mut()) };
}

pub(super) fn mark() -> Mark {
    Mark(ring().pushed)
}

pub(super) fn lines_since(mark: Mark) -> Vec<Line> {
    let mut ring = ring();
    ring.close();
    let fresh = usize::try_from(ring.pushed.saturating_sub(mark.0)).unwrap_or(LINES_MAX);
    let skipped = ring.lines.len().saturating_sub(fresh);
    ring.lines.iter().skip(skipped).cloned().collect()
}

/// The errors since a mark in one line; the warnings when there are none; a plain sentence when
/// there is nothing.
pub(super) fn reason_since(mark: Mark) -> String {
    let lines = lines_since(mark);
    for level in [LogLevel::Error, LogLevel::Warning] {
        let mut found: Vec<&str> =
            lines.iter().filter(|line| line.level == level).map(Line::message).collect();
        // The caller's last line only says that it failed.
        if found.len() > 1 {
            found.retain(|message| *message != "failed to load model");
        }
        if !found.is_empty() {
            let skipped = found.len().saturating_sub(REASON_LINES_MAX);
            return found[skipped..].join("; ");
        }
    }
    "llama.cpp gave no reason".to_owned()
}

pub(super) unsafe extern "C" fn receive(
    level: sys::ggml_log_level,
    text: *const c_char,
    _: *mut c_void,
) {
    if text.is_null() {
        return;
    }
    // SAFETY: llama.cpp passes a zero-terminated string that lives during the call.
    let text = unsafe { CStr::from_ptr(text) }.to_string_lossy();
    let level = match level {
        sys::GGML_LOG_LEVEL_CONT => None,
        sys::GGML_LOG_LEVEL_ERROR => Some(LogLevel::Error),
        sys::GGML_LOG_LEVEL_WARN => Some(LogLevel::Warning),
        sys::GGML_LOG_LEVEL_DEBUG => Some(LogLevel::Debug),
        _ => Some(LogLevel::Info),
    };
    ring().push(level, &text);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn empty() -> Ring {
        Ring { lines: VecDeque::new(), pushed: 0, level: LogLevel::Info, open: String::new() }
    }

    #[test]
    fn continued_text_makes_one_line() {
        let mut ring = empty();
        ring.push(Some(LogLevel::Warning), "a ");
        ring.push(None, "b\nc\n");
        let lines: Vec<_> =
            ring.lines.iter().map(|line| (line.level, line.text.as_str())).collect();
        assert_eq!(lines, [(LogLevel::Warning, "a b"), (LogLevel::Warning, "c")]);
    }

    #[test]
    fn messages_lose_the_function_and_nothing_else() {
        let message = |text: &str| {
            Line { level: LogLevel::Error, text: text.to_owned() }.message().to_owned()
        };
        assert_eq!(message("llama_model_load: error loading: x"), "error loading: x");
        assert_eq!(message("warning: failed to mlock"), "failed to mlock");
        assert_eq!(message("no function: here"), "no function: here");
    }

    #[test]
    fn lines_and_ring_are_bounded() {
        let mut ring = empty();
        for _ in 0..2 * LINES_MAX {
            ring.push(Some(LogLevel::Info), &"ä".repeat(LINE_BYTES_MAX));
        }
        ring.close();
        assert_eq!(ring.lines.len(), LINES_MAX);
        assert_eq!(ring.pushed, 2 * LINES_MAX as u64);
        assert!(ring.lines.iter().all(|line| line.text.len() <= LINE_BYTES_MAX));
    }
}
