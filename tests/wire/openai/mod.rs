//! OpenAI's dialect: exact transcripts with a model that plays a script, and behaviour with a real one.

mod chat;
mod completion;
mod embedding;
mod real;
mod refusals;
mod responses;
mod tools;

use serde_json::{Value, json};

use super::{Reply, Served};

/// The same without names and times, which are others each time: `id` keeps what stands before its random part.
fn stable(mut value: Value) -> Value {
    match &mut value {
        Value::Object(map) => {
            for (key, each) in map.iter_mut() {
                match (key.as_str(), each.as_str()) {
                    ("created" | "created_at" | "completed_at", None) if each.is_number() => {
                        assert!(each.as_u64().unwrap() > 1_700_000_000);
                        *each = json!(0);
                    }
                    ("id" | "item_id", Some(id)) if id.len() > 24 => {
                        *each = json!(id[..id.len() - 24]);
                    }
                    _ => *each = stable(each.take()),
                }
            }
        }
        Value::Array(list) => list.iter_mut().for_each(|each| *each = stable(each.take())),
        _ => {}
    }
    value
}

/// The JSON values of a stream that ends as it should, without names and times.
fn pieces(reply: &Reply) -> Vec<Value> {
    assert_eq!(reply.status, 200, "{}", reply.text());
    assert_eq!(reply.header("content-type"), Some("text/event-stream"));
    let mut events = reply.events();
    assert_eq!(events.pop(), Some((None, "[DONE]".to_owned())), "{}", reply.text());
    events.iter().map(|(_, data)| stable(serde_json::from_str(data).unwrap())).collect()
}

/// A user's turn.
fn user(text: &str) -> Value {
    json!([{"role": "user", "content": text}])
}

pub(super) fn merged(mut value: Value, other: Value) -> Value {
    let Value::Object(other) = other else { panic!("{other} is no object") };
    value.as_object_mut().unwrap().extend(other);
    value
}

#[test]
fn models_are_listed_and_shown_by_name() {
    let served = Served::fake();
    let list = served.get("/v1/models").ok();
    let mut names: Vec<&str> =
        list["data"].as_array().unwrap().iter().map(|each| each["id"].as_str().unwrap()).collect();
    names.sort_unstable();
    assert_eq!((names.len(), &list["object"]), (3, &json!("list")));
    let name = names[1];
    let shown = stable(served.get(&format!("/v1/models/{name}")).ok());
    assert_eq!(shown["id"], name);
    assert_eq!(shown["object"], "model");
    assert_eq!(shown["created"], 0);
    assert_eq!(shown["status"], json!({"value": "unloaded"}));
    assert_eq!(shown["meta"]["n_ctx_train"], 4096);
    served.fake.says(&["Hi"]);
    served.post("/v1/completions", &json!({"model": name, "prompt": "x"})).ok();
    assert_eq!(served.get(&format!("/v1/models/{name}")).ok()["status"]["value"], "loaded");
    let missing = served.get("/v1/models/hf.co/nobody/nothing:q4");
    assert_eq!(missing.status, 404);
    assert_eq!(missing.json()["error"]["code"], "model_not_found");
    // With one model loaded, it need not be named.
    served.fake.says(&["Ho"]);
    let answer = served.post("/v1/completions", &json!({"prompt": "x"})).ok();
    assert_eq!((&answer["model"], &answer["choices"][0]["text"]), (&json!(name), &json!("Ho")));
}
