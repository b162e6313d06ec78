//! Examples as people have them: texts, conversations, instructions, prompts with their completions.
//!
//! | an object with | is |
//! |---|---|
//! | `messages` | a conversation, as OpenAI writes it |
//! | `conversations` | one as ShareGPT writes it: `from` (human, gpt, system) and `value` |
//! | `instruction`, `output` (and `input`) | an instruction, as Alpaca writes it |
//! | `prompt`, `completion` | a text and how it goes on |
//! | `text` | a text |
//!
//! One object a line (JSONL), or a JSON array of them; a file that ends in `.txt` is one text.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use nfl_models::Hint;
use serde_json::{Map, Value, json};
use thiserror::Error;

/// Bytes of a file of examples.
pub const DATA_BYTES_MAX: u64 = 4 << 30;

/// Messages of a conversation, as chat templates read them.
pub type Turns = Vec<Value>;

/// One example.
#[derive(Debug, Clone, PartialEq)]
pub enum Example {
    /// A text of which everything is learned.
    Text(String),
    /// A text and how it goes on, of which only that is learned.
    Completion {
        /// What is given.
        prompt: String,
        /// What is learned.
        completion: String,
    },
    /// A conversation, of which the assistant's turns are learned.
    Conversation(Turns),
}

/// Why data cannot be used.
#[derive(Debug, Error)]
pub enum DataError {
    /// The file cannot be read.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// It is larger than is read.
    #[error("{}: {bytes} bytes, {DATA_BYTES_MAX} are the most", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Its length.
        bytes: u64,
    },
    /// An example that makes no sense.
    #[error("{}, {place}: {reason}", path.display())]
    Example {
        /// The file.
        path: PathBuf,
        /// Its line, or its number in the array.
        place: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Nothing in it.
    #[error("{}: there is no example in it", path.display())]
    Empty {
        /// The file.
        path: PathBuf,
    },
}

impl Hint for DataError {
    fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::Io { .. } => return None,
            Self::TooLarge { .. } => "split the file, and train on one part after the other",
            Self::Example { .. } | Self::Empty { .. } => {
                "each line is a JSON object with text, messages, conversations, prompt and completion, or instruction and \
                 output"
            }
        };
        Some(hint.to_owned())
    }
}

/// The examples of a file.
pub fn read(path: &Path) -> Result<Vec<Example>, DataError> {
    let io = |source| DataError::Io { path: path.to_owned(), source };
    let bytes = fs::metadata(path).map_err(io)?.len();
    if bytes > DATA_BYTES_MAX {
        return Err(DataError::TooLarge { path: path.to_owned(), bytes });
    }
    let text = fs::read_to_string(path).map_err(io)?;
    let examples = if path.extension().is_some_and(|extension| extension == "txt") {
        vec![Example::Text(text)]
            .into_iter()
            .filter(|one| *one != Example::Text(String::new()))
            .collect()
    } else if text.trim_start().starts_with('[') {
        array(path, &text)?
    } else {
        lines(path, &text)?
    };
    if examples.is_empty() {
        return Err(DataError::Empty { path: path.to_owned() });
    }
    Ok(examples)
}

fn array(path: &Path, text: &str) -> Result<Vec<Example>, DataError> {
    let refuse =
        |place: String, reason| DataError::Example { path: path.to_owned(), place, reason };
    let all: Vec<Value> = serde_json::from_str(text)
        .map_err(|error| refuse(format!("line {}", error.line()), error.to_string()))?;
    let one = |(number, value): (usize, &Value)| {
        example(value).map_err(|reason| refuse(format!("example {}", number + 1), reason))
    };
    all.iter().enumerate().map(one).collect()
}

fn lines(path: &Path, text: &str) -> Result<Vec<Example>, DataError> {
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    let one = |(number, line): (usize, &str)| {
        let value = serde_json::from_str(line).map_err(|error| error.to_string());
        value.and_then(|value: Value| example(&value)).map_err(|reason| DataError::Example {
            path: path.to_owned(),
            place: format!("line {}", number + 1),
            reason,
        })
    };
    lines.map(one).collect()
}

/// What an object means.
fn example(value: &Value) -> Result<Example, String> {
    let Value::Object(fields) = value else { return Err("it is no JSON object".to_owned()) };
    let text = |name: &str| fields.get(name).and_then(Value::as_str);
    if let Some(turns) = fields.get("messages") {
        return conversation(turns, Map::clone, "messages");
    }
    if let Some(turns) = fields.get("conversations") {
        return conversation(turns, from_share_gpt, "conversations");
    }
    if let (Some(instruction), Some(output)) = (text("instruction"), text("output")) {
        let input = text("input").filter(|input| !input.is_empty());
        let asked =
            input.map_or(instruction.to_owned(), |input| format!("{instruction}\n\n{input}"));
        return Ok(Example::Conversation(vec![
            json!({"role": "user", "content": asked}),
            json!({"role": "assistant", "content": output}),
        ]));
    }
    if let (Some(prompt), Some(completion)) = (text("prompt"), text("completion")) {
        let (prompt, completion) = (prompt.to_owned(), completion.to_owned());
        return Ok(Example::Completion { prompt, completion });
    }
    match text("text") {
        Some("") => Err("text: it is empty".to_owned()),
        Some(text) => Ok(Example::Text(text.to_owned())),
        None => {
            let names: Vec<&str> = fields.keys().map(String::as_str).take(8).collect();
            Err(format!("none of the known fields is in it (it has {})", names.join(", ")))
        }
    }
}

fn conversation(
    turns: &Value,
    turn: impl Fn(&Map<String, Value>) -> Map<String, Value>,
    field: &str,
) -> Result<Example, String> {
    let Value::Array(turns) = turns else { return Err(format!("{field}: it is no array")) };
    let mut messages = Turns::new();
    for (number, one) in turns.iter().enumerate() {
        let Value::Object(one) = one else {
            return Err(format!("{field}: entry {} is no object", number + 1));
        };
        let message = turn(one);
        if !message.get("role").is_some_and(Value::is_string) {
            return Err(format!("{field}: entry {} has no role", number + 1));
        }
        messages.push(Value::Object(message));
    }
    if !messages.iter().any(|message| message["role"] == "assistant") {
        return Err(format!("{field}: the assistant says nothing, so there is nothing to learn"));
    }
    Ok(Example::Conversation(messages))
}

fn from_share_gpt(turn: &Map<String, Value>) -> Map<String, Value> {
    let mut message = Map::new();
    let role = match turn.get("from").and_then(Value::as_str) {
        Some("human" | "user") => "user",
        Some("gpt" | "assistant" | "model") => "assistant",
        Some("system") => "system",
        Some("tool" | "function") => "tool",
        _ => return message,
    };
    message.insert("role".to_owned(), role.into());
    message.insert("content".to_owned(), turn.get("value").cloned().unwrap_or_default());
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(line: &str) -> String {
        example(&serde_json::from_str(line).unwrap()).unwrap_err()
    }

    #[test]
    fn all_known_forms_are_read() {
        let read = |line: &str| example(&serde_json::from_str(line).unwrap()).unwrap();
        assert_eq!(read(r#"{"text": "a"}"#), Example::Text("a".into()));
        let completion = Example::Completion { prompt: "a".into(), completion: "b".into() };
        assert_eq!(read(r#"{"prompt": "a", "completion": "b"}"#), completion);
        let expected = Example::Conversation(vec![
            json!({"role": "user", "content": "a"}),
            json!({"role": "assistant", "content": "b"}),
        ]);
        for line in [
            r#"{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}"#,
            r#"{"conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]}"#,
            r#"{"instruction": "a", "input": "", "output": "b"}"#,
        ] {
            assert_eq!(read(line), expected);
        }
    }

    #[test]
    fn what_makes_no_sense_is_said() {
        assert!(refused(r#"{"txt": "a"}"#).contains("it has txt"));
        assert!(
            refused(r#"{"messages": [{"role": "user", "content": "a"}]}"#)
                .contains("nothing to learn")
        );
        assert!(
            refused(r#"{"conversations": [{"from": "me", "value": "a"}]}"#).contains("no role")
        );
        assert!(refused("[]").contains("no JSON object"));
    }

    #[test]
    fn bad_lines_are_named_by_their_number() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("data.jsonl");
        fs::write(&path, "{\"text\": \"a\"}\n\n{\"text\": \n").unwrap();
        let error = read(&path).unwrap_err().to_string();
        assert!(error.contains("line 3"), "{error}");
        fs::write(&path, "\n").unwrap();
        assert!(read(&path).unwrap_err().to_string().contains("no example"));
    }
}
