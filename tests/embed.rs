//! `nfl embed` and `nfl rerank` against PyTorch and transformers (`tests/golden/embeddings.py`), and the same requests from
//! many threads at once.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::thread;

use nfl::engine::embedding::{EmbeddingOptions, EmbeddingRequest, Embeddings, Passage, Pooling};
use nfl::engine::frames::{Event, Failure, Generation, Prompt};
use nfl::engine::options::{ContextOptions, LoadRequest, ModelOptions};
use nfl::engine::process::{Engine, EngineError};
use serde_json::Value;

use crate::fixture;

fn golden() -> Value {
    serde_json::from_str(include_str!("golden/embeddings.json")).unwrap()
}

fn reranker() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/reranker.gguf")
}

fn stories() -> Option<PathBuf> {
    fixture::material("derived/stories260K-llama-F32.gguf")
}

fn json(arguments: &[&str]) -> Value {
    serde_json::from_str(&fixture::nfl(arguments).expect_success()).unwrap()
}

fn numbers(value: &Value) -> Vec<f32> {
    value.as_array().unwrap().iter().map(|each| each.as_f64().unwrap() as f32).collect()
}

/// The largest difference of two vectors, beside the largest number in them.
fn distance(one: &[f32], other: &[f32]) -> f32 {
    assert_eq!(one.len(), other.len());
    let largest = other.iter().fold(0.0_f32, |most, value| most.max(value.abs()));
    let differences = one.iter().zip(other).map(|(a, b)| (a - b).abs());
    differences.fold(0.0, f32::max) / largest
}

fn scaled(vector: &[f32], length: f32) -> Vec<f32> {
    let sum = vector.iter().map(|value| value * value).sum::<f32>().sqrt();
    vector.iter().map(|value| value / sum * length).collect()
}

#[test]
fn vectors_are_those_of_transformers() {
    let Some(file) = stories() else { return };
    let golden = golden();
    let texts = golden["texts"].as_array().unwrap();
    let mut lines = tempfile::NamedTempFile::new().unwrap();
    for text in &texts[1..] {
        std::io::Write::write_all(&mut lines, text["text"].as_str().unwrap().as_bytes()).unwrap();
        std::io::Write::write_all(&mut lines, b"\n").unwrap();
    }
    let first = texts[0]["text"].as_str().unwrap();
    // One text from the command line, the others from a file.
    let lines = fixture::text(lines.path());
    let arguments = ["embed", fixture::text(&file), first, "--file", lines, "--threads", "1"];
    for pooling in ["mean", "cls", "last"] {
        let options = ["--json", "--pooling", pooling, "--no-normalize"];
        let found = json(&[&arguments[..], &options].concat());
        let sum: u64 = texts.iter().map(|text| text["tokens"].as_u64().unwrap()).sum();
        assert_eq!((&found["pooling"], &found["dimensions"]), (&pooling.into(), &64.into()));
        assert_eq!(found["tokens"], sum);
        let embeddings = found["embeddings"].as_array().unwrap();
        assert_eq!(embeddings.len(), texts.len());
        for (one, text) in embeddings.iter().zip(texts) {
            assert_eq!(one["tokens"], text["tokens"]);
            let off = distance(&numbers(&one["vector"]), &numbers(&text[pooling]));
            assert!(off < 2e-3, "{pooling}: {off}");
        }
    }
    // The mean, of length 1 and cut to 16 numbers, is what comes unless asked otherwise.
    let table = fixture::nfl(&[&arguments[..], &["--dimensions", "16"]].concat()).expect_success();
    assert_eq!(table.lines().count(), texts.len());
    for (line, text) in table.lines().zip(texts) {
        let found: Vec<f32> = line.split(' ').map(|word| word.parse().unwrap()).collect();
        assert!(distance(&found, &scaled(&numbers(&text["mean"])[..16], 1.0)) < 2e-3);
    }
    // One vector a token: the first is that of cls, the last that of last.
    let options = ["--pooling", "none", "--no-normalize"];
    let table =
        fixture::nfl(&["embed", fixture::text(&file), first, options[0], options[1], options[2]]);
    let rows: Vec<Vec<f32>> = table
        .expect_success()
        .lines()
        .map(|line| line.split(' ').map(|word| word.parse().unwrap()).collect())
        .collect();
    assert_eq!(rows.len() as u64, texts[0]["tokens"].as_u64().unwrap());
    assert!(distance(&rows[0], &numbers(&texts[0]["cls"])) < 2e-3);
    assert!(distance(&rows[rows.len() - 1], &numbers(&texts[0]["last"])) < 2e-3);
}

#[test]
fn documents_come_in_the_order_of_transformers_scores() {
    let golden = golden();
    let ranking = &golden["ranking"];
    let documents: Vec<&str> = ranking["documents"]
        .as_array()
        .unwrap()
        .iter()
        .map(|each| each.as_str().unwrap())
        .collect();
    let scores = numbers(&ranking["scores"]);
    let file = reranker();
    let mut arguments = vec!["rerank", fixture::text(&file), ranking["query"].as_str().unwrap()];
    arguments.extend(&documents);
    let found = json(&[&arguments[..], &["--json"]].concat());
    let results = found["results"].as_array().unwrap();
    let mut order: Vec<usize> = (0..documents.len()).collect();
    order.sort_by(|&one, &other| scores[other].total_cmp(&scores[one]));
    for (result, &index) in results.iter().zip(&order) {
        assert_eq!(result["index"], index);
        assert_eq!(result["document"], documents[index]);
        assert_eq!(result["tokens"], ranking["tokens"][index]);
        let off = (result["score"].as_f64().unwrap() as f32 - scores[index]).abs();
        assert!(off < 5e-3, "{result}");
    }
    let table = fixture::nfl(&[&arguments[..], &["--top", "2"]].concat()).expect_success();
    let lines: Vec<&str> = table.lines().collect();
    assert_eq!(lines.len(), 2);
    for (line, &index) in lines.iter().zip(&order) {
        assert!(line.ends_with(documents[index]), "{line}");
    }
}

#[test]
fn what_a_model_cannot_do_is_refused_with_what_can_be_done() {
    let ranks = reranker();
    let ranks = fixture::text(&ranks);
    let Some(plain) = stories() else { return };
    let plain = fixture::text(&plain);
    let long = "word ".repeat(3000);
    for (arguments, status, words, hint) in [
        (vec!["embed", ranks, "the cat"], 1, "ranks documents", "nfl rerank"),
        (vec!["rerank", plain, "cat", "dog"], 1, "no classifier", "nfl embed"),
        (vec!["embed", plain], 2, "nothing to embed", "--file"),
        (vec!["rerank", plain, "cat"], 2, "nothing to rank", "--file"),
        (vec!["embed", plain, "a", &long], 1, "text 2: ", "--ctx"),
        // Learned positions end with the table, whatever context is asked for.
        (vec!["rerank", ranks, "cat", &long, "--ctx", "4096"], 1, "here is 64", "cut it"),
        (vec!["embed", plain, "a", "--dimensions", "65"], 1, "outside 1 to 64", ""),
        (vec!["embed", plain, "--file", "/nowhere/lines"], 1, "/nowhere/lines", ""),
    ] {
        let ran = fixture::nfl(&arguments);
        assert_eq!(ran.status, status, "{}", ran.stderr);
        assert!(ran.stderr.contains(words) && ran.stderr.contains(hint), "{}", ran.stderr);
        assert!(ran.stdout.is_empty(), "{}", ran.stdout);
    }
}

fn request(texts: &[String], pooling: Pooling) -> EmbeddingRequest {
    EmbeddingRequest {
        passages: texts.iter().cloned().map(Passage::Text).collect(),
        options: EmbeddingOptions { pooling: Some(pooling), ..EmbeddingOptions::default() },
    }
}

fn embed(engine: &Engine, request: EmbeddingRequest) -> Embeddings {
    engine.embed(request, &mut |_| ControlFlow::Continue(())).unwrap()
}

fn engine() -> Option<Engine> {
    let context = ContextOptions::with_threads(1);
    let request = LoadRequest::new(stories()?, ModelOptions::default(), context);
    let go_on = &mut |_| ControlFlow::Continue(());
    Some(Engine::start(fixture::program(), &request, go_on).unwrap())
}

/// Calls of several threads share batches, change their pooling, and go on beside replies.
#[test]
fn many_threads_embed_in_one_worker() {
    let Some(engine) = engine() else { return };
    let texts = |thread: usize| -> Vec<String> {
        (0..40).map(|index| format!("Thread {thread} saw {index} dogs in the park.")).collect()
    };
    let pooling = |thread: usize| [Pooling::Mean, Pooling::Last, Pooling::Mean][thread % 3];
    let alone: Vec<Embeddings> =
        (0..6).map(|thread| embed(&engine, request(&texts(thread), pooling(thread)))).collect();
    let tell = || {
        let prompt = Prompt::Text {
            text: "Once upon a time".to_owned(),
            add_special: true,
            parse_special: false,
        };
        let mut tokens = Vec::new();
        let generation = Generation::greedy(prompt, 40);
        let done = engine.generate(&generation, &mut |event| {
            if let Event::Token { id, .. } = event {
                tokens.push(id);
            }
            ControlFlow::Continue(())
        });
        done.unwrap();
        tokens
    };
    let story = tell();
    let (engine, texts) = (&engine, &texts);
    thread::scope(|scope| {
        let replies = scope.spawn(|| (0..5).map(|_| tell()).collect::<Vec<_>>());
        let threads: Vec<_> = (0..6)
            .map(|thread| {
                scope.spawn(move || embed(engine, request(&texts(thread), pooling(thread))))
            })
            .collect();
        for (thread, alone) in threads.into_iter().zip(&alone) {
            let together = thread.join().unwrap();
            assert_eq!((together.tokens(), together.pooling), (alone.tokens(), alone.pooling));
            for (one, other) in together.embeddings.iter().zip(&alone.embeddings) {
                assert_eq!(one.tokens, other.tokens);
                // Another company in the batch is another order of summation.
                assert!(distance(&one.vectors[0], &other.vectors[0]) < 2e-3);
            }
        }
        assert!(replies.join().unwrap().iter().all(|other| *other == story));
    });
}

#[test]
fn embeddings_are_cancelled_refused_and_cost_nobody_else() {
    let Some(engine) = engine() else { return };
    let many: Vec<String> = (0..4000).map(|index| format!("The dog ran {index} times.")).collect();
    let mut answer = engine.submit_embedding(request(&many, Pooling::Mean)).unwrap();
    assert!(matches!(answer.next_event().unwrap(), Event::Progress(_)));
    answer.cancel_handle().cancel();
    let error = loop {
        match answer.next_event() {
            Ok(Event::Progress(_)) => {}
            Ok(event) => panic!("{event:?}"),
            Err(error) => break error,
        }
    };
    assert!(matches!(error, EngineError::Failed(Failure::Cancelled)), "{error}");
    // Dropped in the middle.
    drop(engine.submit_embedding(request(&many, Pooling::Mean)).unwrap());
    let go_on = &mut |_| ControlFlow::Continue(());
    for passage in [Passage::Tokens(vec![]), Passage::Tokens(vec![512]), Passage::Tokens(vec![-1])]
    {
        let options = EmbeddingOptions::default();
        let error = engine.embed(EmbeddingRequest { passages: vec![passage], options }, go_on);
        assert!(matches!(error, Err(EngineError::Failed(Failure::Request(_)))), "{error:?}");
    }
    let none = embed(&engine, request(&[], Pooling::Mean));
    assert!(none.embeddings.is_empty());
    assert_eq!(embed(&engine, request(&many[..3], Pooling::Cls)).embeddings.len(), 3);
}

#[test]
#[cfg(target_os = "linux")]
fn ctrl_c_ends_a_long_list_with_status_130() {
    use std::io::Write;
    let Some(file) = stories() else { return };
    let mut child =
        fixture::command(&["embed", fixture::text(&file), "--file", "-", "--threads", "1"])
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .stderr(std::process::Stdio::piped())
            .spawn()
            .unwrap();
    let lines = "The dog ran in the park and saw a big red ball.\n".repeat(200_000);
    child.stdin.take().unwrap().write_all(lines.as_bytes()).unwrap();
    while crate::run::children_of(child.id()).is_empty() {
        thread::sleep(std::time::Duration::from_millis(5));
    }
    let pid = child.id().to_string();
    assert!(std::process::Command::new("kill").args(["-INT", &pid]).status().unwrap().success());
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(output.stdout.is_empty());
}
