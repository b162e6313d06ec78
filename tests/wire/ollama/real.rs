//! The real tiny model behind Ollama's dialect: its golden story, vectors, quantised and converted copies.

use std::sync::Arc;

use nfl::store::Digest;
use serde_json::{Value, json};

use super::super::Served;
use crate::fixture;
use crate::web::server::Server;

fn story(served: &Served, model: &str, tokens: u32) -> String {
    let request = json!({"model": model, "prompt": "Once upon a time", "raw": true,
        "options": {"temperature": 0, "num_predict": tokens, "num_thread": 1}});
    let lines = served.post("/api/generate", &request).lines();
    let (end, pieces) = lines.split_last().unwrap();
    assert_eq!((&end["done_reason"], &end["eval_count"]), (&json!("length"), &json!(tokens)));
    assert_eq!(end["prompt_eval_count"], 5);
    pieces.iter().map(|piece| piece["response"].as_str().unwrap()).collect()
}

#[test]
fn the_golden_story_is_told() {
    let Some(served) = Served::real() else { return };
    let golden = fixture::material("oracle/greedy60.txt").unwrap();
    let golden = std::fs::read_to_string(golden).unwrap();
    let told = format!("Once upon a time{}", story(&served, "stories", 60));
    assert_eq!(told.trim(), golden.trim());
    let loaded = served.get("/api/ps").ok();
    assert_eq!(loaded["models"][0]["name"], "stories:latest");
    // A JSON form holds, whatever the model would rather say.
    let request = json!({"model": "stories", "prompt": "Once", "raw": true, "stream": false, "format": {
        "type": "object", "properties": {"age": {"type": "integer", "minimum": 0, "maximum": 9}},
        "required": ["age"], "additionalProperties": false}, "options": {"seed": 1}});
    let answer = served.post("/api/generate", &request).ok();
    let object: Value = serde_json::from_str(answer["response"].as_str().unwrap()).unwrap();
    assert!(object["age"].as_u64().unwrap() < 10, "{object}");
    // Too long a prompt has numbers.
    let long = json!({"model": "stories", "prompt": "story ".repeat(4000), "raw": true});
    let reply = served.post("/api/generate", &long);
    let words = reply.json()["error"].as_str().unwrap().to_owned();
    assert!(reply.status == 400 && words.contains("the context has room for"), "{words}");
}

#[test]
fn vectors_are_those_of_the_command() {
    let Some(served) = Served::real() else { return };
    let text = "The dog ran in the park.";
    let reply = served.post("/api/embed", &json!({"model": "stories", "input": text})).ok();
    let ours: Vec<f64> = serde_json::from_value(reply["embeddings"][0].clone()).unwrap();
    let file = fixture::material("derived/stories260K-llama-F32.gguf").unwrap();
    let told = fixture::nfl(&["embed", fixture::text(&file), text, "--json"]).expect_success();
    let told: Value = serde_json::from_str(&told).unwrap();
    let vector = &told["embeddings"][0]["vector"];
    let theirs: Vec<f64> =
        serde_json::from_value(vector.clone()).unwrap_or_else(|_| panic!("{told}"));
    assert_eq!(ours.len(), theirs.len());
    assert!(ours.iter().zip(&theirs).all(|(one, other)| (one - other).abs() < 1e-4));
    let long = "word ".repeat(3000);
    let reply =
        served.post("/api/embed", &json!({"model": "stories", "input": long, "truncate": false}));
    let words = "the input length exceeds the context length";
    assert_eq!((reply.status, reply.json()), (400, json!({"error": words})));
    let reply = served.post("/api/embed", &json!({"model": "stories", "input": long}));
    assert!(
        reply.status == 400 && reply.json()["error"].as_str().unwrap().contains("are the most")
    );
    let reply =
        served.post("/api/embed", &json!({"model": "stories", "input": long, "truncate": true}));
    let cut: u64 = reply.header("x-nfl-truncated-tokens").unwrap().parse().unwrap();
    assert!(cut > 1000 && reply.ok()["truncated_tokens"] == cut);
}

#[test]
fn a_model_is_quantised_and_a_checkpoint_converted() {
    let Some(served) = Served::real() else { return };
    let request = json!({"model": "small", "from": "stories", "quantize": "q8_0"});
    let lines = served.post("/api/create", &request).lines();
    let told: Vec<&str> = lines.iter().map(|line| line["status"].as_str().unwrap()).collect();
    assert!(told.contains(&"quantizing F32 model to Q8_0"), "{told:?}");
    assert_eq!(told.last(), Some(&"success"));
    let shown = served.post("/api/show", &json!({"model": "small"})).ok();
    assert_eq!(shown["details"]["quantization_level"], "Q8_0");
    assert!(story(&served, "small", 8).len() > 8);
    let again = json!({"model": "smaller", "from": "small", "quantize": "q4_0", "stream": false});
    let reply = served.post("/api/create", &again);
    let words = "quantization is only supported for F16, BF16 and F32 models";
    assert_eq!((reply.status, reply.json()), (400, json!({"error": words})));
    let folder = fixture::material("derived/stories260K-hf-llama").unwrap();
    let mut files = serde_json::Map::new();
    for name in fixture::files_of(&folder) {
        let content = std::fs::read(folder.join(&name)).unwrap();
        let digest = Digest::of(&content).to_string();
        let reply = served.request("POST", &format!("/api/blobs/{digest}"), &[], &content);
        assert!(matches!(reply.status, 200 | 201), "{}", reply.text());
        files.insert(name, digest.into());
    }
    let request = json!({"model": "converted", "files": files, "quantize": "F32"});
    let lines = served.post("/api/create", &request).lines();
    assert_eq!(lines[0]["status"], "converting model", "{lines:?}");
    assert_eq!(lines.last().unwrap()["status"], "success", "{lines:?}");
    assert_eq!(story(&served, "converted", 12), story(&served, "stories", 12));
}

#[test]
fn a_model_goes_to_a_registry_and_comes_back() {
    let Some(served) = Served::real() else { return };
    let shelf: Arc<std::sync::Mutex<crate::web::registry::Shelf>> = Arc::default();
    let registry: Server = crate::web::registry::registry(&shelf);
    let name = format!("{}/me/stories:x", registry.address);
    served.post("/api/copy", &json!({"source": "stories", "destination": name}));
    let lines = served.post("/api/push", &json!({"model": name, "insecure": true})).lines();
    let told: Vec<&str> = lines.iter().map(|line| line["status"].as_str().unwrap()).collect();
    assert_eq!((told[0], *told.last().unwrap()), ("retrieving manifest", "success"), "{told:?}");
    assert!(told.contains(&"pushing manifest"), "{told:?}");
    let other = Served::fake();
    let lines = other.post("/api/pull", &json!({"model": name, "insecure": true})).lines();
    let told: Vec<&str> = lines.iter().map(|line| line["status"].as_str().unwrap()).collect();
    assert_eq!(told[0], "pulling manifest");
    let layer = lines.iter().find(|line| line["digest"].is_string()).unwrap();
    let digest = layer["digest"].as_str().unwrap();
    assert_eq!(layer["status"], format!("pulling {}", &digest[7..19]));
    let count = told.len();
    assert_eq!(told[count - 3..], ["verifying sha256 digest", "writing manifest", "success"]);
    let last = lines.iter().rfind(|line| line["digest"] == digest).unwrap();
    assert_eq!(last["completed"], last["total"]);
    assert_eq!(other.post("/api/show", &json!({"model": name})).status, 200);
    let once = json!({"model": name, "insecure": true, "stream": false});
    assert_eq!(other.post("/api/pull", &once).ok(), json!({"status": "success"}));
    let missing = format!("{}/me/none:x", registry.address);
    let reply =
        other.post("/api/pull", &json!({"model": missing, "insecure": true, "stream": false}));
    let words = reply.json()["error"].as_str().unwrap().to_owned();
    assert!(
        reply.status == 500 && words.starts_with("pull model manifest: file does not exist"),
        "{words}"
    );
    let lines = other.post("/api/pull", &json!({"model": missing, "insecure": true})).lines();
    assert_eq!(lines[0], json!({"status": "pulling manifest"}));
    assert!(lines[1]["error"].as_str().unwrap().starts_with("pull model manifest: "), "{lines:?}");
    let elsewhere = other
        .post("/api/pull", &json!({"model": "example.com/a/b", "insecure": true, "stream": false}));
    assert!(
        elsewhere.json()["error"].as_str().unwrap().contains("plain http"),
        "{}",
        elsewhere.text()
    );
}
