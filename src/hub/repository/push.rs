//! A model of the store to a hub: the repository, the large files by git-LFS's protocol, then one commit.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use reqwest::Method;
use reqwest::header::{ACCEPT, ETAG, HeaderName, HeaderValue};
use serde::Deserialize;
use serde_json::{Value, json};

use super::super::ask::{Answer, Question};
use super::super::download::{DownloadError, Meter};
use super::super::error::HubError;
use super::super::network::{Route, place};
use super::super::upload::Section;
use super::{REVISION, Repositories, encode};
use crate::store::{Kind, Layer, Manifest, Store};

/// The media type of git-LFS.
const LFS_TYPE: &str = "application/vnd.git-lfs+json";

#[derive(Debug, Deserialize)]
struct Batch {
    objects: Vec<Object>,
}

#[derive(Debug, Deserialize)]
struct Object {
    oid: String,
    #[serde(default)]
    actions: BTreeMap<String, Action>,
    error: Option<Value>,
}

/// What the hub asks to do with an object.
#[derive(Debug, Deserialize)]
struct Action {
    href: String,
    #[serde(default)]
    header: BTreeMap<String, Value>,
}

impl Repositories<'_> {
    /// Sends the GGUF files of a model; `meters` are for its layers, in their order. Returns the address of the commit.
    pub(crate) async fn push(
        &self,
        model: &Manifest,
        repository: &str,
        store: &Store,
        meters: &[Arc<Meter>],
    ) -> Result<String, DownloadError> {
        self.create(repository).await?;
        let files: Vec<(&Layer, &Arc<Meter>, String)> = model
            .layers
            .iter()
            .zip(meters)
            .filter(|(layer, _)| is_sent(layer.kind))
            .map(|(layer, meter)| (layer, meter, file_name(model, layer)))
            .collect();
        let objects = self.batch(repository, files.iter().map(|(layer, ..)| *layer)).await?;
        for (layer, meter, name) in &files {
            meter.set_total(layer.bytes);
            let oid = layer.digest.hex();
            let object = objects.iter().find(|object| object.oid == oid);
            let object = object.ok_or_else(|| self.wrong(&format!("it forgot {name}")))?;
            if let Some(error) = &object.error {
                return Err(self.wrong(&format!("{name}: {}", error["message"])).into());
            }
            match object.actions.get("upload") {
                Some(upload) => self.upload(layer, upload, store, meter).await?,
                // It has the content already.
                None => meter.set_kept(layer.bytes),
            }
            if let Some(verify) = object.actions.get("verify") {
                let body = json!({"oid": oid, "size": layer.bytes});
                let question = lfs(&body, &verify.header);
                self.network.ask(&self.action_route(&verify.href)?, &question).await?.success()?;
            }
        }
        self.commit(model, repository, &files).await
    }

    async fn create(&self, repository: &str) -> Result<(), HubError> {
        let (owner, name) = repository.split_once('/').unwrap_or(("", repository));
        let body = json!({"type": "model", "name": name, "organization": owner});
        let route = self.route("api/repos/create")?;
        let answer = self.network.ask(&route, &Question::post(&body)).await?;
        // 409: it exists. Whether we may write to it turns out at the first file.
        if answer.status.is_success() || answer.status.as_u16() == 409 {
            return Ok(());
        }
        Err(self.denied(&answer, repository))
    }

    async fn batch(
        &self,
        repository: &str,
        layers: impl Iterator<Item = &Layer>,
    ) -> Result<Vec<Object>, HubError> {
        let object = |layer: &Layer| json!({"oid": layer.digest.hex(), "size": layer.bytes});
        let body = json!({
            "operation": "upload",
            "transfers": ["basic", "multipart"],
            "objects": layers.map(object).collect::<Vec<_>>(),
            "hash_algo": "sha256",
            "ref": {"name": REVISION},
        });
        let route = self.route(&format!("{repository}.git/info/lfs/objects/batch"))?;
        let answer = self.network.ask(&route, &lfs(&body, &BTreeMap::new())).await?;
        if !answer.status.is_success() {
            return Err(self.denied(&answer, repository));
        }
        Ok(answer.json::<Batch>()?.objects)
    }

    async fn upload(
        &self,
        layer: &Layer,
        action: &Action,
        store: &Store,
        meter: &Arc<Meter>,
    ) -> Result<(), DownloadError> {
        let path = store.layer_path(layer);
        let put = async |href: &str, start, bytes| {
            let route = self.action_route(href)?;
            let section = Section { path: &path, start, bytes };
            let response = self.network.put(&route, section, meter).await?;
            let status = response.status();
            if !status.is_success() {
                let (place, status) = (place(&route.url), status.as_u16());
                return Err(DownloadError::from(HubError::Status { place, status, words: None }));
            }
            Ok(response.headers().get(ETAG).cloned())
        };
        let chunk = action.header.get("chunk_size").and_then(number);
        let Some(chunk) = chunk.filter(|chunk| *chunk > 0) else {
            put(&action.href, 0, layer.bytes).await?;
            return Ok(());
        };
        // Several parts, each with an address of its own, and their ETags as the receipt.
        let mut parts = Vec::new();
        for (number, start) in (1_u64..).zip((0..layer.bytes).step_by(chunk as usize)) {
            let href = ["", "0", "00", "000", "0000"]
                .iter()
                .find_map(|zeros| action.header.get(&format!("{zeros}{number}"))?.as_str());
            let href = href.ok_or_else(|| self.wrong("it gives too few parts to upload"))?;
            let etag = put(href, start, chunk.min(layer.bytes - start)).await?;
            let etag = etag.as_ref().and_then(|etag| etag.to_str().ok()).unwrap_or_default();
            parts.push(json!({"partNumber": number, "etag": etag}));
        }
        let body = json!({"oid": layer.digest.hex(), "parts": parts});
        let question = lfs(&body, &BTreeMap::new());
        self.network.ask(&self.action_route(&action.href)?, &question).await?.success()?;
        Ok(())
    }

    async fn commit(
        &self,
        model: &Manifest,
        repository: &str,
        files: &[(&Layer, &Arc<Meter>, String)],
    ) -> Result<String, DownloadError> {
        let summary = format!("Upload {} with nfl", model.name.model());
        let mut lines =
            vec![json!({"key": "header", "value": {"summary": summary, "description": ""}})];
        lines.extend(files.iter().map(|(layer, _, name)| {
            let oid = layer.digest.hex();
            json!({"key": "lfsFile", "value":
                {"path": name, "algo": "sha256", "oid": oid, "size": layer.bytes}})
        }));
        let lines: Vec<String> = lines.iter().map(Value::to_string).collect();
        let body = lines.join("\n") + "\n";
        let question = Question::send(Method::POST, "application/x-ndjson", body.into_bytes());
        let route = self.route(&format!("api/models/{repository}/commit/{}", encode(REVISION)))?;
        let answer = self.network.ask(&route, &question).await?;
        if !answer.status.is_success() {
            return Err(self.denied(&answer, repository).into());
        }
        let value: Value = answer.json()?;
        let url = value["commitUrl"].as_str().map(str::to_owned);
        Ok(url.unwrap_or_else(|| format!("{}{repository}", self.endpoint)))
    }

    /// The route of an action: with our secret when it leads to the hub itself, without it anywhere else.
    fn action_route(&self, href: &str) -> Result<Route, HubError> {
        let url = self.endpoint.join(href).map_err(|error| self.wrong(&error.to_string()))?;
        let here = Route::new(self.endpoint.clone(), self.secret.clone());
        here.sent_to(url)
    }

    fn denied(&self, answer: &Answer, repository: &str) -> HubError {
        let (repository, hub) = (repository.to_owned(), place(&self.endpoint));
        match answer.status.as_u16() {
            401 | 403 => HubError::Denied { repository, hub, with_token: self.secret.is_some() },
            _ => answer.error(),
        }
    }

    fn wrong(&self, what: &str) -> HubError {
        HubError::Protocol { place: place(&self.endpoint), what: what.to_owned() }
    }
}

/// A question in git-LFS's terms, with the headers that an action asks for.
fn lfs(body: &Value, headers: &BTreeMap<String, Value>) -> Question {
    let mut question = Question::send(Method::POST, LFS_TYPE, body.to_string().into_bytes());
    question.headers.insert(ACCEPT, HeaderValue::from_static(LFS_TYPE));
    for (name, value) in headers {
        let name = HeaderName::from_bytes(name.as_bytes());
        let value = value.as_str().and_then(|value| HeaderValue::from_str(value).ok());
        if let (Ok(name), Some(value)) = (name, value) {
            question.headers.insert(name, value);
        }
    }
    question
}

fn number(value: &Value) -> Option<u64> {
    value.as_u64().or_else(|| value.as_str()?.parse().ok())
}

/// Whether a hub keeps layers of this kind: files of weights.
pub(crate) fn is_sent(kind: Kind) -> bool {
    matches!(kind, Kind::Model | Kind::Projector | Kind::Adapter)
}

fn is_gguf(name: &str) -> bool {
    Path::new(name).extension().is_some_and(|extension| extension.eq_ignore_ascii_case("gguf"))
}

/// The name of a layer's file in a repository: its own, else the model's with its level.
fn file_name(model: &Manifest, layer: &Layer) -> String {
    if let Some(name) = layer.file_name.as_ref().filter(|name| is_gguf(name)) {
        return name.clone();
    }
    let level = model.facts.level.clone().unwrap_or_else(|| model.name.tag().to_owned());
    match layer.kind {
        Kind::Projector => format!("mmproj-{}.gguf", model.name.name()),
        Kind::Adapter => format!("{}-adapter.gguf", model.name.name()),
        _ => format!("{}-{level}.gguf", model.name.name()),
    }
}
