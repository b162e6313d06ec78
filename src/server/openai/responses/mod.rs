//! The Responses API: `POST /v1/responses`, and answers that are kept for a while to be read again, continued or stopped.

mod asking;
mod items;
mod kept;
mod scribe;
mod store;

use std::sync::Arc;

use axum::Extension;
use axum::extract::State;
use axum::response::Response;
use serde_json::Value;

use self::asking::Asking;
use self::scribe::{Said, Scribe};
use self::store::{Kept, Store};
use super::choices::{self, Choices};
use super::fields::Fields;
use super::forms;
use super::refusal::{self, Answer};
use super::stream::{self, Next};
use super::wire;
use crate::server::Server;
use crate::server::body::{self, EVENTS, Lines, streamed};
use crate::server::problem::Problem;
use crate::server::routes::{Access, Routes};

/// The routes, with a store of their own.
pub(super) fn routes() -> Routes {
    use Access::Infer;
    let answers = "Answers a conversation that may be kept";
    let counts = "The tokens of its input as the model would read it";
    Routes::new("OpenAI", refusal::response)
        .post("/v1/responses", Infer, answers, create)
        .takes::<forms::Response>()
        .gives::<wire::Response>()
        .sends(body::EVENTS)
        .post("/responses", Infer, answers, create)
        .takes::<forms::Response>()
        .gives::<wire::Response>()
        .sends(body::EVENTS)
        .post("/v1/responses/input_tokens", Infer, counts, count)
        .takes::<forms::Response>()
        .gives::<wire::InputTokens>()
        .post("/responses/input_tokens", Infer, counts, count)
        .takes::<forms::Response>()
        .gives::<wire::InputTokens>()
        .get("/v1/responses/{id}", Infer, "A response that was kept", kept::show)
        .gives::<wire::Response>()
        .delete("/v1/responses/{id}", Infer, "Forgets a response", kept::delete)
        .gives::<wire::Deleted>()
        .post("/v1/responses/{id}/cancel", Infer, "Stops a response", kept::cancel)
        .gives::<wire::Response>()
        .get("/v1/responses/{id}/input_items", Infer, "What a response answered", kept::input_items)
        .gives::<wire::Items>()
        .with(Arc::new(Store::default()))
}

async fn create(
    State(server): State<Arc<Server>>,
    Extension(store): Extension<Arc<Store>>,
    fields: Fields,
) -> Answer<Response> {
    let asking = Asking::read(&server, &store, fields).await?;
    let delivery = asking.asked.delivery;
    let is_in_background = asking.is_in_background;
    let scribe = Scribe::new(&asking);
    let shelf = asking.store.then(|| Shelf::new(&store, &asking));
    let mut choices = asking.start(&server)?;
    if is_in_background {
        return Ok(body::json(200, &later(choices, scribe, shelf)));
    }
    if delivery.stream {
        stream::begin(&mut choices, delivery.ping).await?;
        return Ok(streamed(EVENTS, move |lines| write(lines, choices, scribe, shelf)));
    }
    let answer = whole(choices, scribe).await?;
    keep(shelf.as_ref(), &answer);
    Ok(body::json(200, &answer))
}

/// Counts the tokens of the prompt.
async fn count(
    State(server): State<Arc<Server>>,
    Extension(store): Extension<Arc<Store>>,
    fields: Fields,
) -> Answer<Response> {
    let asking = Asking::read(&server, &store, fields).await?;
    let ask = asking.asked.model.ask();
    choices::count(&server, ask, asking.make()).await
}

/// Where an answer is kept, and with what.
#[derive(Debug, Clone)]
struct Shelf {
    store: Arc<Store>,
    id: String,
    previous: Option<String>,
    input: Arc<Vec<Value>>,
}

impl Shelf {
    fn new(store: &Arc<Store>, asking: &Asking) -> Self {
        Self {
            store: Arc::clone(store),
            id: asking.id.clone(),
            previous: asking.previous.clone(),
            input: Arc::clone(&asking.input),
        }
    }

    fn keep(&self, answer: &Value) {
        let (previous, input) = (self.previous.clone(), Arc::clone(&self.input));
        self.store.put(&self.id, Kept { response: answer.clone(), previous, input, task: None });
    }
}

fn keep(shelf: Option<&Shelf>, answer: &Value) {
    if let Some(shelf) = shelf {
        shelf.keep(answer);
    }
}

/// A whole answer.
async fn whole(mut choices: Choices, mut scribe: Scribe) -> Result<Value, Problem> {
    while let Some((_, event)) = choices.next().await? {
        scribe.hear(event)?;
    }
    Ok(scribe.response())
}

/// An answer that is made while nobody waits; what is said of it now.
fn later(choices: Choices, scribe: Scribe, shelf: Option<Shelf>) -> Value {
    let now = scribe.response();
    let Some(shelf) = shelf else { return now };
    shelf.keep(&now);
    let (id, store) = (shelf.id.clone(), Arc::clone(&shelf.store));
    let task = tokio::spawn(async move {
        let mut failing = scribe.clone();
        let answer = match whole(choices, scribe).await {
            Ok(answer) => answer,
            Err(problem) => {
                failing.fail(&problem);
                failing.response()
            }
        };
        shelf.store.finish(&shelf.id, answer);
    });
    store.watch(&id, task.abort_handle());
    now
}

/// An answer event by event.
async fn write(lines: Lines, mut choices: Choices, mut scribe: Scribe, shelf: Option<Shelf>) {
    let ping = scribe.ping();
    let mut said = scribe.begin();
    loop {
        for event in said {
            if !lines.event(Some(event.kind), &event.body).await {
                return;
            }
        }
        let heard = match stream::next(&mut choices, ping).await {
            Ok(Next::Event(_, event)) => scribe.hear(event),
            Ok(Next::Silence) => {
                if !lines.comment().await {
                    return;
                }
                Ok(Vec::new())
            }
            Ok(Next::End) => return,
            Err(problem) => Err(problem),
        };
        let is_over = heard.is_err();
        said = heard.unwrap_or_else(|problem| vec![scribe.fail(&problem)]);
        if said.iter().any(Said::is_last) {
            // Whoever has read the last event may ask for the answer.
            keep(shelf.as_ref(), &scribe.response());
        }
        if is_over {
            for event in said {
                lines.event(Some(event.kind), &event.body).await;
            }
            return;
        }
    }
}
