//! Requests with and without adapters, constraints and log-probabilities, side by side.

use std::path::Path;

use nfl_models::gguf::Metadata;

use super::Scheduler;
use crate::engine::frames::{Event, Generation, Prompt, Reason};
use crate::engine::llama::tiny::{self, HIDDEN, Noise};
use crate::engine::llama::{AbortFlag, Adapters, Context};
use crate::engine::options::{Constraint, ContextOptions, Sampling};
use crate::engine::steering::{AdapterUse, Steering};

fn scheduler(path: &Path, slots: u32) -> Scheduler {
    let model = tiny::load(path);
    let options = ContextOptions { sequences: slots, ..ContextOptions::with_threads(1) };
    let abort = AbortFlag::default();
    let context = Context::new(&model, &options, 256, abort.clone(), None).unwrap();
    Scheduler::new(context, abort, 16).with_adapters(Adapters::new(&model, path))
}

fn steered(folder: &Path, scale: f32) -> Steering {
    let path = folder.join("adapter.gguf");
    if !path.exists() {
        let mut metadata = Metadata::new();
        metadata.set("general.type", "adapter");
        metadata.set("general.architecture", "llama");
        metadata.set("adapter.type", "lora");
        metadata.set("adapter.lora.alpha", 4.0_f32);
        let (hidden, mut noise) = (HIDDEN as u64, Noise(4));
        let name = "blk.1.attn_q.weight";
        let tensors = [
            (format!("{name}.lora_a"), vec![hidden, 4], noise.values(HIDDEN * 4, 1.0)),
            (format!("{name}.lora_b"), vec![4, hidden], noise.values(HIDDEN * 4, 1.0)),
        ];
        tiny::write(&path, &metadata, &tensors);
    }
    Steering { adapters: vec![AdapterUse { path, scale }], ..Steering::default() }
}

fn run(scheduler: &mut Scheduler, requests: &[Generation]) -> Vec<Vec<i32>> {
    let mut tokens = vec![Vec::new(); requests.len()];
    for (call, request) in (0_u64..).zip(requests) {
        scheduler.submit(call, request).unwrap();
    }
    while !scheduler.is_idle() {
        scheduler.step(&mut |call, event| match event {
            Event::Token { id: Some(id), .. } => tokens[call as usize].push(id),
            Event::Failed(failure) => panic!("{failure}"),
            _ => {}
        });
    }
    tokens
}

#[test]
fn replies_with_other_adapters_do_not_touch_each_other() {
    let folder = tempfile::tempdir().unwrap();
    let path = tiny::llama_file(folder.path(), 5);
    let prompt = Prompt::Tokens(vec![1, 262, 300, 262, 270, 281, 290]);
    let requests: Vec<Generation> = [None, Some(1.0), Some(-2.0), None, Some(1.0)]
        .into_iter()
        .map(|scale| Generation {
            ignore_end: true,
            steering: scale.map_or_else(Steering::default, |scale| steered(folder.path(), scale)),
            ..Generation::greedy(prompt.clone(), 30)
        })
        .collect();
    let alone: Vec<Vec<i32>> = requests
        .iter()
        .map(|request| run(&mut scheduler(&path, 1), std::slice::from_ref(request)).remove(0))
        .collect();
    assert_eq!(alone[0], alone[3]);
    assert_eq!(alone[1], alone[4]);
    assert!(alone[0] != alone[1] && alone[1] != alone[2], "the adapter changes the reply");
    for slots in [1, 2, 5] {
        let mut scheduler = scheduler(&path, slots);
        assert_eq!(run(&mut scheduler, &requests), alone, "{slots} slots");
        // What a slot holds of the same prompt with other adapters is not built on.
        let again: Vec<Generation> = requests.iter().rev().cloned().collect();
        let mut found = run(&mut scheduler, &again);
        found.reverse();
        assert_eq!(found, alone, "{slots} slots, again");
    }
}

#[test]
fn constraints_end_replies_and_log_probabilities_come_along() {
    let folder = tempfile::tempdir().unwrap();
    let mut scheduler = scheduler(&tiny::llama_file(folder.path(), 5), 2);
    let grammar = r#"root ::= ("yes" | "no") ["]"#.to_owned();
    let request = Generation {
        sampling: Sampling { constraint: Some(Constraint::Grammar(grammar)), ..Sampling::greedy() },
        logprobs: Some(3),
        ..Generation::greedy(Prompt::Tokens(vec![1, 262]), 50)
    };
    let (mut text, mut rows) = (String::new(), 0);
    let done = scheduler
        .generate(&request, &mut |event| {
            if let Event::Token { text: piece, logprobs, .. } = event {
                text.push_str(&piece);
                if let Some(logprobs) = logprobs {
                    assert!(logprobs.top.len() == 3 && logprobs.logprob <= logprobs.top[0].1);
                    rows += 1;
                }
            }
            std::ops::ControlFlow::Continue(())
        })
        .unwrap();
    assert!(["yes\"", "no\""].contains(&text.as_str()), "{text}");
    assert_eq!((done.reason, done.generated_tokens), (Reason::EndOfText, rows));
    let impossible = Generation {
        sampling: Sampling {
            constraint: Some(Constraint::Grammar("root ::= root".to_owned())),
            ..Sampling::greedy()
        },
        ..request
    };
    assert!(scheduler.submit(9, &impossible).is_err());
}
