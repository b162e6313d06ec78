//! Why a command ended without its result: the message, the remedy, the exit status.

use std::fmt::Display;

use nfl_models::Hint;

use crate::term::{PrintError, Printer, interrupt};

/// What a command hands to `main` when it cannot finish.
#[derive(Debug)]
pub(super) struct Failure {
    /// What went wrong, with the value that is wrong.
    pub(super) message: String,
    /// What the person can do about it.
    pub(super) hint: Option<String>,
    /// The exit status: 0 (the reader of our output left), 1 (failed), 2 (wrong usage), 130 (interrupted).
    pub(super) status: u8,
}

impl Failure {
    /// A failure of the work itself.
    pub(super) fn new(message: impl Display, hint: Option<&str>) -> Self {
        Self { message: message.to_string(), hint: hint.map(str::to_owned), status: 1 }
    }

    /// A command that was given wrong arguments.
    pub(super) fn usage(message: impl Display, hint: &str) -> Self {
        Self { message: message.to_string(), hint: Some(hint.to_owned()), status: 2 }
    }

    /// What several pieces of work ended with: all but the last are said here, the last one ends the command.
    pub(super) fn last_of(mut failures: Vec<Self>, printer: &Printer) -> Result<(), Self> {
        let last = failures.pop();
        for failure in failures {
            printer.error(&failure.message, failure.hint.as_deref());
        }
        last.map_or(Ok(()), Err)
    }

    /// Work that the person stopped.
    pub(super) fn interrupted() -> Self {
        let message = "interrupted; nothing was left half-written".to_owned();
        Self { message, hint: None, status: interrupt::EXIT_STATUS }
    }
}

impl<E: std::error::Error + Hint + 'static> From<E> for Failure {
    fn from(error: E) -> Self {
        let dynamic: &dyn std::any::Any = &error;
        let status = match dynamic.downcast_ref::<PrintError>() {
            Some(PrintError::Closed) => 0,
            _ => 1,
        };
        Self { message: message_of(&error), hint: error.hint(), status }
    }
}

/// The error and its causes on one line; a cause that the message already quotes is not said twice.
fn message_of(error: &dyn std::error::Error) -> String {
    let mut message = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let text = inner.to_string();
        if !message.contains(&text) {
            message = format!("{message}: {text}");
        }
        cause = inner.source();
    }
    message
}
