//! The engine under many hands: clients that come, change their minds, vanish; workers that die; requests that cannot be.

use std::ops::ControlFlow;

use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{Mutex, RwLock};
use std::thread;

use nfl::engine::frames::{Event, Failure, Generation, Prompt, Reason};
use nfl::engine::options::{ContextOptions, LoadRequest, ModelOptions, Sampling, StateOptions};
use nfl::engine::process::{Engine, EngineError};

use crate::fixture;

fn start(request: &LoadRequest) -> Engine {
    Engine::start(fixture::program(), request, &mut |_| ControlFlow::Continue(())).unwrap()
}

fn stories(sequences: u32) -> Option<LoadRequest> {
    let path = fixture::material("oracle/stories260K-F16.gguf")?;
    let context = ContextOptions {
        context_tokens: Some(512),
        sequences,
        queue_max: 64,
        ..ContextOptions::with_threads(1)
    };
    Some(LoadRequest::new(path, ModelOptions::default(), context))
}

fn text(text: &str) -> Prompt {
    Prompt::Text { text: text.to_owned(), add_special: true, parse_special: false }
}

fn tell(engine: &Engine, request: &Generation) -> String {
    let mut story = String::new();
    engine
        .generate(request, &mut |event| {
            if let Event::Token { text, .. } = event {
                story.push_str(&text);
            }
            ControlFlow::Continue(())
        })
        .unwrap();
    story
}

const BEGINNINGS: [&str; 5] =
    ["Once upon a time", "The dog", "Lily went", "A big red ball", "Tom and his mom"];

#[test]
fn many_threads_share_one_worker() {
    let Some(mut request) = stories(3) else { return };
    // Otherwise the last bits of a reply depend on who else is answered.
    request.context.batch_invariant = true;
    let engine = start(&request);
    let stories = |_: usize| -> Vec<String> {
        BEGINNINGS.iter().map(|start| tell(&engine, &Generation::greedy(text(start), 50))).collect()
    };
    let alone = stories(0);
    let together: Vec<Vec<String>> = thread::scope(|scope| {
        let threads: Vec<_> = (0..6).map(|index| scope.spawn(move || stories(index))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    for stories in together {
        assert_eq!(stories, alone);
    }
    let status = engine.status().unwrap();
    assert_eq!((status.slots, status.busy, status.waiting), (3, 0, 0));
}

/// What one client does in one turn; returns whether the worker was alive all the while.
fn act(engine: &Engine, random: u32) -> bool {
    let beginning = BEGINNINGS[(random % 5) as usize];
    let mut request = Generation::greedy(text(beginning), 1 + random % 60);
    request.client = u64::from(random % 3);
    let mut answer = match engine.submit(&request) {
        Ok(answer) => answer,
        Err(EngineError::WorkerDied { .. }) => return false,
        Err(error) => panic!("{error}"),
    };
    // A third hears the reply to its end, a third cancels it, a third goes away.
    let patience = (random / 7) % 20;
    let manner = (random / 11) % 3;
    let mut heard = 0;
    loop {
        match answer.next_event() {
            Ok(Event::Done(done)) => {
                assert!(manner > 0 || done.reason != Reason::Cancelled);
                return true;
            }
            Ok(_) => heard += 1,
            Err(EngineError::WorkerDied { .. }) => return false,
            Err(error) => panic!("{error}"),
        }
        if heard == patience && manner == 1 {
            answer.cancel_handle().cancel();
        }
        if heard == patience && manner == 2 {
            return true;
        }
    }
}

#[cfg(target_os = "linux")]
#[test]
fn nothing_leaks_in_a_thousand_accidents() {
    let Some(request) = stories(3) else { return };
    let engine = RwLock::new(start(&request));
    let (turns, deaths) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let seed = AtomicU32::new(12345);
    let next = || {
        let step = |state: u32| Some(state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223));
        seed.fetch_update(Ordering::SeqCst, Ordering::SeqCst, step).unwrap() >> 8
    };
    let workers = Mutex::new(vec![engine.read().unwrap().process_id()]);
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while turns.fetch_add(1, Ordering::SeqCst) < 1000 {
                    let random = next();
                    if random % 50 == 0 {
                        kill(engine.read().unwrap().process_id(), random);
                    }
                    if act(&engine.read().unwrap(), random) {
                        continue;
                    }
                    let mut engine = engine.write().unwrap();
                    if !engine.is_alive() {
                        deaths.fetch_add(1, Ordering::SeqCst);
                        engine.restart(&mut |_| ControlFlow::Continue(())).unwrap();
                        workers.lock().unwrap().push(engine.process_id());
                    }
                }
            });
        }
    });
    let mut engine = engine.into_inner().unwrap();
    if !engine.is_alive() || engine.status().is_err() {
        engine.restart(&mut |_| ControlFlow::Continue(())).unwrap();
    }
    assert!(deaths.into_inner() >= 5);
    // What was abandoned ends with the step that notices it.
    let is_idle = || {
        let status = engine.status().unwrap();
        (status.busy, status.waiting) == (0, 0)
    };
    assert!((0..1000).any(|_| is_idle()), "{:?}", engine.status());
    let golden = tell(&start(&request), &Generation::greedy(text(BEGINNINGS[0]), 60));
    assert_eq!(tell(&engine, &Generation::greedy(text(BEGINNINGS[0]), 60)), golden);
    workers.lock().unwrap().push(engine.process_id());
    drop(engine);
    for worker in workers.into_inner().unwrap() {
        let path = format!("/proc/{worker}/comm");
        let is_ours = std::fs::read_to_string(path).is_ok_and(|name| name.trim() == "nfl");
        assert!(!is_ours, "worker {worker} is still there");
    }
}

/// Requests that end and requests that are left, thousands of tokens of them: the worker stays as large as it is.
#[cfg(target_os = "linux")]
#[test]
fn memory_stays_as_it_is() {
    let Some(request) = stories(2) else { return };
    let engine = start(&request);
    let anonymous = || engine.memory().unwrap().anonymous_bytes.unwrap();
    let round = || {
        for random in 0..150 {
            assert!(act(&engine, random * 7919));
        }
        anonymous()
    };
    let (first, mut last) = (round(), 0);
    for _ in 0..4 {
        last = round();
    }
    assert!(last <= first + (1 << 20), "{first} bytes grew to {last}");
}

fn kill(process: u32, random: u32) {
    let signal = ["-KILL", "-ABRT", "-SEGV"][(random / 50 % 3) as usize];
    let _ = std::process::Command::new("kill").args([signal, &process.to_string()]).status();
}

#[test]
fn what_the_model_thinks_of_a_text_is_what_its_logits_say() {
    let Some(request) = stories(1) else { return };
    let engine = start(&request);
    let tokens = engine.tokenize("Once upon a time there was a little girl", true, false).unwrap();
    let found = engine.logprobs(&tokens, 1, 3).unwrap();
    let scores = engine.score(&tokens, 1).unwrap();
    let positions: Vec<usize> = (0..tokens.len() - 1).collect();
    let logits = engine.logits(&tokens, &positions).unwrap();
    assert_eq!(found.len(), scores.len());
    for ((found, score), row) in found.iter().zip(&scores).zip(&logits) {
        assert!((f64::from(found.logprob) - score).abs() < 1e-5, "{found:?}, {score}");
        let mut order: Vec<usize> = (0..row.len()).collect();
        order.sort_by(|&one, &other| row[other].total_cmp(&row[one]));
        let top: Vec<usize> = found.top.iter().map(|(token, _)| *token as usize).collect();
        assert_eq!(top, order[..3]);
    }
    assert!(engine.logprobs(&tokens, 0, 3).is_err());
}

#[test]
fn impossible_requests_are_errors_and_cost_nothing() {
    let Some(request) = stories(1) else { return };
    let engine = start(&request);
    let refuse = |generation: &Generation, words: &str| {
        let error = engine.generate(generation, &mut |_| ControlFlow::Continue(())).unwrap_err();
        assert!(matches!(error, EngineError::Failed(_)), "{error}");
        assert!(error.to_string().contains(words), "{error}");
    };
    let greedy = |prompt| Generation::greedy(prompt, 5);
    refuse(&greedy(Prompt::Tokens(vec![1; 600])), "600 tokens, the context has room for 512");
    refuse(&greedy(Prompt::Tokens(vec![7, 512])), "token 512");
    refuse(&greedy(Prompt::Tokens(vec![-1])), "token -1");
    refuse(&greedy(Prompt::Tokens(Vec::new())), "no tokens");
    let stop = vec!["x".repeat(5000)];
    refuse(&Generation { stop, ..greedy(text("x")) }, "stop");
    let sampling = Sampling { top_p: f32::NAN, ..Sampling::default() };
    refuse(&Generation { sampling, ..greedy(text("x")) }, "top-p");
    assert!(engine.score(&[1, 2, 3], 0).is_err());
    assert!(engine.logits(&[1, 2, 3], &[2, 1]).is_err());
    assert!(engine.logits(&[1, 2, 3], &[]).is_err());
    assert!(!tell(&engine, &greedy(text("Once"))).is_empty(), "it lives on");
    for context in [
        ContextOptions { micro_batch_tokens: 0, ..ContextOptions::with_threads(1) },
        ContextOptions { batch_tokens: u32::MAX, ..ContextOptions::with_threads(1) },
        ContextOptions { sequences: 257, ..ContextOptions::with_threads(1) },
        ContextOptions { sequences: 0, ..ContextOptions::with_threads(1) },
        ContextOptions { threads: 100_000, ..ContextOptions::with_threads(1) },
        ContextOptions { context_tokens: Some(u32::MAX), ..ContextOptions::with_threads(1) },
    ] {
        let request = LoadRequest { context, ..request.clone() };
        let result =
            Engine::start(fixture::program(), &request, &mut |_| ControlFlow::Continue(()));
        assert!(matches!(result, Err(EngineError::Failed(_))), "{result:?}");
    }
}

#[test]
fn a_full_queue_says_so() {
    let Some(mut request) = stories(1) else { return };
    request.context.queue_max = 2;
    let engine = start(&request);
    let long = Generation { ignore_end: true, ..Generation::greedy(text("Once"), 400) };
    let mut first = engine.submit(&long).unwrap();
    while !matches!(first.next_event().unwrap(), Event::Token { .. }) {}
    let waiting: Vec<_> = (0..2).map(|_| engine.submit(&long).unwrap()).collect();
    let error = engine.submit(&long).unwrap().next_event().unwrap_err();
    assert!(matches!(error, EngineError::Failed(Failure::Busy { waiting: 2 })), "{error}");
    drop(first);
    for mut answer in waiting {
        answer.cancel_handle().cancel();
        while !matches!(answer.next_event().unwrap(), Event::Done(_)) {}
    }
}

#[test]
fn a_long_chat_is_read_once_also_after_unload_and_reload() {
    let Some(mut request) = stories(1) else { return };
    let folder = tempfile::tempdir().unwrap();
    let directory = folder.path().join("states");
    request.states = Some(StateOptions { directory, bytes_max: 64 << 20 });
    let mut chat = "Once upon a time there was a dog who liked to run in the park. ".repeat(8);
    for turn in 0..3 {
        // Every turn in a fresh worker.
        let engine = start(&request);
        let warnings = &engine.info().warnings;
        assert!(warnings.iter().all(|warning| !warning.contains("state")), "{warnings:?}");
        let mut reply = String::new();
        let generation = Generation::greedy(text(&chat), 20);
        let done = engine
            .generate(&generation, &mut |event| {
                if let Event::Token { text, .. } = event {
                    reply.push_str(&text);
                }
                ControlFlow::Continue(())
            })
            .unwrap();
        let new = done.prompt_tokens - done.cached_tokens;
        assert_eq!(done.restored_tokens, done.cached_tokens);
        assert!(turn == 0 || new < 15, "turn {turn}: {done:?}");
        chat = format!("{chat}{reply} Then the");
        assert_eq!(engine.unload().unwrap(), 1);
    }
}
