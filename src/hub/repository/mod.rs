//! The Hugging Face hub and its mirrors: what a repository holds, and which of it is pulled.

mod choose;
mod push;
mod search;
mod wire;

use nfl_converters::vocabulary;
use reqwest::Url;
use reqwest::header::LINK;

use super::ask::{Answer, Question};
use super::error::HubError;
use super::network::{Network, Route, place};
use super::plan::{Item, Plan};
use super::secret::Secret;
use crate::store::{Digest, Kind, Origin, Reference, Source};
use crate::{hardware, settings};
use choose::choose;
pub use choose::{ChoiceError, RemoteFile, Variant, fits};
pub use search::Found;
use wire::{Entry, Info};

/// The host that names of the hub begin with, whatever mirror is asked.
pub(crate) const HOST: &str = "hf.co";

/// The revision that is meant when none is named.
const REVISION: &str = "main";

/// Files of a repository.
const FILES_MAX: usize = 20_000;

/// Characters of a file's path.
const PATH_CHARACTERS_MAX: usize = 300;

/// Files of a checkpoint that say what its weights are; those of its tokenizer come to them.
const CHECKPOINT_FILES: [&str; 2] = ["config.json", "model.safetensors.index.json"];

/// A hub, and who we are to it.
#[derive(Debug)]
pub(crate) struct Repositories<'a> {
    network: &'a Network,
    endpoint: Url,
    secret: Option<Secret>,
}

/// What to take from a repository.
#[derive(Debug, Clone, Default)]
pub(crate) struct Selection<'a> {
    /// A level or a file; None chooses.
    pub(crate) wanted: Option<&'a str>,
    /// A branch, tag or commit; None is `main`.
    pub(crate) revision: Option<&'a str>,
    /// The files of the checkpoint instead of a GGUF file.
    pub(crate) checkpoint: bool,
}

impl<'a> Repositories<'a> {
    /// The hub that the environment names.
    pub(crate) fn new(network: &'a Network) -> Result<Self, HubError> {
        let endpoint = super::parse_url(&(settings::hub_endpoint() + "/"))?;
        let secret = settings::hub_token().and_then(|token| Secret::bearer(&token));
        Ok(Self { network, endpoint, secret })
    }

    /// Whether an address is one of this hub.
    pub(crate) fn has(&self, url: &Url) -> bool {
        url.origin() == self.endpoint.origin()
            || matches!(url.host_str(), Some("huggingface.co" | "hf.co"))
    }

    fn route(&self, path: &str) -> Result<Route, HubError> {
        let url = super::parse_url(&format!("{}{path}", self.endpoint))?;
        Ok(Route::new(url, self.secret.clone()))
    }

    /// What pulling from the repository of `name` will fetch.
    pub(crate) async fn plan(
        &self,
        repository: &str,
        selection: Selection<'_>,
        name: impl FnOnce(&str) -> Result<Reference, HubError>,
    ) -> Result<Plan, HubError> {
        let revision = encode(selection.revision.unwrap_or(REVISION));
        let info = format!("api/models/{repository}/revision/{revision}");
        let answer = self.network.ask(&self.route(&info)?, &Question::get()).await?;
        let info: Info = self.success(answer, repository)?.json()?;
        let commit = info.sha.filter(|sha| is_commit(sha));
        let revision = commit.clone().unwrap_or(revision);
        let files = self.files(repository, &revision).await?;
        let mut notes = Vec::new();
        let (label, chosen) = if selection.checkpoint {
            ("checkpoint".to_owned(), checkpoint(repository, &files)?)
        } else {
            let memory = hardware::memory().usable_bytes();
            let choice = choose(repository, &files, selection.wanted, memory)?;
            notes.extend(choice.note);
            let model = choice.variant.files.into_iter().map(|file| (Kind::Model, file));
            let projector = choice.projector.into_iter().map(|file| (Kind::Projector, file));
            (choice.variant.label, model.chain(projector).collect())
        };
        let item = |(kind, file): (Kind, RemoteFile)| {
            let path: Vec<String> = file.path.split('/').map(encode).collect();
            let path = format!("{repository}/resolve/{revision}/{}", path.join("/"));
            Ok(Item {
                kind,
                bytes: Some(file.bytes),
                digest: file.digest,
                media_type: None,
                file_name: Some(file.path),
                route: self.route(&path)?,
                access: None,
            })
        };
        let items = chosen.into_iter().map(item).collect::<Result<_, HubError>>()?;
        let source = Source {
            host: Some(HOST.to_owned()),
            revision: commit,
            ..Source::new(Origin::Hub, repository)
        };
        let is_checkpoint = selection.checkpoint;
        Ok(Plan { name: name(&label)?, source, items, notes, is_checkpoint })
    }

    /// All files of a revision.
    async fn files(&self, repository: &str, revision: &str) -> Result<Vec<RemoteFile>, HubError> {
        let first = format!("api/models/{repository}/tree/{revision}?recursive=true");
        let mut next = Some(self.route(&first)?);
        let mut files = Vec::new();
        while let Some(route) = next {
            let answer = self.network.ask(&route, &Question::get()).await?;
            let answer = self.success(answer, repository)?;
            let wrong = |what: String| HubError::Protocol { place: place(&route.url), what };
            for entry in answer.json::<Vec<Entry>>()? {
                if entry.kind != "file" {
                    continue;
                }
                files.push(file(entry).map_err(&wrong)?);
            }
            if files.len() > FILES_MAX {
                return Err(wrong(format!("more than {FILES_MAX} files")));
            }
            next = match next_page(&answer) {
                Some(url) => {
                    let url = route.url.join(&url).map_err(|error| wrong(error.to_string()))?;
                    Some(Route::new(answer.route.sent_to(url)?.url, self.secret_for(&route)))
                }
                None => None,
            };
        }
        Ok(files)
    }

    fn secret_for(&self, route: &Route) -> Option<Secret> {
        self.secret.clone().filter(|_| route.url.origin() == self.endpoint.origin())
    }

    /// The answer, or what its status means on a hub.
    fn success(&self, answer: Answer, repository: &str) -> Result<Answer, HubError> {
        if answer.status.is_success() {
            return Ok(answer);
        }
        let hub = place(&self.endpoint).trim_end_matches('/').to_owned();
        let code = answer.header("x-error-code").unwrap_or_default();
        let repository = repository.to_owned();
        Err(match (code, answer.status.as_u16()) {
            ("GatedRepo", _) => {
                HubError::Gated { repository, hub, with_token: self.secret.is_some() }
            }
            ("RevisionNotFound", _) => HubError::Revision { repository, hub },
            ("RepoNotFound", _) | (_, 401 | 403 | 404) => {
                HubError::Repository { repository, hub, with_token: self.secret.is_some() }
            }
            _ => answer.error(),
        })
    }
}

/// A file of a tree, when its name is one that can be believed.
fn file(entry: Entry) -> Result<RemoteFile, String> {
    let path = entry.path;
    let is_bad = |c: char| {
        c.is_control()
            || "\\:*?\"<>|".contains(c)
            || crate::term::neutral(&c.to_string()) != c.to_string()
    };
    let is_part = |part: &str| !matches!(part, "" | "." | "..");
    if path.chars().count() > PATH_CHARACTERS_MAX
        || path.contains(is_bad)
        || !path.split('/').all(is_part)
    {
        let shown: String = path.chars().take(80).collect();
        return Err(format!("a file name that means harm: {shown:?}"));
    }
    let digest = match &entry.lfs {
        Some(lfs) => {
            let oid = lfs.oid.strip_prefix("sha256:").unwrap_or(&lfs.oid);
            let wrong =
                || format!("a digest that is none: {:?}", oid.chars().take(80).collect::<String>());
            Some(Digest::from_hex(oid).ok_or_else(wrong)?)
        }
        None => None,
    };
    Ok(RemoteFile { bytes: entry.lfs.map_or(entry.size, |lfs| lfs.size), path, digest })
}

/// The files that make a checkpoint in the repository's first folder.
fn checkpoint(
    repository: &str,
    files: &[RemoteFile],
) -> Result<Vec<(Kind, RemoteFile)>, ChoiceError> {
    let is_weights = |file: &&RemoteFile| {
        file.path.ends_with(".safetensors")
            && !file.path.contains('/')
            && file.path.starts_with("model")
    };
    if !files.iter().any(|file| is_weights(&file)) {
        return Err(ChoiceError::NoCheckpoint { repository: repository.to_owned() });
    }
    let is_wanted = |file: &&RemoteFile| {
        let names = CHECKPOINT_FILES.iter().chain(&vocabulary::FILES);
        is_weights(file) || names.into_iter().any(|name| *name == file.path)
    };
    Ok(files.iter().filter(is_wanted).map(|file| (Kind::Other, file.clone())).collect())
}

/// The address of the next page (RFC 8288).
fn next_page(answer: &Answer) -> Option<String> {
    let links = answer.headers.get(LINK)?.to_str().ok()?;
    links.split(',').find_map(|link| {
        let (url, rest) = link.split_once('>')?;
        rest.contains("rel=\"next\"").then(|| url.trim().trim_start_matches('<').to_owned())
    })
}

fn is_commit(sha: &str) -> bool {
    sha.len() == 40 && sha.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// A part of a path with everything encoded that could mean something else.
fn encode(part: &str) -> String {
    let byte = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
            char::from(byte).to_string()
        }
        other => format!("%{other:02X}"),
    };
    part.bytes().map(byte).collect()
}
