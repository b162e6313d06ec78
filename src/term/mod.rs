//! Talking to the person at the terminal: data on stdout, talk on stderr, errors with their remedy.
//!
//! The only place that prints. A command receives a [`Printer`] and never writes by itself, so that quiet mode, colour
//! and a closed pipe are decided once.

pub mod editor;
pub mod interrupt;
pub mod log;
pub mod progress;
pub mod table;
pub mod units;

use std::fs::File;
use std::io::{self, IsTerminal, Read, Write};
use std::path::Path;

/// Where a command's words go: data to stdout, talk to stderr. Talk is made [`neutral`] here, because names of files, of
/// tensors and of classes come into messages from everywhere; data is data, and stays as it is.
#[derive(Debug)]
pub struct Printer {
    colour: bool,
    colour_of_data: bool,
    quiet: bool,
}

/// Why printing stopped.
#[derive(Debug, thiserror::Error)]
pub enum PrintError {
    /// The reader of our output has gone (`nfl show … | head`): not a failure.
    #[error("the reader of the output has gone")]
    Closed,
    /// Anything else that the operating system reports.
    #[error("cannot write the output: {0}")]
    Io(io::Error),
}

impl nfl_models::Hint for PrintError {
    fn hint(&self) -> Option<String> {
        None
    }
}

impl From<io::Error> for PrintError {
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe { Self::Closed } else { Self::Io(error) }
    }
}

impl Printer {
    /// A printer that is silent on stderr when `quiet`, and uses colour when `colour` allows it and stderr is a terminal.
    pub fn new(quiet: bool, colour: bool) -> Self {
        Self {
            colour: colour && io::stderr().is_terminal(),
            colour_of_data: colour && io::stdout().is_terminal(),
            quiet,
        }
    }

    /// Whether talk may have colours.
    pub fn colour(&self) -> bool {
        self.colour
    }

    /// Whether talk is suppressed; progress bars ask this.
    pub fn quiet(&self) -> bool {
        self.quiet
    }

    /// One line of data on stdout.
    pub fn line(&self, text: &str) -> Result<(), PrintError> {
        let mut stdout = io::stdout().lock();
        stdout.write_all(text.as_bytes())?;
        stdout.write_all(b"\n")?;
        Ok(())
    }

    /// Data on stdout without a line end, shown at once: the tokens of a reply.
    pub fn stream(&self, text: &str) -> Result<(), PrintError> {
        let mut stdout = io::stdout().lock();
        stdout.write_all(text.as_bytes())?;
        stdout.flush()?;
        Ok(())
    }

    /// A text on stdout of which some parts are marked: green, or in brackets where there is no colour. It is made
    /// [`neutral`], because it is to be looked at.
    pub fn marked(&self, parts: &[(String, bool)]) -> Result<(), PrintError> {
        let (open, close) = if self.colour_of_data { ("\x1b[32m", "\x1b[0m") } else { ("[", "]") };
        let part = |(text, is_marked): &(String, bool)| {
            let text = neutral(text);
            if *is_marked { format!("{open}{text}{close}") } else { text }
        };
        self.line(&parts.iter().map(part).collect::<String>())
    }

    /// One line of talk on stderr. Nobody listening to talk is no reason to fail.
    pub fn say(&self, text: &str) {
        if !self.quiet {
            let _ = writeln!(io::stderr().lock(), "{}", neutral(text));
        }
    }

    /// A warning on stderr; shown in quiet mode too, because nothing may go wrong silently.
    pub fn warn(&self, text: &str) {
        let label = self.paint("warning", "33;1");
        let _ = writeln!(io::stderr().lock(), "{label}: {}", neutral(text));
    }

    /// An error and, after a blank line, what to do about it.
    pub fn error(&self, message: &str, hint: Option<&str>) {
        let mut stderr = io::stderr().lock();
        let _ = writeln!(stderr, "{}: {}", self.paint("error", "31;1"), neutral(message));
        if let Some(hint) = hint {
            let _ = writeln!(stderr, "\n{}: {}", self.paint("hint", "36;1"), neutral(hint));
        }
    }

    fn paint(&self, word: &str, code: &str) -> String {
        if self.colour { format!("\x1b[{code}m{word}\x1b[0m") } else { word.to_owned() }
    }
}

/// Whether stdin is a person typing (and not a pipe or a file).
pub fn stdin_is_terminal() -> bool {
    io::stdin().is_terminal()
}

/// Whether all three standard streams are a terminal, as what draws on it needs: it asks where the cursor is.
pub fn is_terminal() -> bool {
    stdin_is_terminal() && stdout_is_terminal() && io::stderr().is_terminal()
}

/// Whether stdout is a terminal (and not a pipe or a file).
pub fn stdout_is_terminal() -> bool {
    io::stdout().is_terminal()
}

/// All of stdin as text, up to `bytes_max` bytes.
///
/// # Errors
/// When reading fails, when the input is longer than `bytes_max`, or when it is not UTF-8.
pub fn read_stdin(bytes_max: u64) -> io::Result<String> {
    read_limited(io::stdin().lock(), bytes_max)
}

/// The whole of a text file, or of standard input for `-`, up to a number of bytes.
pub fn read_text(path: &Path, bytes_max: u64) -> io::Result<String> {
    if path == Path::new("-") {
        read_stdin(bytes_max)
    } else {
        read_limited(File::open(path)?, bytes_max)
    }
}

fn read_limited(source: impl Read, bytes_max: u64) -> io::Result<String> {
    let mut text = String::new();
    let read = source.take(bytes_max + 1).read_to_string(&mut text)?;
    if read as u64 > bytes_max {
        let message = format!("the input is longer than {}", units::bytes(bytes_max));
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, message));
    }
    Ok(text)
}

/// Text from a model file or a model, made safe for a terminal: control characters other than line feed and tab, which
/// could move the cursor, retitle the window or write to the clipboard, become U+FFFD.
pub fn neutral(text: &str) -> String {
    let is_bad = |c: char| {
        (c.is_control() && c != '\n' && c != '\t')
            || matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    text.chars().map(|c| if is_bad(c) { '\u{fffd}' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escape_sequences_cannot_reach_the_terminal() {
        assert_eq!(
            neutral("a\x1b]52;c;eA==\x07b\u{202e}c\n\td"),
            "a\u{fffd}]52;c;eA==\u{fffd}b\u{fffd}c\n\td"
        );
        assert_eq!(neutral("naïve 日本 🎉"), "naïve 日本 🎉");
    }
}
