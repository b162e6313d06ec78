//! Which model is meant: llama-server has one, so that its clients need not say.

use crate::chat::pool::{Ask, Lease, Pool};
use crate::server::Server;
use crate::server::problem::{Kind, Problem};

/// The name of the model that a request means. Reads the store: for a thread that may wait.
///
/// # Errors
/// When the request names none, and there are several.
pub(super) fn name(pool: &Pool, asked: Option<&str>) -> Result<String, Problem> {
    if let Some(name) = asked.filter(|name| !name.is_empty()) {
        return Ok(name.to_owned());
    }
    if let [only] = pool.loaded().as_slice() {
        return Ok(only.name.clone());
    }
    let stored = pool.store()?.list()?.manifests;
    match stored.as_slice() {
        // Several names of one model are one model.
        [first, rest @ ..] if rest.iter().all(|other| other.layers == first.layers) => {
            Ok(first.name.to_string())
        }
        [] => Err(Problem {
            hint: Some("get a model: nfl pull NAME, or nfl import FILE".to_owned()),
            ..Problem::new(Kind::NotFound, "there is no model")
        }),
        several => {
            let names: Vec<String> = several.iter().map(|each| each.name.to_string()).collect();
            Err(Problem {
                hint: Some(format!("there are {}", names.join(", "))),
                ..Problem::invalid("model: none is named, and there are several")
            })
        }
    }
}

/// The model that a request means, ready to answer. Waits until it is loaded.
pub(super) fn lease(server: &Server, asked: Option<&str>) -> Result<Lease, Problem> {
    let lease = server.pool.acquire(&Ask::new(name(&server.pool, asked)?))?;
    server.metrics.loaded(lease.load_time());
    Ok(lease)
}
