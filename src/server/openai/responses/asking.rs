//! What is asked for an answer.

use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::items::{self, conversation};
use super::store::Store;
use crate::chat::{Format, Message, Role, Tools};
use crate::server::Server;
use crate::server::openai::asked::{Asked, opened};
use crate::server::openai::choices::{Choices, Make};
use crate::server::openai::fields::Fields;
use crate::server::openai::format::{self, Thinking};
use crate::server::openai::forms;
use crate::server::openai::ids;
use crate::server::openai::messages::invalid;
use crate::server::openai::refusal::{Answer, Refusal};
use crate::server::openai::tools;
use crate::server::problem::Problem;

/// What an answer says of the request: each field, and what it is when nobody asked.
const ASKED: &[(&str, &str)] = &[
    ("instructions", "null"),
    ("max_output_tokens", "null"),
    ("max_tool_calls", "null"),
    ("metadata", "{}"),
    ("parallel_tool_calls", "true"),
    ("previous_response_id", "null"),
    ("prompt_cache_key", "null"),
    ("reasoning", "{\"effort\": null, \"summary\": null}"),
    ("safety_identifier", "null"),
    ("service_tier", "\"default\""),
    ("store", "true"),
    ("temperature", "null"),
    ("text", "{\"format\": {\"type\": \"text\"}}"),
    ("tool_choice", "\"auto\""),
    ("tools", "[]"),
    ("top_logprobs", "0"),
    ("top_p", "null"),
    ("truncation", "\"disabled\""),
    ("user", "null"),
];

/// What may be included, and changes nothing: there is none of it here.
const INCLUDED: &[&str] = &["reasoning.encrypted_content", LOGPROBS];

/// Including this asks for how likely the tokens are.
const LOGPROBS: &str = "message.output_text.logprobs";

/// An answer that is asked for.
#[derive(Debug)]
pub(super) struct Asking {
    pub(super) id: String,
    pub(super) asked: Asked,
    /// The items of this request, with names.
    pub(super) input: Arc<Vec<Value>>,
    pub(super) previous: Option<String>,
    pub(super) store: bool,
    pub(super) is_in_background: bool,
    /// Fields of the request as the answer repeats them.
    pub(super) repeated: Map<String, Value>,
    pub(super) logprobs: Option<u32>,
    messages: Vec<Message>,
    tools: Tools,
    format: Format,
    thinking: Thinking,
}

impl Asking {
    pub(super) async fn read(
        server: &Arc<Server>,
        store: &Store,
        mut fields: Fields,
    ) -> Answer<Self> {
        fields.keep_to(&forms::RESPONSE)?;
        let repeated = repeated(&fields);
        refuse_what_is_not_kept(&mut fields)?;
        let input = items::read(&fields.need::<Value>("input")?)?;
        let instructions = fields.take::<String>("instructions")?;
        let previous = fields.take::<String>("previous_response_id")?;
        let store_it = fields.take("store")?.unwrap_or(true);
        let is_in_background = fields.take("background")?.unwrap_or(false);
        let before = match &previous {
            Some(id) => store.conversation(id)?,
            None => Vec::new(),
        };
        let system = instructions.map(|text| Message::new(Role::System, text));
        let mut messages: Vec<Message> = system.into_iter().collect();
        conversation(before.iter().chain(&input), &mut messages)?;
        let logprobs = logprobs(&mut fields)?;
        fields.rename("max_output_tokens", "max_tokens");
        let asking = Self {
            id: ids::fresh("resp_"),
            input: Arc::new(input),
            previous,
            store: store_it,
            is_in_background,
            repeated,
            logprobs,
            messages,
            tools: tools::read(&mut fields)?,
            format: text_format(&mut fields)?,
            thinking: Thinking::read(&mut fields)?,
            asked: Asked::read(&mut fields, server).await?,
        };
        fields.finish()?;
        asking.check()?;
        Ok(asking)
    }

    fn check(&self) -> Answer<()> {
        if self.asked.choices != 1 {
            return Err(invalid("n", "an answer is one"));
        }
        if self.is_in_background && (!self.store || self.asked.delivery.stream) {
            let text = "answers in the background are stored, and asked for instead of streamed";
            return Err(invalid("background", text));
        }
        Ok(())
    }

    pub(super) fn start(self, server: &Arc<Server>) -> Result<Choices, Problem> {
        let ask = self.asked.model.ask();
        Choices::start(server, ask, (1, 1), self.make())
    }

    /// How the request of the reply is made.
    pub(super) fn make(self) -> Arc<Make> {
        Arc::new(move |model, choice| {
            let input = opened(&self.messages, model);
            let request = self.asked.request(input, model, choice)?;
            Ok(request
                .tools(self.tools.clone())?
                .format(self.format.clone())?
                .think(self.thinking.think)
                .template_variables(self.thinking.variables.clone())
                .logprobs(self.logprobs)?)
        })
    }
}

/// The request's fields as the answer repeats them.
fn repeated(fields: &Fields) -> Map<String, Value> {
    let value = |name: &str, otherwise: &str| {
        let asked = fields.get(name).filter(|value| !value.is_null()).cloned();
        asked.unwrap_or_else(|| serde_json::from_str(otherwise).unwrap_or_default())
    };
    let entry = |(name, otherwise): &(&str, &str)| ((*name).to_owned(), value(name, otherwise));
    ASKED.iter().map(entry).collect()
}

/// Fields that may only say what is so anyway.
fn refuse_what_is_not_kept(fields: &mut Fields) -> Answer<()> {
    fields.only("truncation", &[json!("disabled")])?;
    // It counts calls of tools that run on the server, and there are none.
    let _ = fields.take::<Value>("max_tool_calls")?;
    let included = fields.take::<Vec<String>>("include")?.unwrap_or_default();
    if let Some(other) = included.iter().find(|each| !INCLUDED.contains(&each.as_str())) {
        return Err(invalid("include", &format!("there is no {other} here")));
    }
    if included.iter().any(|each| each == LOGPROBS) {
        fields.default("top_logprobs", json!(0));
    } else if fields.get("top_logprobs") == Some(&json!(0)) {
        let _ = fields.take::<Value>("top_logprobs")?;
    }
    Ok(())
}

/// Takes `top_logprobs`.
fn logprobs(fields: &mut Fields) -> Answer<Option<u32>> {
    fields.take("top_logprobs")
}

/// Takes `text`, whose format is that of the reply.
fn text_format(fields: &mut Fields) -> Answer<Format> {
    let text = fields.take::<Map<String, Value>>("text")?.unwrap_or_default();
    let mut text = Fields::of(text);
    let asked = text.take::<Map<String, Value>>("format")?;
    text.finish()?;
    let format = asked.map_or(Ok(Format::Text), |asked| format::response_format(&asked))?;
    match format::read(fields)? {
        Format::Text => Ok(format),
        other if format == Format::Text => Ok(other),
        _ => Err(Refusal::invalid(Some("text.format"), "text.format: a reply has one form")),
    }
}
