//! Models on demand with real workers: loaded, evicted, killed, saved, replaced.

use std::ops::ControlFlow;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use nfl::chat::pool::{Ask, KeepAlive, Lease, Pool, PoolError, PoolOptions, Workers};
use nfl::chat::{ChatError, Event, Input, Request};
use nfl::engine::embedding::{EmbeddingOptions, EmbeddingRequest, Passage};
use nfl::engine::frames::Done;
use nfl::engine::options::{Sampling, Speculation, StateOptions};
use nfl::engine::process::EngineError;
use nfl::engine::runner::Cancel;
use nfl::store::{Found, Kind, Link, Origin, Piece, Source, Store};
use tempfile::TempDir;

use crate::fixture;

const F32: &str = "derived/stories260K-llama-F32.gguf";
const F16: &str = "oracle/stories260K-F16.gguf";

/// A pool with a home of its own.
struct Home {
    pool: Pool,
    folder: TempDir,
}

impl Home {
    fn new(options: impl FnOnce(&Path) -> PoolOptions) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let workers = Workers { program: fixture::program().to_owned() };
        let options = options(folder.path());
        Self { pool: Pool::new(folder.path().to_owned(), Box::new(workers), options), folder }
    }

    /// Gives a model of the material a name here.
    fn import(&self, file: &str, name: &str) -> Option<()> {
        let file = fixture::material(file)?;
        let found = Found {
            name: name.parse().unwrap(),
            source: Source::new(Origin::File, fixture::text(&file)),
            pieces: vec![Piece::new(Kind::Model, &file).unwrap()],
        };
        let store = Store::open(self.folder.path()).unwrap();
        store.import(&found, &[Link::Copy], &mut |_| true).unwrap();
        Some(())
    }

    fn acquire(&self, name: &str) -> Lease {
        self.pool.acquire(&ask(name)).unwrap()
    }

    fn names(&self) -> Vec<String> {
        let mut names: Vec<String> =
            self.pool.loaded().into_iter().map(|model| model.name).collect();
        names.sort();
        names
    }
}

fn ask(name: &str) -> Ask {
    // Few threads: many tests share the machine.
    Ask { threads: Some(1), ..Ask::new(name) }
}

fn usual(_: &Path) -> PoolOptions {
    PoolOptions { keep_alive: KeepAlive::Forever, ..PoolOptions::default() }
}

fn tale(text: &str, tokens: u32) -> Request {
    Request::new(Input::Text(text.to_owned()), Sampling::greedy(), Vec::new(), Some(tokens))
        .unwrap()
}

fn tell(lease: &Lease, request: &Request) -> Result<(String, Done), ChatError> {
    let mut told = String::new();
    let done = lease.reply(request, &Cancel::default(), &mut |event| {
        if let Event::Text(text) = event {
            told.push_str(&text);
        }
        ControlFlow::Continue(())
    })?;
    Ok((told, done))
}

/// What llama.cpp's own program tells after "Once upon a time".
fn once() -> Option<String> {
    let text = std::fs::read_to_string(fixture::material("oracle/greedy60.txt")?).unwrap();
    Some(text.trim_start().strip_prefix("Once upon a time").unwrap().trim_end().to_owned())
}

fn eventually(what: &str, is_so: impl Fn() -> bool) {
    let started = Instant::now();
    while !is_so() {
        assert!(started.elapsed() < Duration::from_secs(30), "{what} never was");
        thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn models_come_when_they_are_asked_for_and_make_room_for_others() {
    let home = Home::new(|home| PoolOptions { models_max: Some(1), ..usual(home) });
    let (Some(()), Some(()), Some(once)) =
        (home.import(F32, "exact"), home.import(F16, "half"), once())
    else {
        return;
    };
    let busy = home.acquire("exact");
    assert_eq!(home.names(), ["exact"]);
    let model = &home.pool.loaded()[0];
    assert!(model.bytes > busy.info().weights_bytes, "{model:?}");
    assert_eq!((model.gpu_bytes, model.context_tokens, model.busy), (0, 512, 1));
    assert_eq!(model.digest, model.manifest.as_ref().map(|manifest| manifest.digest().hex()));
    thread::scope(|scope| {
        let other = scope.spawn(|| tell(&home.acquire("half"), &tale("Once upon a time", 60)));
        // The busy one answers to its end though another waits for its place.
        for _ in 0..3 {
            assert_eq!(tell(&busy, &tale("Once upon a time", 60)).unwrap().0.trim_end(), once);
        }
        assert_eq!(home.names(), ["exact"]);
        drop(busy);
        assert_eq!(other.join().unwrap().unwrap().0.trim_end(), once);
    });
    assert_eq!(home.names(), ["half"]);
    let hasty = Ask { keep_alive: Some(KeepAlive::For(Duration::from_millis(20))), ..ask("half") };
    drop(home.pool.acquire(&hasty).unwrap());
    eventually("it goes when its time is over", || home.pool.loaded().is_empty());
}

#[test]
fn a_killed_worker_costs_what_it_was_saying_and_nothing_else() {
    let home = Home::new(usual);
    let (Some(()), Some(()), Some(once)) =
        (home.import(F32, "killed"), home.import(F16, "spared"), once())
    else {
        return;
    };
    let (killed, spared) = (home.acquire("killed"), home.acquire("spared"));
    thread::scope(|scope| {
        let other = scope.spawn(|| tell(&spared, &tale("Once upon a time", 60)));
        let mut tokens = 0;
        let lost = killed.reply(&tale("Once upon a time", 400), &Cancel::default(), &mut |event| {
            tokens += u32::from(matches!(event, Event::Text(_)));
            if tokens == 3 {
                killed.runner().kill();
            }
            ControlFlow::Continue(())
        });
        let is_death = matches!(lost, Err(ChatError::Engine(EngineError::WorkerDied { .. })));
        assert!(is_death, "{lost:?}");
        assert_eq!(other.join().unwrap().unwrap().0.trim_end(), once);
    });
    // One that had not begun when the worker died is made by a fresh one.
    assert_eq!(tell(&killed, &tale("Once upon a time", 60)).unwrap().0.trim_end(), once);
    assert_eq!(home.names(), ["killed", "spared"]);
    drop(killed);
    let fresh = home.acquire("killed");
    fresh.runner().kill();
    drop(fresh);
    eventually("the dead one is not told", || home.names() == ["spared"]);
    let (text, _) = tell(&home.acquire("killed"), &tale("Once upon a time", 60)).unwrap();
    assert_eq!(text.trim_end(), once);
}

#[test]
fn a_conversation_is_known_again_after_its_model_was_unloaded() {
    let home = Home::new(|home| PoolOptions {
        states: Some(StateOptions { directory: home.join("states"), bytes_max: 1 << 30 }),
        speculation: Speculation::Off,
        ..usual(home)
    });
    let Some(()) = home.import(F32, "stories") else { return };
    let story = "Once upon a time there was a little girl named Lily. ".repeat(8);
    let (first, done) = tell(&home.acquire("stories"), &tale(&story, 20)).unwrap();
    assert!(done.prompt_tokens > 64 && done.restored_tokens == 0);
    assert!(home.pool.unload("Stories:LATEST"), "names have several spellings");
    assert!(home.pool.loaded().is_empty());
    let (again, done) = tell(&home.acquire("stories"), &tale(&story, 20)).unwrap();
    assert_eq!(again, first);
    assert!(done.restored_tokens > 64, "{done:?}");
}

#[test]
fn a_name_that_means_another_model_now_gets_that_one() {
    let home = Home::new(usual);
    let Some(()) = home.import(F32, "name") else { return };
    let old = home.acquire("name");
    let bytes = old.info().weights_bytes;
    home.import(F16, "name").unwrap();
    let new = home.acquire("name");
    assert!(new.info().weights_bytes < bytes);
    assert_eq!(home.pool.loaded().len(), 2, "the old one is asked still");
    tell(&old, &tale("The dog", 5)).unwrap();
    drop(old);
    assert_eq!(home.pool.loaded().len(), 1);
    drop(new);
    let store = Store::open(home.folder.path()).unwrap();
    store.remove(&"name".parse().unwrap()).unwrap();
    let missing = home.pool.acquire(&ask("name")).unwrap_err();
    assert!(matches!(missing, PoolError::Store(_)), "{missing}");
    assert!(home.pool.loaded().is_empty());
}

#[test]
fn what_cannot_be_is_refused_and_nothing_else_suffers() {
    let home = Home::new(usual);
    let Some(()) = home.import(F32, "stories") else { return };
    drop(home.acquire("stories"));
    let mut huge = ask("stories");
    huge.wishes.context_tokens = Some(1 << 31);
    let refused = home.pool.acquire(&huge).unwrap_err();
    assert!(matches!(refused, PoolError::Plan(_)), "{refused}");
    let broken = home.folder.path().join("broken.gguf");
    std::fs::write(&broken, b"GGUF and nothing").unwrap();
    for _ in 0..3 {
        let refused = home.pool.acquire(&ask(fixture::text(&broken))).unwrap_err();
        assert!(matches!(refused, PoolError::Load(_)), "{refused}");
    }
    assert_eq!(home.names(), ["stories"]);
    let mut larger = ask("stories");
    larger.wishes.context_tokens = Some(1024);
    assert_eq!(home.pool.acquire(&larger).unwrap().info().context_tokens, 1024);
    assert_eq!(home.acquire("stories").info().context_tokens, 1024, "it does for any other");
}

#[test]
fn models_that_read_are_loaded_to_read() {
    let home = Home::new(usual);
    let ranker = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/reranker.gguf");
    let reads = |name: &str| Ask { embeds: true, ..ask(name) };
    let lease = home.pool.acquire(&reads(fixture::text(&ranker))).unwrap();
    assert!(lease.info().embedding_tokens > 0);
    assert!(tell(&lease, &tale("x", 5)).is_err(), "it does nothing else");
    let Some(()) = home.import(F32, "stories") else { return };
    let lease = home.pool.acquire(&reads("stories")).unwrap();
    let options = EmbeddingOptions::default();
    let request = EmbeddingRequest { passages: vec![Passage::Text("a cat".to_owned())], options };
    let found = lease.runner().embed(request, &Cancel::default()).unwrap();
    assert_eq!(found.embeddings[0].vectors[0].len(), 64);
    assert!(tell(&lease, &tale("Once", 5)).is_ok(), "a model that talks can read besides");
    assert_eq!(home.pool.loaded().len(), 2);
}
