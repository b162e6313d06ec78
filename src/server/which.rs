//! Which model is meant: where several are stored, a request may still leave its name out.
//!
//! llama-server has one model, so that its clients need not say. Whoever names one names a stored model: files of this
//! machine are nobody's to name over a network.

use crate::chat::pool::{Ask, Lease, Pool};
use crate::server::Server;
use crate::server::problem::{Kind, Problem};
use crate::store::{Reference, Wanted};

/// The model that a request is for.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Named {
    /// As the client calls it, and as it is called in the answer.
    pub(super) asked: String,
    /// As it is stored.
    name: String,
}

impl Named {
    /// What the pool is asked for.
    pub(super) fn ask(&self) -> Ask {
        Ask::new(&self.name)
    }
}

/// The model that a request means; without a name the only one that is loaded, or the only one that is stored. Reads the
/// store: for a thread that may wait.
///
/// # Errors
/// When the named one is not stored, or none is named and there are several.
pub(super) fn named(pool: &Pool, asked: Option<&str>) -> Result<Named, Problem> {
    let Some(asked) = asked.filter(|name| !name.is_empty()) else {
        let name = only(pool)?;
        return Ok(Named { asked: name.clone(), name });
    };
    let name: Reference = asked.parse().map_err(|_| missing(asked))?;
    if !is_name(asked) || !is_name(&name.to_string()) {
        return Err(missing(asked));
    }
    let store = pool.store()?;
    if !store.is_named(&name) {
        return Err(store.missing(&name).into());
    }
    Ok(Named { asked: asked.to_owned(), name: name.to_string() })
}

/// There is no model of that name.
pub(super) fn missing(name: &str) -> Problem {
    Problem::new(Kind::NotFound, format!("the model {name:?} does not exist"))
}

/// Whether a text means a stored model and not a file or an address.
fn is_name(text: &str) -> bool {
    matches!(Wanted::of(text), Ok(Wanted::Name(_)))
}

/// The name of the only model.
fn only(pool: &Pool) -> Result<String, Problem> {
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
    let lease = server.pool.acquire(&named(&server.pool, asked)?.ask())?;
    server.metrics.loaded(lease.load_time());
    Ok(lease)
}
