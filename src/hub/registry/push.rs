//! A model of the store to a registry: blobs that it does not have, then the manifest.

use std::sync::Arc;

use reqwest::header::LOCATION;
use reqwest::{Method, StatusCode};
use serde_json::json;

use super::super::ask::Question;
use super::super::download::{DownloadError, Meter};
use super::super::error::HubError;
use super::super::network::place;
use super::super::upload::Section;
use super::Registry;
use super::wire::{CONFIG_TYPE, Descriptor, MANIFEST_TYPE, Manifest, media_type_of};
use crate::store::{self, Digest, Kind, Layer, Store};

/// How often one blob is tried.
const ATTEMPTS: u32 = 3;

impl Registry<'_> {
    /// Sends a model under `tag`; `meters` are for its layers, in their order. Returns the manifest's digest there.
    pub(crate) async fn push(
        &self,
        model: &store::Manifest,
        tag: &str,
        store: &Store,
        meters: &[Arc<Meter>],
    ) -> Result<String, DownloadError> {
        let (mut layers, mut config) = (Vec::new(), None);
        for (layer, meter) in model.layers.iter().zip(meters) {
            self.send_layer(layer, store, meter).await?;
            let is_config = layer.kind == Kind::Other
                && layer
                    .media_type
                    .as_deref()
                    .is_some_and(|media_type| media_type.contains("config"))
                || layer.media_type.as_deref() == Some(CONFIG_TYPE);
            if is_config && config.is_none() {
                config = Some(descriptor(layer));
            } else {
                layers.push(descriptor(layer));
            }
        }
        let config = match config {
            Some(config) => config,
            None => self.send_config(model).await?,
        };
        let manifest =
            Manifest { schema_version: 2, media_type: MANIFEST_TYPE.to_owned(), config, layers };
        let body = serde_json::to_vec(&manifest).expect("a manifest has only plain fields");
        let digest = Digest::of(&body).to_string();
        let question = Question::send(Method::PUT, MANIFEST_TYPE, body);
        self.ask(&format!("manifests/{tag}"), "pull,push", &question).await?.success()?;
        Ok(digest)
    }

    /// Sends a layer's content unless the registry has it.
    async fn send_layer(
        &self,
        layer: &Layer,
        store: &Store,
        meter: &Arc<Meter>,
    ) -> Result<(), DownloadError> {
        meter.set_total(layer.bytes);
        if self.has(&layer.digest).await? {
            meter.set_kept(layer.bytes);
            return Ok(());
        }
        let path = store.layer_path(layer);
        let mut attempt = 1;
        loop {
            meter.set_done(0);
            let section = Section { path: &path, start: 0, bytes: layer.bytes };
            let route = self.begin_upload(&layer.digest).await?;
            let sent = self.network.put(&route, section, meter).await;
            let again = match &sent {
                Ok(response) if response.status().is_success() => return Ok(()),
                Ok(response) => response.status().is_server_error(),
                Err(DownloadError::Hub(HubError::Unreachable { .. })) => true,
                Err(_) => false,
            };
            if !again || attempt == ATTEMPTS {
                let status = sent?.status().as_u16();
                return Err(
                    HubError::Status { place: place(&route.url), status, words: None }.into()
                );
            }
            attempt += 1;
        }
    }

    async fn has(&self, digest: &Digest) -> Result<bool, HubError> {
        let question = Question::plain(Method::HEAD);
        let answer = self.ask(&format!("blobs/{digest}"), "pull,push", &question).await?;
        match answer.status {
            StatusCode::OK => Ok(true),
            StatusCode::NOT_FOUND => Ok(false),
            // Blobs may lie elsewhere; the registry knows them all the same.
            status if status.is_redirection() => Ok(true),
            _ => Err(answer.error()),
        }
    }

    /// Where the content of `digest` is to be put.
    async fn begin_upload(
        &self,
        digest: &Digest,
    ) -> Result<super::super::network::Route, HubError> {
        let question = Question::plain(Method::POST);
        let answer = self.ask("blobs/uploads/", "pull,push", &question).await?.success()?;
        let location = answer.headers.get(LOCATION).and_then(|value| value.to_str().ok());
        let url = location.and_then(|location| answer.route.url.join(location).ok());
        let mut url = url.ok_or_else(|| HubError::Protocol {
            place: place(&answer.route.url),
            what: "it does not say where to upload".to_owned(),
        })?;
        url.query_pairs_mut().append_pair("digest", &digest.to_string());
        answer.route.sent_to(url)
    }

    /// A configuration as Ollama writes it.
    async fn send_config(&self, model: &store::Manifest) -> Result<Descriptor, HubError> {
        let facts = &model.facts;
        let digests: Vec<String> =
            model.layers.iter().map(|layer| layer.digest.to_string()).collect();
        let config = json!({
            "model_format": "gguf",
            "model_family": facts.architecture,
            "model_families": [facts.architecture],
            "model_type": facts.parameters.map(crate::term::units::count),
            "file_type": facts.level,
            "architecture": "amd64",
            "os": "linux",
            "rootfs": {"type": "layers", "diff_ids": digests},
        });
        let body = config.to_string().into_bytes();
        let (digest, size) = (Digest::of(&body), body.len() as i64);
        if !self.has(&digest).await? {
            let route = self.begin_upload(&digest).await?;
            let question = Question::send(Method::PUT, "application/octet-stream", body);
            self.network.ask(&route, &question).await?.success()?;
        }
        let (media_type, digest) = (CONFIG_TYPE.to_owned(), digest.to_string());
        Ok(Descriptor { media_type, digest, size, annotations: serde_json::Map::new() })
    }
}

fn descriptor(layer: &Layer) -> Descriptor {
    let own = layer.media_type.clone().filter(|media_type| media_type.contains("/vnd."));
    let mut annotations = serde_json::Map::new();
    if let Some(name) = &layer.file_name {
        annotations.insert("org.opencontainers.image.title".to_owned(), name.clone().into());
    }
    Descriptor {
        media_type: own.unwrap_or_else(|| media_type_of(layer.kind).to_owned()),
        digest: layer.digest.to_string(),
        size: layer.bytes as i64,
        annotations,
    }
}
