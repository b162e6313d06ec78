//! llama-server's dialect, `/generate` and `/metrics`: exact answers of a played model, and a real one.

use serde_json::{Value, json};

use super::Served;

#[test]
fn a_completion_has_llama_servers_fields() {
    let served = Served::fake();
    served.fake.says(&["Hel", "lo\n", "STOP", "x"]);
    let body = json!({"model": "plain", "prompt": "Hi", "stop": ["zz", "STOP"], "seed": 7, "return_tokens": true,
        "n_predict": 9, "top_k": 5});
    let value = served.post("/completion", &body).ok();
    let field = |name: &str| value[name].clone();
    assert_eq!(field("content"), "Hello\n");
    assert_eq!(field("stop_type"), "word");
    assert_eq!(field("stopping_word"), "STOP");
    assert_eq!(
        (field("has_new_line"), field("truncated"), field("stop")),
        (json!(true), json!(false), json!(true))
    );
    assert_eq!((field("tokens_predicted"), field("tokens_evaluated")), (json!(3), json!(2)));
    assert_eq!(field("prompt"), "Hi");
    assert_eq!(field("tokens").as_array().unwrap().len(), 3);
    let settings = field("generation_settings");
    assert_eq!(
        (&settings["seed"], &settings["top_k"], &settings["n_predict"]),
        (&json!(7), &json!(5), &json!(9))
    );
    assert_eq!(field("timings")["prompt_n"], 2);
    let heard = &served.fake.heard()[0];
    assert_eq!((heard.sampling.seed, heard.sampling.top_k), (Some(7), 5));
}

#[test]
fn a_stream_gives_every_token_an_event() {
    let served = Served::fake();
    served.fake.says(&["Hel", "lo"]);
    let body = json!({"model": "plain", "prompt": "Hi", "stream": true, "n_probs": 1});
    let events: Vec<Value> = served
        .post("/completion", &body)
        .events()
        .iter()
        .map(|(name, data)| {
            assert_eq!(*name, None);
            serde_json::from_str(data).unwrap()
        })
        .collect();
    let contents: Vec<&str> =
        events.iter().map(|event| event["content"].as_str().unwrap()).collect();
    assert_eq!(contents, ["Hel", "lo", ""]);
    assert_eq!(events[0]["tokens"].as_array().unwrap().len(), 1);
    let chances = &events[1]["completion_probabilities"][0];
    assert_eq!((&chances["token"], &chances["logprob"]), (&json!("lo"), &json!(-0.5)));
    assert_eq!(chances["top_logprobs"][0]["bytes"], json!([108, 111]));
    assert_eq!(events[2]["stop_type"], "eos");
    assert_eq!(events[2]["tokens_predicted"], 2);
}

#[test]
fn several_prompts_are_several_answers_in_order() {
    let Some(served) = Served::real() else { return };
    let ask = |prompt: &Value| {
        served
            .post("/completion", &json!({"prompt": prompt, "n_predict": 12, "temperature": 0.0}))
            .ok()
    };
    let alone = ["Once upon a time", "The dog"].map(|text| ask(&json!(text))["content"].clone());
    let both = ask(&json!(["Once upon a time", "The dog"]));
    assert_eq!(both[0]["content"], alone[0]);
    assert_eq!(both[1]["content"], alone[1]);
    assert_eq!((&both[0]["index"], &both[1]["index"]), (&json!(0), &json!(1)));
    // The greedy text of llama.cpp's own tools.
    let oracle = crate::fixture::material("oracle/greedy60.txt").unwrap();
    let text = std::fs::read_to_string(oracle).unwrap();
    assert!(text.contains(both[0]["content"].as_str().unwrap()), "{both}");
    let tokens =
        served.post("/tokenize", &json!({"content": "Once upon a time", "add_special": true})).ok();
    assert_eq!(ask(&tokens["tokens"])["content"], alone[0]);
    let back = served.post("/detokenize", &tokens).ok();
    assert_eq!(back["content"], "<s> Once upon a time");
    let pieces = served.post("/tokenize", &json!({"content": "日", "with_pieces": true})).ok();
    assert!(
        pieces["tokens"].as_array().unwrap().iter().any(|token| token["piece"].is_array()),
        "{pieces}"
    );
}

#[test]
fn a_model_that_is_not_named_is_the_only_one() {
    let served = Served::fake();
    let reply = served.post("/tokenize", &json!({"content": "ab"}));
    assert_eq!(reply.status, 400);
    let error = reply.json();
    assert_eq!(error["error"]["type"], "invalid_request_error");
    let message = error["error"]["message"].as_str().unwrap();
    assert!(
        message.contains("able") && message.contains("chat") && message.contains("plain"),
        "{message}"
    );
    served.post("/tokenize", &json!({"content": "ab", "model": "chat"})).ok();
    let tokens = served.post("/tokenize", &json!({"content": "ab"})).ok();
    assert_eq!(tokens, json!({"tokens": [97, 98]}));
}

#[test]
fn files_of_the_machine_are_nobodys_to_name() {
    let served = Served::fake();
    let file = served.home().join("chat.gguf");
    for name in [file.to_str().unwrap(), "file:chat.gguf", "./chat.gguf"] {
        let messages = json!([{"role": "user", "content": "Hi"}]);
        let body = json!({"model": name, "prompt": "Hi", "content": "Hi", "tokens": [1], "input_prefix": "a",
            "messages": messages, "max_tokens": 1, "input": "Hi", "query": "a", "documents": ["b"]});
        for path in ["/completion", "/infill", "/tokenize", "/detokenize", "/generate"] {
            assert_eq!(served.post(path, &body).status, 404, "{path} {name}");
        }
        let talk = json!({"model": name, "messages": messages, "max_tokens": 1});
        for path in ["/v1/messages", "/v1/messages/count_tokens", "/apply-template"] {
            assert_eq!(served.post(path, &talk).status, 404, "{path} {name}");
        }
        assert_eq!(served.get(&format!("/props?model={name}")).status, 404, "{name}");
    }
}

#[test]
fn what_cannot_be_done_is_refused() {
    let served = Served::fake();
    let refused = |extra: &Value| {
        let mut body = json!({"model": "plain", "prompt": "Hi"});
        body.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        let reply = served.post("/completion", &body);
        (reply.status, reply.json()["error"]["message"].as_str().unwrap().to_owned())
    };
    assert_eq!(refused(&json!({"n_probs": 3, "post_sampling_probs": true})).0, 501);
    assert_eq!(refused(&json!({"prompt": []})), (400, "prompt: it is empty".to_owned()));
    assert_eq!(refused(&json!({"grammar": "root ::= \"a\"", "json_schema": {}})).0, 400);
    assert_eq!(refused(&json!({"samplers": ["nucleus"]})).0, 400);
    assert_eq!(refused(&json!({"n_indent": 4})).0, 400);
    assert_eq!(refused(&json!({"temperature": "hot"})).0, 400);
    assert_eq!(refused(&json!({"top_p": 1.5})).0, 400);
    assert_eq!(refused(&json!({"model": "nobody"})).0, 404);
    let extra = json!({"model": "plain", "input_prefix": "a", "input_suffix": "b", "input_extra": [{"filename": "x"}]});
    assert_eq!(served.post("/infill", &extra).status, 400);
}

#[test]
fn generate_says_how_sure_it_is() {
    let served = Served::fake();
    // Every token of the player has a log-probability of -0.5: a confidence of 0.607, which asks for others.
    served.fake.says(&["Yes", "."]);
    served.fake.says(&["No", "."]);
    served.fake.says(&["Yes", "."]);
    let value = served.post("/generate", &json!({"model": "plain", "prompt": "Is it?"})).ok();
    assert_eq!(value["text"], "Yes.");
    assert!((value["confidence"].as_f64().unwrap() - (-0.5_f64).exp()).abs() < 1e-6);
    assert_eq!(value["alternatives"], json!(["No."]));
    assert_eq!(value["reasoning_steps"], Value::Null);
    assert_eq!(value["tokens_used"], 1 + 6 + 2 + 2 + 2);
    served.fake.says(&["<think>", "One.\n\nTwo.", "</think>", "Done"]);
    served.fake.says(&["Done"]);
    served.fake.says(&["Done"]);
    let value = served.post("/generate", &json!({"model": "able", "prompt": "Go"})).ok();
    assert_eq!(value["text"], "Done");
    assert_eq!(value["reasoning_steps"], json!(["One.", "Two."]));
    assert_eq!(value["alternatives"], json!([]));
}

#[test]
fn metrics_count_what_happened() {
    let Some(served) = Served::real() else { return };
    for tokens in [1, 4] {
        let body =
            json!({"prompt": "the quick brown fox", "n_predict": tokens, "temperature": 0.0});
        served.post("/completion", &body).ok();
    }
    served.get("/no/such/place");
    let page = served.get("/metrics");
    assert_eq!(page.header("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
    assert!(page.header("process-start-time-unix").is_some());
    let value = |name: &str| -> u64 {
        let found = page.text().lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        found.unwrap_or_else(|| panic!("no {name} in {}", page.text())).parse().unwrap()
    };
    assert_eq!(value("llamacpp:tokens_predicted_total"), 5);
    assert!(value("llamacpp:prompt_tokens_cached_total") > 0);
    assert!(value("llamacpp:n_decode_total") > 0);
    assert_eq!(value("llamacpp:requests_processing"), 0);
    assert_eq!(value("nfl_models_loaded"), 1);
    assert_eq!(value("nfl_model_load_seconds_count"), 1);
    assert_eq!(value("nfl_time_to_first_token_seconds_count"), 2);
    let requests = "nfl_http_requests_total";
    assert_eq!(
        value(&format!("{requests}{{route=\"/completion\",method=\"POST\",status=\"200\"}}")),
        2
    );
    assert_eq!(value(&format!("{requests}{{route=\"none\",method=\"GET\",status=\"404\"}}")), 1);
    // Every name has its type, and every type one name.
    let types: Vec<&str> =
        page.text().lines().filter_map(|line| line.strip_prefix("# TYPE ")).collect();
    let mut names: Vec<&str> = types.iter().map(|line| line.split(' ').next().unwrap()).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), types.len());
}

#[test]
fn a_model_tells_of_itself() {
    let Some(served) = Served::real() else { return };
    let props = served.get("/props").ok();
    assert_eq!(props["model_alias"], "stories");
    assert_eq!((&props["bos_token"], &props["eos_token"]), (&json!("<s>"), &json!("</s>")));
    assert!(props["total_slots"].as_u64().unwrap() >= 1);
    assert_eq!(props["default_generation_settings"]["params"]["top_k"], 40);
    let slots = served.get("/slots").ok();
    assert_eq!(slots.as_array().unwrap().len() as u64, props["total_slots"]);
    assert_eq!(slots[0]["is_processing"], false);
    assert_eq!(served.get("/lora-adapters").ok(), json!([]));
}
