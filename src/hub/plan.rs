//! What a pull will do, known before the first byte of it: where each file is, how long it is, and what it must be.

use std::sync::Arc;

use crate::store::{Digest, Kind, Manifest, Origin, Reference, Source};

use super::network::Route;
use super::registry::Access;

/// A model elsewhere, as it will be here.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The name it gets.
    pub name: Reference,
    /// Where it comes from.
    pub source: Source,
    /// What is to fetch.
    pub items: Vec<Item>,
    /// What should be said about the choice.
    pub notes: Vec<String>,
    /// Whether the files are a checkpoint, which must be converted before it is a model.
    pub is_checkpoint: bool,
}

/// One file of a plan.
#[derive(Debug, Clone)]
pub struct Item {
    /// What it is to the model.
    pub kind: Kind,
    /// Its size, when the place says it.
    pub bytes: Option<u64>,
    /// Its SHA-256, when the place says it.
    pub digest: Option<Digest>,
    /// How a registry calls its kind.
    pub media_type: Option<String>,
    /// Its name there.
    pub file_name: Option<String>,
    pub(crate) route: Route,
    /// The right to it, where that can run out.
    pub(crate) access: Option<Arc<Access>>,
}

impl Plan {
    /// Whether `model` is what this plan would bring; None where that cannot be told beforehand.
    pub fn is_current(&self, model: &Manifest) -> Option<bool> {
        if self.is_checkpoint {
            return self
                .source
                .revision
                .as_ref()
                .map(|_| self.source.revision == model.source.revision);
        }
        if self.source.origin == Origin::Url {
            return self.is_same_state(model);
        }
        let wanted: Option<Vec<Digest>> = self.items.iter().map(|item| item.digest).collect();
        let has: Vec<Digest> = model.layers.iter().map(|layer| layer.digest).collect();
        wanted.map(|wanted| wanted == has)
    }

    /// The same for a plain address, which tells no digest: by size and by what the server calls this state of the file.
    fn is_same_state(&self, model: &Manifest) -> Option<bool> {
        let (there, here) = (&self.source, &model.source);
        if (here.origin, &here.path) != (Origin::Url, &there.path) {
            return None;
        }
        let sizes = self.items.iter().zip(&model.layers);
        if sizes.clone().any(|(item, layer)| item.bytes.is_some_and(|bytes| bytes != layer.bytes)) {
            return Some(false);
        }
        let same = |a: &Option<String>, b: &Option<String>| Some(a.as_ref()? == b.as_ref()?);
        same(&there.etag, &here.etag).or(same(&there.modified, &here.modified))
    }

    /// Bytes of all files together, as far as they are known.
    pub fn bytes(&self) -> u64 {
        self.items.iter().filter_map(|item| item.bytes).fold(0, u64::saturating_add)
    }
}
