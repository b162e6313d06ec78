//! Pulling from and pushing to a hub, as a person does it.

use std::process::Command;
use std::sync::{Arc, Mutex};

use nfl::store::Digest;
use serde_json::Value;

use super::Home;
use super::hub_server::{Shelf, hub};
use super::server::{Answer, Server};
use crate::fixture;

fn model() -> Option<Vec<u8>> {
    Some(std::fs::read(fixture::material("oracle/stories260K-F16.gguf")?).unwrap())
}

/// A hub with a repository of one model at two levels.
fn tiny() -> Option<Shelf> {
    let mut shelf = Shelf::default();
    let content = model()?;
    shelf.put("someone/tiny-GGUF", "README.md", b"# tiny");
    shelf.put("someone/tiny-GGUF", "tiny-F16.gguf", &content);
    let small = std::fs::read(fixture::material("oracle/stories260K-Q4_K_M.gguf")?).unwrap();
    shelf.put("someone/tiny-GGUF", "tiny-Q4_K_M.gguf", &small);
    Some(shelf)
}

fn blob_of(home: &Home, content: &[u8]) -> bool {
    let path = home.folder.path().join("blobs").join(Digest::of(content).file_name());
    std::fs::read(path).is_ok_and(|found| found == content)
}

#[test]
fn a_level_is_pulled_from_a_repository() {
    let Some(mut shelf) = tiny() else { return };
    shelf.page = 1;
    let (_, server) = hub(shelf);
    let home = Home::new().with("HF_ENDPOINT", &server.url(""));
    home.nfl(&["pull", "hf.co/someone/tiny-GGUF:f16"]).expect_success();
    assert!(blob_of(&home, &model().unwrap()));
    let before = server.count("/resolve/");
    let again = home.nfl(&["pull", "hf.co/someone/tiny-GGUF:f16"]);
    assert!(again.stderr.contains("is up to date"), "{}", again.stderr);
    assert_eq!(server.count("/resolve/"), before, "nothing is fetched twice");
    // Without a level the preferred one is chosen; an owner is enough to mean the hub.
    let lines = home.nfl(&["pull", "someone/tiny-GGUF", "--json"]).expect_success();
    let last: Value = serde_json::from_str(lines.lines().last().unwrap()).unwrap();
    assert_eq!(last["status"], "pulled", "{lines}");
    let run = ["run", "--raw", "--temperature", "0", "--tokens", "4", "someone/tiny-GGUF", "Once"];
    home.nfl(&run).expect_success();
    // And by the address of its page.
    let url = server.url("/someone/tiny-GGUF/blob/main/tiny-F16.gguf");
    home.nfl(&["pull", &url]).expect_success();
    assert_eq!(home.models(), 3);
}

#[test]
fn offline_and_dry_runs_fetch_nothing() {
    let Some(shelf) = tiny() else { return };
    let (_, server) = hub(shelf);
    let home = Home::new().with("HF_ENDPOINT", &server.url(""));
    let plan = home.nfl(&["pull", "--dry-run", "hf.co/someone/tiny-GGUF:f16"]).expect_success();
    assert!(plan.contains("TO FETCH") && plan.contains("587 KiB"), "{plan}");
    assert_eq!((server.count("/resolve/"), home.models()), (0, 0));
    home.nfl(&["pull", "hf.co/someone/tiny-GGUF:f16"]).expect_success();
    let requests = server.count("/");
    home.nfl(&["pull", "--offline", "hf.co/someone/tiny-GGUF:f16"]).expect_success();
    let ran = home.nfl(&["pull", "--offline", "hf.co/someone/tiny-GGUF:q4_k_m"]);
    assert!(ran.status == 1 && ran.stderr.contains("offline"), "{}", ran.stderr);
    assert_eq!(server.count("/"), requests);
}

#[test]
fn mistakes_are_explained() {
    let Some(mut shelf) = tiny() else { return };
    shelf.put("someone/checkpoint", "model.safetensors", b"x");
    shelf.put("someone/gated-GGUF", "x-Q8_0.gguf", b"x");
    shelf.gated.push("someone/gated-GGUF".to_owned());
    shelf.token = "hf_secret".to_owned();
    let (_, server) = hub(shelf);
    let home = Home::new().with("HF_ENDPOINT", &server.url(""));
    for (name, words, hint) in [
        ("hf.co/someone/tiny-GGUF:q4_k_s", "has no q4_k_s", "did you mean Q4_K_M?"),
        ("hf.co/someone/tinny-GGUF", "no repository someone/tinny-GGUF", "HF_TOKEN"),
        ("hf.co/someone/gated-GGUF", "is gated", "accept its terms at"),
        ("hf.co/someone/checkpoint", "has no GGUF file, but a checkpoint", "--convert"),
        ("hf.co/tiny", "a repository there is OWNER/NAME", "hf.co/OWNER"),
    ] {
        let ran = home.nfl(&["pull", name]);
        assert_eq!(ran.status, 1);
        assert!(ran.stderr.contains(words) && ran.stderr.contains(hint), "{name}: {}", ran.stderr);
    }
    let ran = home.nfl(&["pull", "someone/tiny-GGUF", "--revision", "v9"]);
    assert!(ran.stderr.contains("no such revision"), "{}", ran.stderr);
    let home = Home::new().with("HF_ENDPOINT", "http://127.0.0.1:1");
    let ran = home.nfl(&["pull", "someone/tiny-GGUF"]);
    assert!(ran.stderr.contains("cannot reach http://127.0.0.1:1/"), "{}", ran.stderr);
    assert!(ran.stderr.contains("check the name and your connection"), "{}", ran.stderr);
}

/// Case 38: the token goes to the hub, and not on to where the hub sends us.
#[test]
fn tokens_stay_with_their_host() {
    let Some(mut shelf) = tiny() else { return };
    let content = Arc::new(model().unwrap());
    let served = content.clone();
    let store = Server::start(move |request| Answer::file(&served, request, "\"x\""));
    shelf.token = "hf_secret".to_owned();
    shelf.gated.push("someone/tiny-GGUF".to_owned());
    shelf.elsewhere = store.url("/signed?Signature=abc&file=");
    let (_, server) = hub(shelf);
    let home = Home::new().with("HF_ENDPOINT", &server.url("")).with("HF_TOKEN", "hf_secret");
    let ran = home.nfl(&["pull", "hf.co/someone/tiny-GGUF:f16"]);
    assert!(blob_of(&home, &content), "{}", ran.stderr);
    let with_token = |server: &Server| {
        let log = server.log.lock().unwrap();
        (log.len(), log.iter().filter(|request| request.header("authorization").is_some()).count())
    };
    let (all, secret) = with_token(&server);
    assert!(all >= 3 && secret == all, "{secret} of {all} requests to the hub carry the token");
    assert_eq!(with_token(&store), (1, 0));
    // Nor is it in anything that is said or kept.
    let home = home.with("HF_ENDPOINT", "http://127.0.0.1:1");
    let failed = home.nfl(&["pull", "someone/tiny-GGUF"]);
    assert!(!format!("{}{}", ran.stderr, failed.stderr).contains("hf_secret"));
}

/// Case 46: proxies with passwords are used and not shown.
#[test]
fn proxies_are_used_and_their_passwords_kept() {
    let Some(shelf) = tiny() else { return };
    let (shelf, server) = hub(shelf);
    let through = Arc::new(Mutex::new(0));
    let count = through.clone();
    let proxy = Server::start(move |request| {
        *count.lock().unwrap() += 1;
        // A proxy is asked for whole addresses.
        assert!(request.target.starts_with("http://hub.invalid/"), "{}", request.target);
        Answer::redirect("http://169.254.169.254/")
    });
    drop((shelf, server));
    let address = format!("http://user:passw0rd@{}", proxy.address);
    let home = Home::new().with("HF_ENDPOINT", "http://hub.invalid").with("http_proxy", &address);
    let ran = home.nfl(&["pull", "someone/tiny-GGUF"]);
    assert!(*through.lock().unwrap() == 1 && ran.status == 1, "{}", ran.stderr);
    assert!(ran.stderr.contains("private network"), "{}", ran.stderr);
    assert!(!ran.stderr.contains("passw0rd"), "{}", ran.stderr);
    let home = home.with("http_proxy", "http://user:passw0rd@127.0.0.1:1");
    let ran = home.nfl(&["pull", "someone/tiny-GGUF"]);
    assert!(!ran.stderr.contains("passw0rd"), "{}", ran.stderr);
}

/// Case 39: names of files that mean harm.
#[test]
fn hostile_file_names_are_refused() {
    for path in [
        "../../x.gguf",
        "a/../../x.gguf",
        "C:\\x.gguf",
        "..\\x.gguf",
        "a\u{202e}b.gguf",
        "a\u{0}b.gguf",
        &format!("{}.gguf", "x".repeat(300)),
    ] {
        let mut shelf = Shelf::default();
        shelf.put("someone/evil", path, b"x");
        let (_, server) = hub(shelf);
        let home = Home::new().with("HF_ENDPOINT", &server.url(""));
        let ran = home.nfl(&["pull", "someone/evil"]);
        assert_eq!(ran.status, 1, "{path:?}");
        assert!(ran.stderr.contains("means harm"), "{path:?}: {}", ran.stderr);
    }
}

#[test]
fn shards_come_together() {
    let Some(folder) = fixture::material("formats/gguf") else { return };
    let mut shelf = Shelf::default();
    let parts = fixture::files_of(&folder).into_iter().filter(|name| name.contains("-of-00002"));
    let parts: Vec<Vec<u8>> = parts
        .map(|name| {
            let content = std::fs::read(folder.join(&name)).unwrap();
            shelf.put("someone/split-GGUF", &name, &content);
            content
        })
        .collect();
    let (_, server) = hub(shelf);
    let home = Home::new().with("HF_ENDPOINT", &server.url(""));
    home.nfl(&["pull", "someone/split-GGUF"]).expect_success();
    assert!(parts.len() == 2 && parts.iter().all(|part| blob_of(&home, part)));
    let shown = home.nfl(&["show", "someone/split-GGUF", "--tensors"]).expect_success();
    let whole = folder.join("pkg_distribution_assets_dummy-00001-of-00002.gguf");
    let expected = fixture::nfl(&["show", fixture::text(&whole), "--tensors"]).expect_success();
    let tensors = |text: &str| text.lines().filter(|line| line.contains("weight")).count();
    assert_eq!(tensors(&shown), tensors(&expected));
}

#[test]
fn a_checkpoint_is_pulled_and_converted() {
    let Some(source) = fixture::material("derived/stories260K-hf-llama") else { return };
    let mut shelf = Shelf::default();
    for name in fixture::files_of(&source) {
        let content = std::fs::read(source.join(&name)).unwrap();
        shelf.put("someone/stories", &name, &content);
    }
    let (_, server) = hub(shelf);
    let home = Home::new().with("HF_ENDPOINT", &server.url(""));
    home.nfl(&["pull", "someone/stories", "--convert", "f16"]).expect_success();
    let folder = tempfile::tempdir().unwrap();
    let file = fixture::convert(&source, "f16", folder.path()).remove(0);
    let story = |model: &str| {
        home.nfl(&["run", "--raw", "--temperature", "0", "--tokens", "20", model, "Once"])
            .expect_success()
    };
    assert_eq!(story("someone/stories:f16"), story(fixture::text(&file)));
    assert_eq!(fixture::files_of(&home.folder.path().join("partial")), [""; 0]);
}

#[test]
fn a_model_is_pushed_to_a_new_repository() {
    let Some(file) = fixture::material("oracle/stories260K-F16.gguf") else { return };
    let content = model().unwrap();
    for chunk in [0, 500_000] {
        let shelf = Shelf { token: "hf_secret".to_owned(), chunk, ..Shelf::default() };
        let (shelf, server) = hub(shelf);
        let home = Home::new().with("HF_ENDPOINT", &server.url(""));
        let name = "hf.co/me/stories-GGUF:f16";
        home.nfl(&["import", fixture::text(&file), "--name", name]).expect_success();
        let ran = home.nfl(&["push", name]);
        assert!(ran.status == 1 && ran.stderr.contains("HF_TOKEN"), "{}", ran.stderr);
        let home = home.with("HF_TOKEN", "hf_secret");
        home.nfl(&["push", name]).expect_success();
        let shelf = shelf.lock().unwrap();
        let files = &shelf.repositories["me/stories-GGUF"];
        assert_eq!(files.len(), 1);
        assert!(**files.values().next().unwrap() == content);
    }
}

#[test]
fn a_search_says_what_fits() {
    let Some(shelf) = tiny() else { return };
    let (_, server) = hub(shelf);
    let home = Home::new().with("HF_ENDPOINT", &server.url(""));
    let found = home.nfl(&["search", "tiny", "--json"]).expect_success();
    let found: Value = serde_json::from_str(&found).unwrap();
    assert_eq!(found[0]["name"], "hf.co/someone/tiny-GGUF");
    assert_eq!(found[0]["bytes_q4_k_m"].as_u64().unwrap() / 1_000_000_000, 4);
    assert!(found[0]["fits"].is_boolean());
    let table = home.nfl(&["search", "tiny"]).expect_success();
    assert!(table.contains("hf.co/someone/tiny-GGUF") && table.contains("2026-02-03"), "{table}");
    let log = server.log.lock().unwrap();
    let asked = log.iter().find(|request| request.path() == "/api/models").unwrap();
    assert_eq!((asked.query("filter"), asked.query("sort")), (Some("gguf"), Some("downloads")));
}

/// The real client against the hub of the tests, where `NFL_TEST_HUB_PYTHON` names a Python that has it.
#[test]
fn the_real_client_believes_the_hub_of_the_tests() {
    let Some(python) = std::env::var_os("NFL_TEST_HUB_PYTHON") else {
        eprintln!("skipped: NFL_TEST_HUB_PYTHON names no Python with huggingface_hub");
        return;
    };
    let Some(shelf) = tiny() else { return };
    let (_, server) = hub(shelf);
    let folder = tempfile::tempdir().unwrap();
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/hub.py");
    let mut command = Command::new(python);
    command.arg(script).arg(folder.path()).env("HF_ENDPOINT", server.url(""));
    command.env("HF_TOKEN", "hf_any").env("HF_HOME", folder.path()).env("HF_HUB_DISABLE_XET", "1");
    let output = command.output().unwrap();
    let (stdout, stderr) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(stdout.contains("faithful"), "{stdout}\n{stderr}");
}
