//! Which manifest of an index is meant (OCI image specification 1.1, "image index"; Docker's "manifest list").
//!
//! Builders of images write an index even for one model, often with attestations beside it. What counts is what an entry
//! names: the one whose manifest names a GGUF model is meant; of several, the one for this machine.

use reqwest::header::CONTENT_TYPE;

use super::super::ask::Answer;
use super::super::error::HubError;
use super::super::network::place;
use super::wire::{INDEX_TYPES, Index, IndexEntry, Manifest, kind_of};
use super::{PULL, Registry};
use crate::store::{Digest, Kind};

/// Manifests of an index that are looked at.
const ENTRIES_MAX: usize = 32;

/// The annotation by which builders say that an entry is a statement about another one.
const REFERENCE: &str = "vnd.docker.reference.type";

impl Registry<'_> {
    /// The manifest that an answer is, or that the index which it is leads to.
    pub(super) async fn manifest(&self, answer: Answer) -> Result<Manifest, HubError> {
        let at = place(&answer.route.url);
        let wrong = |what: String| HubError::Protocol { place: at.clone(), what };
        let Some(index) = index_of(&answer)? else { return answer.json() };
        let entries: Vec<&IndexEntry> =
            index.manifests.iter().filter(|entry| entry.may_be_model()).collect();
        if entries.len() > ENTRIES_MAX {
            let count = entries.len();
            return Err(wrong(format!("an index of {count} manifests (at most {ENTRIES_MAX})")));
        }
        let mut models = Vec::new();
        for entry in entries {
            let digest: Digest = entry.digest.parse().map_err(|error| wrong(format!("{error}")))?;
            let question = super::pull::manifest_question();
            let answer =
                self.ask(&format!("manifests/{digest}"), PULL, &question).await?.success()?;
            if Digest::of(&answer.body) != digest {
                return Err(wrong(format!("it sends another manifest than {digest}")));
            }
            if index_of(&answer)?.is_some() {
                return Err(wrong("an index inside an index".to_owned()));
            }
            let manifest: Manifest = answer.json()?;
            if manifest.layers.iter().any(|layer| kind_of(&layer.media_type) == Kind::Model) {
                models.push((entry, manifest));
            }
        }
        let is_ours = |(entry, _): &&(&IndexEntry, Manifest)| entry.is_for(go_os(), go_processor());
        let ours = models.iter().filter(is_ours).count();
        let chosen = match (models.len(), ours) {
            (1, _) => 0,
            (_, 1) => models.iter().position(|model| is_ours(&model)).expect("one was counted"),
            (0, _) => return Err(wrong("no manifest of the index names a GGUF model".to_owned())),
            _ => {
                let names: Vec<String> = models.iter().map(|(entry, _)| entry.label()).collect();
                let names = crate::term::neutral(&names.join(", "));
                return Err(HubError::Ambiguous { place: at, models: names });
            }
        };
        Ok(models.swap_remove(chosen).1)
    }
}

/// The index that an answer is; None for anything else. Some registries say it only in the header.
fn index_of(answer: &Answer) -> Result<Option<Index>, HubError> {
    let is_index =
        |text: &str| INDEX_TYPES.contains(&text.split(';').next().unwrap_or(text).trim());
    let by_header = answer.header(CONTENT_TYPE.as_str()).is_some_and(is_index);
    let by_body = serde_json::from_slice(&answer.body).is_ok_and(|body: serde_json::Value| {
        body["mediaType"].as_str().map_or_else(|| body["manifests"].is_array(), is_index)
    });
    if by_header || by_body { answer.json().map(Some) } else { Ok(None) }
}

impl IndexEntry {
    /// Whether it is neither a statement about another entry nor for no system at all, as such statements are.
    fn may_be_model(&self) -> bool {
        let is_nowhere = self.platform.as_ref().is_some_and(|platform| platform.os == "unknown");
        !self.annotations.contains_key(REFERENCE) && !is_nowhere
    }

    fn is_for(&self, os: &str, processor: &str) -> bool {
        let platform = self.platform.as_ref();
        platform.is_some_and(|each| each.os == os && each.architecture == processor)
    }

    /// How a message names it.
    fn label(&self) -> String {
        match &self.platform {
            Some(platform) => {
                format!("{} ({}/{})", self.digest, platform.os, platform.architecture)
            }
            None => self.digest.clone(),
        }
    }
}

/// This system as manifests call it: by Go's names.
fn go_os() -> &'static str {
    match std::env::consts::OS {
        "macos" => "darwin",
        other => other,
    }
}

/// This processor by Go's name.
fn go_processor() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}
