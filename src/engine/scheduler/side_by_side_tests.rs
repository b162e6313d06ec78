//! Many conversations on real weights: side by side they must say what they say alone.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::material_tests::{material, text_prompt};
use super::{Scheduler, States};
use crate::engine::frames::{Done, Event, Failure, Generation, Prompt, Reason};
use crate::engine::llama::{AbortFlag, Backend, Context, Model};
use crate::engine::options::{ContextOptions, ModelOptions, Sampling, StateOptions};

/// A scheduler on the F16 file of the stories: its products are summed in F32 whatever the width of
/// a batch, on processors without F16 sums.
fn scheduler(sequences: u32, context_tokens: u32) -> Option<Scheduler> {
    let path = material("oracle/stories260K.gguf")?;
    let options = ModelOptions { repack: false, ..ModelOptions::default() };
    let model = Model::load(Backend::get(), &path, &options, &mut |_| true).unwrap();
    let abort = AbortFlag::default();
    let options = ContextOptions { sequences, ..ContextOptions::with_threads(1) };
    let context = Context::new(&model, &options, context_tokens, Arc::clone(&abort), None).unwrap();
    Some(Scheduler::new(context, abort, 64))
}

/// What came of the calls.
#[derive(Default)]
struct Replies {
    texts: BTreeMap<u64, String>,
    done: BTreeMap<u64, Done>,
    failed: BTreeMap<u64, Failure>,
}

impl Replies {
    fn take(&mut self, call: u64, event: Event) {
        match event {
            Event::Token { text, .. } => self.texts.entry(call).or_default().push_str(&text),
            Event::Done(done) => assert!(self.done.insert(call, done).is_none()),
            Event::Failed(failure) => assert!(self.failed.insert(call, failure).is_none()),
            _ => {}
        }
    }
}

fn run(scheduler: &mut Scheduler) -> Replies {
    let mut replies = Replies::default();
    while !scheduler.is_idle() {
        scheduler.step(&mut |call, event| replies.take(call, event));
    }
    replies
}

const BEGINNINGS: [&str; 6] = [
    "Once upon a time",
    "The dog",
    "Lily and Tom went to the park. They saw a big",
    "One day, a little bird",
    "Once upon a time, there was a cat named",
    "Mom said",
];

fn requests() -> Vec<Generation> {
    let request = |text: &&str| Generation::greedy(text_prompt(text), 40);
    BEGINNINGS.iter().map(request).collect()
}

#[test]
fn side_by_side_they_say_what_they_say_alone() {
    let Some(mut alone) = scheduler(1, 256) else { return };
    let expected: Vec<String> = requests()
        .iter()
        .map(|request| {
            alone.submit(1, request).unwrap();
            run(&mut alone).texts.remove(&1).unwrap()
        })
        .collect();
    for sequences in [2, 4, 6] {
        let mut together = scheduler(sequences, 256).unwrap();
        for (call, request) in (0..).zip(&requests()) {
            together.submit(call, request).unwrap();
        }
        let replies = run(&mut together);
        for (call, expected) in (0..).zip(&expected) {
            assert_eq!(&replies.texts[&call], expected, "{sequences} slots, call {call}");
            assert_eq!(replies.done[&call].reason, Reason::Length);
        }
        assert_eq!(together.status().busy, 0);
        assert_eq!(together.status().finished, BEGINNINGS.len() as u64);
    }
}

#[test]
fn a_common_beginning_is_computed_once() {
    let Some(mut scheduler) = scheduler(3, 512) else { return };
    let common = "Lily had a red ball and a blue car and a green boat. ".repeat(4);
    let request = |end: &str| Generation::greedy(text_prompt(&format!("{common}{end}")), 8);
    scheduler.submit(1, &request("She")).unwrap();
    let first = run(&mut scheduler).done[&1];
    assert_eq!(first.cached_tokens, 0);
    // Two at once, one of them beside the running other, which goes on unharmed.
    scheduler.submit(2, &request("The boat was")).unwrap();
    scheduler.submit(3, &request("Her mom")).unwrap();
    let replies = run(&mut scheduler);
    for call in [2, 3] {
        let done = replies.done[&call];
        assert!(done.cached_tokens > done.prompt_tokens * 8 / 10, "{done:?}");
    }
    // The same again, alone and afresh.
    scheduler.forget();
    scheduler.submit(4, &request("Her mom")).unwrap();
    let afresh = run(&mut scheduler);
    assert_eq!(afresh.done[&4].cached_tokens, 0);
    assert_eq!(afresh.texts[&4], replies.texts[&3]);
}

#[test]
fn a_conversation_goes_on_after_a_restart_without_being_read_again() {
    let Some(mut first) = scheduler(2, 512) else { return };
    let folder = tempfile::tempdir().unwrap();
    let options = StateOptions { directory: folder.path().to_owned(), bytes_max: 64 << 20 };
    let states = || States::open(&options, [1; 32]).unwrap();
    first = first.with_states(states());
    let story = "Once upon a time there was a dog who liked to run in the park. ".repeat(6);
    first.submit(1, &Generation::greedy(text_prompt(&story), 30)).unwrap();
    let reply = run(&mut first).texts.remove(&1).unwrap();
    assert_eq!(first.save_states().unwrap(), 1);
    assert_eq!(first.save_states().unwrap(), 0, "nothing new");

    let longer = Generation::greedy(text_prompt(&format!("{story}{reply} Then")), 20);
    first.submit(2, &longer).unwrap();
    let kept = run(&mut first);
    let mut second = scheduler(2, 512).unwrap().with_states(states());
    second.submit(2, &longer).unwrap();
    let restored = run(&mut second);
    assert_eq!(kept.texts[&2], restored.texts[&2]);
    let done = restored.done[&2];
    assert_eq!(done.cached_tokens, kept.done[&2].cached_tokens);
    assert_eq!(done.restored_tokens, done.cached_tokens);
    assert!(done.prompt_tokens - done.cached_tokens < 10, "{done:?}");
}

#[test]
fn what_makes_room_is_saved_and_comes_back() {
    let Some(scheduler) = scheduler(1, 512) else { return };
    let folder = tempfile::tempdir().unwrap();
    let options = StateOptions { directory: folder.path().to_owned(), bytes_max: 64 << 20 };
    let mut scheduler = scheduler.with_states(States::open(&options, [1; 32]).unwrap());
    let stories = ["The dog ran to the big tree. ".repeat(9), "Tom had a toy. ".repeat(15)];
    for (call, story) in [(1, 0), (2, 1), (3, 0), (4, 1)] {
        scheduler.submit(call, &Generation::greedy(text_prompt(&stories[story]), 5)).unwrap();
        let done = run(&mut scheduler).done[&call];
        let expected = if call > 2 { done.prompt_tokens - 1 } else { done.restored_tokens };
        assert_eq!(done.restored_tokens, expected, "call {call}: {done:?}");
        assert!(call > 2 || done.restored_tokens == 0);
    }
}

#[test]
fn a_full_context_ends_or_moves_on_as_asked() {
    let Some(mut scheduler) = scheduler(2, 128) else { return };
    let mut request = Generation::greedy(text_prompt("Once upon a time"), 300);
    request.ignore_end = true;
    scheduler.submit(1, &request).unwrap();
    request.shift = true;
    scheduler.submit(2, &request).unwrap();
    let replies = run(&mut scheduler);
    assert!(replies.failed.is_empty(), "{:?}", replies.failed);
    assert_eq!(replies.done[&1].reason, Reason::ContextFull);
    assert_eq!((replies.done[&2].reason, replies.done[&2].generated_tokens), (Reason::Length, 300));
    assert!(replies.texts[&2].starts_with(&replies.texts[&1]));
    // What is left of the moved conversation was computed in sight of what is gone: nothing may
    // build on it.
    request.shift = false;
    request.tokens_max = Some(3);
    scheduler.submit(3, &request).unwrap();
    let done = run(&mut scheduler).done[&3];
    assert_eq!(done.cached_tokens, done.prompt_tokens - 1, "by the other slot");
}

#[test]
fn replies_flow_while_a_long_prompt_is_read() {
    let Some(mut scheduler) = scheduler(2, 4096) else { return };
    let mut request = Generation::greedy(text_prompt("Once upon a time"), 2000);
    request.ignore_end = true;
    scheduler.submit(1, &request).unwrap();
    let long = Prompt::Tokens((0..3000).map(|index| 3 + index * 7 % 400).collect());
    for _ in 0..5 {
        scheduler.step(&mut |_, _| ());
    }
    scheduler.submit(2, &Generation::greedy(long, 1)).unwrap();
    let (mut tokens, mut steps) = (0, 0);
    let mut is_read = false;
    while !is_read {
        steps += 1;
        scheduler.step(&mut |call, event| match event {
            Event::Token { .. } if call == 1 => tokens += 1,
            Event::PromptDone { .. } => is_read |= call == 2,
            _ => {}
        });
    }
    assert!(steps > 3, "a prompt of 3000 tokens in {steps} steps");
    assert_eq!(tokens, steps, "every step brings the reply a token");
}

/// Requests, cancellations and steps in any order: every request ends once, and every slot is free
/// in the end.
#[test]
fn nothing_leaks_whatever_is_cancelled_when() {
    let Some(mut scheduler) = scheduler(3, 128) else { return };
    let mut state = 1_u64;
    let mut random = move |below: u64| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state % below
    };
    let mut replies = Replies::default();
    let (mut submitted, mut call) = (0, 0);
    for _ in 0..3000 {
        match random(4) {
            0 => {
                call += 1;
                let text = BEGINNINGS[random(6) as usize];
                let mut request = Generation::greedy(text_prompt(text), random(20) as u32);
                request.client = random(3);
                request.shift = random(2) == 0;
                if random(3) == 0 {
                    request.sampling = Sampling { seed: Some(7), ..Sampling::default() };
                }
                submitted += u64::from(scheduler.submit(call, &request).is_ok());
            }
            1 => scheduler.cancel(1 + random(call + 1)),
            _ => scheduler.step(&mut |call, event| replies.take(call, event)),
        }
    }
    while !scheduler.is_idle() {
        scheduler.step(&mut |call, event| replies.take(call, event));
    }
    let status = scheduler.status();
    assert_eq!((status.busy, status.waiting, status.finished), (0, 0, submitted));
    assert_eq!(replies.done.len() as u64, submitted, "{:?}", replies.failed);
    let reasons = |reason| replies.done.values().filter(|done| done.reason == reason).count();
    assert!(reasons(Reason::Cancelled) > 50 && reasons(Reason::Length) > 50);
    // The caches are still what their slots believe: the story is told as ever.
    let expected = run_alone();
    scheduler.submit(0, &requests()[0]).unwrap();
    assert_eq!(run(&mut scheduler).texts[&0], expected);
}

fn run_alone() -> String {
    let mut alone = scheduler(1, 256).unwrap();
    alone.submit(1, &requests()[0]).unwrap();
    run(&mut alone).texts.remove(&1).unwrap()
}
