//! What follows when a name means another model than before, or none.

use super::super::Server;
use super::super::problem::Problem;
use crate::store::{Manifest, Reference, Scope, Store, StoreError};

/// Unloads what had the name, and frees what no model needs of it any more.
pub(super) fn free(
    server: &Server,
    store: &Store,
    name: &Reference,
    before: Option<&Manifest>,
) -> Result<(), Problem> {
    server.pool.unload(&name.to_string());
    let Some(before) = before else { return Ok(()) };
    match store.collect(Scope::Of(before), false) {
        // A manifest that cannot be read may name the content: it stays until that is mended.
        Err(StoreError::Manifest { .. } | StoreError::Version { .. }) => Ok(()),
        collected => Ok(collected.map(drop)?),
    }
}
