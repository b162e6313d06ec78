//! Names of models elsewhere, as commands are given them: short names and full ones, web addresses, and the models here
//! that came from elsewhere.

use super::failure::Failure;
use crate::hub::{Choice, Hub, HubError, Plan};
use crate::settings;
use crate::store::{Catalogue, Manifest, Origin, Reference, Store, Wanted};

/// A model to ask for.
#[derive(Debug, Clone)]
pub(super) struct Order {
    /// What was typed, or what was asked for the last time.
    pub(super) text: String,
    /// Its name here; None follows from the text.
    pub(super) name: Option<Reference>,
}

/// The way to other machines, unless it is cut.
pub(super) fn hub(offline: bool) -> Result<Hub, HubError> {
    Hub::new(offline || settings::offline())
}

/// Asks the place of an order what it has.
pub(super) fn plan(hub: &Hub, order: &Order, choice: &Choice) -> Result<Plan, Failure> {
    let choice = Choice { name: order.name.clone().or(choice.name.clone()), ..choice.clone() };
    let wanted = Wanted::of(&order.text)?;
    let name = match &wanted {
        Wanted::Path(path) => {
            let hint = format!("bring a file into the store with nfl import {}", path.display());
            let text = format!("{} is a file, not a model elsewhere", order.text);
            return Err(Failure::usage(text, &hint));
        }
        Wanted::Url(_) => return Ok(hub.plan_wanted(&wanted, None, &choice)?),
        Wanted::Name(name) => name,
    };
    let catalogue = settings::home().map(|home| Catalogue::read(&home)).transpose()?;
    hub.plan_wanted(&wanted, catalogue.as_ref(), &choice).map_err(|error| {
        let unknown = catalogue.filter(|catalogue| catalogue.find(name).is_none());
        mistyped(error, name, unknown.and_then(|catalogue| catalogue.nearest(name)))
    })
}

/// A short name that its place does not know may be a mistyped one of ours.
fn mistyped(error: HubError, name: &Reference, nearest: Option<String>) -> Failure {
    let is_missing = matches!(error, HubError::Status { status: 404, .. });
    let failure = Failure::from(error);
    match nearest.filter(|_| is_missing && name.host().is_none()) {
        Some(nearest) => Failure { hint: Some(format!("did you mean {nearest}?")), ..failure },
        None => failure,
    }
}

/// The models of the store that can be asked for again.
pub(super) fn from_elsewhere(store: &Store) -> Result<Vec<(Order, Manifest)>, Failure> {
    let is_remote = |model: &Manifest| {
        matches!(model.source.origin, Origin::Hub | Origin::Registry | Origin::Url)
    };
    let order = |model: Manifest| {
        let text = model.source.asked.clone()?;
        Some((Order { text, name: Some(model.name.clone()) }, model))
    };
    Ok(store.list()?.manifests.into_iter().filter(is_remote).filter_map(order).collect())
}
