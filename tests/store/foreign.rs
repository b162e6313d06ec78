//! What other programs keep: their layouts, built by their documented rules, are listed, imported and never changed.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::SystemTime;

use serde_json::json;

use super::{Home, hex};
use crate::fixture::{self, text};

/// Everything below a folder: paths, contents, times.
fn tree(folder: &Path) -> BTreeMap<PathBuf, (String, SystemTime)> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() && !path.is_symlink() {
            found.extend(tree(&path));
        } else {
            let modified = fs::symlink_metadata(&path).unwrap().modified().unwrap();
            found.insert(path.clone(), (hex(&fs::read(&path).unwrap()), modified));
        }
    }
    found
}

fn write(path: &Path, content: &[u8]) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, content).unwrap();
}

/// Ollama's store with one model as its registry has them, and one that is another name for it elsewhere.
fn ollama(folder: &Path, weights: &[u8]) {
    let mut layers = Vec::new();
    for (kind, content) in [
        ("model", weights),
        ("template", &b"{{ if .System }}{{ .System }}{{ end }}{{ .Prompt }}"[..]),
        ("system", b"You tell stories."),
        ("params", br#"{"stop":["Lily"],"temperature":0,"num_gqa":8,"new_one":true}"#),
        ("license", b"MIT"),
    ] {
        write(&folder.join(format!("blobs/sha256-{}", hex(content))), content);
        layers.push(json!({"mediaType": format!("application/vnd.ollama.image.{kind}"),
            "digest": format!("sha256:{}", hex(content)), "size": content.len()}));
    }
    let config = br#"{"model_format":"gguf","model_family":"llama"}"#;
    write(&folder.join(format!("blobs/sha256-{}", hex(config))), config);
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.docker.distribution.manifest.v2+json",
        "config": {"mediaType": "application/vnd.docker.container.image.v1+json",
            "digest": format!("sha256:{}", hex(config)), "size": config.len()},
        "layers": layers,
    });
    let text = manifest.to_string();
    write(&folder.join("manifests/registry.ollama.ai/library/story/260k"), text.as_bytes());
    write(&folder.join("manifests/hf.co/Me/Story-GGUF/F32"), text.as_bytes());
    // Hostile ones: a digest that is a path, a length that lies, a blob that is missing.
    for (name, digest, size) in [
        ("path", "sha256:../../../../etc/passwd".to_owned(), 1),
        ("size", format!("sha256:{}", hex(weights)), 1),
        ("missing", format!("sha256:{}", hex(b"nowhere")), 1),
    ] {
        let layer = json!({"mediaType": "application/vnd.ollama.image.model",
            "digest": digest, "size": size});
        let bad = json!({"layers": [layer]}).to_string();
        write(
            &folder.join(format!("manifests/registry.ollama.ai/library/bad/{name}")),
            bad.as_bytes(),
        );
    }
}

/// A repository in the cache of huggingface_hub: blobs by ETag, which is the SHA-256 of large files.
#[cfg(unix)]
fn hub_cache(folder: &Path, story: &Path) {
    let weights = &fs::read(story).unwrap()[..];
    let repository = folder.join("models--Me--Story-GGUF");
    let commit = "0123456789abcdef0123456789abcdef01234567";
    write(&repository.join("refs/main"), commit.as_bytes());
    let snapshot = repository.join("snapshots").join(commit);
    fs::create_dir_all(&snapshot).unwrap();
    for (name, etag, content) in [
        ("story-Q8_0.gguf", hex(weights), weights),
        ("README.md", "b6fc4c620b67d95f953a5c1c1230aaab5db5a1b0".to_owned(), &b"# Story"[..]),
    ] {
        write(&repository.join("blobs").join(&etag), content);
        let target = Path::new("../../blobs").join(&etag);
        std::os::unix::fs::symlink(target, snapshot.join(name)).unwrap();
    }
    // A split model, whose files must find each other behind their links.
    let split = super::split(story, folder.parent().unwrap());
    let repository = folder.join("models--Me--Split");
    let snapshot = repository.join("snapshots").join(commit);
    fs::create_dir_all(&snapshot).unwrap();
    for number in ["00001", "00002"] {
        let name = format!("story-F32-{number}-of-00002.gguf");
        let content = fs::read(split.with_file_name(&name)).unwrap();
        write(&repository.join("blobs").join(hex(&content)), &content);
        let target = Path::new("../../blobs").join(hex(&content));
        std::os::unix::fs::symlink(target, snapshot.join(name)).unwrap();
    }
    // Another program's remains are none of our business.
    write(&folder.join("models--broken/snapshots"), b"");
}

#[cfg(unix)]
#[test]
fn other_programs_models_are_listed_and_imported() {
    let home = Home::new();
    let Some(file) = home.story("story.gguf") else { return };
    let weights = fs::read(&file).unwrap();
    let user = home.path("user");
    ollama(&user.join(".ollama/models"), &weights);
    hub_cache(&user.join(".cache/huggingface/hub"), &file);
    write(&user.join(".lmstudio/models/me/tale/tale.Q4_0.gguf"), &weights);
    let before = tree(&user);
    let found = home.json(&["import", "--json"]);
    let places: Vec<(&str, &str)> = found["found"]
        .as_array()
        .unwrap()
        .iter()
        .map(|each| (each["name"].as_str().unwrap(), each["where"].as_str().unwrap()))
        .collect();
    let expected = [
        ("hf.co/Me/Split:F32", "Hugging Face's cache"),
        ("hf.co/Me/Story-GGUF:F32", "Ollama"),
        ("hf.co/Me/Story-GGUF:Q8_0", "Hugging Face's cache"),
        ("hf.co/me/tale:Q4_0", "LM Studio"),
        ("story:260k", "Ollama"),
    ];
    assert_eq!(places, expected);
    let warned = home.run(&["import"]).stderr;
    assert_eq!(warned.matches("warning: ").count(), 3, "{warned}");
    home.succeed(&["import", "--all", "--link", "in-place", "--quiet"]);
    let shown = home.json(&["show", "story:260k", "--json"]);
    assert_eq!(shown["model"]["system"], "You tell stories.");
    assert_eq!(shown["model"]["parameters_set"]["new_one"], true);
    for (name, _) in expected {
        assert!(home.run(&["show", name]).status == 0, "{name}");
    }
    assert!(home.tells("hf.co/me/story-gguf:q8_0") && home.tells("hf.co/me/tale:q4_0"));
    assert!(home.tells("hf.co/me/split:f32"));
    // Texts were copied, weights were not; nobody else's file was touched.
    assert!(home.blobs().iter().all(|name| *name != format!("sha256-{}", hex(&weights))));
    assert_eq!(tree(&user), before);
    home.succeed(&["rm", "story:260k"]);
    home.succeed(&["import", "story:260k", "--name", "mine"]);
    assert_eq!(home.hint(&["import", "story:260"]).trim(), "there is story:260k");
    home.succeed(&["rm", "mine", "hf.co/me/tale:q4_0"]);
    assert_eq!(tree(&user), before);
    // A byte that fell over on its disk does not become one of our blobs.
    let blob = user.join(format!(".ollama/models/blobs/sha256-{}", hex(&weights)));
    fs::write(&blob, [&weights[..weights.len() - 1], &[!weights[weights.len() - 1]]].concat())
        .unwrap();
    let ran = home.run(&["import", "story:260k", "--name", "other"]);
    assert!(ran.status == 1 && ran.stderr.contains("called after"), "{}", ran.stderr);
    home.blobs();
}

#[test]
fn variables_say_where_other_programs_keep_models() {
    let home = Home::new();
    let Some(file) = home.story("story.gguf") else { return };
    ollama(&home.path("elsewhere"), &fs::read(file).unwrap());
    let mut command = home.command(&["import", "--json"]);
    command.env("OLLAMA_MODELS", home.path("elsewhere"));
    let found = fixture::Ran::of(command).expect_success();
    assert!(found.contains("story:260k"), "{found}");
}

/// The layout that the real huggingface_hub makes, from a small hub of the script's own.
#[test]
#[ignore = "needs a Python with huggingface_hub: NFL_TEST_PYTHON, else python3"]
fn the_cache_of_the_real_huggingface_hub_is_imported() {
    let home = Home::new();
    let Some(file) = home.story("story-F32.gguf") else { return };
    let python = std::env::var("NFL_TEST_PYTHON").unwrap_or_else(|_| "python3".to_owned());
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/store/hub_cache.py");
    let cache = home.path("user/.cache/huggingface/hub");
    let made = Command::new(python).arg(script).args([&file, &cache]).output().unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let before = tree(&cache);
    let found = home.json(&["import", "--json"]);
    assert_eq!(found["found"][0]["name"], "hf.co/me/story:F32", "{found}");
    home.succeed(&["import", "hf.co/me/story:f32", "--link", "in-place"]);
    assert!(home.tells("hf.co/me/story:f32"));
    assert_eq!(tree(&cache), before);
    let digest = format!("sha256:{}", hex(&fs::read(&file).unwrap()));
    let list = home.succeed(&["list", "--json"]);
    assert!(list.contains(&digest) && list.contains(text(&cache)), "{list}");
}
