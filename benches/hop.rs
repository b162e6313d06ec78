//! What the worker process costs: time to first token and decode speed through it against the same in this process.
//!
//! usage: `cargo bench --bench hop -- FILE [ROUNDS [TOKENS [THREADS]]]`
//!
//! Both sides load the same file; rounds alternate, and the medians are compared. Times are taken from outside: from the
//! request to the first event with text, and to the end.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use nfl::engine::frames::{Event, Generation, Prompt};
use nfl::engine::llama::{AbortFlag, Backend, Context, Model};
use nfl::engine::options::{ContextOptions, LoadRequest, ModelOptions};
use nfl::engine::process::Engine;
use nfl::engine::scheduler::Scheduler;
use nfl::term::Printer;

/// Tokens of the prompt.
const PROMPT_TOKENS: i32 = 8;

/// Between two measurements: OpenMP's threads of the side that just computed go on spinning for some milliseconds.
const PAUSE: Duration = Duration::from_millis(50);

/// Room for prompt and reply.
const CONTEXT_TOKENS: u32 = 2048;

/// One generation, in milliseconds.
struct Times {
    first_token: f64,
    per_token: f64,
}

/// Times a generation; `generate` hands events to its argument.
fn measure(tokens: u32, generate: impl FnOnce(&mut dyn FnMut(Event) -> ControlFlow<()>)) -> Times {
    thread::sleep(PAUSE);
    let start = Instant::now();
    let ms = || start.elapsed().as_secs_f64() * 1000.0;
    let mut first_token = None;
    generate(&mut |event| {
        if matches!(event, Event::Token { .. }) && first_token.is_none() {
            first_token = Some(ms());
        }
        ControlFlow::Continue(())
    });
    let first_token = first_token.unwrap_or(f64::NAN);
    Times { first_token, per_token: (ms() - first_token) / f64::from(tokens - 1) }
}

/// A prompt that no round shares with another, so that nothing is in the cache.
fn request(round: usize, tokens: u32) -> Generation {
    let prompt =
        (0..PROMPT_TOKENS).map(|index| 3 + (round as i32 * 31 + index * 7) % 200).collect();
    Generation { ignore_end: true, ..Generation::greedy(Prompt::Tokens(prompt), tokens) }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// The nfl binary beside this benchmark, built by the same cargo command.
fn program() -> PathBuf {
    PathBuf::from(env!("CARGO_BIN_EXE_nfl"))
}

fn in_process(file: &Path, context: &ContextOptions) -> Scheduler {
    let options = ModelOptions::default();
    let model = Model::load(Backend::get(), file, &options, &mut |_| true).expect("the file loads");
    let abort = AbortFlag::default();
    let context = Context::new(&model, context, CONTEXT_TOKENS, Arc::clone(&abort), None);
    Scheduler::new(context.expect("the context fits"), abort, 1)
}

fn main() -> ExitCode {
    let printer = Printer::new(false, false);
    let arguments: Vec<String> =
        std::env::args().skip(1).filter(|word| !word.starts_with("--")).collect();
    let Some(file) = arguments.first() else {
        printer.say("usage: cargo bench --bench hop -- FILE [ROUNDS [TOKENS [THREADS]]]");
        return ExitCode::SUCCESS;
    };
    let number = |index: usize, otherwise: u32| {
        arguments.get(index).and_then(|word| word.parse().ok()).unwrap_or(otherwise)
    };
    let (rounds, tokens) = (number(1, 15).max(1), number(2, 32).max(2));
    let options = ContextOptions {
        context_tokens: Some(CONTEXT_TOKENS),
        ..ContextOptions::with_threads(number(3, nfl::hardware::default_threads()))
    };
    let mut scheduler = in_process(Path::new(file), &options);
    let load = LoadRequest::new(file, ModelOptions::default(), options);
    let engine = Engine::start(&program(), &load, &mut |_| ControlFlow::Continue(()))
        .expect("the worker starts");
    let (mut here, mut there) = (Vec::new(), Vec::new());
    for round in 0..rounds as usize {
        let request = request(round, tokens);
        here.push(measure(tokens, |emit| {
            scheduler.generate(&request, emit).expect("it generates");
        }));
        there.push(measure(tokens, |emit| {
            engine.generate(&request, emit).expect("it generates");
        }));
    }
    let report = |what: &str, of: fn(&Times) -> f64| {
        let here = median(here.iter().map(of).collect());
        let there = median(there.iter().map(of).collect());
        let line = format!(
            "{what}: {here:.3} ms in this process, {there:.3} ms through the worker: {:+.3} ms, ratio {:.4}",
            there - here,
            here / there
        );
        printer.line(&line).expect("stdout is open");
    };
    report("time to first token", |times| times.first_token);
    report("time per token", |times| times.per_token);
    ExitCode::SUCCESS
}
