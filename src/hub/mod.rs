//! Models from other machines, and to them: Hugging Face's hub, OCI registries, plain addresses.
//!
//! A name becomes a [`Plan`] (what is where, how long, and what it must be), and a plan is carried out by [`Hub::pull`].
//! The functions here wait until they are done; inside, one thread carries all connections of a [`Hub`].

mod address;
mod ask;
mod download;
mod error;
mod network;
mod plan;
mod probe;
mod pull;
mod registry;
mod repository;
mod retry;
mod secret;
mod upload;

use std::path::Path;
use std::sync::Arc;

use nfl_models::Level;
use reqwest::Url;

use crate::store::{self, Catalogue, Digest, Kind, Manifest, Origin, Reference, Source, Store};
use download::{Claim, Wanted};
pub use download::{DownloadError, Limits, Meter};
pub use error::HubError;
use network::{Network, Route};
pub use plan::{Item, Plan};
use probe::State;
pub use pull::PullError;
use registry::Registry;
pub use repository::{ChoiceError, Found, RemoteFile, Variant, fits};
use repository::{Repositories, Selection};

/// The way to other machines.
#[derive(Debug)]
pub struct Hub {
    network: Network,
    runtime: tokio::runtime::Runtime,
    limits: Limits,
}

/// A file to download from a plain address.
#[derive(Debug, Clone)]
pub struct Order {
    /// Where it is.
    pub url: String,
    /// Its size, when known beforehand.
    pub bytes: Option<u64>,
    /// Its SHA-256, when known beforehand.
    pub digest: Option<Digest>,
}

/// How a name is understood.
#[derive(Debug, Clone, Default)]
pub struct Choice {
    /// A branch, tag or commit of a hub's repository.
    pub revision: Option<String>,
    /// Plain http to a registry on this machine.
    pub insecure: bool,
    /// The checkpoint of a hub's repository instead of a GGUF file.
    pub checkpoint: bool,
    /// The name it gets, other than its own.
    pub name: Option<Reference>,
}

impl Hub {
    /// Ways to other machines; none when `offline`.
    ///
    /// # Errors
    /// When the system's means of waiting for connections cannot be had.
    pub fn new(offline: bool) -> Result<Self, HubError> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| HubError::Setup(error.to_string()))?;
        Ok(Self { network: Network::new(offline), runtime, limits: Limits::default() })
    }

    /// The same with other limits.
    #[must_use]
    pub fn with_limits(self, limits: Limits) -> Self {
        Self { limits, ..self }
    }

    /// Whether connections are cut.
    pub fn is_offline(&self) -> bool {
        self.network.is_offline()
    }

    /// What pulling the model `name` will do.
    ///
    /// # Errors
    /// When its place cannot be reached, has no such model, or none that would do.
    pub fn plan(&self, name: &Reference, choice: &Choice) -> Result<Plan, HubError> {
        let plan = self.plan_name(name, choice)?;
        let source = Source { asked: Some(name.to_string()), ..plan.source };
        Ok(Plan { source, ..plan })
    }

    /// What pulling something that was named will do: a short name of the catalogue, a full one, or an address.
    ///
    /// # Errors
    /// When it names nothing elsewhere, or its place cannot be reached or has no such model.
    pub fn plan_wanted(
        &self,
        wanted: &store::Wanted,
        catalogue: Option<&Catalogue>,
        choice: &Choice,
    ) -> Result<Plan, HubError> {
        let no_name = |text: String| HubError::Name {
            name: text,
            place: "another machine".to_owned(),
            reason: "it is a file",
        };
        let name = match wanted {
            store::Wanted::Path(path) => return Err(no_name(path.display().to_string())),
            store::Wanted::Url(url) => return self.plan_url(url, choice),
            store::Wanted::Name(name) => name,
        };
        let Some(entry) = catalogue.and_then(|catalogue| catalogue.find(name)) else {
            return self.plan(name, choice);
        };
        // The short name is what the person will go on using.
        let named = choice.name.clone().or_else(|| Some(name.clone()));
        let choice = Choice { name: named, ..choice.clone() };
        match store::Wanted::of(&entry.source) {
            Ok(store::Wanted::Url(url)) => self.plan_url(&url, &choice),
            Ok(store::Wanted::Name(full)) => self.plan(&full, &choice),
            _ => Err(no_name(entry.source.clone())),
        }
    }

    fn plan_name(&self, name: &Reference, choice: &Choice) -> Result<Plan, HubError> {
        let stored = choice.name.clone().unwrap_or_else(|| name.clone());
        if is_on_hub(name) {
            let repository = repository_of(name)?;
            let wanted = (!name.has_default_tag()).then_some(name.tag());
            let selection = Selection {
                wanted: wanted.filter(|_| !choice.checkpoint),
                revision: choice.revision.as_deref(),
                checkpoint: choice.checkpoint,
            };
            let hub = Repositories::new(&self.network)?;
            return self.runtime.block_on(hub.plan(&repository, selection, |_| Ok(stored)));
        }
        if choice.checkpoint || choice.revision.is_some() {
            let (name, place) = (name.to_string(), "a registry".to_owned());
            let reason = "--convert and --revision are for repositories of a hub";
            return Err(HubError::Name { name, place, reason });
        }
        let registry = Registry::new(&self.network, &with_library(name), choice.insecure)?;
        self.runtime.block_on(registry.plan(name.tag(), stored))
    }

    /// What pulling the file at `url` will do. Addresses of files on a hub are taken as its repositories.
    ///
    /// # Errors
    /// When the address is none, or its place cannot be reached.
    pub fn plan_url(&self, url: &str, choice: &Choice) -> Result<Plan, HubError> {
        let plan = self.plan_address(&parse_url(url)?, choice)?;
        let source = Source { asked: Some(url.to_owned()), ..plan.source };
        Ok(Plan { source, ..plan })
    }

    fn plan_address(&self, url: &Url, choice: &Choice) -> Result<Plan, HubError> {
        let hub = Repositories::new(&self.network)?;
        let segments: Vec<String> =
            url.path_segments().map_or(Vec::new(), |parts| parts.map(str::to_owned).collect());
        let named = |label: &str| match &choice.name {
            Some(name) => Ok(name.clone()),
            None => name_of_file(label).ok_or_else(|| HubError::Name {
                name: label.to_owned(),
                place: network::place(url),
                reason: "no name can be made of it; give one with --name",
            }),
        };
        if let [owner, repository, "resolve" | "blob", revision, path @ ..] =
            &segments.iter().map(String::as_str).collect::<Vec<_>>()[..]
            && hub.has(url)
        {
            let file = path.join("/");
            let selection =
                Selection { wanted: Some(&file), revision: Some(revision), checkpoint: false };
            let name = |_: &str| named(path.last().unwrap_or(&""));
            return self.runtime.block_on(hub.plan(
                &format!("{owner}/{repository}"),
                selection,
                name,
            ));
        }
        let file_name = segments.last().cloned().unwrap_or_default();
        let name = named(&file_name)?;
        let State { bytes, etag, modified, route } =
            self.runtime.block_on(self.network.probe(&Route::new(url.clone(), None)))?;
        let (kind, file_name) = (Kind::Model, Some(file_name));
        let item =
            Item { kind, bytes, digest: None, media_type: None, file_name, route, access: None };
        let source = Source { etag, modified, ..Source::new(Origin::Url, url.as_str()) };
        Ok(Plan { name, source, items: vec![item], notes: Vec::new(), is_checkpoint: false })
    }

    /// Sends a stored model to where its name says; `meters` are for its layers. Returns what the place calls it.
    ///
    /// # Errors
    /// When the name has no place, or whatever the network, the server or the store did.
    pub fn push(
        &self,
        model: &Manifest,
        store: &Store,
        insecure: bool,
        meters: &[Arc<Meter>],
    ) -> Result<String, DownloadError> {
        let name = &model.name;
        if name.host().is_none() {
            let (name, place) = (name.to_string(), "any host".to_owned());
            let reason = "only names with a host can be pushed";
            return Err(HubError::Name { name, place, reason }.into());
        }
        if is_on_hub(name) {
            let hub = Repositories::new(&self.network)?;
            let repository = repository_of(name)?;
            return self.runtime.block_on(hub.push(model, &repository, store, meters));
        }
        let registry = Registry::new(&self.network, name, insecure)?;
        self.runtime.block_on(registry.push(model, name.tag(), store, meters))
    }

    /// Up to `count` repositories of the hub with GGUF files that match all words.
    ///
    /// # Errors
    /// When the hub cannot be reached.
    pub fn search(&self, words: &str, count: u32) -> Result<Vec<Found>, HubError> {
        let hub = Repositories::new(&self.network)?;
        self.runtime.block_on(hub.search(words, count))
    }

    /// Downloads one file to `target`, by way of `folder` where its unfinished state is kept; returns its digest.
    ///
    /// # Errors
    /// Whatever the network, the server or the disk did, or that the content is wrong.
    pub fn download(
        &self,
        order: &Order,
        folder: &Path,
        target: &Path,
        meter: &Arc<Meter>,
    ) -> Result<Digest, DownloadError> {
        let url = parse_url(&order.url)?;
        let route = Route::new(url, None);
        let wanted = Wanted { route, access: None, bytes: order.bytes, digest: order.digest };
        self.fetch_to(&wanted, folder, target, meter)
    }

    fn fetch_to(
        &self,
        wanted: &Wanted,
        folder: &Path,
        target: &Path,
        meter: &Arc<Meter>,
    ) -> Result<Digest, DownloadError> {
        let key = key_of(wanted.digest, &wanted.route.url);
        self.runtime.block_on(async {
            let claim = Claim::take(folder, &key, meter).await.map_err(DownloadError::Write)?;
            let claim = claim.ok_or(DownloadError::Stopped)?;
            let fetched =
                download::fetch(&self.network, wanted, &claim, &self.limits, meter).await?;
            std::fs::rename(&fetched.path, target).map_err(DownloadError::Write)?;
            claim.finish().map_err(DownloadError::Write)?;
            Ok(fetched.digest)
        })
    }
}

/// Whether a name is one of the hub: by its host, or because it has an owner and no host.
pub fn is_on_hub(name: &Reference) -> bool {
    match name.host() {
        Some(host) => host.as_str() == repository::HOST,
        None => !name.owners().is_empty(),
    }
}

/// OWNER/NAME of a name of the hub.
fn repository_of(name: &Reference) -> Result<String, HubError> {
    if name.owners().len() == 1 {
        return Ok(name.repository());
    }
    let (name, place) = (name.to_string(), crate::settings::hub_endpoint());
    Err(HubError::Name { name, place, reason: "a repository there is OWNER/NAME" })
}

/// Names without an owner are in Ollama's library.
fn with_library(name: &Reference) -> Reference {
    let is_ollama = name.host().is_none_or(|host| host.as_str() == registry::OLLAMA);
    let library = || format!("{}/library/{}:{}", registry::OLLAMA, name.name(), name.tag()).parse();
    if !is_ollama || !name.owners().is_empty() {
        return name.clone();
    }
    library().unwrap_or_else(|_| name.clone())
}

/// A model's name made of a file's: `tiny-Q4_K_M.gguf` becomes `tiny:Q4_K_M`.
pub fn name_of_file(file_name: &str) -> Option<Reference> {
    let stem = file_name.strip_suffix(".gguf").unwrap_or(file_name);
    let safe: String = stem
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() || "._-".contains(c) { c } else { '-' })
        .collect();
    let split = safe.rsplit_once(['-', '.']).filter(|(_, level)| level.parse::<Level>().is_ok());
    let text = split.map_or(safe.clone(), |(name, level)| format!("{name}:{level}"));
    text.trim_matches(['.', '-']).parse().ok()
}

/// The name of a download among the unfinished ones: its digest, else the hash of where it comes from.
fn key_of(digest: Option<Digest>, url: &Url) -> String {
    match digest {
        Some(digest) => digest.file_name(),
        None => format!("url-{}", Digest::of(url.as_str().as_bytes()).hex()),
    }
}

fn parse_url(text: &str) -> Result<Url, HubError> {
    let shown = || text.split('?').next().unwrap_or_default().to_owned();
    let wrong = |what: &str| HubError::Protocol { place: shown(), what: what.to_owned() };
    let url = Url::parse(text).map_err(|error| wrong(&error.to_string()))?;
    match url.scheme() {
        "http" | "https" if url.host_str().is_some() => Ok(url),
        _ => Err(wrong("only http and https addresses can be fetched")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Host;

    #[test]
    fn names_are_made_of_file_names() {
        for (file, name) in [
            ("tiny-Q4_K_M.gguf", "tiny:Q4_K_M"),
            ("tiny.f16.gguf", "tiny:f16"),
            ("tiny.gguf", "tiny"),
            ("a b%20c.gguf", "a-b-20c"),
        ] {
            assert_eq!(name_of_file(file).unwrap().to_string(), name);
        }
        assert_eq!(name_of_file("").map(|name| name.to_string()), None);
    }

    #[test]
    fn names_without_a_host_have_a_home() {
        let name = |text: &str| text.parse::<Reference>().unwrap();
        assert!(is_on_hub(&name("someone/model")) && is_on_hub(&name("hf.co/someone/model:q8_0")));
        assert!(!is_on_hub(&name("qwen3:8b")) && !is_on_hub(&name("localhost:5000/a/b")));
        assert_eq!(
            with_library(&name("qwen3:8b")).to_string(),
            "registry.ollama.ai/library/qwen3:8b"
        );
        let other = name("localhost:5000/x");
        assert_eq!(with_library(&other), other);
        assert_eq!(other.host().map(Host::as_str), Some("localhost:5000"));
    }
}
