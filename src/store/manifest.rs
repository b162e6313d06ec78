//! What the store knows of one model: a readable JSON file that names its layers.

use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use nfl_models::gguf::limits;
use nfl_models::template::Clock;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::digest::Digest;
use super::facts::Facts;
use super::reference::Reference;

/// The version of the format; a manifest of a later one is refused, not guessed at.
pub const VERSION: u32 = 1;

/// Bytes of a manifest, ours or another's. Ollama's have a few KiB, ours for a model in 500 shards 200 KiB.
pub const MANIFEST_BYTES_MAX: u64 = 4 << 20;

/// Layers of one model: the shards of the largest split that is read, and what belongs to them.
pub const LAYERS_MAX: usize = limits::SHARDS_MAX as usize + 64;

/// One model in the store.
///
/// Entries that this version does not know are kept, here and below, so that an older program does not lose what a newer
/// one has written.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// [`VERSION`].
    pub version: u32,
    /// The model's name; the manifest's file is called after it.
    pub name: Reference,
    /// Where it came from.
    pub source: Source,
    /// What it is made of. The files of a split model in their order.
    pub layers: Vec<Layer>,
    /// What its file says about it.
    #[serde(default)]
    pub facts: Facts,
    /// When it got into the store, in UTC (RFC 3339).
    pub created: String,
    /// The least version of the program that runs it, as its maker says (`REQUIRES`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requires: Option<String>,
    /// How Ollama is to write its prompts (`RENDERER`); kept for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub renderer: Option<String>,
    /// How Ollama is to read its replies (`PARSER`); kept for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parser: Option<String>,
    /// What a newer version wrote.
    #[serde(flatten)]
    pub rest: Map<String, Value>,
}

/// Where a model came from.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Source {
    /// What kind of place that is.
    pub origin: Origin,
    /// The host, for what came over a network.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// The repository, the URL, the file or the name there.
    pub path: String,
    /// What was asked for there, so that it can be asked for again: a name or an address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub asked: Option<String>,
    /// The commit of a hub's repository.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<String>,
    /// What the server calls this state of the file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub etag: Option<String>,
    /// When the server says that the file was last changed, in its own words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub modified: Option<String>,
    /// The digest of the manifest there, as that place writes it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    /// What a newer version wrote.
    #[serde(flatten)]
    pub rest: Map<String, Value>,
}

/// The kinds of places that models come from.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Origin {
    /// A hub that speaks Hugging Face's API.
    Hub,
    /// A registry that speaks OCI's or Ollama's protocol.
    Registry,
    /// A single URL.
    Url,
    /// A file of this machine.
    File,
    /// Made here from another model.
    Created,
    /// Ollama's store on this machine.
    Ollama,
    /// Hugging Face's cache on this machine.
    HubCache,
    /// LM Studio's folder on this machine.
    LmStudio,
    /// One that a newer version knows.
    #[default]
    #[serde(other)]
    Unknown,
}

/// What a layer is to the model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// A GGUF file of weights; several are a split model.
    Model,
    /// A GGUF file that turns images or sounds into embeddings (mmproj).
    Projector,
    /// A GGUF file of a LoRA adapter.
    Adapter,
    /// A chat template, as text.
    Template,
    /// Instructions that stand above a conversation, as text.
    System,
    /// Sampling and loading parameters, as a JSON object.
    Parameters,
    /// Turns of a conversation to begin with, as a JSON array of `role` and `content`.
    Messages,
    /// A licence, as text.
    Licence,
    /// Anything else that came with it; its media type says what it is.
    #[serde(other)]
    Other,
}

/// How Ollama's registry calls the kinds.
const MEDIA_TYPES: &[(Kind, &str)] = &[
    (Kind::Model, "application/vnd.ollama.image.model"),
    (Kind::Projector, "application/vnd.ollama.image.projector"),
    (Kind::Adapter, "application/vnd.ollama.image.adapter"),
    (Kind::Template, "application/vnd.ollama.image.template"),
    (Kind::System, "application/vnd.ollama.image.system"),
    (Kind::Parameters, "application/vnd.ollama.image.params"),
    (Kind::Messages, "application/vnd.ollama.image.messages"),
    (Kind::Licence, "application/vnd.ollama.image.license"),
];

impl Kind {
    /// The kind that a registry's media type means; [`Kind::Other`] for those that are not known.
    pub fn of_media_type(media_type: &str) -> Self {
        let known = MEDIA_TYPES.iter().find(|(_, name)| *name == media_type);
        known.map_or(Self::Other, |(kind, _)| *kind)
    }

    /// How Ollama's registry calls the kind.
    pub fn media_type(self) -> &'static str {
        let known = MEDIA_TYPES.iter().find(|(kind, _)| *kind == self);
        known.map_or("application/octet-stream", |(_, name)| name)
    }
}

/// A piece of content of a model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Layer {
    /// What it is to the model.
    pub kind: Kind,
    /// Its content.
    pub digest: Digest,
    /// Its length.
    pub bytes: u64,
    /// How a registry calls its kind.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media_type: Option<String>,
    /// The name of the file that it was; the files of a split model keep their numbers by it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file_name: Option<String>,
    /// Where it is when it is no blob of the store's own, but a file that others may change.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub place: Option<Place>,
    /// What a newer version wrote.
    #[serde(flatten)]
    pub rest: Map<String, Value>,
}

/// A file that is used where it lies, and how it was when its digest was taken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// The file, absolute.
    pub path: PathBuf,
    /// When it was last changed, in nanoseconds since 1970.
    pub modified_ns: u64,
}

impl Manifest {
    /// A model of these layers that is made now.
    pub fn new(name: Reference, source: Source, layers: Vec<Layer>) -> Self {
        Self {
            version: VERSION,
            name,
            source,
            layers,
            facts: Facts::default(),
            created: Clock::now_utc().rfc3339(),
            requires: None,
            renderer: None,
            parser: None,
            rest: Map::new(),
        }
    }

    /// The layers of one kind, in their order.
    pub fn layers_of(&self, kind: Kind) -> impl Iterator<Item = &Layer> {
        self.layers.iter().filter(move |layer| layer.kind == kind)
    }

    /// Bytes of all layers; content that two of them share counts once.
    pub fn bytes(&self) -> u64 {
        let mut layers: Vec<&Layer> = self.layers.iter().collect();
        layers.sort_by_key(|layer| layer.digest);
        layers.dedup_by_key(|layer| layer.digest);
        layers.iter().map(|layer| layer.bytes).fold(0, u64::saturating_add)
    }

    /// What tells models apart that have other names or ages: the digest of the kinds and contents of their layers.
    pub fn digest(&self) -> Digest {
        let mut layers: Vec<_> = self.layers.iter().map(|each| (each.kind, each.digest)).collect();
        // The files of a split model keep their order.
        layers.sort_by_key(|(kind, _)| *kind);
        let lines: Vec<String> =
            layers.iter().map(|(kind, digest)| format!("{kind:?} {digest}\n")).collect();
        Digest::of(lines.concat().as_bytes())
    }
}

impl Source {
    /// A source of which no more than its path is known.
    pub fn new(origin: Origin, path: impl Into<String>) -> Self {
        Self { origin, path: path.into(), ..Self::default() }
    }
}

impl Layer {
    /// A layer that is a blob.
    pub fn new(kind: Kind, digest: Digest, bytes: u64) -> Self {
        Self {
            kind,
            digest,
            bytes,
            media_type: None,
            file_name: None,
            place: None,
            rest: Map::new(),
        }
    }
}

impl Place {
    /// A moment as it is kept here.
    pub fn nanoseconds(moment: SystemTime) -> u64 {
        moment
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| u64::try_from(since.as_nanos()).unwrap_or(u64::MAX))
    }
}
