//! Ollama's dialect: exact transcripts of played models, what the real one does, and every refusal.

mod real;
mod store;

use std::time::Duration;

use nfl::engine::fake::Fake;
use nfl::engine::frames::Failure;
use nfl::engine::frames::Prompt;
use nfl::engine::process::EngineError;
use serde_json::{Value, json};

use super::{SPECIAL, Served, options};

/// Times and durations replaced by what does not change.
fn steady(mut value: Value) -> Value {
    if let Some(object) = value.as_object_mut() {
        if let Some(created) = object.get_mut("created_at") {
            let text = created.as_str().unwrap();
            assert_eq!(
                (text.len(), &text[10..11], &text[19..20], &text[29..]),
                (30, "T", ".", "Z")
            );
            *created = json!("NOW");
        }
        for name in ["total_duration", "load_duration"] {
            if let Some(duration) = object.get_mut(name) {
                assert!(duration.as_u64().unwrap() > 0);
                *duration = json!(1);
            }
        }
    }
    value
}

fn heard(fake: &Fake) -> nfl::engine::frames::Generation {
    fake.heard().pop().unwrap()
}

fn text_of(prompt: &Prompt) -> &str {
    match prompt {
        Prompt::Text { text, .. } => text,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_streamed_text_is_lines_of_json() {
    let served = Served::fake();
    served.fake.says(&["Hel", "lo", " there"]);
    let reply = served.post("/api/generate", &json!({"model": "plain", "prompt": "Hi"}));
    assert_eq!(reply.status, 200);
    assert_eq!(reply.header("content-type"), Some("application/x-ndjson"));
    let lines: Vec<Value> = reply.lines().into_iter().map(steady).collect();
    let piece = |text: &str| json!({"model": "plain", "created_at": "NOW", "response": text, "done": false});
    let mut end = json!({"model": "plain", "created_at": "NOW", "response": "", "done": true,
        "done_reason": "stop", "total_duration": 1, "load_duration": 1,
        "prompt_eval_count": 3, "prompt_eval_duration": 1_000_000, "eval_count": 3,
        "eval_duration": 3_000_000});
    if lines[3].get("load_duration").is_none() {
        end.as_object_mut().unwrap().remove("load_duration");
    }
    assert_eq!(lines, [piece("Hel"), piece("lo"), piece(" there"), end]);
    // The order of fields is what people see.
    let last = reply.text().lines().last().unwrap();
    let order = ["model", "created_at", "response", "done", "done_reason", "total_duration"];
    let places: Vec<usize> =
        order.iter().map(|name| last.find(&format!("\"{name}\":")).unwrap()).collect();
    assert!(places.is_sorted(), "{last}");
}

#[test]
fn one_answer_when_no_stream_is_wanted() {
    let served = Served::fake();
    served.fake.says(&["a", "b"]);
    let request = json!({"model": "plain:latest", "prompt": "x", "stream": false, "raw": true,
        "options": {"num_predict": 2, "temperature": 0, "seed": 7, "stop": ["zz"], "top_k": 3,
            "num_gqa": 1, "mirostat_tau": 5.0, "rope_frequency_base": 1.0, "num_keep": 4}});
    let reply = served.post("/api/generate", &request);
    assert_eq!(reply.header("content-type"), Some("application/json; charset=utf-8"));
    let answer = reply.ok();
    assert_eq!((&answer["response"], &answer["done_reason"]), (&json!("ab"), &json!("length")));
    assert_eq!(answer["model"], "plain:latest", "the name as it was asked for");
    let generation = heard(&served.fake);
    let sampling = &generation.sampling;
    assert_eq!((sampling.temperature, sampling.seed, sampling.top_k), (0.0, Some(7), 3));
    assert_eq!(
        (generation.tokens_max, generation.stop.as_slice()),
        (Some(2), ["zz".to_owned()].as_slice())
    );
    assert_eq!(text_of(&generation.prompt), "x");
    assert!(!generation.shift, "nothing is forgotten unless that is asked for");
}

#[test]
fn a_text_to_a_model_with_a_template_is_a_conversation() {
    let served = Served::fake();
    served.fake.says(&["ok"]);
    let request = json!({"model": "chat", "prompt": "Hi", "system": "Be kind.", "stream": false});
    served.post("/api/generate", &request).ok();
    assert_eq!(
        text_of(&heard(&served.fake).prompt),
        "<|im_start|>system\nBe kind.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    );
    served.fake.says(&["ok"]);
    served
        .post(
            "/api/generate",
            &json!({"model": "chat", "prompt": "Hi", "raw": true, "stream": false}),
        )
        .ok();
    assert_eq!(text_of(&heard(&served.fake).prompt), "Hi");
}

#[test]
fn a_conversation_is_answered_in_messages() {
    let served = Served::fake();
    served.fake.says(&["He", "y"]);
    let request = json!({"model": "chat", "messages": [
        {"role": "SYSTEM", "content": "Be brief."},
        {"role": "user", "content": "Hi"},
    ]});
    let lines: Vec<Value> =
        served.post("/api/chat", &request).lines().into_iter().map(steady).collect();
    let piece = |text: &str| {
        json!({"model": "chat", "created_at": "NOW", "done": false,
            "message": {"role": "assistant", "content": text}})
    };
    assert_eq!(lines[..2], [piece("He"), piece("y")]);
    assert_eq!(lines[2]["message"], json!({"role": "assistant", "content": ""}));
    assert_eq!((&lines[2]["done"], &lines[2]["done_reason"]), (&json!(true), &json!("stop")));
    assert_eq!(lines.len(), 3);
    assert!(text_of(&heard(&served.fake).prompt).starts_with("<|im_start|>system\nBe brief."));
}

#[test]
fn thoughts_and_calls_are_told_apart() {
    let served = Served::fake();
    let said = [
        "<think>",
        "\nHm.\n",
        "</think>",
        "\n\n",
        "<tool_call>",
        "\n{\"name\": \"weather\", \"arguments\": {\"town\": \"Oslo\", \"days\": 2}}\n",
        "</tool_call>",
    ];
    let properties = json!({"town": {"type": "string"}, "days": {"type": "integer"}});
    let mut request = json!({"model": "able", "messages": [{"role": "user", "content": "Rain?"}], "tools": [
        {"type": "function", "function": {"name": "weather", "description": "Tells it.", "parameters":
            {"type": "object", "properties": properties, "required": ["town", "days"]}}}]});
    served.fake.says(&said);
    let lines = served.post("/api/chat", &request).lines();
    let messages: Vec<&Value> = lines.iter().map(|line| &line["message"]).collect();
    let thinking: String =
        messages.iter().filter_map(|message| message["thinking"].as_str()).collect();
    assert_eq!(thinking.trim(), "Hm.");
    let call = messages.iter().find(|message| message.get("tool_calls").is_some()).unwrap();
    assert_eq!(call["content"], "");
    let function = &call["tool_calls"][0]["function"];
    assert_eq!((&function["index"], &function["name"]), (&json!(0), &json!("weather")));
    // An object, in the order in which it was written.
    assert_eq!(function["arguments"].to_string(), "{\"town\":\"Oslo\",\"days\":2}");
    assert!(call["tool_calls"][0]["id"].is_string());
    assert_eq!(lines.last().unwrap()["done_reason"], "stop");
    served.fake.says(&said);
    request["stream"] = json!(false);
    let whole = served.post("/api/chat", &request).ok();
    assert_eq!(whole["message"]["tool_calls"][0]["function"], *function);
    assert_eq!(whole["message"]["thinking"].as_str().unwrap().trim(), "Hm.");
    // What was called and what came of it goes back to the model.
    request["messages"] = json!([
        {"role": "user", "content": "Rain?"},
        {"role": "assistant", "content": null, "tool_calls": [{"function": *function}]},
        {"role": "tool", "tool_name": "weather", "content": "Much."},
    ]);
    request["think"] = json!(false);
    request["_debug_render_only"] = json!(true);
    let rendered =
        served.post("/api/chat", &request).ok()["_debug_info"]["rendered_template"].clone();
    let rendered = rendered.as_str().unwrap();
    assert!(rendered.contains("\"town\": \"Oslo\"") && rendered.contains("Much."), "{rendered}");
    assert!(rendered.ends_with("<think>\n\n</think>\n\n"), "{rendered}");
}

#[test]
fn probabilities_come_with_their_tokens() {
    let served = Served::fake();
    served.fake.says(&["a", "\u{e9}"]);
    let mut request = json!({"model": "plain", "prompt": "x", "logprobs": true, "top_logprobs": 1});
    let lines = served.post("/api/generate", &request).lines();
    let of = |token: &str| {
        let chance = json!({"token": token, "logprob": -0.5, "bytes": token.as_bytes()});
        let mut logprob = chance.clone();
        logprob["top_logprobs"] = json!([chance]);
        json!([logprob])
    };
    assert_eq!((&lines[0]["logprobs"], &lines[1]["logprobs"]), (&of("a"), &of("\u{e9}")));
    assert_eq!(lines[2].get("logprobs"), None);
    served.fake.says(&["a", "b"]);
    request["stream"] = json!(false);
    let answer = served.post("/api/generate", &request).ok();
    assert_eq!(answer["logprobs"].as_array().unwrap().len(), 2);
}

#[test]
fn nothing_to_answer_loads_and_unloads() {
    let served = Served::fake();
    let loaded = || served.get("/api/ps").ok()["models"].as_array().unwrap().len();
    let answer = steady(served.post("/api/generate", &json!({"model": "plain"})).ok());
    let load = json!({"model": "plain", "created_at": "NOW", "response": "", "done": true,
        "done_reason": "load"});
    assert_eq!((answer, loaded()), (load, 1));
    let answer = steady(
        served.post("/api/chat", &json!({"model": "plain", "messages": [], "keep_alive": 0})).ok(),
    );
    let unload = json!({"model": "plain", "created_at": "NOW", "done": true, "done_reason": "unload",
        "message": {"role": "assistant", "content": ""}});
    assert_eq!((answer, loaded()), (unload, 0));
    let answer = served.post("/api/chat", &json!({"model": "plain", "keep_alive": "5m"})).ok();
    assert_eq!((&answer["done_reason"], loaded()), (&json!("load"), 1));
    served.post("/api/generate", &json!({"model": "plain", "keep_alive": "0s"})).ok();
    assert_eq!(loaded(), 0);
}

#[test]
fn a_client_that_leaves_ends_the_reply() {
    let served = Served::fake();
    served.fake.says_without_end(&["a "], Duration::from_millis(2));
    let mut stream = served.stream("/api/generate", &json!({"model": "plain", "prompt": "x"}));
    assert!(stream.line().unwrap().contains("\"response\":\"a \""));
    drop(stream);
    // The next one is served, and the endless one is over soon.
    served.fake.says(&["b"]);
    let answer =
        served.post("/api/generate", &json!({"model": "plain", "prompt": "x", "stream": false}));
    assert_eq!(answer.ok()["response"], "b");
}

#[test]
fn a_prompt_that_does_not_fit_is_refused_with_numbers_or_cut_aloud() {
    let fake = Fake::new(&SPECIAL);
    let served = Served::played(fake, options());
    let too_long = |prompt_tokens| {
        EngineError::Failed(Failure::PromptTooLong { prompt_tokens, context_tokens: 100 })
    };
    let turn = |role: &str, text: &str| json!({"role": role, "content": text.repeat(20)});
    let mut request = json!({"model": "chat", "stream": false, "messages": [
        turn("system", "S"), turn("user", "a"), turn("assistant", "b"), turn("user", "c")]});
    served.fake.fails(too_long(130));
    let reply = served.post("/api/chat", &request);
    let words = "prompt: 130 tokens, the context has room for 100 (shorten the prompt, or ask for a larger context)";
    assert_eq!((reply.status, reply.json()), (400, json!({"error": words})));
    request["truncate"] = json!(true);
    served.fake.fails(too_long(230));
    served.fake.says(&["ok"]);
    let reply = served.post("/api/chat", &request);
    let answer = reply.ok();
    let prompt = text_of(&heard(&served.fake).prompt).to_owned();
    assert!(prompt.contains("SSSS") && prompt.contains("cccc"), "{prompt}");
    assert!(!prompt.contains("aaaa") && !prompt.contains("bbbb"), "{prompt}");
    let left = 230 - answer["prompt_eval_count"].as_u64().unwrap();
    assert_eq!(answer["truncated_tokens"], left);
    assert_eq!(reply.header("x-nfl-truncated-tokens"), Some(left.to_string().as_str()));
    // Nothing more may go.
    served.fake.fails(too_long(130));
    let alone = json!({"model": "chat", "truncate": true, "messages": [turn("user", "a")]});
    assert_eq!(served.post("/api/chat", &alone).status, 400);
}

#[test]
fn what_fails_within_a_reply_is_its_last_line() {
    let served = Served::fake();
    served.fake.fails(EngineError::Failed(Failure::Compute("the sky fell".to_owned())));
    let request = json!({"model": "plain", "prompt": "x"});
    let reply = served.post("/api/generate", &request);
    assert_eq!((reply.status, reply.json()), (500, json!({"error": "the sky fell"})));
    assert_eq!(reply.header("content-type"), Some("application/json; charset=utf-8"));
}

#[test]
#[expect(clippy::too_many_lines, reason = "a table of refusals")]
fn refusals_are_in_ollamas_words() {
    let served = Served::fake();
    let hi = json!([{"role": "user", "content": "x"}]);
    let tool =
        json!([{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]);
    for (path, request, status, words) in [
        ("generate", json!({"model": "none", "prompt": "x"}), 404, "model 'none' not found"),
        ("generate", json!({"prompt": "x"}), 404, "model '' not found"),
        ("generate", json!({"model": "../x", "prompt": "x"}), 404, "model '../x' not found"),
        ("chat", json!({"messages": hi}), 400, "model is required"),
        ("chat", json!({"model": "none", "messages": hi}), 404, "model 'none' not found"),
        (
            "generate",
            json!({"model": "plain", "prompt": "x", "raw": true, "system": "y"}),
            400,
            "raw mode does not support template, system, or context",
        ),
        (
            "generate",
            json!({"model": "plain", "prompt": "x", "suffix": "y"}),
            400,
            "plain:latest does not support insert",
        ),
        (
            "chat",
            json!({"model": "chat", "messages": hi, "tools": tool}),
            400,
            "chat:latest does not support tools",
        ),
        (
            "chat",
            json!({"model": "chat", "messages": hi, "think": true}),
            400,
            "\"chat\" does not support thinking",
        ),
        (
            "chat",
            json!({"model": "chat", "messages": [{"role": "user", "content": "x", "images": ["AAAA"]}]}),
            400,
            "\"chat\" does not support image input",
        ),
        (
            "generate",
            json!({"model": "plain", "prompt": "x", "top_logprobs": 21}),
            400,
            "top_logprobs must be between 0 and 20",
        ),
        (
            "generate",
            json!({"model": "plain", "prompt": "x", "options": {"num_ctx": "big"}}),
            400,
            "option \"num_ctx\" must be of type integer",
        ),
        (
            "chat",
            json!({"model": "chat", "messages": [{"role": "robot", "content": "x"}]}),
            400,
            "invalid role: \"robot\"; must be one of system, user, assistant or tool",
        ),
        ("embed", json!({"model": "plain", "input": 1}), 400, "invalid input type"),
        ("embed", json!({"model": "plain", "input": ["a", 1]}), 400, "invalid input type"),
        ("embed", json!({"model": "none", "input": "a"}), 404, "model 'none' not found"),
        ("embeddings", json!({"prompt": "a"}), 400, "model is required"),
        ("show", json!({}), 400, "model is required"),
        ("show", json!({"name": "none"}), 404, "model 'none' not found"),
        ("copy", json!({"source": "none", "destination": "y"}), 404, "model \"none\" not found"),
        ("copy", json!({"source": "../x", "destination": "y"}), 400, "source \"../x\" is invalid"),
        ("copy", json!({"source": "plain", "destination": ""}), 400, "destination \"\" is invalid"),
        ("push", json!({}), 400, "model is required"),
        ("push", json!({"model": "none"}), 404, "model 'none' not found"),
        ("pull", json!({"model": "/etc/passwd"}), 400, "invalid model name"),
        ("create", json!({"model": "m"}), 400, "neither 'from' or 'files' was specified"),
    ] {
        let reply = served.post(&format!("/api/{path}"), &request);
        assert_eq!(
            (reply.status, reply.json()),
            (status, json!({"error": words})),
            "{path} {request}"
        );
    }
    let empty = served.request("POST", "/api/chat", &[], b"");
    assert_eq!((empty.status, empty.json()), (400, json!({"error": "missing request body"})));
    let broken = served.request("POST", "/api/chat", &[], b"{\"model\": ");
    assert_eq!(broken.status, 400);
    assert!(broken.json()["error"].as_str().unwrap().contains("EOF"), "{}", broken.text());
}

#[test]
fn other_methods_are_refused_and_heads_answered() {
    let served = Served::fake();
    for path in
        ["chat", "generate", "embed", "embeddings", "show", "create", "pull", "push", "copy"]
    {
        assert_eq!(served.get(&format!("/api/{path}")).status, 405, "{path}");
    }
    for path in ["tags", "ps", "version", "status"] {
        assert_eq!(
            served.request("DELETE", &format!("/api/{path}"), &[], b"").status,
            405,
            "{path}"
        );
    }
    for path in ["tags", "version"] {
        let reply = served.request("HEAD", &format!("/api/{path}"), &[], b"");
        assert_eq!((reply.status, reply.body.len()), (200, 0), "{path}");
    }
    assert_eq!(served.post("/api/delete", &json!({"model": "plain"})).status, 405);
    assert_eq!(served.get("/api/version").ok(), json!({"version": env!("CARGO_PKG_VERSION")}));
    assert_eq!(served.get("/api/status").ok()["cloud"]["disabled"], true);
}

#[test]
fn the_cloud_is_refused() {
    let served = Served::fake();
    for path in ["me", "signout", "experimental/web_search", "experimental/web_fetch", "web_search"]
    {
        let reply = served.post(&format!("/api/{path}"), &json!({"query": "x"}));
        assert_eq!(reply.status, 403, "{path}");
        let words = reply.json()["error"].as_str().unwrap().to_owned();
        assert!(words.starts_with("ollama cloud is disabled: "), "{words}");
    }
    assert_eq!(served.get("/api/experimental/model-recommendations").status, 403);
}

#[test]
fn texts_become_vectors() {
    let served = Served::fake();
    let reply = served.post("/api/embed", &json!({"model": "plain", "input": ["ab", "c"]})).ok();
    let vectors = reply["embeddings"].as_array().unwrap();
    for vector in vectors {
        let numbers: Vec<f64> =
            vector.as_array().unwrap().iter().map(|n| n.as_f64().unwrap()).collect();
        let length: f64 = numbers.iter().map(|n| n * n).sum();
        assert!((length - 1.0).abs() < 1e-6 && numbers.len() == 4, "{numbers:?}");
    }
    assert_eq!(vectors.len(), 2);
    assert_eq!(reply["prompt_eval_count"], 5, "with a token that begins each");
    let cut = json!({"model": "plain", "input": "ab", "dimensions": 2});
    assert_eq!(served.post("/api/embed", &cut).ok()["embeddings"][0].as_array().unwrap().len(), 2);
    let more = json!({"model": "plain", "input": "ab", "dimensions": 9999});
    assert_eq!(served.post("/api/embed", &more).ok()["embeddings"][0].as_array().unwrap().len(), 4);
    for input in [json!(""), json!([]), json!(null)] {
        let reply = served.post("/api/embed", &json!({"model": "plain", "input": input})).ok();
        assert_eq!(reply["embeddings"], json!([]));
    }
    let old = served.post("/api/embeddings", &json!({"model": "plain", "prompt": "ab"})).ok();
    assert_eq!(old, json!({"embedding": [0.0, 1.0, 1.0, 0.0]}), "as the model gives it");
    let none = served.post("/api/embeddings", &json!({"model": "plain", "prompt": ""})).ok();
    assert_eq!(none, json!({"embedding": []}));
}
