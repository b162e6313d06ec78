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
    let error = store.remove(&name("hf.co/a/f")).unwrap_err();
    assert_eq!(error.to_string(), "there is no model hf.co/a/f");
    assert_eq!(nfl_models::Hint::hint(&error).unwrap(), "there is hf.co/a/e");
    store.remove(&name("hf.co/a/e")).unwrap();
    assert_eq!(fs::read_dir(home.path().join("models")).unwrap().count(), 0);
    assert_eq!(store.home, Path::new(&home.path()));
}
