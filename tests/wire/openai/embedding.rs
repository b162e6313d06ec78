//! Embeddings and rankings.

use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::wire::Served;

fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(|each| each.as_f64().unwrap()).collect()
}

#[test]
fn vectors_come_as_numbers_and_as_base64() {
    let served = Served::fake();
    let ask = |more: Value| {
        let request = super::merged(json!({"model": "plain", "input": ["ab", [97, 98, 98]]}), more);
        served.post("/v1/embeddings", &request).ok()
    };
    let plain = ask(json!({}));
    assert_eq!(plain["usage"], json!({"prompt_tokens": 6, "total_tokens": 6}));
    assert_eq!((&plain["object"], &plain["model"]), (&json!("list"), &json!("plain")));
    let data = plain["data"].as_array().unwrap();
    assert_eq!((data.len(), &data[1]["index"]), (2, &json!(1)));
    assert_eq!(data[0]["object"], "embedding");
    let vector = numbers(&data[1]["embedding"]);
    let root = 5.0_f64.sqrt();
    assert!((vector[1] - 1.0 / root).abs() < 1e-6 && (vector[2] - 2.0 / root).abs() < 1e-6);
    let packed = ask(json!({"encoding_format": "base64"}));
    // The same numbers as 32-bit floats, the least byte first.
    let bytes: Vec<u8> = vector.iter().flat_map(|value| (*value as f32).to_le_bytes()).collect();
    let packed = packed["data"][1]["embedding"].as_str().unwrap();
    assert_eq!(base64::Engine::decode(&STANDARD, packed).unwrap(), bytes);
    let short = numbers(&ask(json!({"dimensions": 2}))["data"][1]["embedding"]);
    assert_eq!(short, [0.0, 1.0], "cut first, then of length 1");
}

#[test]
fn llama_servers_own_form_is_there_too() {
    let served = Served::fake();
    let request = json!({"model": "plain", "content": "a", "embd_normalize": -1});
    let found = served.post("/embeddings", &request).ok();
    assert_eq!(found, json!([{"index": 0, "embedding": [[0.0, 1.0, 0.0, 0.0]]}]));
}

#[test]
fn documents_come_in_the_order_of_their_scores() {
    let served = Served::fake();
    let documents = json!(["red", {"text": "red and blue"}, "none"]);
    let request = json!({"model": "plain", "query": "red blue", "documents": documents,
        "top_n": 2, "return_documents": true});
    for path in ["/v1/rerank", "/rerank", "/v1/reranking", "/reranking"] {
        let found = served.post(path, &request).ok();
        assert_eq!(
            found["results"],
            json!([
                {"index": 1, "relevance_score": 2.0, "document": {"text": "red and blue"}},
                {"index": 0, "relevance_score": 1.0, "document": {"text": "red"}},
            ])
        );
        let usage = &found["usage"];
        assert_eq!(usage["prompt_tokens"], usage["total_tokens"]);
    }
    let request = json!({"model": "plain", "query": "a", "texts": ["b", "a"], "return_text": true});
    let found = served.post("/rerank", &request).ok();
    assert_eq!(found[0], json!({"index": 1, "score": 1.0, "text": "a"}));
}
