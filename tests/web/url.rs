//! Models at plain addresses, as a person pulls them and asks after them.

use std::sync::{Arc, Mutex};

use nfl::store::Digest;
use serde_json::Value;

use super::Home;
use super::server::{Answer, Request, Server};
use crate::fixture;

/// What a server has at its only address, and what it says about it.
struct Shelf {
    content: Arc<Vec<u8>>,
    headers: Vec<(&'static str, &'static str)>,
}

impl Shelf {
    fn answer(&self, request: &Request) -> Answer {
        let answer = Answer::file(&self.content, request, "");
        self.headers.iter().fold(answer, |answer, (name, value)| answer.with(name, value))
    }
}

fn material(name: &str) -> Option<Arc<Vec<u8>>> {
    Some(Arc::new(std::fs::read(fixture::material(name)?).unwrap()))
}

/// The two states of the file.
fn models() -> Option<[Arc<Vec<u8>>; 2]> {
    Some([material("oracle/stories260K-F16.gguf")?, material("oracle/stories260K-Q4_K_M.gguf")?])
}

fn state(home: &Home) -> Value {
    let text = home.nfl(&["outdated", "--json"]).expect_success();
    serde_json::from_str::<Value>(&text).unwrap()[0]["state"].clone()
}

#[test]
fn a_changed_file_is_outdated() {
    let Some([old, new]) = models() else { return };
    let cases = [
        (vec![("ETag", "\"1\"")], vec![("ETag", "\"2\"")]),
        (vec![("ETag", "W/\"1\"")], vec![("ETag", "W/\"2\"")]),
        (
            vec![("Last-Modified", "Sun, 06 Nov 1994 08:49:37 GMT")],
            vec![("Last-Modified", "Sun, 06 Nov 1994 08:49:38 GMT")],
        ),
    ];
    for (before, after) in cases {
        let first = Shelf { content: old.clone(), headers: before };
        let shelf = Arc::new(Mutex::new(first));
        let shown = shelf.clone();
        let server = Server::start(move |request| shown.lock().unwrap().answer(request));
        let home = Home::new();
        let url = server.url("/tiny.gguf");
        let planned = home.nfl(&["pull", "--dry-run", &url]).expect_success();
        assert!(planned.contains("587 KiB"), "{planned}");
        home.nfl(&["pull", &url]).expect_success();
        assert_eq!(state(&home), "current");
        let again = home.nfl(&["pull", &url]);
        assert!(again.stderr.contains("is up to date"), "{}", again.stderr);
        *shelf.lock().unwrap() = Shelf { content: new.clone(), headers: after };
        assert_eq!(state(&home), "outdated");
        home.nfl(&["pull", "--all"]).expect_success();
        assert_eq!(state(&home), "current");
        let blob = home.folder.path().join("blobs").join(Digest::of(&new).file_name());
        assert!(std::fs::read(blob).unwrap() == *new);
    }
}

/// A server that says nothing of a state can still have a file of another size; and one that says it of another address
/// says nothing of this one.
#[test]
fn what_cannot_be_told_is_said() {
    let Some([old, new]) = models() else { return };
    let shelf = Arc::new(Mutex::new(Shelf { content: old.clone(), headers: vec![] }));
    let shown = shelf.clone();
    let server = Server::start(move |request| shown.lock().unwrap().answer(request));
    let home = Home::new();
    home.nfl(&["pull", &server.url("/tiny.gguf")]).expect_success();
    assert_eq!(state(&home), "unknown");
    shelf.lock().unwrap().content = new.clone();
    assert_eq!(state(&home), "outdated");
    shelf.lock().unwrap().headers = vec![("ETag", "\"same\"")];
    home.nfl(&["pull", &server.url("/tiny.gguf")]).expect_success();
    shelf.lock().unwrap().content = old.clone();
    let other = server.url("/other.gguf");
    home.nfl(&["pull", &other, "--name", "tiny"]).expect_success();
    let blob = home.folder.path().join("blobs").join(Digest::of(&old).file_name());
    assert!(std::fs::read(blob).unwrap() == *old);
    let ran = home.nfl(&["pull", &server.url("/tiny.gguf?"), "--offline", "--name", "x"]);
    assert!(ran.stderr.contains("offline"), "{}", ran.stderr);
}

/// Servers that refuse HEAD, that count nothing beforehand, or have nothing.
#[test]
fn odd_servers_are_understood() {
    let Some([content, _]) = models() else { return };
    let served = content.clone();
    let server = Server::start(move |request| match (request.method.as_str(), request.path()) {
        (_, "/nothing.gguf") => Answer::new(404, ""),
        ("HEAD", "/plain.gguf") => Answer::new(403, ""),
        (_, "/plain.gguf") => Answer::file(&served, request, "\"1\""),
        ("HEAD", _) => Answer::new(200, "").with("ETag", "\"2\""),
        _ => Answer::chunked(&served).with("ETag", "\"2\""),
    });
    let home = Home::new();
    home.nfl(&["pull", &server.url("/plain.gguf")]).expect_success();
    home.nfl(&["pull", &server.url("/chunks.gguf")]).expect_success();
    assert_eq!(home.models(), 2);
    for name in ["/plain.gguf", "/chunks.gguf"] {
        let ran = home.nfl(&["pull", &server.url(name)]);
        assert!(ran.stderr.contains("is up to date"), "{}", ran.stderr);
    }
    let ran = home.nfl(&["pull", &server.url("/nothing.gguf")]);
    assert!(ran.status == 1 && ran.stderr.contains("HTTP status 404"), "{}", ran.stderr);
}

/// Case 45: a disk that is full before a pull, and one that fills during it. What came stays, and the next pull goes on.
#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_keeps_what_came() {
    let Some([content, _]) = models() else { return };
    let served = content.clone();
    let server = Server::start(move |request| match request.path() {
        "/counted.gguf" => Answer::file(&served, request, "\"1\""),
        // Its size is not said, so that nobody can look for room beforehand.
        _ if request.range().is_some_and(|range| range.0 > 0) => {
            Answer::file(&served, request, "\"1\"")
        }
        _ if request.method == "HEAD" => Answer::new(200, "").with("ETag", "\"1\""),
        _ => Answer::chunked(&served).with("ETag", "\"1\""),
    });
    let script = "mount -t tmpfs -o size=1m none \"$NFL_HOME\" || exit 77\n\
        head -c 700000 /dev/zero > \"$NFL_HOME/ballast\"\n\
        \"$0\" pull \"$1\" --name a; echo $?\n\
        \"$0\" list --json | grep -c digest\n\
        rm \"$NFL_HOME/ballast\"\n\
        \"$0\" pull \"$1\" --name a > /dev/null || exit 3\n\
        cat \"$NFL_HOME\"/blobs/sha256-* | sha256sum; ls -A \"$NFL_HOME/partial\"";
    let right = format!("1\n0\n{}", Digest::of(&content).hex());
    for (path, words) in [("/counted.gguf", "are still to come"), ("/chunks.gguf", "No space left")]
    {
        let home = Home::new();
        server.log.lock().unwrap().clear();
        let mut command = fixture::isolated(&["--mount"], script, &home.command(&[]));
        command.arg(fixture::program()).arg(server.url(path));
        let Some(ran) = fixture::ran_isolated(command) else { return };
        assert_eq!(ran.stdout.trim().trim_end_matches("  -"), right, "{}", ran.stderr);
        assert!(ran.stderr.contains(words), "{words}: {}", ran.stderr);
        assert!(ran.stderr.contains("hint: make room"), "{}", ran.stderr);
        let log = server.log.lock().unwrap();
        let starts: Vec<usize> =
            log.iter().filter_map(Request::range).map(|range| range.0).collect();
        let goes_on = starts.iter().any(|start| *start > 0);
        assert_eq!(goes_on, path == "/chunks.gguf", "{path}: {starts:?}");
    }
}
