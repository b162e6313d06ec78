//! What is refused, and in which words.

use nfl::engine::frames::Failure;
use nfl::engine::process::EngineError;
use serde_json::{Value, json};

use super::{merged, user};
use crate::wire::Served;

fn refused(served: &Served, path: &str, body: &Value) -> (u16, Value) {
    let reply = served.post(path, body);
    let error = reply.json()["error"].clone();
    for field in ["message", "type", "param", "code"] {
        assert!(error.get(field).is_some(), "{error}");
    }
    (reply.status, error)
}

#[test]
#[expect(clippy::too_many_lines, reason = "a table of refusals")]
fn a_field_that_cannot_be_honoured_is_named() {
    let served = Served::fake();
    let chat = json!({"model": "chat", "messages": user("Hi")});
    for (more, param) in [
        (json!({"messages": null}), "messages"),
        (json!({"messages": "Hi"}), "messages"),
        (
            json!({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}),
            "messages[0].content[0]",
        ),
        (json!({"n": 0}), "n"),
        (json!({"n": 1000}), "n"),
        (json!({"temperature": "hot"}), "temperature"),
        (json!({"max_tokens": -2}), "max_tokens"),
        (json!({"stop": {"a": 1}}), "stop"),
        (json!({"stream": "yes"}), "stream"),
        (json!({"top_logprobs": 3}), "top_logprobs"),
        (json!({"response_format": {"type": "sound"}}), "response_format.type"),
        (json!({"tools": [{"type": "web_search"}]}), "tools[0].type"),
        (json!({"tool_choice": "any"}), "tool_choice"),
        (json!({"reasoning_effort": "some"}), "reasoning_effort"),
        (json!({"modalities": ["text", "audio"]}), "modalities"),
        (json!({"audio": {"voice": "alloy"}}), "audio"),
        (json!({"web_search_options": {"a": 1}}), "web_search_options"),
        (json!({"functions": [{"name": "f"}]}), "functions"),
        (json!({"lora": [{"id": 0, "scale": 1.0}]}), "lora"),
        (json!({"no_such_field": 1}), "no_such_field"),
    ] {
        let (status, error) = refused(&served, "/v1/chat/completions", &merged(chat.clone(), more));
        assert_eq!((status, &error["param"]), (400, &json!(param)), "{error}");
        assert_eq!(error["type"], "invalid_request_error");
    }
    let text = json!({"model": "plain", "prompt": "a"});
    for (more, param) in [
        (json!({"prompt": null}), "prompt"),
        (json!({"prompt": []}), "prompt"),
        (json!({"prompt": 7}), "prompt"),
        (json!({"best_of": 1, "n": 2}), "best_of"),
        (json!({"best_of": 2, "stream": true}), "best_of"),
        (json!({"suffix": "b", "echo": true}), "suffix"),
        (json!({"max_tokens": 0, "stream": true}), "max_tokens"),
    ] {
        let (status, error) = refused(&served, "/v1/completions", &merged(text.clone(), more));
        assert_eq!((status, &error["param"]), (400, &json!(param)), "{error}");
    }
    for (path, body, param) in [
        ("/v1/embeddings", json!({"model": "plain"}), "input"),
        ("/v1/embeddings", json!({"model": "plain", "input": []}), "input"),
        (
            "/v1/embeddings",
            json!({"model": "plain", "input": "a", "encoding_format": "hex"}),
            "encoding_format",
        ),
        ("/v1/rerank", json!({"model": "plain", "documents": ["a"]}), "query"),
        ("/v1/rerank", json!({"model": "plain", "query": "a"}), "documents"),
        ("/v1/rerank", json!({"model": "plain", "query": "a", "documents": [1]}), "documents"),
        ("/v1/responses", json!({"model": "chat"}), "input"),
        (
            "/v1/responses",
            json!({"model": "chat", "input": "a", "truncation": "auto"}),
            "truncation",
        ),
        (
            "/v1/responses",
            json!({"model": "chat", "input": "a", "conversation": "c"}),
            "conversation",
        ),
        (
            "/v1/responses",
            json!({"model": "chat", "input": "a", "include": ["file_search_call.results"]}),
            "include",
        ),
        (
            "/v1/responses",
            json!({"model": "chat", "input": "a", "previous_response_id": "resp_x"}),
            "previous_response_id",
        ),
        (
            "/v1/responses",
            json!({"model": "chat", "input": "a", "background": true, "store": false}),
            "background",
        ),
        (
            "/v1/responses",
            json!({"model": "chat", "input": "a", "tools": [{"type": "mcp"}]}),
            "tools[0].type",
        ),
    ] {
        let (status, error) = refused(&served, path, &body);
        assert_eq!((status, &error["param"]), (400, &json!(param)), "{error}");
    }
    assert!(served.fake.heard().is_empty());
}

#[test]
fn numbers_out_of_their_ranges_are_refused_before_a_model_is_loaded() {
    let served = Served::fake();
    for more in [
        json!({"temperature": -1}),
        json!({"top_p": 2}),
        json!({"logprobs": true, "top_logprobs": 1000}),
        json!({"max_tokens": 0}),
        json!({"stop": vec!["x"; 100]}),
        json!({"tool_choice": "required"}),
        json!({"messages": []}),
    ] {
        let request = merged(json!({"model": "chat", "messages": user("Hi")}), more);
        let (status, error) = refused(&served, "/v1/chat/completions", &request);
        assert_eq!((status, &error["type"]), (400, &json!("invalid_request_error")), "{error}");
    }
    assert!(served.running().pool().loaded().is_empty());
}

#[test]
fn what_is_not_there_is_not_found() {
    let served = Served::fake();
    let request = json!({"model": "no-such-model", "messages": user("Hi")});
    for path in ["/v1/chat/completions", "/chat/completions"] {
        let (status, error) = refused(&served, path, &request);
        assert_eq!((status, &error["code"]), (404, &json!("model_not_found")), "{error}");
    }
    // Files of the machine are nobody's to name.
    let file = served.home().join("chat.gguf");
    for name in [file.to_str().unwrap(), "file:chat.gguf", "./chat.gguf", "chat.gguf", "../x", ""] {
        let request = json!({"model": name, "messages": user("Hi")});
        let (status, _) = refused(&served, "/v1/chat/completions", &request);
        assert_eq!(status, if name.is_empty() { 400 } else { 404 }, "{name}");
    }
    let several = json!({"messages": user("Hi")});
    let (status, error) = refused(&served, "/v1/chat/completions", &several);
    assert_eq!((status, &error["param"]), (400, &json!("model")));
    let message = error["message"].as_str().unwrap();
    assert!(message.contains("able") && message.contains("plain"), "{message}");
    assert_eq!(served.get("/v1/responses/resp_none").status, 404);
    // The only one that is loaded is meant.
    served.post("/tokenize", &json!({"model": "chat", "content": "a"})).ok();
    let unnamed = json!({"model": "", "messages": user("Hi"), "prompt": "Hi", "input": "Hi"});
    for path in ["/v1/chat/completions", "/v1/completions", "/v1/responses"] {
        served.fake.says(&["ok"]);
        let mut body = unnamed.clone();
        let keeps = |name: &String| match path {
            "/v1/chat/completions" => name == "messages" || name == "model",
            "/v1/completions" => name == "prompt" || name == "model",
            _ => name == "input" || name == "model",
        };
        body.as_object_mut().unwrap().retain(|name, _| keeps(name));
        assert_eq!(served.post(path, &body).ok()["model"], "chat");
    }
}

#[test]
fn a_prompt_that_is_too_long_is_told_with_its_numbers() {
    let served = Served::fake();
    for stream in [false, true] {
        served.fake.fails(EngineError::Failed(Failure::PromptTooLong {
            prompt_tokens: 5000,
            context_tokens: 4096,
        }));
        let request = json!({"model": "chat", "messages": user("Hi"), "stream": stream});
        let (status, error) = refused(&served, "/v1/chat/completions", &request);
        assert_eq!((status, &error["type"]), (400, &json!("exceed_context_size_error")));
        assert_eq!(error["code"], "context_length_exceeded");
        assert_eq!((&error["n_prompt_tokens"], &error["n_ctx"]), (&json!(5000), &json!(4096)));
    }
}

#[test]
fn other_trouble_has_other_words() {
    let served = Served::fake();
    for (failure, expected, kind) in [
        (Failure::Busy { waiting: 9 }, 503, "unavailable_error"),
        (Failure::Request("no such grammar".to_owned()), 400, "invalid_request_error"),
        (Failure::Compute("burst".to_owned()), 500, "server_error"),
    ] {
        served.fake.fails(EngineError::Failed(failure));
        let request = json!({"model": "chat", "messages": user("Hi")});
        let reply = served.post("/v1/chat/completions", &request);
        assert_eq!((reply.status, &reply.json()["error"]["type"]), (expected, &json!(kind)));
        assert_eq!(reply.header("retry-after").is_some(), expected == 503);
    }
    // A model without a chat template does not answer conversations.
    let request = json!({"model": "plain", "messages": user("Hi")});
    let (status, error) = refused(&served, "/v1/chat/completions", &request);
    assert_eq!(status, 400);
    assert!(error["message"].as_str().unwrap().contains("no chat template"), "{error}");
}

#[test]
fn bodies_that_are_no_requests_are_refused() {
    let served = Served::fake();
    for (body, status) in [(&b"{"[..], 400), (b"", 400), (b"[1]", 400), (b"\xff", 400)] {
        let reply = served.request("POST", "/v1/chat/completions", &[], body);
        assert_eq!(reply.status, status);
        assert_eq!(reply.json()["error"]["type"], "invalid_request_error");
    }
}
