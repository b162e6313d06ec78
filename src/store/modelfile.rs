//! Modelfiles: how a model is made from another, in Ollama's words.
//!
//! One instruction a line, its name without regard to case, `#` begins a comment line. A value may stand between `"` and
//! `"` or between `"""` and `"""`, and then go over several lines; nothing is escaped within.

use nfl_models::Hint;
use serde_json::{Value, json};
use thiserror::Error;

use super::parameters::Parameters;

/// The instructions there are.
const INSTRUCTIONS: [&str; 10] = [
    "FROM",
    "ADAPTER",
    "PARAMETER",
    "TEMPLATE",
    "SYSTEM",
    "MESSAGE",
    "LICENSE",
    "REQUIRES",
    "RENDERER",
    "PARSER",
];

/// Who may speak in a `MESSAGE`.
const ROLES: [&str; 3] = ["system", "user", "assistant"];

const QUOTE: &str = "\"";
const LONG_QUOTE: &str = "\"\"\"";

/// What a Modelfile asks for.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Modelfile {
    /// What it begins with: a model's name, a GGUF file, a checkpoint's folder; a projector's file may follow.
    pub from: Vec<String>,
    /// Files of adapters.
    pub adapters: Vec<String>,
    /// How tokens are chosen and the model is loaded.
    pub parameters: Parameters,
    /// A chat template.
    pub template: Option<String>,
    /// Instructions above a conversation.
    pub system: Option<String>,
    /// Role and content of the turns that a conversation begins with.
    pub messages: Vec<(String, String)>,
    /// Licences.
    pub licences: Vec<String>,
    /// The least version of the program that runs it.
    pub requires: Option<String>,
    /// How Ollama is to write the model's prompts; kept for it.
    pub renderer: Option<String>,
    /// How Ollama is to read the model's replies; kept for it.
    pub parser: Option<String>,
}

/// What is wrong with a Modelfile, and in which line.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("Modelfile, line {line}: {problem}")]
pub struct ModelfileError {
    /// The line, from 1.
    pub line: usize,
    /// In words.
    pub problem: String,
}

impl Hint for ModelfileError {
    fn hint(&self) -> Option<String> {
        Some(format!("a line is one of {} and its value", INSTRUCTIONS.join(", ")))
    }
}

impl Modelfile {
    /// Reads a Modelfile.
    pub fn parse(text: &str) -> Result<Self, ModelfileError> {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        // Written on Windows; a single such end of a line within a value is part of it.
        let is_windows = text.matches('\n').count() == text.matches("\r\n").count();
        let text = if is_windows { text.replace("\r\n", "\n") } else { text.to_owned() };
        let lines: Vec<&str> = text.split('\n').collect();
        let mut modelfile = Self::default();
        let mut next = 0;
        while let Some(line) = lines.get(next) {
            let number = next + 1;
            next += 1;
            // Its end may be within a quotation.
            let line = line.trim_start();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let failed = |problem| ModelfileError { line: number, problem };
            let (instruction, mut rest) = word(line);
            let instruction = known(instruction).map_err(failed)?;
            let mut name = "";
            if matches!(instruction, "PARAMETER" | "MESSAGE") {
                (name, rest) = word(rest);
            }
            let mut value = rest.to_owned();
            let value = loop {
                if let Some(value) = unquote(value.trim()) {
                    break value.to_owned();
                }
                let Some(more) = lines.get(next) else {
                    return Err(failed("the quotation has no end".to_owned()));
                };
                value.push('\n');
                value.push_str(more);
                next += 1;
            };
            modelfile.set(instruction, name, value).map_err(failed)?;
        }
        if modelfile.from.is_empty() {
            let problem = "there is no FROM: what is the model made from?".to_owned();
            return Err(ModelfileError { line: lines.len().max(1), problem });
        }
        Ok(modelfile)
    }

    /// Turns of a conversation as the layer of a model holds them.
    pub fn messages_json(messages: &[(String, String)]) -> String {
        let turn = |(role, content): &(String, String)| json!({"role": role, "content": content});
        Value::Array(messages.iter().map(turn).collect()).to_string()
    }

    fn set(&mut self, instruction: &str, name: &str, value: String) -> Result<(), String> {
        let once = |place: &mut Option<String>, value| match place.replace(value) {
            Some(_) => Err(format!("a second {instruction}")),
            None => Ok(()),
        };
        if value.is_empty() && !matches!(instruction, "SYSTEM" | "TEMPLATE") {
            return Err(format!("{instruction} has no value"));
        }
        match instruction {
            "FROM" => self.from.push(value),
            "ADAPTER" => self.adapters.push(value),
            "LICENSE" => self.licences.push(value),
            "PARAMETER" => self.parameters.set(name, &value)?,
            "MESSAGE" => {
                let role = name.to_ascii_lowercase();
                if !ROLES.contains(&role.as_str()) {
                    return Err(format!("MESSAGE is of {}, not {name:?}", ROLES.join(", ")));
                }
                self.messages.push((role, value));
            }
            "TEMPLATE" => once(&mut self.template, value)?,
            "SYSTEM" => once(&mut self.system, value)?,
            "REQUIRES" => once(&mut self.requires, value)?,
            "RENDERER" => once(&mut self.renderer, value)?,
            _ => once(&mut self.parser, value)?,
        }
        Ok(())
    }

    /// The Modelfile's text; reading it gives the same Modelfile.
    ///
    /// # Errors
    /// Names the instruction whose value no quotation can hold: one with `"""` and ends of lines after a `"`.
    pub fn write(&self) -> Result<String, String> {
        let mut text = String::new();
        let mut line = |head: &str, value: &str| {
            let quoted = quote(value).ok_or_else(|| {
                format!(
                    "{head}: its text holds quotation marks in a way that no Modelfile can write"
                )
            })?;
            text.extend([head, " ", &quoted, "\n"]);
            Ok::<(), String>(())
        };
        for from in &self.from {
            line("FROM", from)?;
        }
        for adapter in &self.adapters {
            line("ADAPTER", adapter)?;
        }
        let single = [
            ("TEMPLATE", &self.template),
            ("SYSTEM", &self.system),
            ("REQUIRES", &self.requires),
            ("RENDERER", &self.renderer),
            ("PARSER", &self.parser),
        ];
        for (head, value) in single {
            if let Some(value) = value {
                line(head, value)?;
            }
        }
        for (name, value) in self.parameters.lines() {
            line(&format!("PARAMETER {name}"), &value)?;
        }
        for (role, content) in &self.messages {
            line(&format!("MESSAGE {role}"), content)?;
        }
        for licence in &self.licences {
            line("LICENSE", licence)?;
        }
        Ok(text)
    }
}

/// The first word, and what stands behind it.
fn word(text: &str) -> (&str, &str) {
    let text = text.trim_start();
    let end = text.find(char::is_whitespace).unwrap_or(text.len());
    (&text[..end], &text[end..])
}

fn known(word: &str) -> Result<&'static str, String> {
    let found = INSTRUCTIONS.iter().find(|known| known.eq_ignore_ascii_case(word));
    found.copied().ok_or_else(|| {
        let nearest = nfl_models::nearest(word, INSTRUCTIONS)
            .map_or(String::new(), |nearest| format!("; there is {nearest}"));
        let word: String = word.chars().take(40).collect();
        format!("there is no instruction {word}{nearest}")
    })
}

/// What stands between quotation marks, or the text itself where there are none; `None` while the closing ones are
/// missing.
fn unquote(text: &str) -> Option<&str> {
    match text.strip_prefix(LONG_QUOTE) {
        Some(rest) => rest.strip_suffix(LONG_QUOTE),
        None => match text.strip_prefix(QUOTE) {
            Some(rest) => rest.strip_suffix(QUOTE),
            None => Some(text),
        },
    }
}

/// The text with the least quotation marks that bring it back when it is read.
fn quote(text: &str) -> Option<String> {
    let reads_back = |quoted: &String| {
        let mut read = String::new();
        for line in quoted.split('\n') {
            if !read.is_empty() {
                read.push('\n');
            }
            read.push_str(line);
            if let Some(value) = unquote(read.trim()) {
                // The first end that fits is the end: it must be the last line's.
                return value == text && read.len() == quoted.len();
            }
        }
        false
    };
    let plain = (!text.contains('\n')).then(|| text.to_owned());
    let quoted = [QUOTE, LONG_QUOTE].map(|mark| format!("{mark}{text}{mark}"));
    plain.into_iter().chain(quoted).find(reads_back)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const EXAMPLE: &str = r#"# A comment
FROM ./qwen3-8b.gguf
from mmproj.gguf
PARAMETER temperature 0.7
parameter stop "<|im_end|>"
PARAMETER stop "a b "
PARAMETER num_ctx 8192

SYSTEM """
You are Mario.
Say "it's me".
"""
TEMPLATE "{{ .Prompt }}
more"
MESSAGE user Is Toronto in Canada?
MESSAGE Assistant yes
LICENSE """MIT"""
LICENSE Apache-2.0
ADAPTER ./lora.gguf
REQUIRES 0.14.0
"#;

    #[test]
    fn modelfiles_are_read_as_ollama_reads_them() {
        for text in
            [EXAMPLE.to_owned(), EXAMPLE.replace('\n', "\r\n"), format!("\u{feff}{EXAMPLE}")]
        {
            let read = Modelfile::parse(&text).unwrap();
            assert_eq!(read.from, ["./qwen3-8b.gguf", "mmproj.gguf"]);
            assert_eq!(read.parameters.float("temperature"), Some(0.7));
            assert_eq!(read.parameters.texts("stop"), ["<|im_end|>", "a b "]);
            assert_eq!(read.parameters.integer("num_ctx"), Some(8192));
            assert_eq!(read.system.unwrap(), "\nYou are Mario.\nSay \"it's me\".\n");
            assert_eq!(read.template.unwrap(), "{{ .Prompt }}\nmore");
            let turn = |role: &str, text: &str| (role.to_owned(), text.to_owned());
            let turns = [turn("user", "Is Toronto in Canada?"), turn("assistant", "yes")];
            assert_eq!(read.messages, turns);
            assert_eq!(read.licences, ["MIT", "Apache-2.0"]);
            assert_eq!(
                (read.adapters, read.requires),
                (vec!["./lora.gguf".to_owned()], Some("0.14.0".to_owned()))
            );
        }
    }

    #[test]
    fn mistakes_are_named_with_their_line() {
        for (text, line, problem) in [
            ("", 1, "no FROM"),
            ("FROM a\nPARAMTER x y", 2, "there is PARAMETER"),
            ("FROM a\n\nPARAMETER temprature 1", 3, "there is temperature"),
            ("FROM a\nPARAMETER top_k 1.5", 2, "a whole number"),
            ("FROM a\nPARAMETER temperature NaN", 2, "a number"),
            ("FROM a\nPARAMETER top_k", 2, "no value"),
            ("FROM a\nSYSTEM \"\"\"\nno end\n", 2, "no end"),
            ("FROM a\nMESSAGE robot x", 2, "robot"),
            ("FROM a\nSYSTEM a\nSYSTEM b", 3, "a second SYSTEM"),
            ("FROM", 1, "no value"),
        ] {
            let error = Modelfile::parse(text).unwrap_err();
            assert_eq!(error.line, line, "{text:?}: {error}");
            assert!(error.problem.contains(problem), "{text:?}: {error}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(
            system in r#"[a-z"\r\n {}#]{0,20}"#,
            stop in proptest::collection::vec(r#"[a-z"\n <|>]{1,8}"#, 0..3),
            content in r#"[a-z"\n ]{1,12}"#,
            temperature in 0.0..2.0_f64,
        ) {
            let mut modelfile = Modelfile {
                from: vec!["./a b.gguf".to_owned()],
                system: Some(system),
                messages: vec![("user".to_owned(), content)],
                ..Modelfile::default()
            };
            modelfile.parameters.set("temperature", &temperature.to_string()).unwrap();
            for text in &stop {
                modelfile.parameters.set("stop", text).unwrap();
            }
            // What cannot be written is refused, never written wrongly.
            if let Ok(text) = modelfile.write() {
                prop_assert_eq!(Modelfile::parse(&text).unwrap(), modelfile);
            }
        }
    }
}
