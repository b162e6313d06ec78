//! What other programs keep on this machine: Ollama's store, Hugging Face's cache, LM Studio's folder. They are read only.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use nfl_models::file_name_parts;
use serde::Deserialize;

use super::digest::Digest;
use super::error::StoreError;
use super::files;
use super::import::{Found, Piece};
use super::manifest::{Kind, LAYERS_MAX, MANIFEST_BYTES_MAX, Origin, Source};
use super::reference::Reference;

/// Folders below each other that are looked into.
const DEPTH_MAX: usize = 6;

/// What was found, and what could not be read.
#[derive(Debug, Default)]
pub struct Finds {
    /// The models, by name.
    pub models: Vec<Found>,
    /// What looks like a model and is none, and why.
    pub broken: Vec<StoreError>,
}

impl Finds {
    /// The models of other programs in these folders, whichever of them exist.
    pub fn of(folders: &[(Origin, PathBuf)]) -> Self {
        let mut finds = Self::default();
        for (origin, folder) in folders {
            match origin {
                Origin::Ollama => finds.look_into_ollama(folder),
                Origin::HubCache => finds.look_into_hub_cache(folder),
                _ => finds.look_into_lm_studio(folder),
            }
        }
        finds.models.sort_by(|left, right| left.name.cmp(&right.name));
        finds
    }

    /// `manifests/HOST/NAMESPACE/NAME/TAG` and `blobs/sha256-HEX`.
    fn look_into_ollama(&mut self, folder: &Path) {
        let root = folder.join("manifests");
        for path in walk(&root, DEPTH_MAX) {
            match ollama_model(folder, &root, &path) {
                Ok(Some(found)) => self.models.push(found),
                Ok(None) => {}
                Err(error) => self.broken.push(error),
            }
        }
    }

    /// `models--OWNER--NAME/snapshots/COMMIT/FILE`, links to `models--OWNER--NAME/blobs/ETAG`.
    fn look_into_hub_cache(&mut self, folder: &Path) {
        for repository in entries(folder) {
            let name = repository.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let Some(id) = name.strip_prefix("models--").map(|id| id.replace("--", "/")) else {
                continue;
            };
            let Some(snapshot) = latest_snapshot(&repository) else { continue };
            let commit = snapshot.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let source = Source {
                host: Some("hf.co".to_owned()),
                revision: Some(commit),
                ..Source::new(Origin::HubCache, id.as_str())
            };
            self.add_files(&format!("hf.co/{id}"), &source, &walk(&snapshot, DEPTH_MAX));
        }
    }

    /// `PUBLISHER/REPOSITORY/FILE.gguf`.
    fn look_into_lm_studio(&mut self, folder: &Path) {
        for publisher in entries(folder) {
            for repository in entries(&publisher) {
                let relative = repository.strip_prefix(folder).unwrap_or(&repository);
                let id = relative.to_string_lossy().replace('\\', "/");
                let source = Source {
                    host: Some("hf.co".to_owned()),
                    ..Source::new(Origin::LmStudio, id.as_str())
                };
                self.add_files(&format!("hf.co/{id}"), &source, &walk(&repository, 2));
            }
        }
    }

    /// The GGUF files of a repository's folder: each level a model, the files of a split together, a projector with all.
    fn add_files(&mut self, repository: &str, source: &Source, paths: &[PathBuf]) {
        let is_projector = |path: &Path| lower_name(path).contains("mmproj");
        let is_gguf = |path: &&PathBuf| {
            path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("gguf"))
        };
        let (projectors, models): (Vec<&PathBuf>, Vec<&PathBuf>) =
            paths.iter().filter(is_gguf).partition(|path| is_projector(path));
        let mut by_tag: BTreeMap<String, Vec<&PathBuf>> = BTreeMap::new();
        for path in models {
            by_tag.entry(tag_of(path)).or_default().push(path);
        }
        for (tag, mut paths) in by_tag {
            paths.sort();
            let add = || {
                let mut pieces = Vec::new();
                for path in paths {
                    pieces.push(hub_piece(Kind::Model, path)?);
                }
                if let Some(path) = projectors.first() {
                    pieces.push(hub_piece(Kind::Projector, path)?);
                }
                let name = format!("{repository}:{tag}").parse()?;
                Ok(Found { name, source: source.clone(), pieces })
            };
            match add() {
                Ok(found) => self.models.push(found),
                Err(error) => self.broken.push(error),
            }
        }
    }
}

/// What is read of Ollama's manifests, which are Docker's.
#[derive(Deserialize)]
struct OllamaManifest {
    layers: Vec<OllamaLayer>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct OllamaLayer {
    media_type: String,
    digest: Digest,
    size: u64,
}

/// The model of one manifest; `None` for what is no GGUF model, such as one that runs elsewhere.
fn ollama_model(folder: &Path, root: &Path, path: &Path) -> Result<Option<Found>, StoreError> {
    let broken = |reason: String| StoreError::Manifest { path: path.to_owned(), reason };
    let parts: Vec<String> = path
        .strip_prefix(root)
        .unwrap_or(path)
        .components()
        .map(|part| part.as_os_str().to_string_lossy().into_owned())
        .collect();
    let [host, namespace @ .., name, tag] = &parts[..] else { return Ok(None) };
    let Some(text) = files::read(path, MANIFEST_BYTES_MAX)? else { return Ok(None) };
    let manifest: OllamaManifest =
        serde_json::from_slice(&text).map_err(|error| broken(error.to_string()))?;
    if manifest.layers.len() > LAYERS_MAX {
        return Err(broken(format!("it names {} layers", manifest.layers.len())));
    }
    let mut pieces = Vec::new();
    for layer in manifest.layers {
        let kind = Kind::of_media_type(&layer.media_type);
        let blob = folder.join("blobs").join(layer.digest.file_name());
        let piece = Piece::new(kind, &blob)?;
        if piece.bytes != layer.size {
            return Err(broken(format!("{} has {} bytes", blob.display(), piece.bytes)));
        }
        let digest = Some(layer.digest);
        pieces.push(Piece { digest, media_type: Some(layer.media_type), ..piece });
    }
    if !pieces.iter().any(|piece| piece.kind == Kind::Model) {
        return Ok(None);
    }
    let repository = [namespace, std::slice::from_ref(name)].concat().join("/");
    let is_library = host == "registry.ollama.ai" && namespace == ["library"];
    let typed =
        if is_library { format!("{name}:{tag}") } else { format!("{host}/{repository}:{tag}") };
    let source = Source {
        host: Some(host.clone()),
        digest: Some(Digest::of(&text).to_string()),
        ..Source::new(Origin::Ollama, format!("{repository}:{tag}"))
    };
    Ok(Some(Found { name: typed.parse::<Reference>()?, source, pieces }))
}

/// A file of a hub's repository. In the cache it is a link to a blob, which is called after its SHA-256 when the hub
/// keeps it as a large file.
fn hub_piece(kind: Kind, path: &Path) -> Result<Piece, StoreError> {
    let blob = fs::read_link(path).ok();
    let digest = blob.as_deref().and_then(Path::file_name).and_then(|name| name.to_str());
    Ok(Piece { digest: digest.and_then(Digest::from_hex), ..Piece::new(kind, path)? })
}

/// The snapshot that `refs/main` names, else the one that was made last.
fn latest_snapshot(repository: &Path) -> Option<PathBuf> {
    let snapshots = repository.join("snapshots");
    let main = fs::read_to_string(repository.join("refs/main")).unwrap_or_default();
    let is_commit = !main.trim().is_empty() && main.trim().bytes().all(|b| b.is_ascii_hexdigit());
    let named = is_commit.then(|| snapshots.join(main.trim())).filter(|path| path.is_dir());
    let age = |path: &PathBuf| fs::metadata(path).and_then(|metadata| metadata.modified()).ok();
    named.or_else(|| entries(&snapshots).into_iter().filter(|path| path.is_dir()).max_by_key(age))
}

/// The level that a file's name says, as a tag; else the name itself.
fn tag_of(path: &Path) -> String {
    let stem = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let (name, level) = file_name_parts(&stem);
    level.unwrap_or(name).replace(' ', "-")
}

fn lower_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().to_ascii_lowercase()
}

/// What is in a folder, by name; nothing where there is none.
fn entries(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let mut paths: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    paths.sort();
    paths
}

/// All files below a folder, hidden ones left out.
fn walk(folder: &Path, depth: usize) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for path in entries(folder) {
        if lower_name(&path).starts_with('.') {
            continue;
        }
        if path.is_file() {
            found.push(path);
        } else if depth > 0 && path.is_dir() {
            found.extend(walk(&path, depth - 1));
        }
    }
    found
}
