//! OpenAI's dialect over a real tiny model.

use std::ops::ControlFlow;

use nfl::engine::options::{ContextOptions, LoadRequest, ModelOptions};
use nfl::engine::process::Engine;
use serde_json::{Value, json};

use super::pieces;
use crate::fixture;
use crate::wire::Served;

const BEGINNING: &str = "Once upon a time";

fn complete(served: &Served, more: Value) -> Value {
    let request =
        json!({"model": "stories", "prompt": BEGINNING, "temperature": 0, "max_tokens": 60});
    served.post("/v1/completions", &super::merged(request, more)).ok()
}

#[test]
fn texts_go_on_as_llama_cpp_writes_them() {
    let Some(served) = Served::real() else { return };
    let Some(oracle) = fixture::material("oracle/greedy60.txt") else { return };
    let oracle = std::fs::read_to_string(oracle).unwrap();
    let whole = complete(&served, json!({"echo": true}));
    let text = whole["choices"][0]["text"].as_str().unwrap();
    assert!(
        text.trim_start().starts_with(oracle.trim())
            || oracle.trim().starts_with(text.trim_start()),
        "{text}\n---\n{oracle}"
    );
    assert_eq!(whole["choices"][0]["finish_reason"], "length");
    // In pieces it is the same, and from tokens, and for each of several.
    let request = json!({"model": "stories", "prompt": [BEGINNING, BEGINNING], "n": 2,
        "temperature": 0, "max_tokens": 60, "stream": true});
    let found = pieces(&served.post("/v1/completions", &request));
    for index in 0..4 {
        let of = |each: &&Value| each["choices"][0]["index"] == index;
        let texts =
            found.iter().filter(of).map(|each| each["choices"][0]["text"].as_str().unwrap());
        assert_eq!(BEGINNING.to_owned() + &texts.collect::<String>(), text);
    }
    let again = complete(&served, json!({}));
    let cached = again["usage"]["prompt_tokens_details"]["cached_tokens"].as_u64().unwrap();
    assert!(cached > 0, "{again}");
}

#[test]
fn an_echo_scores_a_text_as_the_engine_does() {
    let Some(served) = Served::real() else { return };
    let file = fixture::material("derived/stories260K-llama-F32.gguf").unwrap();
    let request = LoadRequest::new(file, ModelOptions::default(), ContextOptions::with_threads(1));
    let engine =
        Engine::start(fixture::program(), &request, &mut |_| ControlFlow::Continue(())).unwrap();
    let text = "Once upon a time there was a little girl named Lily";
    let tokens = engine.tokenize(text, true, false).unwrap();
    let scores = engine.score(&tokens, 1).unwrap();
    for prompt in [json!(text), json!(tokens), json!([tokens])] {
        let answer = complete(
            &served,
            json!({"prompt": prompt, "echo": true, "logprobs": 1, "max_tokens": 1}),
        );
        let logprobs = &answer["choices"][0]["logprobs"];
        let found = logprobs["token_logprobs"].as_array().unwrap();
        assert_eq!(found.len(), tokens.len() + 1);
        assert!(found[0].is_null() && logprobs["top_logprobs"][0].is_null());
        for (one, other) in found[1..].iter().zip(&scores) {
            assert!((one.as_f64().unwrap() - other).abs() < 1e-3, "{one} {other}");
        }
    }
}

#[test]
fn forms_and_biases_are_kept() {
    let Some(served) = Served::real() else { return };
    let schema = json!({"type": "object", "properties": {"age": {"type": "integer"}, "name": {"enum": ["a", "b"]}},
        "required": ["age", "name"], "additionalProperties": false});
    let form = json!({"type": "json_schema", "json_schema": {"name": "n", "strict": true, "schema": schema}});
    let answer = complete(&served, json!({"response_format": form, "max_tokens": 100}));
    let text = answer["choices"][0]["text"].as_str().unwrap();
    let value: Value = serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"));
    assert!(jsonschema::is_valid(&schema, &value), "{value}");
    let answer = complete(&served, json!({"grammar": "root ::= \"no\" | \"yes\""}));
    assert!(["no", "yes"].contains(&answer["choices"][0]["text"].as_str().unwrap()));
    // What came first is forbidden.
    let first = complete(&served, json!({"max_tokens": 1, "logprobs": 0}));
    let token = first["choices"][0]["logprobs"]["tokens"][0].clone();
    let bias = json!({token.as_str().unwrap(): false});
    let other = complete(&served, json!({"max_tokens": 1, "logprobs": 0, "logit_bias": bias}));
    assert_ne!(other["choices"][0]["logprobs"]["tokens"][0], token);
    for (more, status) in [
        (json!({"grammar": "root ::= this is (not GBNF"}), 400),
        (json!({"logit_bias": {"100000": 1}}), 400),
        (json!({"prompt": vec![1; 600]}), 400),
        (json!({"prompt": [100_000]}), 400),
        (json!({"response_format": {"type": "json_object", "schema": {"type": "hiccup"}}}), 400),
    ] {
        let request = super::merged(json!({"model": "stories", "prompt": "a"}), more);
        let reply = served.post("/v1/completions", &request);
        assert_eq!(reply.status, status, "{}", reply.text());
    }
}

#[test]
fn embeddings_have_length_one() {
    let Some(served) = Served::real() else { return };
    let request = json!({"model": "stories", "input": [BEGINNING, "The end"], "dimensions": 16});
    let found = served.post("/v1/embeddings", &request).ok();
    for each in found["data"].as_array().unwrap() {
        let vector = each["embedding"].as_array().unwrap();
        let sum: f64 = vector.iter().map(|value| value.as_f64().unwrap().powi(2)).sum();
        assert!(vector.len() == 16 && (sum - 1.0).abs() < 1e-5);
    }
    let request = json!({"model": "stories", "query": "a", "documents": ["b"]});
    let reply = served.post("/v1/rerank", &request);
    assert_eq!(reply.status, 400, "a model without a classifier: {}", reply.text());
}
