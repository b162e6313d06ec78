//! The store over HTTP: lists, shows, copies, deletions, uploads and models that are made of them.

use nfl::store::Digest;
use serde_json::{Value, json};

use super::super::{HERMES, Served, Stream, write_model};

fn digest_of(content: &[u8]) -> String {
    Digest::of(content).to_string()
}

fn upload(served: &Served, digest: &str, content: &[u8]) -> (u16, String) {
    let reply = served.request("POST", &format!("/api/blobs/{digest}"), &[], content);
    (reply.status, reply.text().to_owned())
}

/// A model's file that no server knows yet.
fn file(name: &str, template: Option<&str>) -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.gguf");
    write_model(&path, name, template);
    std::fs::read(path).unwrap()
}

fn statuses(lines: &[Value]) -> Vec<String> {
    lines.iter().map(|line| line["status"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn models_are_listed_as_ollama_lists_them() {
    let served = Served::fake();
    let models = served.get("/api/tags").ok()["models"].clone();
    let mut names: Vec<&str> =
        models.as_array().unwrap().iter().map(|each| each["name"].as_str().unwrap()).collect();
    names.sort_unstable();
    assert_eq!(names, ["able:latest", "chat:latest", "plain:latest"]);
    let able =
        models.as_array().unwrap().iter().find(|each| each["name"] == "able:latest").unwrap();
    assert_eq!(able["model"], "able:latest");
    assert_eq!(able["capabilities"], json!(["completion", "tools", "thinking"]));
    assert_eq!(
        able["details"],
        json!({"parent_model": "", "format": "gguf", "family": "llama", "families": ["llama"],
            "parameter_size": "32", "quantization_level": "F32", "context_length": 4096,
            "embedding_length": 4})
    );
    let digest = able["digest"].as_str().unwrap();
    assert!(digest.len() == 64 && digest.bytes().all(|byte| byte.is_ascii_hexdigit()), "{digest}");
    assert!(able["size"].as_u64().unwrap() > 128);
    assert!(able["modified_at"].as_str().unwrap().ends_with('Z'));
}

#[test]
fn a_model_is_shown() {
    let served = Served::fake();
    let shown = served.post("/api/show", &json!({"model": "able"})).ok();
    assert_eq!(shown["template"], HERMES);
    assert_eq!(shown["details"]["family"], "llama");
    let info = &shown["model_info"];
    assert_eq!(info["general.architecture"], "llama");
    assert_eq!(
        (&info["llama.context_length"], &info["general.parameter_count"]),
        (&json!(4096), &json!(32))
    );
    assert_eq!((info.get("general.name"), info.get("tokenizer.chat_template")), (None, None));
    assert_eq!(shown.get("tensors"), None);
    assert!(shown["modelfile"].as_str().unwrap().contains("\nFROM "), "{}", shown["modelfile"]);
    let shown = served.post("/api/show", &json!({"name": "able:latest", "verbose": true})).ok();
    let tensor = json!([{"name": "token_embd.weight", "type": "F32", "shape": [4, 8]}]);
    assert_eq!(shown["tensors"], tensor);
    let copilot = [("User-Agent", "GitHubCopilotChat/0.1")];
    let reply = served.request("POST", "/api/show", &copilot, b"{\"model\": \"able\"}");
    assert_eq!(reply.ok()["model_info"]["general.basename"], "able");
}

#[test]
fn loaded_models_are_told() {
    let served = Served::fake();
    served.post("/api/generate", &json!({"model": "plain", "keep_alive": -1})).ok();
    let models = served.get("/api/ps").ok()["models"].clone();
    let model = &models[0];
    assert_eq!((&model["name"], &model["model"]), (&json!("plain:latest"), &json!("plain:latest")));
    assert_eq!((&model["context_length"], &model["size_vram"]), (&json!(4096), &json!(0)));
    assert_eq!(model["details"]["format"], "gguf");
    let expires = model["expires_at"].as_str().unwrap();
    assert!(expires[..4].parse::<u32>().unwrap() > 2300, "for ever: {expires}");
}

#[test]
fn names_are_given_and_taken() {
    let served = Served::fake();
    let copy = |from: &str, to: &str| {
        served.post("/api/copy", &json!({"source": from, "destination": to}))
    };
    let reply = copy("plain", "Me/Other:x");
    assert_eq!((reply.status, reply.body.len()), (200, 0));
    assert_eq!(served.post("/api/show", &json!({"model": "me/other:X"})).status, 200);
    assert_eq!(copy("plain", "plain").status, 200);
    assert_eq!(copy("chat", "Me/Other:x").status, 200, "one of that name is replaced");
    let delete = |name: &str| {
        let body = json!({"model": name}).to_string();
        served.request("DELETE", "/api/delete", &[], body.as_bytes())
    };
    let reply = delete("me/other:x");
    assert_eq!((reply.status, reply.body.len()), (200, 0));
    let reply = delete("me/other:x");
    let words = json!({"error": "model 'me/other:x' not found"});
    assert_eq!((reply.status, reply.json()), (404, words));
    assert_eq!(delete("../x").json(), json!({"error": "name \"../x\" is invalid"}));
    assert_eq!(served.post("/api/show", &json!({"model": "chat"})).status, 200, "its content is");
    served.post("/api/generate", &json!({"model": "plain"})).ok();
    assert_eq!(delete("plain").status, 200);
    assert_eq!(served.get("/api/ps").ok()["models"], json!([]), "and it is unloaded");
}

#[test]
fn files_are_taken_in_by_their_digest() {
    let served = Served::fake();
    let content = vec![7_u8; 3 << 20];
    let digest = digest_of(&content);
    let head =
        |digest: &str| served.request("HEAD", &format!("/api/blobs/{digest}"), &[], b"").status;
    assert_eq!(head(&digest), 404);
    assert_eq!(upload(&served, &digest, &content).0, 201);
    assert_eq!(head(&digest), 200);
    assert_eq!(head(&digest.replace(':', "-")), 200);
    assert_eq!(upload(&served, &digest, &content).0, 200, "it is there");
    assert_eq!(std::fs::read(served.store().blob_path(&digest.parse().unwrap())).unwrap(), content);
    let (status, words) = upload(&served, &digest_of(b"x"), b"y");
    let expected = format!(
        "{{\"error\":\"digest mismatch, expected \\\"{}\\\", got \\\"{}\\\"\"}}",
        digest_of(b"x"),
        digest_of(b"y")
    );
    assert_eq!((status, words), (400, expected));
    for bad in ["sha256:x", "md5:0", "sha256:..%2F..%2Fetc%2Fpasswd", "x"] {
        let (status, words) = upload(&served, bad, b"y");
        assert_eq!(
            (status, words.as_str()),
            (400, "{\"error\":\"invalid digest format\"}"),
            "{bad}"
        );
        assert_eq!(head(bad), 400);
    }
    // One that breaks off leaves nothing.
    let headers = [("Content-Length", "1000")];
    let address = served.running().address();
    let target = format!("/api/blobs/{}", digest_of(b"z"));
    drop(std::thread::spawn(move || {
        std::panic::catch_unwind(|| Stream::open(address, "POST", &target, &headers, b"half"))
    }));
    let partial = served.store().partial_folder();
    let is_empty = || std::fs::read_dir(&partial).map_or(0, Iterator::count) == 0;
    assert_eq!(head(&digest_of(b"z")), 404);
    drop(served);
    assert!(is_empty());
}

#[test]
fn a_model_is_made_of_another() {
    let served = Served::fake();
    let request = json!({"model": "mine", "from": "chat", "system": "Be Mario.",
        "parameters": {"temperature": 0.25, "stop": ["END"], "num_predict": 9},
        "license": "MIT", "messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Ho"}]});
    let lines = served.post("/api/create", &request).lines();
    let told = statuses(&lines);
    assert!(told[0].starts_with("using existing layer sha256:"), "{told:?}");
    assert!(
        told[1..5].iter().all(|status| status.starts_with("creating new layer sha256:")),
        "{told:?}"
    );
    assert_eq!(told[5..], ["writing manifest", "success"], "{told:?}");
    let shown = served.post("/api/show", &json!({"model": "mine"})).ok();
    assert_eq!((&shown["system"], &shown["license"]), (&json!("Be Mario."), &json!("MIT")));
    assert_eq!(shown["messages"][1], json!({"role": "assistant", "content": "Ho"}));
    let parameters = shown["parameters"].as_str().unwrap();
    assert!(parameters.contains(&format!("{:<30} 0.25", "temperature")), "{parameters}");
    assert!(parameters.contains(&format!("{:<30} \"END\"", "stop")), "{parameters}");
    served.fake.says(&["ok"]);
    let chat = json!({"model": "mine", "messages": [{"role": "user", "content": "Who?"}], "stream": false});
    served.post("/api/chat", &chat).ok();
    let heard = super::heard(&served.fake);
    assert_eq!(
        super::text_of(&heard.prompt),
        "<|im_start|>system\nBe Mario.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n\
         <|im_start|>assistant\nHo<|im_end|>\n<|im_start|>user\nWho?<|im_end|>\n<|im_start|>assistant\n"
    );
    assert_eq!((heard.tokens_max, heard.stop.as_slice()), (Some(9), ["END".to_owned()].as_slice()));
    assert!((heard.sampling.temperature - 0.25).abs() < 1e-6);
}

#[test]
fn a_model_is_made_of_uploaded_files() {
    let served = Served::fake();
    let content = file("fresh", Some(HERMES));
    let digest = digest_of(&content);
    assert_eq!(upload(&served, &digest, &content).0, 201);
    let request = json!({"model": "fresh", "files": {"fresh.gguf": digest}, "stream": false});
    assert_eq!(served.post("/api/create", &request).ok(), json!({"status": "success"}));
    let shown = served.post("/api/show", &json!({"model": "fresh"})).ok();
    assert_eq!(shown["capabilities"], json!(["completion", "tools", "thinking"]));
    // The same once more, streamed, over the first.
    let request =
        json!({"model": "fresh", "files": {"fresh.gguf": digest}, "template": "{{ .Prompt }}"});
    let told = statuses(&served.post("/api/create", &request).lines());
    assert_eq!(told[0], "parsing GGUF");
    assert_eq!(
        served.post("/api/show", &json!({"model": "fresh"})).ok()["template"],
        "{{ .Prompt }}"
    );
    let missing = json!({"model": "m", "files": {"x.gguf": digest_of(b"nothing")}});
    let lines = served.post("/api/create", &missing).lines();
    assert!(lines.last().unwrap()["error"].as_str().unwrap().contains("not found"), "{lines:?}");
    upload(&served, &digest_of(b"no model"), b"no model");
    let bad = json!({"model": "m", "files": {"x.gguf": digest_of(b"no model")}, "stream": false});
    let reply = served.post("/api/create", &bad);
    assert_eq!(
        (reply.status, reply.json()),
        (400, json!({"error": "supplied file was not in GGUF format"}))
    );
}
