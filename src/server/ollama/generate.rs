//! `/api/generate`: a text is answered or continued, or a gap in it filled.

use std::sync::Arc;
use std::time::Instant;

use axum::extract::State;
use axum::response::Response;

use super::super::body::{self, Raw};
use super::super::problem::Problem;
use super::super::{Server, reply};
use super::model::Asked;
use super::talk::{Piece, Said, Talk};
use super::terms::Terms;
use super::wire::Chunk;
use super::{load, refuse, wire};
use crate::chat::pool::{KeepAlive, Lease};
use crate::chat::{Input, Message, Request, Role, Think, carried};
use crate::store::Capability;

/// Answers one text.
pub(super) async fn generate(State(server): State<Arc<Server>>, raw: Raw) -> Response {
    refuse::or(answer(&server, &raw).await)
}

async fn answer(server: &Arc<Server>, raw: &Raw) -> Result<Response, Problem> {
    let started = Instant::now();
    let request: wire::Generate = raw.parse()?;
    let terms = Terms::read(request.terms)?;
    let asked = {
        let (server, name) = (Arc::clone(server), request.model.clone());
        reply::blocking(move || Asked::find(&server, &name)).await?
    };
    let prompt = request.prompt.unwrap_or_default();
    let ask = terms.ask(&asked)?;
    let unloads = terms.keep_alive == Some(KeepAlive::For(std::time::Duration::ZERO));
    let suffix = request.suffix.filter(|text| !text.is_empty());
    if prompt.is_empty() && suffix.is_none() && unloads {
        return Ok(body::json(200, &ended(load::load(server, &terms, ask, request.model).await?)));
    }
    let text = |text: Option<String>| text.filter(|text| !text.is_empty());
    let (system, template) = (text(request.system), text(request.template));
    let context = request.context.unwrap_or_default();
    let is_raw = request.raw.unwrap_or(false);
    if is_raw && (system.is_some() || template.is_some() || !context.is_empty()) {
        let words = "raw mode does not support template, system, or context";
        return Err(Problem::invalid(words));
    }
    if !asked.can(Capability::Completion) {
        return Err(asked.cannot("generate"));
    }
    if suffix.is_some() {
        asked.must(Capability::Insert)?;
    }
    let think = terms.think(&asked)?;
    refuse_images(&asked, request.images.as_deref())?;
    if template.is_some() {
        let words = "template: a request cannot bring its own; /api/create makes a model with it";
        return Err(Problem::invalid(words));
    }
    if !context.is_empty() {
        let words = "context: tokens of an earlier reply cannot be continued; send the messages to /api/chat";
        return Err(Problem::invalid(words));
    }
    if prompt.is_empty() && suffix.is_none() {
        return Ok(body::json(200, &ended(load::load(server, &terms, ask, request.model).await?)));
    }
    let said = Text { prompt, suffix, system, is_raw, think };
    Talk { said, terms, ask, model: request.model, started }.answer(server).await
}

/// Images are for models that see, and for a version of this program that shows them images.
pub(super) fn refuse_images(asked: &Asked, images: Option<&[String]>) -> Result<(), Problem> {
    match images {
        None | Some([]) => Ok(()),
        Some(_) if asked.can(Capability::Vision) => {
            Err(Problem::invalid("images: this version of nfl does not show images to models"))
        }
        Some(_) => Err(asked.cannot("image input")),
    }
}

/// The end of a request without a text.
fn ended(chunk: Chunk) -> Chunk {
    Chunk { response: Some(String::new()), ..chunk }
}

/// What is to be answered.
#[derive(Debug, Clone)]
struct Text {
    prompt: String,
    suffix: Option<String>,
    system: Option<String>,
    is_raw: bool,
    think: Think,
}

impl Said for Text {
    fn request(&self, lease: &Lease, terms: &Terms) -> Result<Request, Problem> {
        let text = self.prompt.clone();
        let system = self.system.as_deref().or(lease.system());
        let input = if let Some(suffix) = &self.suffix {
            Input::Infill { prefix: text, suffix: suffix.clone() }
        } else if self.is_raw {
            Input::Text(text)
        } else if lease.has_template() {
            let mut messages = carried::opening(lease.resolved(), system);
            messages.push(Message::new(Role::User, text));
            Input::Conversation(messages)
        } else {
            // A model without a template continues, as Ollama's own template for such models has it.
            Input::Text(text)
        };
        request(input, lease, terms, self.think)
    }

    fn shorter(&self, _: f64) -> Option<Self> {
        None
    }

    fn write(piece: Piece, chunk: &mut Chunk) {
        chunk.response = Some(piece.text);
        chunk.thinking = Some(piece.thinking).filter(|text| !text.is_empty());
        chunk.tool_calls = Some(piece.tool_calls).filter(|calls| !calls.is_empty());
    }
}

/// The request to a model, of what both ways of talking have in common.
pub(super) fn request(
    input: Input,
    lease: &Lease,
    terms: &Terms,
    think: Think,
) -> Result<Request, Problem> {
    let options = &terms.options;
    let sampling = options.sampling(lease)?;
    let request = Request::new(input, sampling, options.stop(lease), options.tokens_max(lease))?;
    Ok(request
        .format(terms.format.clone())?
        .think(think)
        .shift(terms.shift)
        .steering(carried::steering(lease.resolved()))?
        .logprobs(terms.logprobs)?)
}
