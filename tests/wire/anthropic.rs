//! Anthropic's dialect: exact messages and events of a played model, and a real one.

use serde_json::{Value, json};

use super::{Reply, Served};

fn asked(model: &str, extra: &Value) -> Value {
    let mut body = json!({
        "model": model,
        "max_tokens": 16,
        "messages": [{"role": "user", "content": "Hi"}],
    });
    body.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
    body
}

/// The tool of these tests.
fn weather() -> Value {
    json!([{"name": "weather", "description": "Of a place.", "input_schema":
        {"type": "object", "properties": {"place": {"type": "string"}}, "required": ["place"]}}])
}

/// The events, each under its own name, with what is random made plain.
fn events(reply: &Reply) -> Vec<Value> {
    assert_eq!(reply.header("content-type"), Some("text/event-stream"));
    reply
        .events()
        .into_iter()
        .map(|(name, data)| {
            let mut value: Value = serde_json::from_str(&data).unwrap();
            assert_eq!(name.as_deref(), value["type"].as_str());
            if let Some(id) = value.pointer_mut("/message/id") {
                assert_eq!(id.as_str().unwrap().len(), "msg_".len() + 24);
                *id = json!("msg");
            }
            value
        })
        .collect()
}

#[test]
fn a_message_is_blocks_with_their_account() {
    let served = Served::fake();
    served.fake.says(&["Hel", "lo"]);
    let mut message = served.post("/v1/messages", &asked("chat", &json!({}))).ok();
    assert!(message["id"].take().as_str().unwrap().starts_with("msg_"));
    // Three special tokens, and a token a byte: "user\nHi", "\n", "assistant\n".
    let tokens = 3 + 7 + 1 + 10;
    assert_eq!(
        message,
        json!({
            "id": null,
            "type": "message",
            "role": "assistant",
            "model": "chat",
            "content": [{"type": "text", "text": "Hello"}],
            "stop_reason": "end_turn",
            "stop_sequence": null,
            "usage": {"input_tokens": tokens, "cache_creation_input_tokens": 0, "cache_read_input_tokens": 0,
                "output_tokens": 2},
        })
    );
    let count = served.post("/v1/messages/count_tokens", &asked("chat", &json!({}))).ok();
    assert_eq!(count, json!({ "input_tokens": tokens }));
}

#[test]
fn events_come_in_their_order() {
    let served = Served::fake();
    served.fake.says(&["One", " two"]);
    let reply = served.post("/v1/messages", &asked("chat", &json!({"stream": true})));
    let mut events = events(&reply);
    let tokens = events[0]["message"]["usage"]["input_tokens"].take();
    assert!(tokens.as_u64().unwrap() > 5);
    let delta = |text: &str| json!({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": text}});
    assert_eq!(
        events,
        [
            json!({"type": "message_start", "message": {"id": "msg", "type": "message", "role": "assistant", "model": "chat",
                "content": [], "stop_reason": null, "stop_sequence": null,
                "usage": {"input_tokens": null, "cache_creation_input_tokens": 0, "cache_read_input_tokens": 0, "output_tokens": 0}}}),
            json!({"type": "ping"}),
            json!({"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}),
            delta("One"),
            delta(" two"),
            json!({"type": "content_block_stop", "index": 0}),
            json!({"type": "message_delta", "delta": {"stop_reason": "end_turn", "stop_sequence": null},
                "usage": {"input_tokens": tokens, "cache_creation_input_tokens": 0, "cache_read_input_tokens": 0, "output_tokens": 2}}),
            json!({"type": "message_stop"}),
        ]
    );
}

#[test]
fn thoughts_and_calls_are_blocks_of_their_own() {
    let served = Served::fake();
    let said = [
        "<think>",
        "Where?",
        "</think>",
        "I look.",
        "<tool_call>",
        "{\"name\": \"weather\", \"arguments\": {\"place\": \"Bonn\"}}",
        "</tool_call>",
    ];
    served.fake.says(&said);
    let thinking = json!({"type": "enabled", "budget_tokens": 8});
    let body = asked("able", &json!({"tools": weather(), "thinking": thinking}));
    let message = served.post("/v1/messages", &body).ok();
    let blocks = message["content"].as_array().unwrap();
    let kinds: Vec<&str> = blocks.iter().map(|block| block["type"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["thinking", "text", "tool_use"], "{message}");
    assert_eq!(blocks[0]["thinking"], "Where?");
    assert_eq!(blocks[0]["signature"].as_str().unwrap().len(), 64);
    assert_eq!(blocks[2]["input"], json!({"place": "Bonn"}));
    assert_eq!(message["stop_reason"], "tool_use");

    served.fake.says(&said);
    let mut body = body;
    body["stream"] = json!(true);
    let events = events(&served.post("/v1/messages", &body));
    let deltas: Vec<(u64, &str)> = events
        .iter()
        .filter(|event| event["type"] == "content_block_delta")
        .map(|event| (event["index"].as_u64().unwrap(), event["delta"]["type"].as_str().unwrap()))
        .collect();
    assert_eq!(
        deltas,
        [(0, "thinking_delta"), (0, "signature_delta"), (1, "text_delta"), (2, "input_json_delta")]
    );
    let starts = events.iter().filter(|event| event["type"] == "content_block_start").count();
    let stops = events.iter().filter(|event| event["type"] == "content_block_stop").count();
    assert_eq!((starts, stops), (3, 3));
}

#[test]
fn the_string_that_ended_a_message_is_named() {
    let served = Served::fake();
    served.fake.says(&["a", "b", "END", "c"]);
    let message =
        served.post("/v1/messages", &asked("chat", &json!({"stop_sequences": ["x", "END"]})));
    let message = message.ok();
    assert_eq!(message["content"], json!([{"type": "text", "text": "ab"}]));
    assert_eq!(
        (&message["stop_reason"], &message["stop_sequence"]),
        (&json!("stop_sequence"), &json!("END"))
    );
    served.fake.says(&["a"; 20]);
    let message = served.post("/v1/messages", &asked("chat", &json!({"max_tokens": 3}))).ok();
    assert_eq!(message["stop_reason"], "max_tokens");
}

#[test]
fn failures_have_anthropics_shape() {
    let served = Served::fake();
    let refused = |body: &Value| {
        let reply = served.post("/v1/messages", body);
        let value = reply.json();
        assert_eq!(value["type"], "error", "{value}");
        assert_eq!(value["request_id"].as_str(), reply.header("request-id"));
        let kind = value["error"]["type"].as_str().unwrap().to_owned();
        (reply.status, kind, value["error"]["message"].as_str().unwrap().to_owned())
    };
    let mut silent = asked("chat", &json!({}));
    silent.as_object_mut().unwrap().remove("max_tokens");
    let wrong = |text: &str| (400, "invalid_request_error".to_owned(), text.to_owned());
    assert_eq!(refused(&silent), wrong("max_tokens: Field required"));
    let (status, kind, _) = refused(&asked("nobody", &json!({})));
    assert_eq!((status, kind.as_str()), (404, "not_found_error"));
    let image = json!([{"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": ""}}]);
    let image = json!({"messages": [{"role": "user", "content": image}]});
    assert_eq!(refused(&asked("chat", &image)), wrong("messages.0: image input is not supported"));
    let choice = json!({"tool_choice": {"type": "any"}});
    assert_eq!(refused(&asked("able", &choice)).0, 400);
    served.fake.fails(nfl::engine::process::EngineError::Failed(
        nfl::engine::frames::Failure::PromptTooLong { prompt_tokens: 90, context_tokens: 64 },
    ));
    assert_eq!(
        refused(&asked("chat", &json!({}))),
        wrong("prompt is too long: 90 tokens > 64 maximum")
    );
    served.fake.fails(nfl::engine::process::EngineError::Failed(
        nfl::engine::frames::Failure::Busy { waiting: 9 },
    ));
    let (status, kind, _) = refused(&asked("chat", &json!({})));
    assert_eq!((status, kind.as_str()), (529, "overloaded_error"));
}

#[test]
fn a_reply_goes_on_with_what_the_assistant_began() {
    let served = Served::fake();
    served.fake.says(&[" sunny."]);
    let begun = json!({"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "It is"}]});
    let message = served.post("/v1/messages", &asked("chat", &begun)).ok();
    assert_eq!(message["content"], json!([{"type": "text", "text": " sunny."}]));
    assert!(format!("{:?}", served.fake.heard()[0].prompt).contains("assistant\\nIt is\""));
    let calls = json!([{"type": "tool_use", "id": "t1", "name": "weather", "input": {}}]);
    let begun = json!({"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": calls}]});
    assert_eq!(served.post("/v1/messages", &asked("chat", &begun)).status, 400);
}

#[test]
fn the_line_of_claude_code_does_not_reach_the_prompt() {
    let served = Served::fake();
    for seal in ["a5145", "b7"] {
        served.fake.says(&["ok"]);
        let line = format!(
            "x-anthropic-billing-header: cc_version=2.1.101.e51; cc_entrypoint=cli; cch={seal};"
        );
        let system = json!([{"type": "text", "text": line}, {"type": "text", "text": "Be brief."}]);
        served.post("/v1/messages", &asked("chat", &json!({"system": system}))).ok();
    }
    let heard = served.fake.heard();
    assert_eq!(heard[0].prompt, heard[1].prompt);
    assert!(format!("{:?}", heard[0].prompt).contains("Be brief."));
}

#[test]
fn what_the_cache_knew_is_counted_apart() {
    let Some(served) = Served::real() else { return };
    let template = "{% for message in messages %}{{ message.content }}\n{% endfor %}";
    let file = served.file("Modelfile");
    std::fs::write(&file, format!("FROM stories\nTEMPLATE \"\"\"{template}\"\"\"\n")).unwrap();
    let mut create =
        crate::fixture::command(&["create", "told", "--file", crate::fixture::text(&file)]);
    create.env("NFL_HOME", served.home());
    crate::fixture::Ran::of(create).expect_success();
    let body = asked(
        "told",
        &json!({"temperature": 0.0, "messages": [{"role": "user", "content": "Once upon a time"}]}),
    );
    let first = served.post("/v1/messages", &body).ok();
    let second = served.post("/v1/messages", &body).ok();
    assert_eq!(first["content"], second["content"]);
    let usage = |message: &Value, name: &str| message["usage"][name].as_u64().unwrap();
    assert_eq!(usage(&first, "cache_read_input_tokens"), 0);
    let read = usage(&first, "input_tokens");
    assert!(usage(&second, "cache_read_input_tokens") > 0);
    assert_eq!(usage(&second, "input_tokens") + usage(&second, "cache_read_input_tokens"), read);
    let count = served.post("/v1/messages/count_tokens", &body).ok();
    assert_eq!(count["input_tokens"], read);
}
