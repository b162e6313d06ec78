//! Five workloads, each with and without guesses.

use std::error::Error;
use std::fmt::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use nfl::engine::llama::{
    AbortFlag, Backend, Context, LlamaError, Model, Token, TokenizeOptions, argmax,
};
use nfl::engine::options::{ContextOptions, ModelOptions};
use nfl::engine::speculate::{Counters, Learned, Others, Outcome, STEP_TOKENS_MAX, Speculator};
use nfl::term::Printer;

/// Name, model, prompt.
type Workload = (&'static str, &'static str, String);

fn workloads() -> Vec<Workload> {
    let text: String = include_str!("../../README.md").chars().skip(20).take(1100).collect();
    let edit = format!("{text}\n\n{}", text.chars().take(24).collect::<String>());
    let mut records = String::new();
    for index in 0..24_u32 {
        let (id, age, price) = (1000 + index * 37, 3 + index * 7 % 60, index * 173 % 997);
        let _ = writeln!(
            records,
            "{{\"id\": {id}, \"name\": \"Lily\", \"age\": {age}, \"price\": {price}.5, \"ok\": true}},"
        );
    }
    let mut list = String::from("Things to do in the park:\n");
    for (index, thing) in
        ["run with the dog", "play ball", "look at the big tree", "eat an apple", "sit in the sun"]
            .iter()
            .cycle()
            .take(15)
            .enumerate()
    {
        let _ = writeln!(list, "{}. {thing} for {} minutes", index + 10, 15 + index * 7 % 50);
    }
    vec![
        ("story", "stories", "Once upon a time".to_owned()),
        ("edit", "edit", edit),
        ("records", "records", format!("{records}{{\"id\": 1")),
        ("list", "records", format!("{list}2")),
        ("random", "random", "Once upon a time there was".to_owned()),
    ]
}

/// One reply.
struct Reply {
    tokens: Vec<Token>,
    seconds: f64,
    counters: Counters,
}

/// Runs all workloads and prints a line for each.
pub(crate) fn run(
    directory: &Path,
    rounds: usize,
    tokens: usize,
    printer: &Printer,
) -> Result<(), Box<dyn Error>> {
    for (name, model, prompt) in workloads() {
        let path = directory.join(format!("{model}.gguf"));
        let model = Model::load(Backend::get(), &path, &ModelOptions::default(), &mut |_| true)?;
        let options = ContextOptions::with_threads(nfl::hardware::default_threads());
        let mut context = Context::new(&model, &options, 2048, AbortFlag::default(), None)?;
        context.set_steady_tokens(STEP_TOKENS_MAX);
        let options = TokenizeOptions { add_special: true, parse_special: false };
        let prompt = model.vocabulary().tokenize(&prompt, options)?;
        let (mut without, mut with): (Vec<f64>, Vec<f64>) = (Vec::new(), Vec::new());
        let mut counters = Counters::default();
        let mut text = Vec::new();
        let mut equal = true;
        for _ in 0..rounds {
            let alone = reply(&mut context, &prompt, tokens, false)?;
            let guessing = reply(&mut context, &prompt, tokens, true)?;
            equal &= alone.tokens == guessing.tokens;
            without.push(alone.seconds);
            with.push(guessing.seconds);
            counters = guessing.counters;
            text = alone.tokens;
        }
        let (without, with) = (median(without), median(with));
        let shown = model.vocabulary().pieces(&text, true)?;
        let shown: String = String::from_utf8_lossy(&shown).chars().take(120).collect();
        printer.line(&format!(
            "{name:8} {} + {tokens} tokens: {:.2} tokens/s without, {:.2} with: ratio {:.3}; {} of {} guesses held; {}",
            prompt.len(),
            tokens as f64 / without,
            tokens as f64 / with,
            without / with,
            counters.accepted,
            counters.drafted,
            if equal { "same bytes" } else { "DIFFERENT BYTES" }
        ))?;
        printer.line(&format!("         {shown:?}"))?;
    }
    Ok(())
}

fn reply(
    context: &mut Context,
    prompt: &[Token],
    tokens: usize,
    guesses: bool,
) -> Result<Reply, LlamaError> {
    context.clear();
    let start = Instant::now();
    let (whole, rest) = prompt.split_at(prompt.len() / 512 * 512);
    for chunk in whole.chunks(512) {
        context.decode(chunk, chunk.len() - usize::from(rest.is_empty()))?;
    }
    context.decode(rest, rest.len().saturating_sub(1))?;
    let mut speculator = Speculator::new(&Learned::default(), true, false);
    speculator.prompt(prompt, start.elapsed());
    let first = argmax(context.logits_of_last()?) as Token;
    speculator.prompt(&[first], Duration::ZERO);
    let mut reply = vec![first];
    let mut batch = Vec::new();
    let start = Instant::now();
    while reply.len() < tokens {
        let step = Instant::now();
        batch.clear();
        batch.push(reply[reply.len() - 1]);
        if guesses {
            batch
                .extend_from_slice(speculator.propose(tokens - reply.len() - 1, Others::default()));
        }
        context.decode(&batch, 0)?;
        let before = reply.len();
        for row in 0..batch.len() {
            let token = argmax(context.logits(row)?) as Token;
            reply.push(token);
            if batch.get(row + 1) != Some(&token) {
                break;
            }
        }
        let sampled = &reply[before..];
        if sampled.len() < batch.len() {
            assert!(context.truncate(0, prompt.len() + reply.len() - 1), "the cache can be cut");
        }
        speculator.outcome(&Outcome {
            tokens: sampled,
            guessed: batch.len() - 1,
            others: Others::default(),
            elapsed: step.elapsed(),
            guessing: Duration::ZERO,
        });
    }
    Ok(Reply {
        tokens: reply,
        seconds: start.elapsed().as_secs_f64(),
        counters: speculator.counters(),
    })
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
