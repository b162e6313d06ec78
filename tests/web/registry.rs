//! A small OCI registry of the tests' own, and what pull and push make of it and of what hostile ones say.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use nfl::store::Digest;
use serde_json::{Value, json};

use super::Home;
use super::server::{Answer, Request, Server};
use crate::fixture;

pub(crate) const MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";

/// What a registry holds.
#[derive(Default)]
pub(crate) struct Shelf {
    blobs: HashMap<String, Arc<Vec<u8>>>,
    pub(crate) manifests: HashMap<String, Vec<u8>>,
    /// The token that requests must show; empty for none.
    token: String,
    /// The address of the place that gives tokens.
    realm: String,
}

impl Shelf {
    /// Takes in a blob; returns its descriptor.
    pub(crate) fn put(&mut self, media_type: &str, content: &[u8]) -> Value {
        let digest = Digest::of(content).to_string();
        self.blobs.insert(digest.clone(), Arc::new(content.to_vec()));
        json!({"mediaType": media_type, "digest": digest, "size": content.len()})
    }

    fn manifest(&mut self, name: &str, layers: &[Value]) {
        let manifest = self.manifest_of(layers);
        self.manifests.insert(name.to_owned(), manifest);
    }

    /// The text of a manifest with these layers.
    pub(crate) fn manifest_of(&mut self, layers: &[Value]) -> Vec<u8> {
        let config = self.put("application/vnd.docker.container.image.v1+json", b"{}");
        let manifest =
            json!({"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": layers});
        manifest.to_string().into_bytes()
    }
}

/// A registry that behaves.
pub(crate) fn registry(shelf: &Arc<Mutex<Shelf>>) -> Server {
    let shelf = shelf.clone();
    Server::start(move |request| answer(&mut shelf.lock().unwrap(), request))
}

pub(crate) fn answer(shelf: &mut Shelf, request: &Request) -> Answer {
    let wanted = format!("Bearer {}", shelf.token);
    if request.path() == "/token" {
        return Answer::new(200, json!({"token": shelf.token}).to_string());
    }
    if !shelf.token.is_empty() && request.header("authorization") != Some(&wanted) {
        let challenge = format!("Bearer realm=\"{}\",service=\"test\",scope=\"x\"", shelf.realm);
        return Answer::new(401, "").with("WWW-Authenticate", &challenge);
    }
    let path = request.path().to_owned();
    let Some((name, rest)) = path.strip_prefix("/v2/").and_then(|path| {
        let place = ["/manifests/", "/blobs/"].iter().find_map(|word| path.find(word))?;
        Some((&path[..place], &path[place + 1..]))
    }) else {
        return Answer::new(404, "");
    };
    match (request.method.as_str(), rest.split_once('/').unwrap()) {
        ("GET" | "HEAD", ("manifests", tag)) => {
            let manifest = shelf.manifests.get(&format!("{name}:{tag}"));
            let missing = || {
                let error = json!({"code": "MANIFEST_UNKNOWN", "message": "manifest unknown"});
                Answer::new(404, json!({"errors": [error]}).to_string())
            };
            let found = |manifest: &Vec<u8>| {
                Answer::new(200, manifest.clone()).with("Content-Type", MANIFEST)
            };
            manifest.map_or_else(missing, found)
        }
        ("PUT", ("manifests", tag)) => {
            let manifest: Value = serde_json::from_slice(&request.body).unwrap();
            let parts = manifest["layers"].as_array().unwrap().iter().chain([&manifest["config"]]);
            let is_known =
                |part: &Value| shelf.blobs.contains_key(part["digest"].as_str().unwrap());
            if !parts.clone().all(is_known) {
                return Answer::new(400, "MANIFEST_BLOB_UNKNOWN");
            }
            shelf.manifests.insert(format!("{name}:{tag}"), request.body.clone());
            Answer::new(201, "")
        }
        ("POST", ("blobs", "uploads/")) => {
            Answer::new(202, "").with("Location", &format!("/v2/{name}/blobs/uploads/1?state=x"))
        }
        ("PUT", ("blobs", _)) => {
            let digest = request.query("digest").unwrap().replace("%3A", ":");
            if digest != Digest::of(&request.body).to_string() {
                return Answer::new(400, "DIGEST_INVALID");
            }
            shelf.blobs.insert(digest, Arc::new(request.body.clone()));
            Answer::new(201, "")
        }
        (_, ("blobs", digest)) => match shelf.blobs.get(digest) {
            Some(blob) => Answer::file(blob, request, ""),
            None => Answer::new(404, ""),
        },
        _ => Answer::new(405, ""),
    }
}

fn model() -> Option<Vec<u8>> {
    Some(std::fs::read(fixture::material("oracle/stories260K-F16.gguf")?).unwrap())
}

/// A registry with one model, as Ollama's has them.
pub(crate) fn one_model() -> Option<(Arc<Mutex<Shelf>>, Server)> {
    let shelf: Arc<Mutex<Shelf>> = Arc::default();
    let model = model()?;
    {
        let mut shelf = shelf.lock().unwrap();
        let layers = vec![
            shelf.put("application/vnd.ollama.image.model", &model),
            shelf.put("application/vnd.ollama.image.system", b"Tell stories."),
            shelf.put("application/vnd.ollama.image.params", b"{\"temperature\":0.5}"),
            shelf.put("application/vnd.ollama.image.license", b"MIT"),
        ];
        shelf.manifest("library/tiny:1", &layers);
    }
    let server = registry(&shelf);
    Some((shelf, server))
}

#[test]
fn a_model_comes_from_a_registry_and_goes_to_another() {
    let Some((shelf, server)) = one_model() else { return };
    let home = Home::new();
    let name = format!("{}/library/tiny:1", server.address);
    home.nfl(&["pull", "--insecure", &name]).expect_success();
    home.nfl(&["pull", "--insecure", &name]).expect_success();
    assert_eq!(server.count("/blobs/"), 5, "each blob is fetched once");
    let list: Value =
        serde_json::from_str(&home.nfl(&["list", "--json"]).expect_success()).unwrap();
    assert!(list.to_string().contains(&name), "{list}");
    let other_shelf: Arc<Mutex<Shelf>> = Arc::default();
    let other = registry(&other_shelf);
    let copy = format!("{}/me/copy:x", other.address);
    home.nfl(&["cp", &name, &copy]).expect_success();
    home.nfl(&["push", "--insecure", &copy]).expect_success();
    let (ours, theirs) = (shelf.lock().unwrap(), other_shelf.lock().unwrap());
    assert!(ours.blobs == theirs.blobs, "the blobs are the same");
    let read = |text: &[u8]| serde_json::from_slice::<Value>(text).unwrap();
    let (sent, had) =
        (read(&theirs.manifests["me/copy:x"]), read(&ours.manifests["library/tiny:1"]));
    assert_eq!(sent, had, "and so is the manifest");
    drop((ours, theirs));
    other.log.lock().unwrap().clear();
    home.nfl(&["push", "--insecure", &copy]).expect_success();
    assert_eq!(other.count("uploads"), 0, "what is there is not sent again");
}

#[test]
fn what_changes_there_is_outdated_here() {
    let Some((shelf, server)) = one_model() else { return };
    let home = Home::new();
    let name = format!("{}/library/tiny:1", server.address);
    home.nfl(&["pull", "--insecure", &name]).expect_success();
    let state = || {
        let text = home.nfl(&["outdated", "--insecure", "--json"]).expect_success();
        serde_json::from_str::<Value>(&text).unwrap()[0]["state"].clone()
    };
    assert_eq!(state(), "current");
    {
        let mut shelf = shelf.lock().unwrap();
        let layers = vec![
            shelf.put("application/vnd.ollama.image.model", &model().unwrap()),
            shelf.put("application/vnd.ollama.image.system", b"Tell longer stories."),
        ];
        shelf.manifest("library/tiny:1", &layers);
    }
    assert_eq!(state(), "outdated");
    let plan = home.nfl(&["pull", "--all", "--dry-run", "--insecure", "--json"]).expect_success();
    let plan: Value = serde_json::from_str(plan.trim()).unwrap();
    assert_eq!(
        (plan["missing_bytes"].as_u64(), plan["status"].as_str()),
        (Some(20), Some("planned"))
    );
    home.nfl(&["pull", "--all", "--insecure"]).expect_success();
    assert_eq!(state(), "current");
}

/// Case 38: tokens come from where the registry says, under the rules for redirects.
#[test]
fn anonymous_tokens_are_fetched_and_shown() {
    let Some((shelf, server)) = one_model() else { return };
    shelf.lock().unwrap().token = "abc".to_owned();
    shelf.lock().unwrap().realm = server.url("/token");
    let name = format!("{}/library/tiny:1", server.address);
    let home = Home::new();
    home.nfl(&["pull", "--insecure", &name]).expect_success();
    let log = server.log.lock().unwrap();
    let asked = log.iter().find(|request| request.path() == "/token").unwrap();
    assert_eq!(asked.query("scope").unwrap(), "repository%3Alibrary%2Ftiny%3Apull");
    assert_eq!(asked.header("authorization"), None);
    drop(log);
    for realm in ["http://169.254.169.254/token", "file:///etc/passwd", "nonsense"] {
        shelf.lock().unwrap().realm = realm.to_owned();
        let ran = Home::new().nfl(&["pull", "--insecure", &name]);
        assert_eq!(ran.status, 1, "{}", ran.stderr);
    }
}

/// Cases 34 and 35: manifests that lie.
#[test]
fn hostile_manifests_are_refused() {
    let good = Digest::of(b"x").to_string();
    let layer = |digest: &str, size: i64| json!({"mediaType": "application/vnd.ollama.image.model", "digest": digest, "size": size});
    let many: Vec<Value> = (0..100_000).map(|_| layer(&good, 1)).collect();
    let cases = [
        (vec![layer("sha256:../../../../etc/passwd", 1)], "digest"),
        (vec![layer(&good.to_uppercase(), 1)], "digest"),
        (vec![layer(&good[..20], 1)], "digest"),
        (vec![layer("md5:00", 1)], "digest"),
        (vec![layer(&good, -1)], "a layer of -1 bytes"),
        (vec![layer(&good, i64::MAX)], "a layer of"),
        (vec![layer(&good, 2)], "not the"),
        (many, "layers (at most"),
        (vec![], "names no GGUF model"),
    ];
    for (layers, words) in cases {
        let config = layer(&good, 1);
        let manifest = json!({"schemaVersion": 2, "config": config, "layers": layers}).to_string();
        let server = Server::start(move |request| {
            if request.path().contains("/manifests/") {
                return Answer::new(200, manifest.clone());
            }
            Answer::file(&Arc::new(b"x".to_vec()), request, "")
        });
        let home = Home::new();
        let ran = home.nfl(&["pull", "--insecure", &format!("{}/a/b:c", server.address)]);
        assert_eq!(ran.status, 1, "{}", ran.stderr);
        assert!(ran.stderr.contains(words), "{words}: {}", ran.stderr);
        assert_eq!(home.models(), 0);
    }
}

#[test]
fn what_is_no_model_is_not_taken() {
    let shelf: Arc<Mutex<Shelf>> = Arc::default();
    let layer = shelf.lock().unwrap().put("application/vnd.ollama.image.model", b"no model at all");
    shelf.lock().unwrap().manifest("a/b:c", &[layer]);
    let server = registry(&shelf);
    let home = Home::new();
    let ran = home.nfl(&["pull", "--insecure", &format!("{}/a/b:c", server.address)]);
    assert_eq!((ran.status, home.models()), (1, 0), "{}", ran.stderr);
    assert!(ran.stderr.contains("begins with"), "{}", ran.stderr);
}

#[test]
fn mistakes_are_explained() {
    let Some((_, server)) = one_model() else { return };
    let home = Home::new();
    let name = |rest: &str| format!("{}/{rest}", server.address);
    for (arguments, words) in [
        (vec!["pull", "--insecure", "example.com/a/b"], "another machine"),
        (vec!["pull", &name("library/tiny:1")], "cannot reach"),
        (vec!["pull", "--insecure", &name("library/tiny:2")], "manifest unknown"),
        (vec!["pull", "--offline", "--insecure", &name("library/tiny:1")], "offline"),
        (vec!["pull", "localhost:1/a/b"], "cannot reach https://localhost:1"),
        (vec!["pull", "./file.gguf"], "nfl import"),
        (vec!["push", "nothing"], "no model nothing"),
    ] {
        let ran = home.nfl(&arguments);
        assert_ne!(ran.status, 0);
        assert!(ran.stderr.contains(words), "{words}: {}", ran.stderr);
        assert!(ran.stderr.contains("hint: "), "{}", ran.stderr);
    }
}

/// Debian's docker-registry, where it is installed.
pub(crate) struct DockerRegistry {
    child: Child,
    pub(crate) address: String,
    _folder: tempfile::TempDir,
}

impl DockerRegistry {
    /// One for those whose line of an htpasswd file it knows, or for everybody.
    pub(crate) fn start(password_line: Option<&str>) -> Option<Self> {
        let program = ["/usr/bin/docker-registry", "/usr/local/bin/registry"];
        let Some(program) = program.iter().map(PathBuf::from).find(|path| path.exists()) else {
            eprintln!("skipped: no docker-registry");
            return None;
        };
        let folder = tempfile::tempdir().unwrap();
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let address = format!("127.0.0.1:{port}");
        let config = folder.path().join("config.yml");
        let root = folder.path().join("data");
        let mut text = format!(
            "version: 0.1\nstorage:\n  filesystem:\n    rootdirectory: {}\nhttp:\n  addr: {address}\n",
            root.display()
        );
        if let Some(line) = password_line {
            let passwords = folder.path().join("passwords");
            std::fs::write(&passwords, line).unwrap();
            let path = passwords.display();
            let auth = format!("auth:\n  htpasswd:\n    realm: tests\n    path: {path}\n");
            text.push_str(&auth);
        }
        std::fs::write(&config, text).unwrap();
        let mut command = Command::new(program);
        command.args([Path::new("serve"), &config]).stdout(Stdio::null()).stderr(Stdio::null());
        let child = command.spawn().unwrap();
        let end = Instant::now() + Duration::from_secs(20);
        while std::net::TcpStream::connect(&address).is_err() {
            assert!(Instant::now() < end, "docker-registry does not answer");
            std::thread::sleep(Duration::from_millis(20));
        }
        Some(Self { child, address, _folder: folder })
    }
}

impl Drop for DockerRegistry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_real_registry_keeps_a_model() {
    let Some(file) = fixture::material("oracle/stories260K-F16.gguf") else { return };
    let Some(registry) = DockerRegistry::start(None) else { return };
    let home = Home::new();
    let name = format!("{}/tests/stories:f16", registry.address);
    home.nfl(&["import", fixture::text(&file), "--name", &name]).expect_success();
    home.nfl(&["push", "--insecure", &name]).expect_success();
    home.nfl(&["push", "--insecure", &name]).expect_success();
    let other = Home::new();
    other.nfl(&["pull", "--insecure", &name]).expect_success();
    let digest = Digest::of(&std::fs::read(&file).unwrap());
    let blob = other.folder.path().join("blobs").join(digest.file_name());
    assert!(std::fs::read(blob).unwrap() == std::fs::read(&file).unwrap());
    let run = ["run", "--raw", "--temperature", "0", "--tokens", "8", &name, "Once upon a time"];
    assert_eq!(other.nfl(&run).expect_success(), home.nfl(&run).expect_success());
}
