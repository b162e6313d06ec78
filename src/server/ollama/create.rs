//! `/api/create`: a model made from another, or from files that were uploaded.

mod files;
mod order;

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;

use super::super::Server;
use super::super::body::Raw;
use super::super::problem::Problem;
use super::progress::{self, Teller};
use super::wire;
use super::{model, pull, refuse, replaced};
use crate::store::{Kind, Layer, Manifest, Store};
use files::Maker;
use order::Order;

/// Makes a model.
pub(super) async fn create(State(server): State<Arc<Server>>, raw: Raw) -> Response {
    let read = raw.parse().and_then(|request: wire::Create| {
        let stream = request.stream;
        Order::read(request).map(|order| (order, stream))
    });
    match read {
        Ok((order, stream)) => {
            progress::told(stream, move |teller| make(&server, &order, teller)).await
        }
        Err(problem) => refuse::answer(&problem),
    }
}

fn make(server: &Server, order: &Order, teller: &Teller) -> Result<(), Problem> {
    let store = server.pool.store()?;
    let maker = Maker { store: &store, teller, level: order.level };
    let base = match &order.from {
        Some(from) => Some(base(server, &store, from, teller)?),
        None => None,
    };
    let mut layers = match &base {
        Some(base) => maker.quantized(base)?,
        None => maker.model(&order.files)?,
    };
    layers.extend(maker.adapters(&order.adapters)?);
    let known: Vec<Layer> = base.iter().flat_map(|base| base.layers.clone()).collect();
    let manifest = store.derive(order.name.clone(), base, layers, &order.modelfile)?;
    for layer in &manifest.layers {
        let digest = layer.digest;
        let is_known = known.iter().any(|known| known.digest == digest);
        let is_file = matches!(layer.kind, Kind::Model | Kind::Adapter | Kind::Projector);
        let how = if is_known || is_file { "using existing" } else { "creating new" };
        teller.say(format!("{how} layer {digest}"))?;
    }
    teller.say("writing manifest")?;
    let before = store.read(&order.name).unwrap_or_default();
    store.write(&manifest)?;
    replaced::free(server, &store, &order.name, before.as_ref())?;
    teller.say("success")
}

/// The model that another is made from; one that is not here is fetched.
fn base(server: &Server, store: &Store, from: &str, teller: &Teller) -> Result<Manifest, Problem> {
    match model::find(store, from) {
        Ok(manifest) => {
            // Held until the new manifest names them.
            store.resolve_manifest(manifest.clone())?;
            Ok(manifest)
        }
        Err(_) => pull::fetch(server, &model::valid(from)?, false, teller),
    }
}
