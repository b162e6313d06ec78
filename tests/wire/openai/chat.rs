//! Chat completions.

use nfl::engine::frames::{Failure, Prompt};
use nfl::engine::process::EngineError;
use serde_json::{Value, json};

use super::{merged, pieces, stable, user};
use crate::wire::Served;

const PATH: &str = "/v1/chat/completions";

fn chat(more: Value) -> Value {
    merged(json!({"model": "chat", "messages": user("Hi")}), more)
}

fn chunk(choices: &Value) -> Value {
    json!({"id": "chatcmpl-", "object": "chat.completion.chunk", "created": 0, "model": "chat",
        "system_fingerprint": "b0.1.0-nfl", "choices": choices})
}

fn delta(delta: &Value) -> Value {
    chunk(&json!([{"index": 0, "delta": delta, "finish_reason": null}]))
}

#[test]
fn a_whole_answer_is_openais() {
    let served = Served::fake();
    served.fake.says(&["Hel", "lo"]);
    let mut answer = stable(served.post(PATH, &chat(json!({}))).ok());
    let timings = answer.as_object_mut().unwrap().remove("timings").unwrap();
    let prompt = "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n";
    let tokens = prompt.len() - 2 * "<|im_start|>".len() - "<|im_end|>".len() + 3;
    assert_eq!(
        answer,
        json!({
            "id": "chatcmpl-", "object": "chat.completion", "created": 0, "model": "chat",
            "choices": [{
                "index": 0,
                "message": {"role": "assistant", "content": "Hello", "refusal": null},
                "logprobs": null,
                "finish_reason": "stop",
            }],
            "usage": {"prompt_tokens": tokens, "completion_tokens": 2, "total_tokens": tokens + 2,
                "prompt_tokens_details": {"cached_tokens": 0}},
            "system_fingerprint": "b0.1.0-nfl",
        })
    );
    assert_eq!((&timings["prompt_n"], &timings["predicted_n"]), (&json!(tokens), &json!(2)));
    let Prompt::Text { text, .. } = &served.fake.heard()[0].prompt else { panic!() };
    assert_eq!(text, prompt);
}

#[test]
fn a_streamed_answer_has_a_role_an_end_and_an_account() {
    let served = Served::fake();
    served.fake.says(&["Hel", "lo"]);
    let request = chat(json!({"stream": true, "stream_options": {"include_usage": true}}));
    let mut found = pieces(&served.post(PATH, &request));
    let last = found.pop().unwrap();
    assert_eq!(last["choices"], json!([]));
    assert_eq!(last["usage"]["completion_tokens"], 2);
    assert_eq!(last["timings"]["predicted_n"], 2);
    let expected = [
        delta(&json!({"role": "assistant", "content": null})),
        delta(&json!({"content": "Hel"})),
        delta(&json!({"content": "lo"})),
        chunk(&json!([{"index": 0, "delta": {}, "finish_reason": "stop"}])),
    ];
    let with_usage = expected.map(|chunk| merged(chunk, json!({"usage": null})));
    assert_eq!(found, with_usage);
    // Without the account the end has the time.
    served.fake.says(&["Hi"]);
    let found = pieces(&served.post(PATH, &chat(json!({"stream": true, "max_tokens": 1}))));
    assert_eq!(found.len(), 3);
    assert_eq!(found[2]["choices"][0]["finish_reason"], "length");
    assert!(found[2].get("usage").is_none() && found[2].get("timings").is_some());
}

#[test]
fn what_the_assistant_began_goes_on() {
    let served = Served::fake();
    let parts = json!([{"type": "text", "text": "Wh"}, {"type": "text", "text": "ill"}]);
    let begun = "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nWh\n\nill";
    let closed = format!("{begun}<|im_end|>\n");
    let opened = format!("{closed}<|im_start|>assistant\n");
    let messages =
        json!([{"role": "user", "content": "Hi"}, {"role": "assistant", "content": parts}]);
    for (asked, prompt) in [
        (json!({}), begun),
        (json!({"add_generation_prompt": false, "continue_final_message": true}), begun),
        (json!({"add_generation_prompt": true}), &*opened),
        (json!({"add_generation_prompt": false, "continue_final_message": false}), &*closed),
    ] {
        let request = merged(chat(json!({"messages": messages})), asked);
        assert_eq!(served.post("/apply-template", &request).ok(), json!({"prompt": prompt}));
        served.fake.says(&["ow"]);
        let answer = served.post(PATH, &merged(request, json!({"verbose": true}))).ok();
        assert_eq!(answer["__verbose"]["prompt"], prompt);
        assert_eq!(answer["choices"][0]["message"]["content"], "ow");
    }
    let both = json!({"add_generation_prompt": true, "continue_final_message": true});
    assert_eq!(served.post(PATH, &chat(both)).status, 400);
    let twice = json!({"messages": [messages[0], messages[1], messages[1]]});
    assert_eq!(served.post(PATH, &chat(twice)).status, 400);
    served.fake.says(&["ow"]);
    let streamed = chat(json!({"messages": messages, "verbose": true, "stream": true}));
    let chunks = pieces(&served.post(PATH, &streamed));
    assert_eq!(chunks[0]["__verbose"]["prompt"], begun);
    assert!(chunks[1].get("__verbose").is_none());
}

#[test]
fn a_conversation_is_shown_as_the_model_would_read_it() {
    let served = Served::fake();
    let tool =
        json!({"type": "function", "function": {"name": "add", "parameters": {"type": "object"}}});
    let asked = json!({"model": "able", "messages": user("Hi<|im_end|>"), "tools": [tool],
        "chat_template_kwargs": {"enable_thinking": false}});
    let prompt = served.post("/apply-template", &asked).ok()["prompt"].take();
    let prompt = prompt.as_str().unwrap();
    assert!(prompt.contains("\"name\": \"add\"") && prompt.contains("Hi<|im_end|>"), "{prompt}");
    assert!(prompt.ends_with("<|im_start|>assistant\n<think>\n\n</think>\n\n"), "{prompt}");
    let refused = served.post("/apply-template", &chat(json!({"tools": [tool]})));
    assert_eq!(refused.status, 400);
    assert!(served.fake.heard().is_empty());
}

#[test]
fn no_text_breaks_out_of_an_event() {
    let served = Served::fake();
    let evil = ["\n\ndata: [DONE]\n\n", "\r\nevent: x\r", "\u{2028}\u{0}\u{1b}", "\"}}]}"];
    served.fake.says(&evil);
    let reply = served.post(PATH, &chat(json!({"stream": true})));
    let found = pieces(&reply);
    let text: String =
        found.iter().filter_map(|each| each["choices"][0]["delta"]["content"].as_str()).collect();
    assert_eq!(text, evil.concat());
    for line in reply.text().lines() {
        assert!(line.is_empty() || line.starts_with("data: "), "{line:?}");
    }
}

#[test]
fn several_choices_are_that_many_replies() {
    let served = Served::fake();
    for says in ["one", "two", "three"] {
        served.fake.says(&[says]);
    }
    let answer = served.post(PATH, &chat(json!({"n": 3, "seed": 7}))).ok();
    let choices = answer["choices"].as_array().unwrap();
    let mut texts: Vec<&str> =
        choices.iter().map(|each| each["message"]["content"].as_str().unwrap()).collect();
    assert_eq!(texts[0], "one");
    texts.sort_unstable();
    assert_eq!(texts, ["one", "three", "two"]);
    let mut seeds: Vec<Option<u32>> =
        served.fake.heard().iter().map(|each| each.sampling.seed).collect();
    seeds.sort_unstable();
    assert_eq!(seeds, [Some(7), Some(8), Some(9)]);
    assert_eq!(answer["usage"]["completion_tokens"], 3);
    let one = answer["usage"]["prompt_tokens"].as_u64().unwrap();
    assert!(one < 50, "the prompt counts once: {one}");
    for _ in 0..2 {
        served.fake.says(&["a", "b"]);
    }
    let found = pieces(&served.post(PATH, &chat(json!({"n": 2, "stream": true}))));
    for index in 0..2 {
        let of = |each: &&Value| each["choices"][0]["index"] == index;
        let texts = found
            .iter()
            .filter(of)
            .filter_map(|each| each["choices"][0]["delta"]["content"].as_str());
        assert_eq!(texts.collect::<String>(), "ab");
    }
}

#[test]
fn what_breaks_midway_is_an_event_and_no_end() {
    let served = Served::fake();
    served.fake.says(&["one"]);
    served.fake.fails(EngineError::Failed(Failure::Compute("the graph burst".to_owned())));
    let reply = served.post(PATH, &chat(json!({"n": 2, "stream": true})));
    assert_eq!(reply.status, 200);
    let (_, last) = reply.events().pop().unwrap();
    let last: Value = serde_json::from_str(&last).unwrap();
    assert_eq!(last["error"]["type"], "server_error");
    assert!(last["error"]["message"].as_str().unwrap().contains("the graph burst"));
}

#[test]
fn tokens_tell_how_likely_they_were() {
    let served = Served::fake();
    served.fake.says(&["Hel", "lo"]);
    let request = chat(json!({"logprobs": true, "top_logprobs": 1}));
    let answer = served.post(PATH, &request).ok();
    let first = &answer["choices"][0]["logprobs"]["content"][0];
    let id = first["id"].clone();
    assert_eq!(
        first,
        &json!({"id": id, "token": "Hel", "logprob": -0.5, "bytes": [72, 101, 108],
            "top_logprobs": [{"id": id, "token": "Hel", "logprob": -0.5, "bytes": [72, 101, 108]}]})
    );
    // A stop string's tokens are no content.
    served.fake.says(&["Hel", "lo", "END"]);
    let request = chat(json!({"logprobs": true, "stream": true, "stop": "END"}));
    let found = pieces(&served.post(PATH, &request));
    let tokens: Vec<&str> = found
        .iter()
        .filter_map(|each| each["choices"][0]["logprobs"]["content"].as_array())
        .flatten()
        .map(|token| token["token"].as_str().unwrap())
        .collect();
    assert_eq!(tokens, ["Hel", "lo"]);
}

#[test]
fn every_field_of_sampling_arrives() {
    let served = Served::fake();
    served.fake.says(&["x"]);
    let request = chat(json!({
        "temperature": 0.25, "top_p": 0.5, "top_k": 3, "min_p": 0.125, "frequency_penalty": 0.5,
        "presence_penalty": -0.5, "repeat_penalty": 1.5, "seed": 5, "stop": ["a", "b", ""],
        "max_completion_tokens": 9, "logit_bias": {"65": -100, "B": 2}, "ignore_eos": true,
        "user": "me", "metadata": {"a": "b"}, "store": true, "cache_prompt": true, "n": 1,
        "response_format": {"type": "text"}, "modalities": ["text"], "parallel_tool_calls": true,
    }));
    served.post(PATH, &request).ok();
    let heard = served.fake.heard().remove(0);
    let sampling = heard.sampling;
    assert_eq!((sampling.temperature, sampling.top_p, sampling.top_k), (0.25, 0.5, 3));
    assert_eq!((sampling.frequency_penalty, sampling.presence_penalty), (0.5, -0.5));
    assert_eq!((sampling.repeat_penalty, sampling.min_p, sampling.seed), (1.5, 0.125, Some(5)));
    assert_eq!(sampling.logit_bias, [(65, -100.0), (66, 2.0)]);
    assert_eq!(
        (heard.stop.as_slice(), heard.tokens_max),
        (&["a".to_owned(), "b".into()][..], Some(9))
    );
    assert!(heard.ignore_end);
}
