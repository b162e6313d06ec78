//! Guesses change the time of a reply, never the reply: real weights, every kind of layout, token by token as the judge.

use std::ops::ControlFlow;
use std::sync::Arc;

use super::Scheduler;
use super::material_tests::{material, text_prompt};
use crate::engine::frames::{Done, Event, Generation, Reason};
use crate::engine::llama::{AbortFlag, Backend, Context, Model};
use crate::engine::options::{ContextOptions, FlashAttention, ModelOptions, Sampling, Speculation};
use crate::engine::speculate::{DraftError, DraftModel};

/// F32, F16, blocks with and without experts; the text repeats itself, so that guesses are made.
const FILES: [&str; 5] = [
    "oracle/stories260K.gguf",
    "oracle/stories260K-F16.gguf",
    "oracle/stories260K-llama-ffn256-Q8_0.gguf",
    "oracle/stories260K-llama-ffn256-Q4_K_M.gguf",
    "oracle/stories260K-mixtral-4x-top2-Q4_K_M.gguf",
];

fn context(file: &str, attention: FlashAttention) -> Option<(Context, AbortFlag)> {
    let path = material(file)?;
    let model =
        Model::load(Backend::get(), &path, &ModelOptions::default(), &mut |_| true).unwrap();
    let abort = AbortFlag::default();
    let options = ContextOptions { flash_attention: attention, ..ContextOptions::with_threads(1) };
    let context = Context::new(&model, &options, 1024, Arc::clone(&abort), None).unwrap();
    Some((context, abort))
}

fn generate(scheduler: &mut Scheduler, request: &Generation) -> (String, Done) {
    let mut text = String::new();
    let done = scheduler
        .generate(request, &mut |event| {
            if let Event::Token { text: piece, .. } = event {
                text.push_str(&piece);
            }
            ControlFlow::Continue(())
        })
        .unwrap();
    scheduler.forget();
    (text, done)
}

/// A prompt that is quoted from, longer than the 512 tokens from which attention takes another path.
fn request(speculation: Speculation) -> Generation {
    let text =
        "Once upon a time there was a little girl who liked to play with her dog. ".repeat(24);
    Generation { ignore_end: true, speculation, ..Generation::greedy(text_prompt(&text), 200) }
}

#[test]
fn greedy_replies_are_the_same_with_and_without_guesses() {
    for attention in [FlashAttention::On, FlashAttention::Off] {
        for file in FILES {
            let Some((context, abort)) = context(file, attention) else { return };
            let mut scheduler = Scheduler::new(context, abort, 4);
            let (alone, _) = generate(&mut scheduler, &request(Speculation::Off));
            let mut drafted = 0;
            for speculation in [Speculation::Auto, Speculation::Ngram, Speculation::Auto] {
                let (text, done) = generate(&mut scheduler, &request(speculation));
                assert_eq!(text, alone, "{file} {attention:?}");
                assert_eq!((done.generated_tokens, done.decoded_tokens), (200, 199), "{file}");
                assert!(done.accepted_tokens <= done.drafted_tokens);
                drafted += done.drafted_tokens;
            }
            eprintln!("{file} {attention:?}: {drafted} guesses");
        }
    }
}

#[test]
fn seeded_replies_and_stops_are_the_same_too() {
    let Some((context, abort)) = context(FILES[0], FlashAttention::Auto) else { return };
    let mut scheduler = Scheduler::new(context, abort, 4);
    for seed in 0..6 {
        let request = |speculation| Generation {
            sampling: Sampling { seed: Some(seed), temperature: 0.4, ..Sampling::default() },
            stop: vec!["park".to_owned()],
            ignore_end: false,
            ..request(speculation)
        };
        let (alone, done) = generate(&mut scheduler, &request(Speculation::Off));
        let (text, with) = generate(&mut scheduler, &request(Speculation::Ngram));
        assert_eq!((text, with.reason), (alone, done.reason), "seed {seed}");
        assert_eq!(with.generated_tokens, done.generated_tokens);
    }
}

#[test]
fn a_full_context_ends_at_the_same_token() {
    let Some((context, abort)) = context(FILES[0], FlashAttention::Auto) else { return };
    let mut scheduler = Scheduler::new(context, abort, 4);
    let request = |speculation| Generation { tokens_max: None, ..request(speculation) };
    let (alone, done) = generate(&mut scheduler, &request(Speculation::Off));
    let (text, with) = generate(&mut scheduler, &request(Speculation::Auto));
    assert_eq!(done.reason, Reason::ContextFull);
    assert_eq!(
        (text, with.reason, with.generated_tokens),
        (alone, done.reason, done.generated_tokens)
    );
}

#[test]
fn a_draft_model_guesses_and_changes_nothing() {
    let Some((context, abort)) = self::context(FILES[0], FlashAttention::Auto) else { return };
    let Some((draft, _)) = self::context(FILES[3], FlashAttention::Auto) else { return };
    let draft = DraftModel::new(draft, context.vocabulary()).unwrap();
    let mut scheduler = Scheduler::new(context, abort, 4).with_draft(draft);
    let (alone, _) = generate(&mut scheduler, &request(Speculation::Off));
    for _ in 0..3 {
        let (text, done) = generate(&mut scheduler, &request(Speculation::Draft));
        assert_eq!(text, alone);
        eprintln!("{} of {} drafted tokens held", done.accepted_tokens, done.drafted_tokens);
    }
}

#[test]
fn a_model_of_another_vocabulary_is_refused() {
    let Some((context, _)) = context(FILES[0], FlashAttention::Auto) else { return };
    let Some(path) = material("tokenizers/llama.cpp-vocab/ggml-vocab-llama-spm.gguf") else {
        return;
    };
    let options = ModelOptions { vocabulary_only: true, ..ModelOptions::default() };
    let other = Model::load(Backend::get(), &path, &options, &mut |_| true).unwrap();
    let refused = DraftModel::new(context, &other.vocabulary());
    assert!(matches!(refused, Err(DraftError::Size { draft: 512, .. })), "{refused:?}");
}
