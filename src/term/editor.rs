//! The line a person types in an interactive session: editing, history of this session, Ctrl-C and Ctrl-D.

use rustyline::DefaultEditor;
use rustyline::error::ReadlineError;

/// What the person did at the prompt.
#[derive(Debug, PartialEq, Eq)]
pub enum Typed {
    /// A line, or several joined by a trailing `\` or between lines of `"""`.
    Text(String),
    /// Ctrl-C on a line: forget the line, stay.
    Cancelled,
    /// Ctrl-D: leave.
    End,
}

/// Reads lines with history.
pub struct Editor {
    editor: DefaultEditor,
}

impl std::fmt::Debug for Editor {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Editor").finish_non_exhaustive()
    }
}

impl Editor {
    /// An editor on the terminal of this process.
    ///
    /// # Errors
    /// When the terminal cannot be set up.
    pub fn new() -> std::io::Result<Self> {
        Ok(Self { editor: DefaultEditor::new().map_err(std::io::Error::other)? })
    }

    /// One entry of the person, after the prompt text `prompt`.
    ///
    /// # Errors
    /// When the terminal fails.
    pub fn read(&mut self, prompt: &str) -> std::io::Result<Typed> {
        let mut text = String::new();
        let mut fenced = false;
        loop {
            let shown = if text.is_empty() && !fenced { prompt } else { "... " };
            let line = match self.editor.readline(shown) {
                Ok(line) => line,
                Err(ReadlineError::Interrupted) => return Ok(Typed::Cancelled),
                Err(ReadlineError::Eof) => return Ok(Typed::End),
                Err(error) => return Err(std::io::Error::other(error)),
            };
            if append(&mut text, &mut fenced, &line) {
                break;
            }
        }
        if !text.trim().is_empty() {
            // History is a comfort; a full one is no reason to fail.
            let _ = self.editor.add_history_entry(&text);
        }
        Ok(Typed::Text(text))
    }
}

/// Adds a typed line to the entry; true when the entry is complete.
fn append(text: &mut String, fenced: &mut bool, line: &str) -> bool {
    const FENCE: &str = "\"\"\"";
    if *fenced {
        if let Some(rest) = line.strip_suffix(FENCE) {
            text.push_str(rest);
            return true;
        }
        text.push_str(line);
        text.push('\n');
        return false;
    }
    if text.is_empty()
        && let Some(rest) = line.strip_prefix(FENCE)
    {
        if let Some(inner) = rest.strip_suffix(FENCE) {
            text.push_str(inner);
            return true;
        }
        *fenced = true;
        if !rest.is_empty() {
            text.push_str(rest);
            text.push('\n');
        }
        return false;
    }
    if let Some(continued) = line.strip_suffix('\\') {
        text.push_str(continued);
        text.push('\n');
        return false;
    }
    text.push_str(line);
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(lines: &[&str]) -> Option<String> {
        let (mut text, mut fenced) = (String::new(), false);
        for line in lines {
            if append(&mut text, &mut fenced, line) {
                return Some(text);
            }
        }
        None
    }

    #[test]
    fn several_lines_become_one_entry() {
        assert_eq!(entry(&["hello"]).as_deref(), Some("hello"));
        assert_eq!(entry(&["a\\", "b"]).as_deref(), Some("a\nb"));
        assert_eq!(entry(&["\"\"\"a", "b\\", "\"\"\""]).as_deref(), Some("a\nb\\\n"));
        assert_eq!(entry(&["\"\"\"one\"\"\""]).as_deref(), Some("one"));
        assert_eq!(entry(&["\"\"\"open"]), None);
    }
}
