//! A Hugging Face hub of the tests' own: repositories, trees, files with git-LFS's digests, uploads and commits.
//!
//! Its faithfulness is proven by the real `huggingface_hub`, which `tests/golden/hub.py` runs against it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use nfl::store::Digest;
use serde_json::{Value, json};

use super::server::{Answer, Request, Server};

/// Files by path.
type Files = BTreeMap<String, Arc<Vec<u8>>>;

/// What a hub holds.
#[derive(Default)]
pub(crate) struct Shelf {
    pub(crate) repositories: BTreeMap<String, Files>,
    pub(crate) uploads: BTreeMap<String, Arc<Vec<u8>>>,
    /// The token that gated repositories (and all writing) need; empty for none.
    pub(crate) token: String,
    pub(crate) gated: Vec<String>,
    /// Where the files of git-LFS are fetched; empty for the hub itself.
    pub(crate) elsewhere: String,
    /// The hub's own address.
    pub(crate) own: String,
    /// Files of a page of a tree; 0 for all.
    pub(crate) page: usize,
    /// Bytes of a part of a multipart upload; 0 for uploads in one piece.
    pub(crate) chunk: usize,
    /// Counts commits.
    pub(crate) commits: usize,
}

/// A hub that behaves.
pub(crate) fn hub(shelf: Shelf) -> (Arc<Mutex<Shelf>>, Server) {
    let shelf = Arc::new(Mutex::new(shelf));
    let inside = shelf.clone();
    let server = Server::start(move |request| answer(&mut inside.lock().unwrap(), request));
    shelf.lock().unwrap().own = server.url("");
    (shelf, server)
}

impl Shelf {
    pub(crate) fn put(&mut self, repository: &str, path: &str, content: &[u8]) {
        let files = self.repositories.entry(repository.to_owned()).or_default();
        files.insert(path.to_owned(), Arc::new(content.to_vec()));
    }

    /// The commit: changes with every change.
    fn sha(&self) -> String {
        let files: Vec<_> = self.repositories.values().flat_map(BTreeMap::values).collect();
        let digests: String = files.iter().map(|content| Digest::of(content).hex()).collect();
        Digest::of(format!("{digests}{}", self.commits).as_bytes()).hex()[..40].to_owned()
    }

    fn is_ours(&self, request: &Request) -> bool {
        let wanted = format!("Bearer {}", self.token);
        self.token.is_empty() || request.header("authorization") == Some(&wanted)
    }
}

fn is_large(path: &str) -> bool {
    [".gguf", ".safetensors", ".bin"].iter().any(|end| path.ends_with(end))
}

fn refuse(status: u16, code: &str, words: &str) -> Answer {
    let answer = Answer::new(status, json!({"error": words}).to_string());
    answer.with("X-Error-Code", code).with("X-Error-Message", words)
}

fn json(value: &Value) -> Answer {
    Answer::new(200, value.to_string()).with("Content-Type", "application/json")
}

fn answer(shelf: &mut Shelf, request: &Request) -> Answer {
    let path = request.path().to_owned();
    let parts: Vec<&str> = path.trim_start_matches('/').split('/').collect();
    match (request.method.as_str(), &parts[..]) {
        ("GET", ["api", "models"]) => search(shelf, request),
        ("POST", ["api", "repos", "create"]) => create(shelf, request),
        ("POST", ["api", "validate-yaml"]) => json(&json!({"errors": [], "warnings": []})),
        (_, ["api", "models", owner, name, rest @ ..]) => {
            let repository = format!("{owner}/{name}");
            match guard(shelf, request, &repository) {
                Some(refused) => refused,
                None => api(shelf, request, &repository, rest),
            }
        }
        ("PUT", ["lfs", oid, part]) => {
            let whole = shelf.uploads.entry((*oid).to_owned()).or_default();
            let mut content = whole.to_vec();
            content.extend_from_slice(&request.body);
            *whole = Arc::new(content);
            Answer::new(200, "").with("ETag", &format!("\"part{part}\""))
        }
        ("POST", ["lfs", "complete" | "verify"]) => json(&json!({})),
        ("POST", [owner, name, "info", "lfs", "objects", "batch"]) => {
            batch(shelf, request, &format!("{owner}/{}", name.trim_end_matches(".git")))
        }
        ("GET" | "HEAD", [owner, name, "resolve", revision, file @ ..]) => {
            let repository = format!("{owner}/{name}");
            match guard(shelf, request, &repository) {
                Some(refused) => refused,
                None => resolve(shelf, request, &repository, revision, &file.join("/")),
            }
        }
        _ => refuse(404, "", "no such page"),
    }
}

fn guard(shelf: &Shelf, request: &Request, repository: &str) -> Option<Answer> {
    if !shelf.repositories.contains_key(repository) {
        return Some(refuse(401, "RepoNotFound", "Repository not found"));
    }
    let is_gated = shelf.gated.iter().any(|gated| gated == repository);
    (is_gated && !shelf.is_ours(request))
        .then(|| refuse(401, "GatedRepo", "Access to this model is restricted"))
}

fn api(shelf: &mut Shelf, request: &Request, repository: &str, rest: &[&str]) -> Answer {
    let files = &shelf.repositories[repository];
    let sha = shelf.sha();
    match (request.method.as_str(), rest) {
        ("GET", [] | ["revision", "main"]) => {
            let siblings: Vec<Value> =
                files.keys().map(|path| json!({"rfilename": path})).collect();
            json(&json!({"_id": "0", "id": repository, "modelId": repository, "sha": sha,
                "private": false, "gated": false, "disabled": false, "downloads": 7, "likes": 1,
                "tags": ["gguf"], "siblings": siblings, "createdAt": "2026-01-01T00:00:00.000Z",
                "lastModified": "2026-01-01T00:00:00.000Z"}))
        }
        ("GET", ["revision", revision]) if *revision == sha => api(shelf, request, repository, &[]),
        ("GET", ["tree", revision, ..]) if *revision == sha || *revision == "main" => {
            tree(shelf, request, files)
        }
        ("GET", ["revision" | "tree", ..]) => refuse(404, "RevisionNotFound", "Invalid rev id"),
        ("POST", ["preupload", _]) => {
            let asked: Value = serde_json::from_slice(&request.body).unwrap();
            let file = |file: &Value| {
                let path = file["path"].as_str().unwrap();
                let mode = if is_large(path) { "lfs" } else { "regular" };
                json!({"path": path, "uploadMode": mode, "shouldIgnore": false})
            };
            let files: Vec<Value> = asked["files"].as_array().unwrap().iter().map(file).collect();
            json(&json!({"files": files}))
        }
        ("POST", ["commit", _]) => commit(shelf, request, repository),
        _ => refuse(404, "", "no such page"),
    }
}

fn tree(shelf: &Shelf, request: &Request, files: &Files) -> Answer {
    let start: usize = request.query("cursor").map_or(0, |cursor| cursor.parse().unwrap());
    let page = if shelf.page == 0 { files.len() } else { shelf.page };
    let entry = |(path, content): (&String, &Arc<Vec<u8>>)| {
        let (oid, size) = (Digest::of(content).hex(), content.len());
        let mut entry = json!({"type": "file", "oid": oid[..40], "size": size, "path": path});
        if is_large(path) {
            entry["lfs"] = json!({"oid": oid, "size": size, "pointerSize": 135});
        }
        entry
    };
    let entries: Vec<Value> = files.iter().skip(start).take(page).map(entry).collect();
    let answer = json(&Value::from(entries));
    if start + page >= files.len() {
        return answer;
    }
    let next = format!("{}{}?recursive=true&cursor={}", shelf.own, request.path(), start + page);
    answer.with("Link", &format!("<{next}>; rel=\"next\""))
}

fn resolve(
    shelf: &Shelf,
    request: &Request,
    repository: &str,
    revision: &str,
    path: &str,
) -> Answer {
    let sha = shelf.sha();
    if revision != "main" && revision != sha {
        return refuse(404, "RevisionNotFound", "Invalid rev id");
    }
    let Some(content) = shelf.repositories[repository].get(path) else {
        return refuse(404, "EntryNotFound", "Entry not found");
    };
    let etag = format!("\"{}\"", Digest::of(content).hex());
    if is_large(path) && !shelf.elsewhere.is_empty() {
        let target = format!("{}/{}", shelf.elsewhere, Digest::of(content).hex());
        return Answer::redirect(&target)
            .with("X-Repo-Commit", &sha)
            .with("X-Linked-ETag", &etag)
            .with("X-Linked-Size", &content.len().to_string());
    }
    Answer::file(content, request, &etag).with("X-Repo-Commit", &sha)
}

fn search(shelf: &Shelf, request: &Request) -> Answer {
    let word = request.query("search").unwrap_or_default().to_lowercase();
    let hit = |name: &String| {
        json!({"id": name, "downloads": 1234, "likes": 5, "gated": false,
            "lastModified": "2026-02-03T00:00:00.000Z",
            "gguf": {"total": 8_000_000_000_u64, "architecture": "llama", "context_length": 8192}})
    };
    let names = shelf.repositories.keys().filter(|name| name.to_lowercase().contains(&word));
    json(&Value::from(names.map(hit).collect::<Vec<_>>()))
}

fn create(shelf: &mut Shelf, request: &Request) -> Answer {
    if !shelf.is_ours(request) {
        return refuse(401, "", "Invalid username or password.");
    }
    let asked: Value = serde_json::from_slice(&request.body).unwrap();
    let (owner, name) =
        (asked["organization"].as_str().unwrap_or("me"), asked["name"].as_str().unwrap());
    let repository = format!("{owner}/{name}");
    let url = format!("{}/{repository}", shelf.own);
    if shelf.repositories.contains_key(&repository) {
        let words = json!({"error": "You already created this model repo", "url": url});
        return Answer::new(409, words.to_string());
    }
    shelf.repositories.insert(repository.clone(), Files::new());
    json(&json!({"url": url, "id": "0", "name": repository}))
}

fn batch(shelf: &Shelf, request: &Request, repository: &str) -> Answer {
    if !shelf.is_ours(request) {
        return refuse(403, "", "you may not write");
    }
    let asked: Value = serde_json::from_slice(&request.body).unwrap();
    let known: Vec<String> =
        shelf.repositories[repository].values().map(|content| Digest::of(content).hex()).collect();
    let object = |object: &Value| {
        let (oid, size) = (object["oid"].as_str().unwrap(), object["size"].as_u64().unwrap());
        if known.iter().any(|each| each == oid) {
            return json!({"oid": oid, "size": size});
        }
        let verify = json!({"href": format!("{}/lfs/verify", shelf.own)});
        let part = |number: usize| format!("{}/lfs/{oid}/{number}", shelf.own);
        let upload = if shelf.chunk == 0 {
            json!({"href": part(0)})
        } else {
            let mut header = json!({"chunk_size": shelf.chunk.to_string()});
            for number in 1..=(size as usize).div_ceil(shelf.chunk) {
                header[format!("{number}")] = part(number).into();
            }
            json!({"href": format!("{}/lfs/complete", shelf.own), "header": header})
        };
        json!({"oid": oid, "size": size, "actions": {"upload": upload, "verify": verify}})
    };
    let objects: Vec<Value> = asked["objects"].as_array().unwrap().iter().map(object).collect();
    let transfer = if shelf.chunk == 0 { "basic" } else { "multipart" };
    json(&json!({"transfer": transfer, "objects": objects}))
}

fn commit(shelf: &mut Shelf, request: &Request, repository: &str) -> Answer {
    if !shelf.is_ours(request) {
        return refuse(403, "", "you may not write");
    }
    let text = String::from_utf8(request.body.clone()).unwrap();
    for line in text.lines() {
        let line: Value = serde_json::from_str(line).unwrap();
        let value = &line["value"];
        let path = value["path"].as_str().unwrap_or_default().to_owned();
        match line["key"].as_str().unwrap() {
            "lfsFile" => {
                let oid = value["oid"].as_str().unwrap();
                let Some(content) = shelf.uploads.get(oid).cloned() else {
                    return refuse(400, "", "no such object");
                };
                if Digest::of(&content).hex() != oid {
                    return refuse(400, "", "the object is not what its digest says");
                }
                shelf.repositories.get_mut(repository).unwrap().insert(path, content);
            }
            "file" => shelf.put(repository, &path, &base64(value["content"].as_str().unwrap())),
            _ => {}
        }
    }
    shelf.commits += 1;
    let sha = shelf.sha();
    let url = format!("{}/{repository}/commit/{sha}", shelf.own);
    json(&json!({"success": true, "commitOid": sha, "commitUrl": url}))
}

fn base64(text: &str) -> Vec<u8> {
    const DIGITS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let digits: Vec<u32> = text
        .bytes()
        .filter_map(|byte| DIGITS.iter().position(|digit| *digit == byte))
        .map(|digit| digit as u32)
        .collect();
    let mut bytes = Vec::new();
    for group in digits.chunks(4) {
        let word = group.iter().fold(0, |word, digit| word << 6 | digit) << (6 * (4 - group.len()));
        let three = [(word >> 16) as u8, (word >> 8) as u8, word as u8];
        bytes.extend_from_slice(&three[..group.len() - 1]);
    }
    bytes
}
