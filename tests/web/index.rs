//! Indexes of registries: lists of manifests, of which one is the model.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::{Arc, Mutex};

use nfl::store::Digest;
use serde_json::{Value, json};

use super::Home;
use super::registry::{DockerRegistry, MANIFEST, Shelf, registry};
use super::server::{Answer, Server};
use crate::fixture;

const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const MODEL: &str = "application/vnd.ollama.image.model";

/// This machine and one that it is not, as OS and processor.
fn machines() -> [(&'static str, &'static str); 2] {
    let amd = ("linux", "amd64");
    let arm = if cfg!(target_os = "macos") { ("darwin", "arm64") } else { ("linux", "arm64") };
    if cfg!(target_arch = "aarch64") { [arm, amd] } else { [amd, arm] }
}

/// OS and processor that an entry names.
type Machine<'a> = Option<(&'a str, &'a str)>;

fn entry(manifest: &[u8], machine: Machine<'_>) -> Value {
    let digest = Digest::of(manifest).to_string();
    let mut entry = json!({"mediaType": MANIFEST, "digest": digest, "size": manifest.len()});
    if let Some((os, processor)) = machine {
        entry["platform"] = json!({"os": os, "architecture": processor});
    }
    entry
}

/// Puts an index under `me/tiny:1`, and its manifests under their digests.
fn list(shelf: &mut Shelf, manifests: &[(Vec<u8>, Machine<'_>)]) {
    let entries: Vec<Value> =
        manifests.iter().map(|(manifest, machine)| entry(manifest, *machine)).collect();
    let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": entries});
    shelf.manifests.insert("me/tiny:1".to_owned(), index.to_string().into_bytes());
    for (manifest, _) in manifests {
        shelf.manifests.insert(format!("me/tiny:{}", Digest::of(manifest)), manifest.clone());
    }
}

#[test]
fn the_model_of_an_index_is_found() {
    let Some(story) = fixture::material("oracle/stories260K-F16.gguf") else { return };
    let small = fixture::material("oracle/stories260K-Q4_K_M.gguf").unwrap();
    let [here, there] = machines();
    let shelf: Arc<Mutex<Shelf>> = Arc::default();
    let server = registry(&shelf);
    let name = format!("{}/me/tiny:1", server.address);
    let manifest = |content: &[u8], media_type: &str| {
        let mut shelf = shelf.lock().unwrap();
        let layer = shelf.put(media_type, content);
        shelf.manifest_of(&[layer])
    };
    let (story, small) = (std::fs::read(story).unwrap(), std::fs::read(small).unwrap());
    let (model, smaller) = (manifest(&story, MODEL), manifest(&small, MODEL));
    let program = manifest(b"a program", "application/vnd.oci.image.layer.v1.tar+gzip");
    let statement = manifest(b"a statement", MODEL);
    let nowhere = Some(("unknown", "unknown"));
    let pull = |list_of: &[(Vec<u8>, Machine<'_>)]| {
        list(&mut shelf.lock().unwrap(), list_of);
        let home = Home::new();
        let ran = home.nfl(&["pull", "--insecure", &name]);
        let has = |content: &[u8]| {
            home.folder.path().join("blobs").join(Digest::of(content).file_name()).exists()
        };
        (ran.status, has(&story), has(&small), ran.stderr)
    };
    // The one that names a model, whatever machine it says.
    let told =
        pull(&[(program.clone(), Some(here)), (statement, nowhere), (model.clone(), Some(there))]);
    assert!(matches!(told, (0, true, false, _)), "{told:?}");
    // Of two models the one for this machine.
    let told = pull(&[(smaller.clone(), Some(there)), (model.clone(), Some(here))]);
    assert!(matches!(told, (0, true, false, _)), "{told:?}");
    // Two that fit alike, or none.
    let (status, _, _, words) = pull(&[(smaller, None), (model.clone(), None)]);
    assert!(status == 1 && words.contains("lists several models: sha256:"), "{words}");
    assert!(words.contains("hint: pull a tag"), "{words}");
    let (status, _, _, words) = pull(&[(program, Some(here))]);
    assert!(status == 1 && words.contains("no manifest of the index"), "{words}");
    // An index that has not changed is current.
    list(&mut shelf.lock().unwrap(), &[(model, None)]);
    let home = Home::new();
    home.nfl(&["pull", "--insecure", &name]).expect_success();
    let again = home.nfl(&["pull", "--insecure", &name]);
    assert!(again.stderr.contains("is up to date"), "{}", again.stderr);
}

/// Cases 34 and 35 in an index.
#[test]
fn hostile_indexes_are_refused() {
    let good = Digest::of(b"x").to_string();
    let inner = json!({"mediaType": INDEX, "manifests": []}).to_string();
    let inside = Digest::of(inner.as_bytes()).to_string();
    let many: Vec<&str> = (0..10_000).map(|_| good.as_str()).collect();
    for (digests, words) in [
        (vec!["sha256:../../../x"], "digest"),
        (vec![good.as_str()], "another manifest than"),
        (vec![inside.as_str()], "an index inside an index"),
        (many, "an index of 10000 manifests"),
        (vec![], "no manifest of the index"),
    ] {
        let entries: Vec<Value> =
            digests.iter().map(|digest| json!({"digest": digest, "size": 1})).collect();
        let index = json!({"mediaType": INDEX, "manifests": entries}).to_string();
        let inner = inner.clone();
        let server = Server::start(move |request| match request.path() {
            "/v2/a/b/manifests/c" => Answer::new(200, index.clone()),
            _ => Answer::new(200, inner.clone()),
        });
        let ran = Home::new().nfl(&["pull", "--insecure", &format!("{}/a/b:c", server.address)]);
        assert!(ran.status == 1 && ran.stderr.contains(words), "{words}: {}", ran.stderr);
        assert!(server.log.lock().unwrap().len() < 3);
    }
}

/// Debian's registry gives an index only to those who say that they understand it.
#[test]
fn a_real_registry_gives_an_index() {
    let Some(file) = fixture::material("oracle/stories260K-F16.gguf") else { return };
    let Some(registry) = DockerRegistry::start(None) else { return };
    let home = Home::new();
    let name = |tag: &str| format!("{}/me/tiny:{tag}", registry.address);
    home.nfl(&["import", fixture::text(&file), "--name", &name("one")]).expect_success();
    let told = home.nfl(&["push", "--insecure", "--json", &name("one")]).expect_success();
    let told: Value = serde_json::from_str(told.lines().last().unwrap()).unwrap();
    let digest = told["receipt"].as_str().unwrap().split_whitespace().last().unwrap();
    let get = |head: String, body: &str| {
        let mut stream = TcpStream::connect(&registry.address).unwrap();
        let host = &registry.address;
        let length = body.len();
        let text = format!(
            "{head} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\nAccept: {MANIFEST}\r\n\
             Content-Type: {INDEX}\r\nContent-Length: {length}\r\n\r\n{body}"
        );
        stream.write_all(text.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    };
    let manifest = get(format!("GET /v2/me/tiny/manifests/{digest}"), "");
    let size = manifest.split_once("\r\n\r\n").unwrap().1.len();
    let [here, _] = machines();
    let entry = json!({"mediaType": MANIFEST, "digest": digest, "size": size,
        "platform": {"os": here.0, "architecture": here.1}});
    let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": [entry]}).to_string();
    let put = get("PUT /v2/me/tiny/manifests/many".to_owned(), &index);
    assert!(put.starts_with("HTTP/1.1 201"), "{put}");
    let other = Home::new();
    other.nfl(&["pull", "--insecure", &name("many")]).expect_success();
    let blob = Digest::of(&std::fs::read(&file).unwrap()).file_name();
    assert!(other.folder.path().join("blobs").join(blob).exists());
}
