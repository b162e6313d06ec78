//! POST `/infill`: what stands in a gap of a text, as editors ask for it.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;

use super::completion::{self, Source};
use super::{failure, wire};
use crate::server::Server;
use crate::server::body::Raw;

pub(super) async fn infill(State(server): State<Arc<Server>>, raw: Raw) -> Response {
    let parsed = raw
        .parse::<wire::Completion>()
        .and_then(|completion| Ok((completion, raw.parse::<wire::Infill>()?)));
    match parsed {
        Ok((completion, asked)) => {
            completion::answer(&server, completion, vec![gap(asked)], false).await
        }
        Err(problem) => failure::response(&problem),
    }
}

/// The gap. Other files and the beginning of the line stand in front of it as text, which every vocabulary can write.
fn gap(asked: wire::Infill) -> Source {
    let mut prefix = String::new();
    for extra in &asked.input_extra {
        if let Some(name) = &extra.filename {
            prefix.push_str(name);
            prefix.push('\n');
        }
        prefix.push_str(&extra.text);
        prefix.push('\n');
    }
    prefix.push_str(&asked.input_prefix);
    prefix.push_str(&asked.prompt);
    Source::Gap { prefix, suffix: asked.input_suffix }
}
