//! Killed in the middle of a pull, again and again: it always goes on, fetches nothing twice that was verified, and never
//! takes a wrong byte.

use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use nfl::store::Digest;

use super::Home;
use super::server::{Answer, Request, Server};
use crate::fixture;

/// How many kills; `NFL_TEST_KILLS=200` asks for more.
fn kills() -> u64 {
    std::env::var("NFL_TEST_KILLS").ok().and_then(|text| text.parse().ok()).unwrap_or(12)
}

/// A GGUF file of 24 MB that is not all zeros.
fn model(folder: &tempfile::TempDir) -> Arc<Vec<u8>> {
    let path = folder.path().join("config.json");
    let text = "{\"architectures\":[\"LlamaForCausalLM\"],\"model_type\":\"llama\",\"hidden_size\":512,\
        \"intermediate_size\":1536,\"num_hidden_layers\":3,\"num_attention_heads\":8,\
        \"num_key_value_heads\":8,\"vocab_size\":512,\"rms_norm_eps\":1e-5,\
        \"max_position_embeddings\":512,\"rope_theta\":10000.0}";
    std::fs::write(&path, text).unwrap();
    let checkpoint = folder.path().join("checkpoint");
    let synthesize = [
        "synthesize",
        fixture::text(&path),
        "--output",
        fixture::text(&checkpoint),
        "--dtype",
        "f16",
    ];
    fixture::nfl(&synthesize).expect_success();
    let file = fixture::convert(&checkpoint, "f16", folder.path()).remove(0);
    Arc::new(std::fs::read(file).unwrap())
}

#[test]
fn kills_at_random_moments_cost_nothing_that_was_verified() {
    let folder = tempfile::tempdir().unwrap();
    let content = model(&folder);
    let served = content.clone();
    let server = Server::start(move |request| Answer {
        rate: Some(12e6),
        ..Answer::file(&served, request, "\"v1\"")
    });
    let url = server.url("/model-F16.gguf");
    let home = Home::new();
    let pull = ["pull", url.as_str(), "--name", "killed:f16"];
    let (mut state, mut killed) = (0x2545_f491_4f6c_dd1d_u64, 0);
    let mut done = false;
    while killed < kills() || !done {
        if done {
            // Complete before all kills were spent: begin again.
            home.nfl(&["rm", "killed:f16"]).expect_success();
            home.nfl(&["prune"]).expect_success();
        }
        let before = journaled(&home);
        server.log.lock().unwrap().clear();
        let mut child =
            home.command(&pull).stderr(Stdio::null()).stdout(Stdio::null()).spawn().unwrap();
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        if killed < kills() {
            std::thread::sleep(Duration::from_millis(20 + state % 400));
            child.kill().unwrap();
            killed += 1;
        }
        done = child.wait().unwrap().success();
        // Every request begins where the journal was, or behind it.
        let first =
            server.log.lock().unwrap().iter().filter_map(Request::range).map(|range| range.0).min();
        assert!(first.is_none_or(|first| first as u64 >= before), "{first:?} < {before}");
    }
    let blob = home.folder.path().join("blobs").join(Digest::of(&content).file_name());
    assert!(std::fs::read(blob).unwrap() == *content);
    assert_eq!(fixture::files_of(&home.folder.path().join("partial")), [""; 0]);
}

/// Bytes that the journal of the only unfinished download vouches for.
fn journaled(home: &Home) -> u64 {
    let partial = home.folder.path().join("partial");
    let journal = fixture::files_of(&partial).into_iter().find(|name| name.ends_with(".journal"));
    let Some(journal) = journal else { return 0 };
    let text = std::fs::read_to_string(partial.join(journal)).unwrap_or_default();
    let records = text.lines().filter_map(|line| line.trim_start_matches('\0').split_once(' '));
    let done = |body: &str| serde_json::from_str::<serde_json::Value>(body).ok()?["done"].as_u64();
    records.filter_map(|(_, body)| done(body)).max().unwrap_or(0)
}
