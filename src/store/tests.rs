//! The store under many hands, and in the hands of those who mean harm.

use std::fs;
use std::path::Path;

use tempfile::TempDir;

use super::*;

fn store() -> (TempDir, Store) {
    let home = TempDir::new().unwrap();
    let store = Store::open(home.path()).unwrap();
    (home, store)
}

fn name(text: &str) -> Reference {
    text.parse().unwrap()
}

/// A model of one text that is no model: the store does not care.
fn model(store: &Store, called: &str, content: &[u8]) -> Manifest {
    let layer = store.put(Kind::Model, content).unwrap();
    let manifest = Manifest::new(name(called), Source::new(Origin::File, "x"), vec![layer]);
    store.write(&manifest).unwrap();
    manifest
}

#[test]
fn what_is_written_is_read() {
    let (home, store) = store();
    assert_eq!(store.list().unwrap().manifests, []);
    assert_eq!(store.read(&name("a:b")).unwrap(), None);
    let written = model(&store, "hf.co/Some/One:Q8_0", b"weights");
    assert_eq!(store.read(&name("hf.co/some/one:q8_0")).unwrap().unwrap(), written);
    let path = home.path().join("models/hf.co/some/one/q8_0.json");
    let text = fs::read_to_string(path).unwrap();
    assert!(text.contains("\n  \"name\": \"hf.co/Some/One:Q8_0\""), "{text}");
    let blob = store.blob_path(&Digest::of(b"weights"));
    assert_eq!(fs::read(&blob).unwrap(), b"weights");
    assert!(fs::metadata(&blob).unwrap().permissions().readonly());
}

#[test]
fn entries_of_a_newer_version_survive_a_rewrite() {
    let (home, store) = store();
    model(&store, "a", b"1");
    let path = home.path().join("models/local/a/latest.json");
    let mut document: serde_json::Value =
        serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    document["later"] = serde_json::json!({"x": 1});
    document["layers"][0]["later"] = "y".into();
    document["source"]["later"] = "z".into();
    document["source"]["origin"] = "the-moon".into();
    document["facts"]["capabilities"] = serde_json::json!(["completion", "telepathy"]);
    document["facts"]["later"] = 7.into();
    fs::write(&path, document.to_string()).unwrap();
    store.copy(&name("a"), &name("b"), false).unwrap();
    let copy = home.path().join("models/local/b/latest.json");
    let copy: serde_json::Value = serde_json::from_slice(&fs::read(copy).unwrap()).unwrap();
    assert_eq!(copy["later"]["x"], 1);
    assert_eq!(copy["layers"][0]["later"], "y");
    assert_eq!(copy["source"]["later"], "z");
    assert_eq!(copy["facts"]["later"], 7);
    document["version"] = 2.into();
    fs::write(&path, document.to_string()).unwrap();
    assert!(matches!(store.read(&name("a")), Err(StoreError::Version { version: 2, .. })));
}

#[test]
fn content_is_kept_once() {
    let (home, store) = store();
    model(&store, "a", b"same");
    model(&store, "b", b"same");
    store.copy(&name("a"), &name("c"), false).unwrap();
    assert!(matches!(store.copy(&name("a"), &name("c"), false), Err(StoreError::Exists(_))));
    assert_eq!(store.list().unwrap().manifests.len(), 3);
    assert_eq!(fs::read_dir(home.path().join("blobs")).unwrap().count(), 1);
    assert_eq!(fs::read_dir(store.partial_folder()).unwrap().count(), 0);
}

#[test]
fn a_broken_manifest_hides_no_other() {
    let (home, store) = store();
    model(&store, "good", b"1");
    let folder = home.path().join("models/local");
    fs::create_dir_all(folder.join("bad")).unwrap();
    fs::write(folder.join("bad/latest.json"), "{").unwrap();
    fs::copy(folder.join("good/latest.json"), folder.join("bad/other.json")).unwrap();
    fs::write(folder.join("bad/huge.json"), vec![b' '; MANIFEST_BYTES_MAX as usize + 1]).unwrap();
    fs::write(folder.join("bad/a b.json"), "{}").unwrap();
    let listing = store.list().unwrap();
    assert_eq!(listing.manifests.len(), 1);
    let mut broken: Vec<String> = listing.broken.iter().map(ToString::to_string).collect();
    broken.sort();
    assert_eq!(broken.len(), 4, "{broken:?}");
    assert!(store.read(&name("bad:other")).unwrap_err().to_string().contains("that of good"));
}

#[test]
fn hostile_manifests_are_refused() {
    let (home, store) = store();
    let path = home.path().join("models/local/a/latest.json");
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    let hex = "0".repeat(64);
    let with_layers = |layers: &str| {
        format!(
            r#"{{"version": 1, "name": "a", "source": {{"origin": "file", "path": "x"}},
                "created": "", "layers": [{layers}]}}"#
        )
    };
    let layer = |digest: &str, bytes: &str| {
        format!(r#"{{"kind": "model", "digest": "{digest}", "bytes": {bytes}}}"#)
    };
    fs::write(&path, with_layers(&layer(&format!("sha256:{hex}"), "1"))).unwrap();
    assert!(store.read(&name("a")).is_ok());
    let many = vec![layer(&format!("sha256:{hex}"), "1"); LAYERS_MAX + 1].join(",");
    for layers in [
        layer("sha256:../../../etc/passwd", "1"),
        layer(&format!("sha256:{}", "A".repeat(64)), "1"),
        layer(&format!("sha256:{}", &hex[1..]), "1"),
        layer(&format!("sha256:{hex}"), "-1"),
        layer(&format!("sha256:{hex}"), "1e99"),
        many,
    ] {
        fs::write(&path, with_layers(&layers)).unwrap();
        assert!(store.read(&name("a")).is_err(), "{}", &layers[..layers.len().min(200)]);
    }
    fs::write(&path, "[".repeat(100_000)).unwrap();
    assert!(store.read(&name("a")).is_err());
}

#[test]
fn a_manifest_whose_blobs_are_not_here_is_not_written() {
    let (_home, store) = store();
    let layer = Layer::new(Kind::Model, Digest::of(b"elsewhere"), 9);
    let source = Source::new(Origin::File, "x");
    let manifest = Manifest::new(name("a"), source.clone(), vec![layer]);
    assert!(matches!(store.write(&manifest), Err(StoreError::Blob { .. })));
    let mut layer = store.put(Kind::Model, b"short").unwrap();
    layer.bytes += 1;
    let manifest = Manifest::new(name("a"), source, vec![layer]);
    assert!(matches!(store.write(&manifest), Err(StoreError::Blob { .. })));
    assert_eq!(store.list().unwrap().manifests, []);
}

#[test]
fn a_file_of_the_wrong_length_is_not_adopted() {
    let (_home, store) = store();
    let partial = store.partial_folder();
    fs::create_dir_all(&partial).unwrap();
    let file = partial.join("x");
    fs::write(&file, b"weights").unwrap();
    let digest = Digest::of(b"weights");
    assert!(store.adopt(&file, &digest, 8).is_err());
    assert!(file.exists() && !store.has(&digest, 7));
    let blob = store.adopt(&file, &digest, 7).unwrap();
    assert!(!file.exists() && store.has(&digest, 7) && !store.has(&digest, 8));
    fs::write(&file, b"weights").unwrap();
    assert_eq!(store.adopt(&file, &digest, 7).unwrap(), blob);
    assert!(!file.exists());
}

#[test]
fn a_model_that_is_removed_leaves_no_folders() {
    let (home, store) = store();
    model(&store, "hf.co/a/b/c:d", b"1");
    model(&store, "hf.co/a/e", b"1");
    store.note_use(&name("hf.co/a/b/c:d"));
    assert!(store.last_used(&name("hf.co/a/b/c:d")).is_some());
    assert!(store.last_used(&name("hf.co/a/e")).is_none());
    store.remove(&name("HF.co/A/B/C:D")).unwrap();
    assert!(!home.path().join("models/hf.co/a/b").exists());
    let collected = store.collect(Scope::All, false).unwrap();
    assert_eq!(collected, Collected::default());
    let error = store.remove(&name("hf.co/a/f")).unwrap_err();
    assert_eq!(error.to_string(), "there is no model hf.co/a/f");
    assert_eq!(nfl_models::Hint::hint(&error).unwrap(), "there is hf.co/a/e");
    store.remove(&name("hf.co/a/e")).unwrap();
    assert_eq!(fs::read_dir(home.path().join("models")).unwrap().count(), 0);
    assert_eq!(store.home, Path::new(&home.path()));
}

#[test]
fn a_broken_manifest_can_be_removed_and_stops_a_collection() {
    let (home, store) = store();
    model(&store, "good", b"1");
    drop(store);
    let store = Store::open(home.path()).unwrap();
    let path = home.path().join("models/local/good/latest.json");
    fs::write(&path, "{}").unwrap();
    assert!(store.collect(Scope::All, false).is_err());
    assert!(store.has(&Digest::of(b"1"), 1));
    assert_eq!(store.remove(&name("good")).unwrap(), None);
}

#[test]
fn only_what_no_model_names_is_collected() {
    let (home, store) = store();
    model(&store, "a", b"shared");
    let replaced = model(&store, "b", b"own");
    model(&store, "b", b"shared");
    let killed = store.put(Kind::Model, b"of a pull that was killed").unwrap();
    drop(store);
    let store = Store::open(home.path()).unwrap();
    let planned = store.collect(Scope::Of(&replaced), true).unwrap();
    assert_eq!(planned.blobs, [(Digest::of(b"own"), 3)]);
    assert_eq!(store.collect(Scope::Of(&replaced), false).unwrap(), planned);
    assert!(!store.blob_path(&Digest::of(b"own")).exists());
    assert!(store.blob_path(&killed.digest).exists());
    let remains = home.path().join("blobs/.arriving-x");
    fs::write(&remains, "x").unwrap();
    assert_eq!(store.collect(Scope::All, false).unwrap().remains, 0, "it may be arriving");
    let old = std::time::SystemTime::now() - std::time::Duration::from_hours(1);
    fs::File::options().write(true).open(&remains).unwrap().set_modified(old).unwrap();
    assert_eq!(store.collect(Scope::All, false).unwrap().remains, 1);
    assert!(!remains.exists() && !store.blob_path(&killed.digest).exists());
    assert!(store.blob_path(&Digest::of(b"shared")).exists());
}

#[test]
fn what_is_used_or_arriving_is_not_collected() {
    let (home, running) = store();
    model(&running, "a", b"used");
    drop(running);
    let running = Store::open(home.path()).unwrap();
    running.resolve("a").unwrap();
    let pulling = Store::open(home.path()).unwrap();
    let arrived = pulling.put(Kind::Model, b"arrived").unwrap();
    let other = Store::open(home.path()).unwrap();
    other.remove(&name("a")).unwrap();
    let collected = other.collect(Scope::All, false).unwrap();
    assert_eq!((collected.blobs.len(), collected.in_use.len()), (0, 2));
    drop((running, pulling));
    let collected = other.collect(Scope::All, false).unwrap();
    assert_eq!((collected.blobs.len(), collected.in_use.len()), (2, 0));
    assert!(!other.has(&arrived.digest, arrived.bytes));
}

/// Pulls, removals and collections of the same few contents by many at once: whoever has written a manifest finds its
/// content, as long as the manifest is there.
#[test]
fn many_at_once_lose_nothing() {
    let (home, store) = store();
    let contents: [&[u8]; 3] = [b"one", b"two", b"three"];
    std::thread::scope(|scope| {
        for worker in 0..4_usize {
            let home = home.path();
            scope.spawn(move || {
                let called = format!("worker{worker}");
                for round in 0..40_usize {
                    let store = Store::open(home).unwrap();
                    let content = contents[(worker + round) % 3];
                    model(&store, &called, content);
                    drop(store);
                    let store = Store::open(home).unwrap();
                    let resolved = store.resolve(&called).unwrap();
                    assert_eq!(fs::read(&resolved.model).unwrap(), content);
                    drop(store);
                    let store = Store::open(home).unwrap();
                    store.remove(&name(&called)).unwrap();
                }
            });
        }
        for _ in 0..2 {
            let home = home.path();
            scope.spawn(move || {
                for _ in 0..80 {
                    Store::open(home).unwrap().collect(Scope::All, false).unwrap();
                }
            });
        }
    });
    store.collect(Scope::All, false).unwrap();
    assert_eq!(fs::read_dir(home.path().join("blobs")).unwrap().count(), 0);
}

#[test]
fn what_is_typed_is_a_path_an_address_or_a_name() {
    let path = |text: &str| Wanted::Path(text.into());
    for (text, wanted) in [
        ("./a", path("./a")),
        ("..", path("..")),
        ("/a/b", path("/a/b")),
        ("a.gguf", path("a.gguf")),
        ("a/config.json", path("a/config.json")),
        ("file:a", path("a")),
        ("file:///a/b", path("/a/b")),
        ("file:../a", path("../a")),
        ("C:\\a", path("C:\\a")),
        ("https://x.y/a.gguf", Wanted::Url("https://x.y/a.gguf".to_owned())),
        ("qwen3:8b", Wanted::Name(name("qwen3:8b"))),
        ("hf.co/a/b:Q4_K_M", Wanted::Name(name("hf.co/a/b:Q4_K_M"))),
    ] {
        assert_eq!(Wanted::of(text).unwrap(), wanted, "{text}");
    }
    assert!(Wanted::of("a b").is_err());
}

#[test]
fn a_missing_model_is_named_with_the_nearest() {
    let (_home, store) = store();
    model(&store, "qwen3:8b", b"1");
    let hint = |text: &str| nfl_models::Hint::hint(&store.resolve(text).unwrap_err()).unwrap();
    assert_eq!(hint("qewn3:8b"), "there is qwen3:8b");
    assert_eq!(hint("qwen3:30b-a3b-thinking"), "there is qwen3:8b");
    assert_eq!(hint("gemma3"), "get it: nfl pull gemma3");
    assert_eq!(hint("gemma3:4"), "there is gemma3:4b: nfl pull gemma3:4b");
    assert_eq!(hint("hf.co/a/b"), "get it: nfl pull hf.co/a/b");
    assert!(hint("unheard-of-by-anyone").contains("nfl list"));
    fs::remove_file(store.blob_path(&Digest::of(b"1"))).unwrap();
    assert_eq!(hint("qwen3:8b"), "get it again: nfl pull qwen3:8b");
}

#[test]
fn files_of_a_split_model_get_names_with_numbers() {
    let (home, store) = store();
    let layers = [b"one", b"two"].map(|content| store.put(Kind::Model, content).unwrap()).to_vec();
    let manifest = Manifest::new(name("split"), Source::new(Origin::File, "x"), layers);
    store.write(&manifest).unwrap();
    let model = store.resolve("split").unwrap().model;
    assert!(model.ends_with("model-00001-of-00002.gguf"), "{}", model.display());
    assert_eq!(fs::read(&model).unwrap(), b"one");
    assert_eq!(fs::read(model.with_file_name("model-00002-of-00002.gguf")).unwrap(), b"two");
    store.remove(&name("split")).unwrap();
    store.collect(Scope::All, false).unwrap();
    assert_eq!(fs::read_dir(home.path().join("views")).unwrap().count(), 0);
}
