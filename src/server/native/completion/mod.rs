//! POST `/completion`: continuations of texts, as llama-server gives them.

mod asked;
mod probabilities;
mod running;
pub(super) mod settings;
mod timings;

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use serde_json::Value;
use tokio::task::JoinSet;

use super::failure;
use super::prompt::{PROMPTS_MAX, Prompt};
use super::wire;
use crate::chat::pool::Lease;
use crate::server::Server;
use crate::server::body::{self, EVENTS, Raw};
use crate::server::problem::{Kind, Problem};
use crate::server::reply::{Reply, blocking};
use crate::server::which;

pub(super) use asked::Source;
use asked::{Asked, Later};
use running::{Made, Running};

pub(super) async fn completion(State(server): State<Arc<Server>>, raw: Raw) -> Response {
    let parsed = raw.parse::<wire::Completion>().and_then(|wire| {
        let (prompts, is_list) = Prompt::all(&wire.prompt)?;
        Ok((wire, prompts.into_iter().map(Source::Prompt).collect(), is_list))
    });
    match parsed {
        Ok((wire, sources, is_list)) => answer(&server, wire, sources, is_list).await,
        Err(problem) => failure::response(&problem),
    }
}

/// Answers with a completion of each source; as a list when there are several or `is_list`.
pub(super) async fn answer(
    server: &Arc<Server>,
    wire: wire::Completion,
    sources: Vec<Source>,
    is_list: bool,
) -> Response {
    match start(server, wire, sources).await {
        Ok((asked, replies)) if asked.streams() => stream(replies),
        Ok((asked, replies)) => failure::answer(gather(replies, is_list || asked.copies > 1).await),
        Err(problem) => failure::response(&problem),
    }
}

/// Asks for all completions, and waits until each has begun.
async fn start(
    server: &Arc<Server>,
    mut wire: wire::Completion,
    sources: Vec<Source>,
) -> Result<(Arc<Asked>, Vec<Running>), Problem> {
    let model = wire.model.take();
    let asked = Arc::new(Asked::new(wire)?);
    let count = sources.len() * asked.copies as usize;
    if count > PROMPTS_MAX {
        return Err(Problem::invalid(format!("{count} replies, {PROMPTS_MAX} are the most")));
    }
    let pool = Arc::clone(server);
    let model = blocking(move || which::named(&pool.pool, model.as_deref())).await?;
    let mut replies = Vec::new();
    for source in sources {
        for copy in 0..asked.copies {
            let ask = model.ask();
            let cancel = ask.cancel.clone();
            let later = Later::default();
            let (asked, source, facts) = (Arc::clone(&asked), source.clone(), Arc::clone(&later));
            let make = {
                let asked = Arc::clone(&asked);
                move |lease: &Lease| asked.request(&source, copy, lease, &facts)
            };
            let reply = Reply::start(server, ask, make);
            let (index, made) = (replies.len(), Made::default());
            replies.push(Running { index, asked, later, reply, cancel, made });
        }
    }
    for running in &mut replies {
        running.reply.begin().await?;
    }
    Ok((asked, replies))
}

async fn gather(replies: Vec<Running>, is_list: bool) -> Result<Value, Problem> {
    let mut tasks = JoinSet::new();
    for running in replies {
        tasks.spawn(async move { (running.index, running.finish().await) });
    }
    let mut made = BTreeMap::new();
    while let Some(ended) = tasks.join_next().await {
        let (index, value) =
            ended.map_err(|error| Problem::new(Kind::Internal, error.to_string()))?;
        made.insert(index, value?);
    }
    let mut values: Vec<Value> = made.into_values().collect();
    match values.pop() {
        Some(only) if values.is_empty() && !is_list => Ok(only),
        last => Ok(values.into_iter().chain(last).collect()),
    }
}

fn stream(replies: Vec<Running>) -> Response {
    body::streamed(EVENTS, |lines| async move {
        let mut tasks = JoinSet::new();
        for running in replies {
            tasks.spawn(running.stream(lines.clone()));
        }
        while tasks.join_next().await.is_some() {}
    })
}

/// What a model is called in answers: its stored name, else its file's.
pub(super) fn model_name(lease: &Lease) -> String {
    let resolved = lease.resolved();
    match &resolved.manifest {
        Some(manifest) => manifest.name.to_string(),
        None => resolved.model.display().to_string(),
    }
}
