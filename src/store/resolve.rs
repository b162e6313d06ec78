//! From what a person typed to the files that are loaded.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::Store;
use super::error::StoreError;
use super::files;
use super::manifest::{Kind, Layer, Manifest, Origin, Place};
use super::parameters::{PARAMETERS_BYTES_MAX, Parameters};
use super::reference::Reference;

/// Bytes of a text that a model carries: a template, instructions, a licence.
pub const TEXT_BYTES_MAX: u64 = 4 << 20;

/// Ends of names that are meant as files.
const FILE_ENDINGS: [&str; 3] = [".gguf", ".json", ".safetensors"];

/// The files of a model, and what it carries besides.
#[derive(Debug, Default)]
pub struct Resolved {
    /// The file to load; of a split model the first.
    pub model: PathBuf,
    /// What the store knows; `None` for a file that was named by its path.
    pub manifest: Option<Manifest>,
    /// The file of the projector for images and sounds.
    pub projector: Option<PathBuf>,
    /// The files of adapters.
    pub adapters: Vec<PathBuf>,
    /// A chat template that stands in for the file's own; Ollama's are written for Go.
    pub template: Option<String>,
    /// Instructions that stand above a conversation.
    pub system: Option<String>,
    /// How tokens are chosen and the model is loaded.
    pub parameters: Parameters,
    /// The turns that a conversation begins with: role and content.
    pub messages: Vec<(String, String)>,
}

/// What a text may mean.
#[derive(Debug, PartialEq, Eq)]
pub enum Wanted {
    /// A file or folder.
    Path(PathBuf),
    /// A web address.
    Url(String),
    /// A model's name, or a path that looks like one.
    Name(Reference),
}

impl Wanted {
    /// What is meant: `file:` and what looks like a path is one; what begins with `http://` or `https://` is an address;
    /// the rest is a name where it can be one.
    pub fn of(text: &str) -> Result<Self, StoreError> {
        if let Some(path) = text.strip_prefix("file:") {
            // file:///a and file:/a are the same (RFC 8089).
            let path = path.strip_prefix("//").unwrap_or(path);
            return Ok(Self::Path(PathBuf::from(path)));
        }
        let lower = text.to_ascii_lowercase();
        if lower.starts_with("https://") || lower.starts_with("http://") {
            return Ok(Self::Url(text.to_owned()));
        }
        let is_path = text.starts_with(['/', '.', '~'])
            || text.contains('\\')
            || FILE_ENDINGS.iter().any(|ending| lower.ends_with(ending))
            || Path::new(text).is_absolute();
        if is_path {
            return Ok(Self::Path(PathBuf::from(text)));
        }
        match text.parse() {
            Ok(name) => Ok(Self::Name(name)),
            Err(_) if Path::new(text).exists() => Ok(Self::Path(PathBuf::from(text))),
            Err(error) => Err(error),
        }
    }
}

impl Store {
    /// The files of what a person typed: a path, `file:`, a stored model's name, or the address that one came from. They
    /// are held, see [`Store`].
    ///
    /// # Errors
    /// When there is no such model (with the nearest name), or its files are not what they were. A path that does not
    /// exist is no error here: whoever opens it knows better what it should have been.
    pub fn resolve(&self, text: &str) -> Result<Resolved, StoreError> {
        let manifest = match Wanted::of(text)? {
            Wanted::Path(model) => return Ok(Resolved { model, ..Resolved::default() }),
            Wanted::Url(url) => {
                let from_there =
                    |each: &Manifest| each.source.origin == Origin::Url && each.source.path == url;
                let missing = StoreError::Missing {
                    name: url.clone(),
                    advice: format!("get it: nfl pull {url}"),
                };
                self.list()?.manifests.into_iter().find(from_there).ok_or(missing)?
            }
            Wanted::Name(name) => match self.read(&name)? {
                Some(manifest) => manifest,
                None if Path::new(text).exists() => {
                    return Ok(Resolved { model: PathBuf::from(text), ..Resolved::default() });
                }
                None => return Err(self.missing(&name)),
            },
        };
        self.resolve_manifest(manifest)
    }

    /// The files of a stored model, all there and as long as they should be.
    pub fn resolve_manifest(&self, manifest: Manifest) -> Result<Resolved, StoreError> {
        let name = manifest.name.to_string();
        for layer in &manifest.layers {
            self.check_layer(layer, &name)?;
        }
        let first = |kind| manifest.layers_of(kind).next();
        let text = |kind, bytes_max| -> Result<Option<String>, StoreError> {
            first(kind).map(|layer| self.text(layer, bytes_max)).transpose()
        };
        let broken = |layer: &Layer, reason: String| StoreError::Manifest {
            path: self.layer_path(layer),
            reason,
        };
        let mut resolved = Resolved {
            model: self.model_path(&manifest)?,
            projector: first(Kind::Projector).map(|layer| self.layer_path(layer)),
            adapters: manifest
                .layers_of(Kind::Adapter)
                .map(|layer| self.layer_path(layer))
                .collect(),
            template: text(Kind::Template, TEXT_BYTES_MAX)?,
            system: text(Kind::System, TEXT_BYTES_MAX)?,
            ..Resolved::default()
        };
        if let Some(layer) = first(Kind::Parameters) {
            resolved.parameters = Parameters::from_json(&self.text(layer, PARAMETERS_BYTES_MAX)?)
                .map_err(|error| broken(layer, error.to_string()))?;
        }
        if let Some(layer) = first(Kind::Messages) {
            resolved.messages = messages(&self.text(layer, TEXT_BYTES_MAX)?)
                .ok_or_else(|| broken(layer, "it is no list of role and content".to_owned()))?;
        }
        resolved.manifest = Some(manifest);
        Ok(resolved)
    }

    /// Holds a layer's content and makes sure that it is what was put there.
    fn check_layer(&self, layer: &Layer, name: &str) -> Result<(), StoreError> {
        let Some(place) = &layer.place else {
            if self.has(&layer.digest, layer.bytes) {
                return Ok(());
            }
            let path = self.blob_path(&layer.digest);
            return Err(StoreError::Blob { name: name.to_owned(), path });
        };
        let changed =
            |how| StoreError::Changed { name: name.to_owned(), path: place.path.clone(), how };
        let metadata = fs::metadata(&place.path).map_err(|_| changed("is gone"))?;
        let modified = metadata.modified().map(Place::nanoseconds).unwrap_or_default();
        if metadata.len() != layer.bytes || modified != place.modified_ns {
            return Err(changed("was changed"));
        }
        Ok(())
    }

    /// The file that the engine opens. The files of a split model get names with numbers, by which they find each other.
    fn model_path(&self, manifest: &Manifest) -> Result<PathBuf, StoreError> {
        let layers: Vec<&Layer> = manifest.layers_of(Kind::Model).collect();
        let Some(first) = layers.first() else {
            let path = self.manifest_path(&manifest.name);
            return Err(StoreError::Manifest { path, reason: "it names no model file".to_owned() });
        };
        let Some(folder) = self.view_folder(manifest) else { return Ok(self.layer_path(first)) };
        let path =
            |number: usize| folder.join(format!("model-{number:05}-of-{:05}.gguf", layers.len()));
        for (number, layer) in (1..).zip(&layers) {
            let (path, content) = (path(number), self.layer_path(layer));
            let is_there = File::open(&content).and_then(|content| files::is_same(&content, &path));
            if is_there.is_ok_and(|same| same) {
                continue;
            }
            files::make_folder(&folder)?;
            files::remove(&path)?;
            link(&content, &path, layer.place.is_none())
                .map_err(StoreError::io("cannot link", &path))?;
        }
        Ok(path(1))
    }
}

/// Whether a chat template is written for Go's template language, as Ollama's are, and not in Jinja.
pub fn is_for_go(template: &str) -> bool {
    template.split("{{").skip(1).any(|action| {
        let action = action.trim_start_matches('-').trim_start();
        let word: String = action.chars().take_while(char::is_ascii_alphabetic).collect();
        action.starts_with(['.', '$'])
            || matches!(word.as_str(), "if" | "else" | "end" | "range" | "with" | "template")
    })
}

/// A link that is seen to be one, where the system lets everybody make them.
fn link(content: &Path, path: &Path, is_blob: bool) -> std::io::Result<()> {
    #[cfg(unix)]
    {
        // To a blob relative, so that a store can be moved.
        let name = content.file_name().unwrap_or_default();
        let blob = Path::new("../../blobs").join(name);
        std::os::unix::fs::symlink(if is_blob { &blob } else { content }, path)
    }
    #[cfg(not(unix))]
    {
        let _ = is_blob;
        fs::hard_link(content, path)
    }
}

fn messages(text: &str) -> Option<Vec<(String, String)>> {
    let Value::Array(turns) = serde_json::from_str(text).ok()? else { return None };
    let field = |turn: &Value, name: &str| Some(turn.get(name)?.as_str()?.to_owned());
    turns.iter().map(|turn| Some((field(turn, "role")?, field(turn, "content")?))).collect()
}
