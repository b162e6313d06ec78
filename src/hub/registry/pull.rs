//! A model of a registry as a plan: its manifest, read with suspicion.

use reqwest::header::{ACCEPT, HeaderMap, HeaderValue};

use super::super::ask::Question;
use super::super::error::HubError;
use super::super::network::place;
use super::super::plan::{Item, Plan};
use super::wire::{Descriptor, INDEX_TYPES, MANIFEST_TYPES, kind_of};
use super::{PULL, Registry};
use crate::store::{Digest, Kind, LAYERS_MAX, Origin, Reference, Source};

/// The largest blob that is believed: no disk of a person holds it.
const BLOB_BYTES_MAX: i64 = 1 << 46;

/// Asks for a manifest of any kind that is understood.
pub(super) fn manifest_question() -> Question {
    let types = [MANIFEST_TYPES, INDEX_TYPES].concat().join(", ");
    let accept = HeaderValue::from_str(&types).expect("constants");
    Question { headers: HeaderMap::from_iter([(ACCEPT, accept)]), ..Question::get() }
}

impl Registry<'_> {
    /// What pulling `tag` will fetch; it will be called `name`.
    pub(crate) async fn plan(&self, tag: &str, name: Reference) -> Result<Plan, HubError> {
        let what = format!("manifests/{tag}");
        let answer = self.ask(&what, PULL, &manifest_question()).await?.success()?;
        let at = place(&answer.route.url);
        let wrong = |what: String| HubError::Protocol { place: at.clone(), what };
        let digest = Digest::of(&answer.body).to_string();
        let manifest = self.manifest(answer).await?;
        if manifest.layers.len() > LAYERS_MAX {
            let count = manifest.layers.len();
            return Err(wrong(format!("a manifest of {count} layers (at most {LAYERS_MAX})")));
        }
        let mut items = Vec::new();
        let config = manifest.config;
        for (layer, kind) in manifest
            .layers
            .iter()
            .map(|layer| (layer, kind_of(&layer.media_type)))
            .chain([(&config, Kind::Other)])
        {
            items.push(self.item(layer, kind).map_err(&wrong)?);
        }
        if !items.iter().any(|item| item.kind == Kind::Model) {
            return Err(wrong("the manifest names no GGUF model".to_owned()));
        }
        let source = Source {
            host: self.base.host_str().map(|host| match self.base.port() {
                Some(port) => format!("{host}:{port}"),
                None => host.to_owned(),
            }),
            digest: Some(digest),
            ..Source::new(Origin::Registry, format!("{}:{tag}", self.repository))
        };
        Ok(Plan { name, source, items, notes: Vec::new(), is_checkpoint: false })
    }

    fn item(&self, layer: &Descriptor, kind: Kind) -> Result<Item, String> {
        let digest: Digest = layer.digest.parse().map_err(|error| format!("{error}"))?;
        if !(0..=BLOB_BYTES_MAX).contains(&layer.size) {
            return Err(format!("a layer of {} bytes", layer.size));
        }
        let name = |key: &str| layer.annotations.get(key).and_then(|value| value.as_str());
        let name = name("org.opencontainers.image.title").or(name("org.cncf.model.filepath"));
        Ok(Item {
            kind,
            bytes: Some(layer.size as u64),
            digest: Some(digest),
            media_type: Some(layer.media_type.clone()),
            file_name: name.map(str::to_owned),
            route: self.route(&format!("blobs/{digest}")),
            access: Some(self.access.clone()),
        })
    }
}
