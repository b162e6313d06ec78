//! A model's chat template: what it can do, and conversations in the form that it reads.
//!
//! Templates differ in what they expect of a message (arguments as an object or as text, empty content or none,
//! thoughts in a field or among parts), and none says so. What one expects is found as its first user would: by
//! trying.

mod known;
mod message;
mod probe;
mod switch;

use nfl_models::template::{ChatTemplate, Clock, Conversation, TemplateError};
use serde_json::{Map, Value};

use super::form::Think;
use super::request::{Message, RequestError, Role};
use super::syntax::{Family, GENERIC, Thinking};
use super::tools::Tool;
pub use known::Descent;
use probe::Habits;
use switch::Switches;

/// What a template lets a model do.
#[expect(clippy::struct_excessive_bools, reason = "each is an ability of its own")]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capabilities {
    /// Whether it shows tools to the model in a notation that is read back.
    pub tools: bool,
    /// Whether the model thinks before it speaks.
    pub thinking: bool,
    /// Whether thinking can be switched on and off.
    pub thinking_switch: bool,
    /// Whether there are degrees of thinking.
    pub thinking_effort: bool,
    /// The name of the notation of its calls.
    pub tool_family: Option<&'static str>,
}

impl Capabilities {
    /// What a template can do, from its text alone.
    ///
    /// # Errors
    /// [`TemplateError`] when it is no template.
    pub fn of(source: &str) -> Result<Self, TemplateError> {
        Ok(Template::new(ChatTemplate::parse(source)?).capabilities())
    }
}

/// A template with what was found out about it.
#[derive(Debug)]
pub(super) struct Template {
    jinja: ChatTemplate,
    pub(super) family: Option<&'static Family>,
    pub(super) thinking: Option<&'static Thinking>,
    habits: Habits,
    switches: Switches,
}

/// What goes into a rendering besides the messages.
#[derive(Debug, Clone, Copy)]
pub(super) struct Setting<'a> {
    pub(super) think: Think,
    pub(super) variables: &'a Map<String, Value>,
    /// The text of the token that begins a sequence.
    pub(super) begin: &'a str,
    /// The text of the token that ends a sequence.
    pub(super) end: &'a str,
}

impl Template {
    pub(super) fn new(jinja: ChatTemplate) -> Self {
        let family = Family::of(jinja.source());
        let thinking = Thinking::of(jinja.source());
        let habits = Habits::of(&jinja);
        let switches = Switches::of(&jinja);
        Self { jinja, family, thinking, habits, switches }
    }

    pub(super) fn capabilities(&self) -> Capabilities {
        Capabilities {
            tools: self.family.is_some(),
            thinking: self.thinking.is_some(),
            thinking_switch: self.thinking.is_some() && self.switches.has_switch(),
            thinking_effort: self.thinking.is_some() && self.switches.has_effort(),
            tool_family: self.family.map(|family| family.name),
        }
    }

    /// The text of messages that are ready for the template, see [`Template::messages`].
    pub(super) fn render(
        &self,
        messages: &[Value],
        tools: Option<Value>,
        setting: &Setting<'_>,
        add_generation_prompt: bool,
    ) -> Result<String, TemplateError> {
        let mut extra = self.switches.variables(setting.think);
        let tools_shown = tools.is_some();
        // Firefunction's template asks for its tools and the time in its own way.
        if self.jinja.source().contains("functions") && self.jinja.source().contains("datetime") {
            let now = Clock::now_utc().rfc3339();
            let functions = tools.clone().unwrap_or_else(|| Value::Array(Vec::new()));
            extra.insert("functions".to_owned(), Value::String(functions.to_string()));
            extra.insert("datetime".to_owned(), Value::String(now));
        }
        extra.extend(setting.variables.clone());
        let text = self.jinja.render(&Conversation {
            messages,
            tools,
            bos_token: setting.begin,
            eos_token: setting.end,
            add_generation_prompt,
            extra,
            now: Clock::now_utc(),
        })?;
        if add_generation_prompt && setting.think == Think::Off && !self.switches.has_switch() {
            return Ok(self.closed(text, tools_shown));
        }
        Ok(text)
    }

    /// The text of messages up to the end of what the last one, which is the model's own, says. None of them contains
    /// `mark`.
    pub(super) fn render_begun(
        &self,
        messages: &[Value],
        tools: Option<Value>,
        setting: &Setting<'_>,
        mark: &str,
    ) -> Result<String, TemplateError> {
        let mut marked = messages.to_vec();
        if let Some(last) = marked.last_mut() {
            message::append(last, mark);
        }
        let shown = self.render(&marked, tools.clone(), setting, false);
        if let Ok(mut text) = shown
            && let Some(end) = text.rfind(mark)
        {
            text.truncate(end);
            return Ok(text);
        }
        // It refuses or leaves out such a message: what the message says follows the opening of a turn.
        let (last, before) = messages.split_last().map_or((None, messages), |(l, b)| (Some(l), b));
        let text = self.render(before, tools, setting, true)?;
        let mut text = if self.has_begun_to_think(&text) { self.closed(text, false) } else { text };
        text.push_str(last.map_or("", message::text));
        Ok(text)
    }

    /// The text of messages up to the end of these thoughts, with which the model's turn begins.
    pub(super) fn render_thoughts(
        &self,
        messages: &[Value],
        tools: Option<Value>,
        setting: &Setting<'_>,
        thoughts: &str,
    ) -> Result<String, TemplateError> {
        let mut text = self.render(messages, tools, setting, true)?;
        if let Some(thinking) = self.thinking.filter(|_| !self.has_begun_to_think(&text)) {
            text.push_str(thinking.open);
            text.push_str(if thinking.then.is_empty() { "\n" } else { "" });
        }
        text.push_str(thoughts);
        Ok(text)
    }

    /// Messages as the template expects them.
    pub(super) fn messages(&self, messages: &[Message]) -> Vec<Value> {
        let family = self.family.unwrap_or(&GENERIC);
        if self.habits.shows_calls && self.habits.shows_results {
            return message::all(messages, &self.habits, self.jinja.source());
        }
        let written = message::spelled(messages, &self.habits, family);
        message::all(&written, &self.habits, self.jinja.source())
    }

    /// Tools as the template expects them; None when there are none to show or it shows none.
    pub(super) fn tools(&self, tools: &[Tool]) -> Option<Value> {
        (!tools.is_empty() && self.habits.shows_tools).then(|| message::tools(tools))
    }

    /// Messages that tell of tools, for a template that does not: in the system's turn, or in the first of all where
    /// the template has none.
    pub(super) fn with_tools_told(
        &self,
        messages: &[Message],
        tools: &[Tool],
        family: &Family,
    ) -> Vec<Message> {
        let mut told = messages.to_vec();
        if tools.is_empty() || self.habits.shows_tools {
            return told;
        }
        let text = message::told(tools, family);
        match told.first_mut() {
            Some(first) if first.role == Role::System || !self.habits.shows_system => {
                let between = if first.content.is_empty() { "" } else { "\n\n" };
                first.content = if first.role == Role::System {
                    format!("{}{between}{text}", first.content)
                } else {
                    format!("{text}{between}{}", first.content)
                };
            }
            _ => told.insert(0, Message::new(Role::System, text)),
        }
        told
    }

    /// Whether a prompt ends within the model's thoughts.
    pub(super) fn has_begun_to_think(&self, prompt: &str) -> bool {
        let open = |thinking: &Thinking| prompt.trim_end().ends_with(thinking.open.trim_end());
        self.thinking.is_some_and(open)
    }

    /// Whether a wish about thinking can be fulfilled.
    ///
    /// # Errors
    /// [`RequestError::Think`] when the model cannot think, or cannot do without.
    pub(super) fn check_think(&self, think: Think, has_tools: bool) -> Result<(), RequestError> {
        let refuse = |reason: &str| Err(RequestError::Think(reason.to_owned()));
        match think {
            Think::On | Think::Effort(_) if self.thinking.is_none() => {
                refuse("the model's template knows no thinking")
            }
            Think::Off if !self.switches.has_switch() => match self.thinking {
                Some(thinking) if !thinking.text_open.is_empty() && has_tools => {
                    refuse("this model cannot do without it when it is offered tools")
                }
                _ => Ok(()),
            },
            _ => Ok(()),
        }
    }

    /// A prompt that leaves no room for thinking, of a template without a switch for it.
    fn closed(&self, mut prompt: String, has_tools: bool) -> String {
        let Some(thinking) = self.thinking else { return prompt };
        if !thinking.then.is_empty() {
            // Its channels say what is spoken: the reply begins in that one.
            if !has_tools {
                prompt.push_str(thinking.text_open);
            }
            return prompt;
        }
        if prompt.trim_end().ends_with(thinking.close) {
            return prompt;
        }
        if !self.has_begun_to_think(&prompt) {
            prompt.push_str(thinking.open);
            prompt.push('\n');
        }
        prompt.push_str(thinking.close);
        prompt.push_str("\n\n");
        prompt
    }
}

#[cfg(test)]
mod tests;
