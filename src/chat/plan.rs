//! What a reply must be, decided before it begins: the grammar that holds it to its tools and its form.

use super::form::{Format, Think, Turn};
use super::request::{Input, Request, RequestError};
use super::syntax::{Family, GENERIC, Thinking, Writer};
use super::template::Template;
use super::tools::{Choice, Tool};
use crate::engine::frames::SpecialToken;
use crate::engine::grammar::schema;
use crate::engine::options::{Constraint, TRIGGER_BYTES_MAX, Trigger, TriggerPlace, TriggerWhat};

/// How a reply is generated and read.
#[derive(Debug, Default)]
pub(super) struct Plan {
    /// How its calls are written; None when there are to be none.
    pub(super) family: Option<&'static Family>,
    /// How its thoughts are written.
    pub(super) thinking: Option<&'static Thinking>,
    /// What of the reply's notation stands in the prompt already.
    pub(super) begun: &'static str,
    /// Whether the prompt ends within what the reply says.
    pub(super) speaks: bool,
    /// What it is held to; None for what the request's sampling says.
    pub(super) constraint: Option<(Constraint, Vec<Trigger>)>,
    /// Special tokens whose texts its notation needs.
    pub(super) shown: Vec<i32>,
}

/// What of a reply stands in the conversation already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Begun<'r> {
    /// Nothing.
    Nothing,
    /// Some of what it thinks.
    Thoughts(&'r str),
    /// Some of what it says.
    Text,
}

impl<'r> Begun<'r> {
    pub(super) fn of(request: &'r Request) -> Self {
        match &request.input {
            Input::Conversation(messages) if request.turn == Turn::Same => match messages.last() {
                Some(last) if last.content.is_empty() => Self::Thoughts(&last.thinking),
                _ => Self::Text,
            },
            _ => Self::Nothing,
        }
    }
}

/// The notation of calls for a request; None when no tool is offered.
///
/// # Errors
/// [`RequestError::Tools`] when the model knows no tools and none is forced on it.
pub(super) fn family(
    template: &Template,
    request: &Request,
) -> Result<Option<&'static Family>, RequestError> {
    if !request.tools.are_offered() {
        return Ok(None);
    }
    match template.family {
        Some(family) => Ok(Some(family)),
        None if is_forced(request) => Ok(Some(&GENERIC)),
        None => Err(RequestError::Tools("the model's template knows none".to_owned())),
    }
}

fn is_forced(request: &Request) -> bool {
    matches!(request.tools.choice, Choice::Required | Choice::Named(_))
}

impl Plan {
    /// The plan for a text to continue: it knows neither tools nor thoughts.
    ///
    /// # Errors
    /// [`RequestError`] for what contradicts itself or cannot be enforced.
    pub(super) fn of_text(request: &Request) -> Result<Self, RequestError> {
        if request.tools.are_offered() {
            return Err(RequestError::Tools("only a conversation can have any".to_owned()));
        }
        check(request)?;
        let drafting = Drafting {
            request,
            control: &[],
            may_think: None,
            thinks: false,
            has_begun: false,
            speaks: false,
        };
        Ok(Self { constraint: drafting.without_tools()?, ..Self::default() })
    }

    /// The plan for a request whose prompt is this.
    ///
    /// # Errors
    /// [`RequestError`] for what contradicts itself or cannot be enforced.
    pub(super) fn new(
        template: &Template,
        request: &Request,
        prompt: &str,
        control: &[SpecialToken],
    ) -> Result<Self, RequestError> {
        let family = family(template, request)?;
        let thinking = template.thinking;
        check(request)?;
        let state = Begun::of(request);
        let speaks = state == Begun::Text;
        // A text that has begun is no call where calls have no sign of their own.
        let family = family.filter(|family| !(speaks && family.is_bare));
        let thinks = match state {
            Begun::Nothing => template.has_begun_to_think(prompt),
            Begun::Thoughts(_) => true,
            Begun::Text => false,
        };
        let family_begun = family.map_or("", |family| family.begun).trim_end().to_owned();
        let has_begun = !speaks && !family_begun.is_empty() && prompt.ends_with(&family_begun);
        let begun = match (thinking, family) {
            (Some(thinking), _) if thinks => thinking.open,
            (_, Some(family)) if has_begun => family.begun,
            _ => "",
        };
        let is_closed =
            |thinking: &&Thinking| prompt.trim_end().ends_with(thinking.close.trim_end());
        let may_think = thinking
            .filter(|_| !speaks && request.think != Think::Off)
            .filter(|thinking| thinks || !is_closed(thinking));
        let drafting = Drafting { request, control, may_think, thinks, has_begun, speaks };
        let constraint = match family {
            Some(family) => Some(drafting.with_tools(family)?),
            None => drafting.without_tools()?,
        };
        let mut texts: Vec<&str> = thinking.into_iter().flat_map(Thinking::texts).collect();
        texts.extend(family.iter().flat_map(|family| family.texts()));
        let is_needed = |token: &&SpecialToken| {
            !token.text.is_empty() && texts.iter().any(|text| text.contains(&*token.text))
        };
        let shown = control.iter().filter(is_needed).map(|token| token.id).collect();
        Ok(Self { family, thinking, begun, speaks, constraint, shown })
    }
}

/// What a request may not ask for at once, and schemas that cannot be enforced.
fn check(request: &Request) -> Result<(), RequestError> {
    let tools = request.tools.are_offered();
    if tools && request.sampling.constraint.is_some() {
        return Err(RequestError::Tools("a grammar leaves no room for them".to_owned()));
    }
    if tools && matches!(request.format, Format::Grammar(_)) {
        return Err(RequestError::Tools("a grammar leaves no room for them".to_owned()));
    }
    if tools && is_forced(request) && request.format != Format::Text {
        let reason = "one must be called, and the reply must have a form: it cannot be both";
        return Err(RequestError::Tools(reason.to_owned()));
    }
    if let Format::Schema(source) = &request.format {
        schema::to_gbnf(source).map_err(|error| RequestError::Format(error.to_string()))?;
    }
    Ok(())
}

/// Refuses what a reply that has begun cannot be held to any more.
///
/// # Errors
/// [`RequestError`] names what contradicts the beginning.
pub(super) fn check_begun(template: &Template, request: &Request) -> Result<(), RequestError> {
    match Begun::of(request) {
        Begun::Thoughts(_) if template.thinking.is_none() => {
            Err(RequestError::Think("the model's template knows no thinking".to_owned()))
        }
        Begun::Thoughts(_) if request.think == Think::Off => {
            let reason = "the last message is a thought, with which the model goes on";
            Err(RequestError::Think(reason.to_owned()))
        }
        Begun::Text if request.format != Format::Text || request.sampling.constraint.is_some() => {
            Err(RequestError::Format("the reply has begun without one".to_owned()))
        }
        Begun::Text if is_forced(request) && request.tools.are_offered() => {
            Err(RequestError::Tools("the reply has begun as a text".to_owned()))
        }
        Begun::Nothing | Begun::Thoughts(_) | Begun::Text => Ok(()),
    }
}

/// What a constraint is made from.
struct Drafting<'a> {
    request: &'a Request,
    control: &'a [SpecialToken],
    /// How the model thinks, if it may.
    may_think: Option<&'static Thinking>,
    /// Whether it has begun in the prompt.
    thinks: bool,
    /// Whether the family's notation has begun in the prompt.
    has_begun: bool,
    /// Whether the prompt ends within what the reply says.
    speaks: bool,
}

type Draft = (Constraint, Vec<Trigger>);

impl Drafting<'_> {
    fn writer(&self) -> Writer<'_> {
        Writer::new(self.control)
    }

    fn thoughts(&self, writer: &mut Writer<'_>) -> String {
        self.may_think.map_or(String::new(), |thinking| writer.thoughts(thinking, self.thinks))
    }

    fn text_open(&self, writer: &Writer<'_>, family: Option<&Family>) -> String {
        if self.speaks {
            return String::new();
        }
        let of_family = family.map_or("", |family| {
            let begun = if self.has_begun { family.begun } else { "" };
            family.text_open.strip_prefix(begun).unwrap_or(family.text_open)
        });
        let of_thinking = self.may_think.map_or("", |thinking| thinking.text_open);
        writer.text(if of_family.is_empty() { of_thinking } else { of_family })
    }

    /// What holds a reply to its form.
    fn without_tools(&self) -> Result<Option<Draft>, RequestError> {
        if self.request.format == Format::Text {
            return Ok(None);
        }
        if self.may_think.is_none() {
            let constraint = match &self.request.format {
                Format::Schema(source) => Constraint::JsonSchema(source.clone()),
                Format::Grammar(source) => Constraint::Grammar(source.clone()),
                Format::Json | Format::Text => Constraint::Json,
            };
            return Ok(Some((constraint, Vec::new())));
        }
        let mut writer = self.writer();
        let thoughts = self.thoughts(&mut writer);
        let open = self.text_open(&writer, None);
        let body = self.body(&mut writer)?;
        Ok(Some((
            Constraint::Grammar(writer.finish(&format!("{thoughts} {open} {body}"))),
            Vec::new(),
        )))
    }

    /// What the reply proper must be.
    fn body(&self, writer: &mut Writer<'_>) -> Result<String, RequestError> {
        match &self.request.format {
            Format::Text => Ok(".*".to_owned()),
            Format::Json => Ok(writer.any_object()),
            Format::Grammar(source) => Ok(writer.grammar(source)),
            Format::Schema(source) => {
                writer.schema(source).map_err(|error| RequestError::Format(error.to_string()))
            }
        }
    }

    fn with_tools(&self, family: &'static Family) -> Result<Draft, RequestError> {
        let tools = &self.request.tools;
        let mut writer = self.writer();
        let called: Vec<Tool> = match &tools.choice {
            Choice::Named(name) => tools.list.iter().filter(|t| t.name == *name).cloned().collect(),
            _ => tools.list.clone(),
        };
        let is_lazy = !is_forced(self.request)
            && self.request.format == Format::Text
            && !family.is_bare
            && family.begun.is_empty();
        let calls = writer
            .calls(family, &called, (tools.one_call, is_lazy, self.has_begun))
            .map_err(|(tool, error)| RequestError::Tools(format!("{tool}: {error}")))?;
        if is_lazy {
            let triggers = triggers(family, self.control);
            return Ok((Constraint::Grammar(writer.finish(&calls)), triggers));
        }
        let thoughts = self.thoughts(&mut writer);
        let root = if is_forced(self.request) {
            format!("{thoughts} {calls}")
        } else {
            let calls = writer.rule(&calls);
            let said = self.said(&mut writer, family, &calls)?;
            format!("{thoughts} ({calls} | {said})")
        };
        Ok((Constraint::Grammar(writer.finish(&root)), Vec::new()))
    }

    /// A reply that says something, where the notation cannot tell by a sign of its own when it calls.
    fn said(
        &self,
        writer: &mut Writer<'_>,
        family: &'static Family,
        calls: &str,
    ) -> Result<String, RequestError> {
        let open = self.text_open(writer, Some(family));
        if self.request.format != Format::Text {
            return Ok(format!("{open} {}", self.body(writer)?));
        }
        if family.begun.is_empty() {
            // What begins like a call is one.
            return Ok("([^{] .*)?".to_owned());
        }
        Ok(format!("{open} {}", writer.until_or_end(family.begun, calls)))
    }
}

/// What starts the grammar of calls: the first sign of one.
fn triggers(family: &'static Family, control: &[SpecialToken]) -> Vec<Trigger> {
    let mut whats: Vec<TriggerWhat> = Vec::new();
    let mut add = |what: TriggerWhat| {
        if !whats.contains(&what) {
            whats.push(what);
        }
    };
    let marks: Vec<&str> = if family.triggers.is_empty() {
        family.marks().collect()
    } else {
        family.triggers.to_vec()
    };
    for mark in marks {
        let first =
            control.iter().filter(|token| !token.text.is_empty() && mark.starts_with(&*token.text));
        if let Some(token) = first.max_by_key(|token| token.text.len()) {
            add(TriggerWhat::Token(token.id));
        }
        // It may be written letter by letter, too.
        debug_assert!(mark.len() <= TRIGGER_BYTES_MAX);
        add(TriggerWhat::Word(mark.to_owned()));
    }
    whats.into_iter().map(|what| Trigger { what, place: TriggerPlace::With }).collect()
}
