//! Thinking and calls of tools, of a model that does both in the way of Qwen and Hermes.

use serde_json::{Value, json};

use super::{merged, pieces, stable, user};
use crate::wire::Served;

const SAYS: [&str; 8] = [
    "<think>",
    "hm",
    "</think>",
    "Sure.",
    "<tool_call>",
    "{\"name\": \"add\", \"arguments\": {\"b\": 1, \"a\": 2}}",
    "</tool_call>",
    "<|im_end|>",
];

fn tools() -> Value {
    let parameters = json!({"type": "object", "properties": {"b": {"type": "integer"}, "a": {"type": "integer"}},
        "required": ["b", "a"]});
    json!([{"type": "function", "function": {"name": "add", "description": "Adds.", "parameters": parameters}}])
}

fn chat(more: Value) -> Value {
    merged(json!({"model": "able", "messages": user("Add."), "tools": tools()}), more)
}

/// The name of a call, which is another one each time.
fn taken(value: &mut Value, at: &str) -> String {
    let id = value.pointer_mut(at).unwrap_or_else(|| panic!("no {at}")).take();
    id.as_str().unwrap().to_owned()
}

#[test]
fn thoughts_and_calls_have_places_of_their_own() {
    let served = Served::fake();
    served.fake.says(&SAYS);
    let mut answer = served.post("/v1/chat/completions", &chat(json!({}))).ok();
    assert!(!taken(&mut answer, "/choices/0/message/tool_calls/0/id").is_empty());
    assert_eq!(
        answer["choices"][0],
        json!({
            "index": 0,
            "message": {
                "role": "assistant", "content": "Sure.", "refusal": null,
                "reasoning_content": "hm", "reasoning": "hm",
                "tool_calls": [{"id": null, "type": "function",
                    "function": {"name": "add", "arguments": "{\"b\":1,\"a\":2}"}}],
            },
            "logprobs": null,
            "finish_reason": "tool_calls",
        })
    );
}

#[test]
fn a_streamed_call_is_a_name_and_then_arguments() {
    let served = Served::fake();
    served.fake.says(&SAYS);
    let found = pieces(&served.post("/v1/chat/completions", &chat(json!({"stream": true}))));
    let mut deltas: Vec<Value> =
        found.iter().map(|each| each["choices"][0]["delta"].clone()).collect();
    assert!(!taken(&mut deltas[3], "/tool_calls/0/id").is_empty());
    assert_eq!(
        deltas,
        [
            json!({"role": "assistant", "content": null}),
            json!({"reasoning_content": "hm", "reasoning": "hm"}),
            json!({"content": "Sure."}),
            json!({"tool_calls": [{"index": 0, "id": null, "type": "function",
                "function": {"name": "add", "arguments": ""}}]}),
            json!({"tool_calls": [{"index": 0, "function": {"arguments": "{\"b\":1,\"a\":2}"}}]}),
            json!({}),
        ]
    );
    assert_eq!(found[5]["choices"][0]["finish_reason"], "tool_calls");
}

#[test]
fn an_answer_has_an_item_for_each() {
    let served = Served::fake();
    served.fake.says(&SAYS);
    let request = json!({"model": "able", "input": "Add.", "tools": tools(), "stream": true});
    let reply = served.post("/v1/responses", &request);
    let names: Vec<String> = reply
        .events()
        .into_iter()
        .map(|(name, _)| name.unwrap().replace("response.", ""))
        .collect();
    assert_eq!(
        names,
        [
            "created",
            "in_progress",
            "output_item.added",
            "content_part.added",
            "reasoning_text.delta",
            "reasoning_text.done",
            "content_part.done",
            "output_item.done",
            "output_item.added",
            "content_part.added",
            "output_text.delta",
            "output_text.done",
            "content_part.done",
            "output_item.done",
            "output_item.added",
            "function_call_arguments.delta",
            "function_call_arguments.done",
            "output_item.done",
            "completed",
        ]
    );
    let (_, last) = reply.events().pop().unwrap();
    let mut last: Value = stable(serde_json::from_str(&last).unwrap());
    let call = taken(&mut last, "/response/output/2/call_id");
    assert_eq!(
        last["response"]["output"],
        json!([
            {"type": "reasoning", "id": "rs_", "status": "completed", "summary": [],
                "content": [{"type": "reasoning_text", "text": "hm"}], "encrypted_content": null},
            {"type": "message", "id": "msg_", "status": "completed", "role": "assistant",
                "content": [{"type": "output_text", "text": "Sure.", "annotations": [], "logprobs": []}]},
            {"type": "function_call", "id": "fc_", "status": "completed", "call_id": null,
                "name": "add", "arguments": "{\"b\":1,\"a\":2}"},
        ])
    );
    assert_eq!(last["response"]["usage"]["output_tokens_details"]["reasoning_tokens"], 1);
    // The call's result goes back to it.
    served.fake.says(&["Three."]);
    let (_, first) = reply.events().remove(0);
    let first: Value = serde_json::from_str(&first).unwrap();
    let output = json!([{"type": "function_call_output", "call_id": call, "output": "3"}]);
    let request = json!({"model": "able", "input": output, "tools": tools(),
        "previous_response_id": first["response"]["id"]});
    let answer = served.post("/v1/responses", &request).ok();
    assert_eq!(answer["output"][0]["content"][0]["text"], "Three.");
}

#[test]
fn prompts_are_counted_without_a_reply() {
    let served = Served::fake();
    let count =
        |path: &str, body: &Value| served.post(path, body).ok()["input_tokens"].as_u64().unwrap();
    let plain = json!({"model": "able", "messages": user("Add.")});
    let with_tools = count("/v1/chat/completions/input_tokens", &chat(json!({})));
    assert!(with_tools > count("/chat/completions/input_tokens", &plain) + 100);
    let request = json!({"model": "able", "input": "Add.", "tools": tools()});
    assert_eq!(count("/v1/responses/input_tokens", &request), with_tools);
    assert!(served.fake.heard().is_empty());
}
