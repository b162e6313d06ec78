//! Answers that are kept: read, forgotten, stopped, and what they were asked.

use std::sync::Arc;

use axum::Extension;
use axum::extract::{Path, Query};
use axum::response::Response;
use serde_json::{Value, json};

use super::store::{Kept, Store};
use crate::server::body;
use crate::server::openai::messages::invalid;
use crate::server::openai::refusal::Answer;
use crate::server::openai::wire::{Deleted, Items};

/// Items of one page.
const PAGE_MAX: usize = 100;

type Pairs = Query<Vec<(String, String)>>;

pub(super) async fn show(
    Extension(store): Extension<Arc<Store>>,
    Path(id): Path<String>,
    Query(query): Pairs,
) -> Answer<Response> {
    if value(&query, "stream") == Some("true") {
        return Err(invalid("stream", "an answer that is kept is not told again"));
    }
    Ok(body::json(200, &store.get(&id)?.response))
}

pub(super) async fn delete(
    Extension(store): Extension<Arc<Store>>,
    Path(id): Path<String>,
) -> Answer<Response> {
    store.remove(&id)?;
    Ok(body::json(200, &Deleted { id, object: "response.deleted", deleted: true }))
}

pub(super) async fn cancel(
    Extension(store): Extension<Arc<Store>>,
    Path(id): Path<String>,
) -> Answer<Response> {
    let mut kept = store.get(&id)?;
    if kept.response["background"] != true {
        return Err(invalid("id", "only answers in the background can be cancelled"));
    }
    if kept.response["status"] == "in_progress" {
        if let Some(task) = kept.task.take() {
            task.abort();
        }
        kept.response["status"] = json!("cancelled");
        store.put(&id, Kept { task: None, ..kept.clone() });
    }
    Ok(body::json(200, &kept.response))
}

pub(super) async fn input_items(
    Extension(store): Extension<Arc<Store>>,
    Path(id): Path<String>,
    Query(query): Pairs,
) -> Answer<Response> {
    let mut items: Vec<Value> = store.get(&id)?.input.to_vec();
    match value(&query, "order") {
        None | Some("desc") => items.reverse(),
        Some("asc") => {}
        Some(_) => return Err(invalid("order", "expected asc or desc")),
    }
    let limit = value(&query, "limit").map_or(Ok(20), str::parse);
    let limit = limit.ok().filter(|limit| (1..=PAGE_MAX).contains(limit));
    let limit = limit.ok_or_else(|| invalid("limit", &format!("expected 1 to {PAGE_MAX}")))?;
    if let Some(after) = value(&query, "after") {
        let place = items.iter().position(|item| item["id"] == after);
        let place = place.ok_or_else(|| invalid("after", "there is no such item"))?;
        items.drain(..=place);
    }
    let has_more = items.len() > limit;
    items.truncate(limit);
    let id_of = |item: Option<&Value>| item?.get("id")?.as_str().map(str::to_owned);
    let (first_id, last_id) = (id_of(items.first()), id_of(items.last()));
    Ok(body::json(200, &Items { object: "list", data: items, first_id, last_id, has_more }))
}

fn value<'query>(query: &'query [(String, String)], name: &str) -> Option<&'query str> {
    query.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
}
