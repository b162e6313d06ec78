//! What registries say: manifests of OCI's and of Ollama's kind (OCI image specification 1.1; media types of Ollama,
//! Docker Model Runner and the CNCF's ModelPack).

use serde::{Deserialize, Serialize};

use crate::store::Kind;

/// Manifests that are read, in the order in which they are liked.
pub(super) const MANIFEST_TYPES: [&str; 2] = [
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
];

/// Lists of manifests, each for another machine.
pub(super) const INDEX_TYPES: [&str; 2] = [
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
];

/// The type of the manifests that are written, which Ollama's own are too.
pub(super) const MANIFEST_TYPE: &str = "application/vnd.docker.distribution.manifest.v2+json";

/// The type of the configuration, which Ollama's own manifests give theirs.
pub(super) const CONFIG_TYPE: &str = "application/vnd.docker.container.image.v1+json";

/// Media types and what they are to a model. The first of a kind is the one that is written.
const KINDS: [(&str, Kind); 18] = [
    ("application/vnd.ollama.image.model", Kind::Model),
    ("application/vnd.docker.ai.gguf.v3", Kind::Model),
    ("application/vnd.cncf.model.weight.v1.raw", Kind::Model),
    ("application/vnd.ollama.image.projector", Kind::Projector),
    ("application/vnd.docker.ai.mmproj", Kind::Projector),
    ("application/vnd.ollama.image.adapter", Kind::Adapter),
    ("application/vnd.docker.ai.gguf.v3.lora", Kind::Adapter),
    ("application/vnd.ollama.image.template", Kind::Template),
    ("application/vnd.docker.ai.chat.template.jinja", Kind::Template),
    ("application/vnd.ollama.image.prompt", Kind::Template),
    ("application/vnd.ollama.image.system", Kind::System),
    ("application/vnd.ollama.image.params", Kind::Parameters),
    ("application/vnd.ollama.image.messages", Kind::Messages),
    ("application/vnd.ollama.image.license", Kind::Licence),
    ("application/vnd.docker.ai.license", Kind::Licence),
    ("application/vnd.cncf.model.doc.v1.raw", Kind::Licence),
    (CONFIG_TYPE, Kind::Other),
    ("application/vnd.docker.ai.model.config.v0.1+json", Kind::Other),
];

/// What a media type is to a model.
pub(super) fn kind_of(media_type: &str) -> Kind {
    let found = KINDS.iter().find(|(known, _)| *known == media_type);
    found.map_or(Kind::Other, |(_, kind)| *kind)
}

/// The media type that a layer of this kind is given.
pub(super) fn media_type_of(kind: Kind) -> &'static str {
    let found = KINDS.iter().find(|(_, known)| *known == kind);
    found.map_or("application/octet-stream", |(media_type, _)| media_type)
}

/// A manifest.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Manifest {
    pub(super) schema_version: u32,
    #[serde(default)]
    pub(super) media_type: String,
    pub(super) config: Descriptor,
    pub(super) layers: Vec<Descriptor>,
}

/// A blob as a manifest names it.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Descriptor {
    pub(super) media_type: String,
    /// Read as text: what is no digest is refused with the name of the registry.
    pub(super) digest: String,
    /// May be negative in a hostile manifest.
    pub(super) size: i64,
    #[serde(default, skip_serializing_if = "serde_json::Map::is_empty")]
    pub(super) annotations: serde_json::Map<String, serde_json::Value>,
}

/// A list of manifests.
#[derive(Debug, Deserialize)]
pub(super) struct Index {
    pub(super) manifests: Vec<IndexEntry>,
}

/// A manifest as an index names it.
#[derive(Debug, Deserialize)]
pub(super) struct IndexEntry {
    /// Read as text, as that of a [`Descriptor`].
    pub(super) digest: String,
    pub(super) platform: Option<Platform>,
    #[serde(default)]
    pub(super) annotations: serde_json::Map<String, serde_json::Value>,
}

/// The machine that a manifest is for.
#[derive(Debug, Deserialize)]
pub(super) struct Platform {
    pub(super) os: String,
    pub(super) architecture: String,
}
