//! The Responses API.

use std::time::Duration;

use nfl::engine::frames::{Failure, Prompt};
use nfl::engine::process::EngineError;
use serde_json::{Value, json};

use super::{merged, stable};
use crate::wire::{Reply, Served};

const PATH: &str = "/v1/responses";

fn ask(more: Value) -> Value {
    merged(json!({"model": "chat", "input": "Hi"}), more)
}

/// The events of a stream, whose names are their types and whose numbers ascend.
fn events(reply: &Reply) -> Vec<Value> {
    assert_eq!(reply.status, 200, "{}", reply.text());
    let event = |(number, (name, data)): (usize, (Option<String>, String))| {
        let event: Value = serde_json::from_str(&data).unwrap();
        assert_eq!(event["type"], name.unwrap());
        assert_eq!(event["sequence_number"], number);
        stable(event)
    };
    reply.events().into_iter().enumerate().map(event).collect()
}

fn kinds(events: &[Value]) -> Vec<&str> {
    events.iter().map(|each| each["type"].as_str().unwrap()).collect()
}

fn message(text: &str) -> Value {
    json!({"type": "message", "id": "msg_", "status": "completed", "role": "assistant",
        "content": [{"type": "output_text", "text": text, "annotations": [], "logprobs": []}]})
}

#[test]
fn a_whole_answer_is_openais() {
    let served = Served::fake();
    served.fake.says(&["Hel", "lo"]);
    let request =
        ask(json!({"instructions": "Be brief.", "temperature": 0.5, "metadata": {"a": "b"}}));
    let answer = stable(served.post(PATH, &request).ok());
    let tokens = answer["usage"]["input_tokens"].clone();
    assert_eq!(
        answer,
        json!({
            "id": "resp_", "object": "response", "created_at": 0, "status": "completed",
            "background": false, "completed_at": 0, "error": null, "incomplete_details": null,
            "model": "chat", "output": [message("Hello")],
            "usage": {
                "input_tokens": tokens, "input_tokens_details": {"cached_tokens": 0},
                "output_tokens": 2, "output_tokens_details": {"reasoning_tokens": 0},
                "total_tokens": tokens.as_u64().unwrap() + 2,
            },
            "instructions": "Be brief.", "max_output_tokens": null, "max_tool_calls": null,
            "metadata": {"a": "b"}, "parallel_tool_calls": true, "previous_response_id": null,
            "prompt_cache_key": null, "reasoning": {"effort": null, "summary": null},
            "safety_identifier": null, "service_tier": "default", "store": true,
            "temperature": 0.5, "text": {"format": {"type": "text"}}, "tool_choice": "auto",
            "tools": [], "top_logprobs": 0, "top_p": null, "truncation": "disabled", "user": null,
        })
    );
    let Prompt::Text { text, .. } = &served.fake.heard()[0].prompt else { panic!() };
    assert!(text.starts_with("<|im_start|>system\nBe brief.<|im_end|>\n"), "{text}");
}

#[test]
fn events_come_in_openais_order() {
    let served = Served::fake();
    served.fake.says(&["Hel", "lo"]);
    let found = events(&served.post(PATH, &ask(json!({"stream": true, "store": false}))));
    assert_eq!(
        kinds(&found),
        [
            "response.created",
            "response.in_progress",
            "response.output_item.added",
            "response.content_part.added",
            "response.output_text.delta",
            "response.output_text.delta",
            "response.output_text.done",
            "response.content_part.done",
            "response.output_item.done",
            "response.completed",
        ]
    );
    assert_eq!(found[0]["response"]["status"], "in_progress");
    assert_eq!(
        found[2]["item"],
        merged(message(""), json!({"status": "in_progress", "content": []}))
    );
    let place = json!({"item_id": "msg_", "output_index": 0, "content_index": 0});
    let expected = [
        json!({"part": {"type": "output_text", "text": "", "annotations": [], "logprobs": []}}),
        json!({"delta": "Hel", "logprobs": []}),
        json!({"delta": "lo", "logprobs": []}),
        json!({"text": "Hello", "logprobs": []}),
        json!({"part": {"type": "output_text", "text": "Hello", "annotations": [], "logprobs": []}}),
    ];
    for (index, more) in (3..).zip(expected) {
        let head = json!({"type": found[index]["type"], "sequence_number": index});
        assert_eq!(found[index], merged(merged(head, place.clone()), more));
    }
    assert_eq!(found[8]["item"], message("Hello"));
    assert_eq!(found[9]["response"]["output"], json!([message("Hello")]));
}

#[test]
fn an_answer_that_is_cut_is_incomplete_and_one_that_fails_says_so() {
    let served = Served::fake();
    served.fake.says(&["Hel", "lo"]);
    let request = ask(json!({"stream": true, "max_output_tokens": 1}));
    let found = events(&served.post(PATH, &request));
    let last = found.last().unwrap();
    assert_eq!(last["type"], "response.incomplete");
    assert_eq!(last["response"]["incomplete_details"], json!({"reason": "max_output_tokens"}));
    assert_eq!(last["response"]["output"][0]["status"], "incomplete");
    served.fake.fails(EngineError::Failed(Failure::Compute("burst".to_owned())));
    assert_eq!(served.post(PATH, &ask(json!({"stream": true}))).status, 500);
}

#[test]
fn answers_are_continued_read_and_forgotten() {
    let served = Served::fake();
    served.fake.says(&["one"]);
    let first = served.post(PATH, &ask(json!({"instructions": "Be brief."}))).ok();
    let id = first["id"].as_str().unwrap();
    served.fake.says(&["two"]);
    let second =
        ask(json!({"input": [{"role": "user", "content": "And?"}], "previous_response_id": id}));
    let second = served.post(PATH, &second).ok();
    assert_eq!(second["previous_response_id"], id);
    let Prompt::Text { text, .. } = &served.fake.heard()[1].prompt else { panic!() };
    assert_eq!(
        text,
        "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\none<|im_end|>\n\
         <|im_start|>user\nAnd?<|im_end|>\n<|im_start|>assistant\n",
        "instructions are not carried over"
    );
    let path = format!("{PATH}/{id}");
    assert_eq!(served.get(&path).ok(), first);
    let items = served.get(&format!("{path}/input_items")).ok();
    assert_eq!((&items["object"], &items["has_more"]), (&json!("list"), &json!(false)));
    assert_eq!(items["data"][0]["content"], json!([{"type": "input_text", "text": "Hi"}]));
    assert_eq!(items["first_id"], items["last_id"]);
    let deleted = served.request("DELETE", &path, &[], b"").ok();
    assert_eq!(deleted, json!({"id": id, "object": "response.deleted", "deleted": true}));
    assert_eq!(served.get(&path).status, 404);
    let orphan = ask(json!({"previous_response_id": second["id"]}));
    let refused = served.post(PATH, &orphan);
    assert_eq!(refused.status, 400);
    assert_eq!(refused.json()["error"]["code"], "previous_response_not_found");
    // One that nobody wants to keep is gone at once.
    served.fake.says(&["three"]);
    let gone = served.post(PATH, &ask(json!({"store": false}))).ok();
    assert_eq!(served.get(&format!("{PATH}/{}", gone["id"].as_str().unwrap())).status, 404);
    // A streamed one is there when its last event has come.
    served.fake.says(&["four"]);
    let reply = served.post(PATH, &ask(json!({"stream": true})));
    let (_, last) = reply.events().pop().unwrap();
    let last: Value = serde_json::from_str(&last).unwrap();
    let id = last["response"]["id"].as_str().unwrap();
    assert_eq!(served.get(&format!("{PATH}/{id}")).ok(), last["response"]);
}

#[test]
fn answers_in_the_background_are_asked_for_and_cancelled() {
    let served = Served::fake();
    served.fake.says_without_end(&["a"], Duration::from_millis(5));
    let begun = served.post(PATH, &ask(json!({"background": true}))).ok();
    assert_eq!((&begun["status"], &begun["background"]), (&json!("in_progress"), &json!(true)));
    let path = format!("{PATH}/{}", begun["id"].as_str().unwrap());
    assert_eq!(served.get(&path).ok()["status"], "in_progress");
    while served.fake.heard().is_empty() {
        std::thread::sleep(Duration::from_millis(5));
    }
    let cancelled = served.post(&format!("{path}/cancel"), &json!({})).ok();
    assert_eq!(cancelled["status"], "cancelled");
    assert_eq!(served.get(&path).ok()["status"], "cancelled");
    served.fake.says(&["done"]);
    let begun = served.post(PATH, &ask(json!({"background": true}))).ok();
    let path = format!("{PATH}/{}", begun["id"].as_str().unwrap());
    let mut answer = begun;
    for _ in 0..500 {
        answer = served.get(&path).ok();
        if answer["status"] != "in_progress" {
            break;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(stable(answer)["output"], json!([message("done")]));
    served.fake.says(&["x"]);
    let plain = served.post(PATH, &ask(json!({}))).ok();
    let path = format!("{PATH}/{}/cancel", plain["id"].as_str().unwrap());
    assert_eq!(served.post(&path, &json!({})).status, 400);
}
