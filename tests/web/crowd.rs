//! Several processes at one store while models come: pulls of the same, and collections between them.

use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use nfl::store::Digest;
use serde_json::Value;

use super::Home;
use super::registry::{Shelf, answer};
use super::server::{Answer, Server};
use crate::fixture;

/// Content that comes at once, and a model that takes a second.
fn slow_model() -> Option<(Server, Arc<Vec<u8>>)> {
    let model = std::fs::read(fixture::material("oracle/stories260K-F16.gguf")?).unwrap();
    let model = Arc::new(model);
    let shelf: Arc<Mutex<Shelf>> = Arc::default();
    {
        let mut shelf = shelf.lock().unwrap();
        let layers = [
            shelf.put("application/vnd.ollama.image.system", b"Tell stories."),
            shelf.put("application/vnd.ollama.image.license", b"MIT"),
            shelf.put("application/vnd.ollama.image.model", &model),
        ];
        let manifest = shelf.manifest_of(&layers);
        shelf.manifests.insert("me/tiny:1".to_owned(), manifest);
    }
    let rate = Some(model.len() as f64);
    let server = Server::start(move |request| {
        let answer = answer(&mut shelf.lock().unwrap(), request);
        Answer { rate: rate.filter(|_| answer.body.len() > 1000), ..answer }
    });
    Some((server, model))
}

fn blob(home: &Home, content: &[u8]) -> Option<Vec<u8>> {
    std::fs::read(home.folder.path().join("blobs").join(Digest::of(content).file_name())).ok()
}

/// Case 44: a collection takes nothing from a pull that runs, and what one that was killed left.
#[test]
fn a_collection_leaves_a_pull_alone() {
    let Some((server, model)) = slow_model() else { return };
    let home = Home::new();
    let name = format!("{}/me/tiny:1", server.address);
    let start = || {
        let mut command = home.command(&["pull", "--insecure", &name]);
        command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap()
    };
    let prune = || {
        let text = home.nfl(&["prune", "--json"]).expect_success();
        serde_json::from_str::<Value>(&text).unwrap()["freed_bytes"].as_u64().unwrap()
    };
    let small_came = || blob(&home, b"MIT").is_some();
    let mut killed = start();
    while !small_came() {
        std::thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(prune(), 0, "it is in use");
    killed.kill().unwrap();
    killed.wait().unwrap();
    assert!(prune() > 0 && !small_came(), "nobody uses it");
    let mut pull = start();
    let mut collections = 0;
    while pull.try_wait().unwrap().is_none() {
        assert_eq!(prune(), 0);
        collections += 1;
    }
    let output = pull.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(collections > 1, "the pull was too quick");
    assert_eq!(prune(), 0);
    assert!(small_came() && blob(&home, &model).unwrap() == *model);
    assert_eq!(fixture::files_of(&home.folder.path().join("partial")), [""; 0]);
}

/// Case 43: processes that pull the same fetch it once.
#[test]
fn processes_that_pull_the_same_share_it() {
    let Some((server, model)) = slow_model() else { return };
    let home = Home::new();
    let name = format!("{}/me/tiny:1", server.address);
    let copies: Vec<String> = (0..3).map(|number| format!("copy{number}")).collect();
    let start = |copy: &String| {
        let mut command = home.command(&["pull", "--insecure", &name, "--name", copy]);
        command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap()
    };
    let pulls: Vec<_> = copies.iter().map(start).collect();
    for pull in pulls {
        let output = pull.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    assert_eq!(server.count(&Digest::of(&model).to_string()), 1);
    assert_eq!(home.models(), 3);
    assert!(blob(&home, &model).unwrap() == *model);
}
