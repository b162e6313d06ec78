//! Guesses of the model's own prediction layer: a layer that is right by construction has all its guesses accepted, a random
//! one none, and neither changes the reply; token by token is the judge.

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

use nfl_models::gguf::Gguf;
use nfl_models::prediction;

use super::Scheduler;
use crate::engine::frames::{Done, Event, Generation, Prompt};
use crate::engine::llama::tiny_mtp::{self, Kind};
use crate::engine::llama::{AbortFlag, Backend, Context, Model, Token};
use crate::engine::options::{ContextOptions, ModelOptions, Speculation};
use crate::engine::speculate::PredictionLayer;

const CONTEXT_TOKENS: u32 = 1024;

fn scheduler(folder: &Path, kind: Kind, sequences: u32) -> Scheduler {
    let path = tiny_mtp::file(folder, kind);
    assert_eq!(prediction::find(&Gguf::open(&path).unwrap()), Ok(2));
    let options = ModelOptions { prediction: true, ..ModelOptions::default() };
    let model = Model::load(Backend::get(), &path, &options, &mut |_| true).unwrap();
    let options = ContextOptions { sequences, ..ContextOptions::with_threads(1) };
    let abort = AbortFlag::default();
    let context = Context::new(&model, &options, CONTEXT_TOKENS, Arc::clone(&abort), None).unwrap();
    let layer =
        Context::of_prediction(&model, &options, CONTEXT_TOKENS, AbortFlag::default()).unwrap();
    Scheduler::new(context, abort, 4).with_prediction(PredictionLayer::new(layer))
}

fn request(prompt: &[Token], speculation: Speculation) -> Generation {
    let prompt = Prompt::Tokens(prompt.to_vec());
    Generation { ignore_end: true, speculation, ..Generation::greedy(prompt, 200) }
}

fn generate(scheduler: &mut Scheduler, request: &Generation) -> (Vec<Option<Token>>, Done) {
    let mut tokens = Vec::new();
    let done = scheduler
        .generate(request, &mut |event| {
            if let Event::Token { id, .. } = event {
                tokens.push(id);
            }
            ControlFlow::Continue(())
        })
        .unwrap();
    scheduler.forget();
    (tokens, done)
}

/// An order that says nothing; longer than the 512 tokens from which attention takes another path.
fn prompt() -> Vec<Token> {
    (0..600).map(|index| index * 101 % 331).collect()
}

#[test]
fn a_layer_that_is_right_is_believed_and_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    for kind in [Kind::CountsByState, Kind::CountsByToken] {
        let mut scheduler = scheduler(folder.path(), kind, 1);
        let (alone, _) = generate(&mut scheduler, &request(&prompt(), Speculation::Off));
        let first = alone[0].unwrap();
        let counts = alone
            .iter()
            .enumerate()
            .all(|(index, token)| *token == Some((first + index as Token) % tiny_mtp::TOKENS));
        assert!(counts, "{kind:?}: {alone:?}");
        let mut accepted = 0;
        for _ in 0..3 {
            scheduler.learned.hope();
            let (tokens, done) = generate(&mut scheduler, &request(&prompt(), Speculation::Mtp));
            assert_eq!(tokens, alone, "{kind:?}");
            eprintln!("{kind:?}: {} of {}", done.accepted_tokens, done.drafted_tokens);
            assert_eq!(done.accepted_tokens, done.drafted_tokens, "{kind:?}");
            accepted += done.accepted_tokens;
        }
        assert!(accepted > 10, "{kind:?}");
    }
}

#[test]
fn a_layer_that_is_wrong_is_hardly_asked_and_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    for seed in 1..4 {
        let mut scheduler = scheduler(folder.path(), Kind::Random(seed), 1);
        let (alone, _) = generate(&mut scheduler, &request(&prompt(), Speculation::Off));
        for speculation in [Speculation::Auto, Speculation::Mtp, Speculation::Auto] {
            scheduler.learned.hope();
            let (tokens, done) = generate(&mut scheduler, &request(&prompt(), speculation));
            assert_eq!(tokens, alone, "seed {seed}");
            eprintln!(
                "{seed} {speculation:?}: {} of {}",
                done.accepted_tokens, done.drafted_tokens
            );
        }
    }
}
