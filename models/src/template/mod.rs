//! Chat templates: a conversation as the text that a model was trained to read.
//!
//! A model's template is a Jinja program that came with its weights, and nobody vouches for it. It
//! is rendered with the meaning that Hugging Face transformers gives it
//! (`utils/chat_template_utils.py`: jinja2's immutable sandbox, `trim_blocks`, `lstrip_blocks`,
//! loop controls, `{% generation %}`, `raise_exception`, `strftime_now`, `tojson`), and with limits
//! that transformers lacks: on instructions, on text, on values looked at, on depth, and on the
//! size of the template. No template can read a file, the environment, or another template.
//!
//! minijinja parses and runs it; what differs from Python or costs more than an instruction is ours
//! (`machine`).

mod clock;
mod filters;
mod functions;
mod json;
mod machine;
mod meter;
mod methods;
mod operators;
mod python;
mod source;

use minijinja::{AutoEscape, Environment, ErrorKind, UndefinedBehavior, Value};
use serde_json::Map;

pub use clock::Clock;

use crate::Hint;

/// Where a GGUF file keeps its chat template.
pub const METADATA_KEY: &str = "tokenizer.chat_template";
/// The longest template that is read; the longest in use has about 17 kB.
pub const SOURCE_BYTES_MAX: usize = 256 << 10;
/// Instructions that a rendering may run, whatever the size of the conversation; about a third of a
/// second.
const FUEL_BASE: u64 = 4_000_000;
/// Further instructions for each byte of the conversation: templates walk through all messages once
/// or twice.
const FUEL_PER_INPUT_BYTE: u64 = 16;
/// The most instructions of any rendering.
const FUEL_MAX: u64 = 64_000_000;
/// The stack of the thread that parses and renders: the parser and the machine recurse with the
/// template's nesting.
const STACK_BYTES: usize = 64 << 20;

/// A conversation to be rendered.
///
/// Messages stay JSON objects here: each family of templates reads fields of its own (`tool_calls`,
/// `reasoning_content`, `tool_call_id`, `name`, parts of content, …), in the order that they were
/// given. What a message may hold is decided once, where requests are read.
#[derive(Debug, Clone, PartialEq)]
pub struct Conversation<'a> {
    /// Objects with `role`, `content` and further fields.
    pub messages: &'a [serde_json::Value],
    /// The tools on offer, as the JSON schemas of the OpenAI dialect; `None` when there are none.
    pub tools: Option<serde_json::Value>,
    /// The text of the token that begins a sequence; empty when the model has none.
    pub bos_token: &'a str,
    /// The text of the token that ends a sequence; empty when the model has none.
    pub eos_token: &'a str,
    /// Whether the text ends with the opening of the assistant's turn.
    pub add_generation_prompt: bool,
    /// Further variables of the template, for example `enable_thinking`.
    pub extra: Map<String, serde_json::Value>,
    /// What `strftime_now` prints.
    pub now: Clock,
}

/// Why a template cannot be read, or refuses a conversation.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    /// The template is longer than any honest one.
    #[error("chat template: {bytes} bytes, the limit is {SOURCE_BYTES_MAX}")]
    TooLong {
        /// The length of the template.
        bytes: usize,
    },
    /// The template is no Jinja that we can read.
    #[error("chat template, line {line}: {message}")]
    Syntax {
        /// The line in the template, from 1.
        line: usize,
        /// What is wrong there.
        message: String,
    },
    /// The template itself refuses the conversation, with `raise_exception`.
    #[error("the model's chat template refuses the conversation: {message}")]
    Refused {
        /// What the template says.
        message: String,
    },
    /// The template ran into a limit of the sandbox.
    #[error("chat template stopped: {what}")]
    Limit {
        /// Which limit.
        what: String,
    },
    /// The template cannot be rendered with this conversation.
    #[error("chat template, line {line}: {message}")]
    Render {
        /// The line in the template, from 1; 0 when it is unknown.
        line: usize,
        /// What is wrong there.
        message: String,
    },
}

impl Hint for TemplateError {
    fn hint(&self) -> Option<String> {
        let hint = match self {
            TemplateError::TooLong { .. } | TemplateError::Limit { .. } => {
                "do not trust this template: use another copy of the model, or your own template"
            }
            TemplateError::Syntax { .. } => {
                "the template came with the model: use another copy of it, or your own template"
            }
            TemplateError::Refused { message } if message.to_lowercase().contains("system") => {
                "leave the system message out, or put it at the head of the first user message"
            }
            TemplateError::Refused { .. } => {
                "change the order, the roles or the content of the messages as the template asks"
            }
            TemplateError::Render { .. } => {
                "the template expects other messages: try without tools, parts or empty content"
            }
        };
        Some(hint.to_owned())
    }
}

impl TemplateError {
    fn of(error: &minijinja::Error, source: &str) -> TemplateError {
        let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
        while let Some(current) = cause {
            if let Some(raised) = current.downcast_ref::<functions::Raised>() {
                return TemplateError::Refused { message: raised.0.clone() };
            }
            if let Some(reached) = current.downcast_ref::<meter::LimitReached>() {
                return TemplateError::Limit { what: reached.0.to_owned() };
            }
            cause = current.source();
        }
        let line = error.line().unwrap_or_default();
        let detail = error.detail().unwrap_or_default();
        let message = match (detail, error.kind()) {
            (_, ErrorKind::TemplateNotFound | ErrorKind::BadInclude) => {
                format!("{detail}: a chat template has no others to read")
            }
            // minijinja does not say which value, so the line has to.
            (_, ErrorKind::UndefinedError) => {
                format!("something is undefined in '{}'", excerpt(source, line))
            }
            ("", kind) => kind.to_string(),
            (detail, _) => detail.to_owned(),
        };
        match error.kind() {
            ErrorKind::OutOfFuel => TemplateError::Limit { what: "it runs too long".to_owned() },
            ErrorKind::SyntaxError | ErrorKind::BadEscape => {
                TemplateError::Syntax { line, message }
            }
            _ if detail.contains("recursion limit") => {
                TemplateError::Limit { what: "it calls itself too deep".to_owned() }
            }
            _ => TemplateError::Render { line, message },
        }
    }
}

/// A line of a template, fit to be shown.
fn excerpt(source: &str, line: usize) -> String {
    /// As much as fits a line on a terminal.
    const CHARACTERS_MAX: usize = 100;
    let line = source.lines().nth(line.saturating_sub(1)).unwrap_or_default().trim();
    let shown: String = line.chars().take(CHARACTERS_MAX).collect();
    let rest = if shown.len() < line.len() { "…" } else { "" };
    format!("{}{rest}", shown.escape_debug())
}

/// A chat template that parses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChatTemplate {
    source: String,
}

impl ChatTemplate {
    /// Reads a template, as it stands in `tokenizer.chat_template` or `chat_template.jinja`.
    pub fn parse(source: &str) -> Result<ChatTemplate, TemplateError> {
        if source.len() > SOURCE_BYTES_MAX {
            return Err(TemplateError::TooLong { bytes: source.len() });
        }
        let source = source::prepare(source)?;
        on_own_stack(|| {
            machine::compile(&source).map(drop).map_err(|error| TemplateError::of(&error, &source))
        })?;
        Ok(ChatTemplate { source })
    }

    /// The template's text, with its tags as they are run.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// The text of a conversation.
    ///
    /// The template is compiled anew each time: that takes less than a millisecond, and the
    /// compiled form borrows.
    pub fn render(&self, conversation: &Conversation<'_>) -> Result<String, TemplateError> {
        on_own_stack(|| {
            self.run(conversation).map_err(|error| TemplateError::of(&error, &self.source))
        })
    }

    fn run(&self, conversation: &Conversation<'_>) -> Result<String, minijinja::Error> {
        let (context, conversation_bytes) = context(conversation);
        let mut environment = environment(conversation.now);
        let fuel = FUEL_BASE.saturating_add(FUEL_PER_INPUT_BYTE.saturating_mul(conversation_bytes));
        environment.set_fuel(Some(fuel.min(FUEL_MAX)));
        let compiled = machine::compile(&self.source)?;
        let mut text = String::new();
        let mut output = minijinja::machinery::make_string_output(&mut text);
        minijinja::machinery::eval(
            &environment,
            &compiled.instructions,
            context,
            &compiled.blocks,
            &mut output,
            AutoEscape::None,
        )?;
        drop(output);
        Ok(text)
    }
}

/// Runs on a thread with a stack that fits the deepest template which the limits let through,
/// whatever the caller's.
fn on_own_stack<T: Send>(
    work: impl FnOnce() -> Result<T, TemplateError> + Send,
) -> Result<T, TemplateError> {
    let failed = |message: &str| TemplateError::Render { line: 0, message: message.to_owned() };
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new()
            .name("chat-template".to_owned())
            .stack_size(STACK_BYTES)
            .spawn_scoped(scope, work)
            .map_err(|error| failed(&format!("no thread to render on: {error}")))?;
        thread.join().unwrap_or_else(|_| Err(failed("the template engine panicked")))
    })
}

/// The variables of a template, and the bytes of text in them.
fn context(conversation: &Conversation<'_>) -> (Value, u64) {
    let messages: Vec<Value> = conversation.messages.iter().map(message).collect();
    let tools = conversation.tools.as_ref().map_or(Value::from(()), json::to_value);
    // What a request adds comes first, so that it cannot replace the rest.
    let extra = conversation.extra.iter();
    let mut variables: Vec<(Value, Value)> =
        extra.map(|(name, value)| (name.as_str().into(), json::to_value(value))).collect();
    variables.extend([
        ("messages".into(), Value::from(messages)),
        ("tools".into(), tools),
        ("documents".into(), Value::from(())),
        ("add_generation_prompt".into(), conversation.add_generation_prompt.into()),
        ("bos_token".into(), conversation.bos_token.into()),
        ("eos_token".into(), conversation.eos_token.into()),
    ]);
    let bytes = Value::from_pairs(variables.iter().cloned());
    let bytes = meter::Meter::new(u64::MAX).read(&bytes).unwrap_or(usize::MAX) as u64;
    variables.push((meter::INPUT_BYTES.into(), i64::try_from(bytes).unwrap_or(i64::MAX).into()));
    (Value::from_pairs(variables), bytes)
}

/// A message for the template. Reasoning is found under every name that templates read it by, as in
/// transformers.
fn message(message: &serde_json::Value) -> Value {
    let serde_json::Value::Object(fields) = message else { return json::to_value(message) };
    let reasoning = ["reasoning_content", "thinking", "reasoning"]
        .iter()
        .find_map(|name| fields.get(*name).filter(|value| !value.is_null()));
    let Some(reasoning) = reasoning else { return json::object(fields) };
    let mut all = Map::new();
    all.insert("thinking".to_owned(), reasoning.clone());
    all.extend(fields.clone());
    all.insert("reasoning_content".to_owned(), reasoning.clone());
    json::object(&all)
}

fn environment(now: Clock) -> Environment<'static> {
    let mut environment = Environment::empty();
    environment.set_undefined_behavior(UndefinedBehavior::Lenient);
    environment.set_unknown_method_callback(methods::call);
    environment.set_formatter(|output, state, value| {
        let text = filters::string(state, value)?;
        let text = text.as_str().unwrap_or_default();
        meter::Meter::of(state).make_text(text.len())?;
        output.write_str(text).map_err(minijinja::Error::from)
    });
    operators::register(&mut environment);
    filters::register(&mut environment);
    functions::register(&mut environment, now);
    functions::register_tests(&mut environment);
    environment
}

#[cfg(test)]
mod tests;
