//! Completions of texts and tokens.

use nfl::engine::frames::Prompt;
use serde_json::{Value, json};

use super::{merged, pieces, stable};
use crate::wire::Served;

const PATH: &str = "/v1/completions";

fn complete(more: Value) -> Value {
    merged(json!({"model": "plain", "prompt": "ab"}), more)
}

fn texts(answer: &Value) -> Vec<String> {
    let choices = answer["choices"].as_array().unwrap();
    let text = |(index, each): (usize, &Value)| {
        assert_eq!(each["index"], index);
        each["text"].as_str().unwrap().to_owned()
    };
    choices.iter().enumerate().map(text).collect()
}

#[test]
fn a_whole_answer_is_openais() {
    let served = Served::fake();
    served.fake.says(&["c", "d"]);
    let mut answer = stable(served.post(PATH, &complete(json!({"max_tokens": 2}))).ok());
    answer.as_object_mut().unwrap().remove("timings").unwrap();
    assert_eq!(
        answer,
        json!({
            "id": "cmpl-", "object": "text_completion", "created": 0, "model": "plain",
            "system_fingerprint": "b0.1.0-nfl",
            "choices": [{"index": 0, "text": "cd", "logprobs": null, "finish_reason": "length"}],
            "usage": {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5,
                "prompt_tokens_details": {"cached_tokens": 0}},
        })
    );
}

#[test]
fn a_streamed_answer_ends_with_its_reason() {
    let served = Served::fake();
    served.fake.says(&["c", "d"]);
    let found = pieces(&served.post(PATH, &complete(json!({"stream": true}))));
    let choices: Vec<&Value> = found.iter().map(|each| &each["choices"][0]).collect();
    assert_eq!(
        choices,
        [
            &json!({"index": 0, "text": "c", "logprobs": null, "finish_reason": null}),
            &json!({"index": 0, "text": "d", "logprobs": null, "finish_reason": null}),
            &json!({"index": 0, "text": "", "logprobs": null, "finish_reason": "stop"}),
        ]
    );
}

#[test]
fn prompts_come_as_texts_and_tokens_and_several_at_once() {
    let served = Served::fake();
    let prompts = json!(["ab", [97, 98], ["x", 98]]);
    for _ in 0..6 {
        served.fake.says(&["!"]);
    }
    let answer =
        served.post(PATH, &complete(json!({"prompt": prompts, "n": 2, "echo": true}))).ok();
    assert_eq!(texts(&answer), ["ab!", "ab!", "ab!", "ab!", "<|im_start|>xb!", "<|im_start|>xb!"]);
    let heard = served.fake.heard();
    let tokens: Vec<&Vec<i32>> = heard
        .iter()
        .filter_map(|each| match &each.prompt {
            Prompt::Tokens(tokens) => Some(tokens),
            _ => None,
        })
        .collect();
    assert_eq!(tokens.iter().filter(|tokens| ***tokens == [97, 98]).count(), 2);
    assert_eq!(tokens.iter().filter(|tokens| ***tokens == [256, 120, 98]).count(), 2);
    // More than run side by side.
    for _ in 0..40 {
        served.fake.says(&["."]);
    }
    let many: Vec<String> = (0..40).map(|index| format!("{index}")).collect();
    let answer = served.post(PATH, &complete(json!({"prompt": many, "echo": true}))).ok();
    let expected: Vec<String> = many.iter().map(|text| format!("{text}.")).collect();
    assert_eq!(texts(&answer), expected);
}

#[test]
fn an_echo_tells_how_likely_the_prompt_was() {
    let served = Served::fake();
    let request = complete(json!({"echo": true, "logprobs": 1, "max_tokens": 0}));
    let answer = served.post(PATH, &request).ok();
    assert!(served.fake.heard().is_empty(), "nothing was generated");
    let choice = &answer["choices"][0];
    assert_eq!((&choice["text"], &choice["finish_reason"]), (&json!("ab"), &json!("length")));
    assert_eq!(
        choice["logprobs"],
        json!({
            "tokens": ["", "a", "b"],
            "token_logprobs": [null, -0.5, -0.5],
            "top_logprobs": [null, {"a": -0.5}, {"b": -0.5}],
            "text_offset": [0, 0, 1],
        })
    );
    assert_eq!(answer["usage"]["total_tokens"], 3);
    // With one more token, as those who measure ask for it, even when the model would rather end.
    served.fake.says(&["é"]);
    let request =
        complete(json!({"prompt": [97, 98], "echo": true, "logprobs": 0, "max_tokens": 1}));
    let answer = served.post(PATH, &request).ok();
    let logprobs = &answer["choices"][0]["logprobs"];
    assert_eq!(answer["choices"][0]["text"], "abé");
    assert_eq!(logprobs["tokens"], json!(["a", "b", "é"]));
    assert_eq!(logprobs["token_logprobs"], json!([null, -0.5, -0.5]));
    assert!(served.fake.heard()[0].ignore_end);
}

#[test]
fn the_best_of_several_are_given() {
    let served = Served::fake();
    for says in ["one", "two", "three"] {
        served.fake.says(&[says]);
    }
    let answer = served.post(PATH, &complete(json!({"best_of": 3, "n": 2}))).ok();
    assert_eq!(texts(&answer).len(), 2);
    assert_eq!(answer["usage"]["completion_tokens"], 3);
    assert!(served.fake.heard().iter().all(|each| each.logprobs == Some(0)));
}

#[test]
fn a_gap_is_filled() {
    let served = Served::fake();
    served.fake.says(&["x"]);
    served.post(PATH, &complete(json!({"suffix": "cd"}))).ok();
    let infill = Prompt::Infill { prefix: "ab".to_owned(), suffix: "cd".to_owned() };
    assert_eq!(served.fake.heard()[0].prompt, infill);
}
