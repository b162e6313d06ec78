//! A log for programs to read: one event a line on stderr, as text or as JSON.
//!
//! A server has one kind of event that matters, and it is written in one place. So there is no framework of subscribers
//! and spans here: an event is a word and fields, and what is no field cannot get into the log.

use std::fmt::Write as _;
use std::io::{self, Write};

use nfl_models::template::Clock;
use serde_json::{Map, Value};

use super::neutral;

/// How a line of the log is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// For people.
    Text,
    /// A JSON object a line.
    Json,
}

/// How much an event matters; the more it matters the smaller it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Something broke.
    Error,
    /// Somebody should look.
    Warn,
    /// What the server is for.
    Info,
    /// What only matters to who looks for a fault.
    Debug,
}

impl Level {
    fn name(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
        }
    }
}

/// Where events go.
#[derive(Debug, Clone, Copy)]
pub struct Log {
    /// How lines are written.
    pub form: Form,
    /// The least important events that are written.
    pub level: Level,
}

impl Log {
    /// Writes an event with its fields; those that are null are left out. Nobody listening is no reason to fail.
    pub fn event(self, level: Level, event: &str, fields: &[(&str, Value)]) {
        if level <= self.level {
            let now = Clock::now_utc().rfc3339();
            let mut line = match self.form {
                Form::Json => json_line(&now, level, event, fields),
                Form::Text => text_line(&now, level, event, fields),
            };
            line.push('\n');
            // In one piece, so that lines of threads do not mix.
            let _ = io::stderr().lock().write_all(line.as_bytes());
        }
    }
}

fn json_line(now: &str, level: Level, event: &str, fields: &[(&str, Value)]) -> String {
    let head = [("time", now), ("level", level.name()), ("event", event)];
    let head = head.map(|(name, value)| (name.to_owned(), Value::from(value)));
    let rest = fields.iter().filter(|(_, value)| !value.is_null());
    let rest = rest.map(|(name, value)| ((*name).to_owned(), value.clone()));
    Value::Object(head.into_iter().chain(rest).collect::<Map<_, _>>()).to_string()
}

fn text_line(now: &str, level: Level, event: &str, fields: &[(&str, Value)]) -> String {
    let mut line = format!("{now} {:5} {event}", level.name());
    for (name, value) in fields.iter().filter(|(_, value)| !value.is_null()) {
        let text = match value {
            // A word stands for itself; anything else is quoted, so that no text can look like another field.
            Value::String(word) if is_word(word) => word.clone(),
            other => other.to_string(),
        };
        let _ = write!(line, " {name}={text}");
    }
    neutral(&line)
}

fn is_word(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|c| c.is_ascii_graphic() && !matches!(c, '"' | '=' | '\\'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_cannot_forge_lines_or_other_fields() {
        let fields =
            [("path", Value::from("/a\n2026 error x")), ("key", Value::Null), ("ms", 3.into())];
        assert_eq!(
            text_line("T", Level::Info, "request", &fields),
            r#"T info  request path="/a\n2026 error x" ms=3"#
        );
        assert_eq!(
            json_line("T", Level::Warn, "request", &fields),
            r#"{"time":"T","level":"warn","event":"request","path":"/a\n2026 error x","ms":3}"#
        );
        let fields = [("path", Value::from("/a status=200")), ("model", "a/b:c".into())];
        let line = text_line("T", Level::Info, "request", &fields);
        assert_eq!(line, r#"T info  request path="/a status=200" model=a/b:c"#);
    }
}
