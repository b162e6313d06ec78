//! Seven workloads, each with and without guesses.

use std::error::Error;
use std::fmt::Write;
use std::ops::ControlFlow;
use std::path::Path;

use nfl::engine::frames::{Done, Event, Generation, Prompt};
use nfl::engine::options::{ContextOptions, LoadRequest, ModelOptions, Speculation};
use nfl::engine::process::Engine;
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
        ("counting", "counting", text.clone()),
        ("misled", "misled", text),
    ]
}

/// Runs all workloads and prints two lines for each.
pub(crate) fn run(
    directory: &Path,
    (rounds, tokens): (u32, u32),
    only: Option<&str>,
    printer: &Printer,
) -> Result<(), Box<dyn Error>> {
    let wanted = |name: &str| only.is_none_or(|only| only == name);
    for (name, model, prompt) in workloads().into_iter().filter(|(name, ..)| wanted(name)) {
        let path = directory.join(format!("{model}.gguf"));
        let (mut without, mut with) = (Vec::new(), Vec::new());
        let mut is_equal = true;
        for round in 0..rounds {
            // The first of a pair finds a colder machine: they take turns.
            let order = [Speculation::Off, Speculation::Auto];
            let order = if round % 2 == 0 { order } else { [order[1], order[0]] };
            let mut texts = Vec::new();
            for speculation in order {
                let (text, done) = reply(&path, &prompt, tokens, speculation)?;
                texts.push(text);
                let side = if speculation == Speculation::Off { &mut without } else { &mut with };
                side.push(done);
            }
            is_equal &= texts[0] == texts[1];
            if round == 0 {
                let shown: String = texts[0].chars().take(100).collect();
                printer.line(&format!("{name:8} {shown:?}"))?;
            }
        }
        let rate = |done: &[Done]| median(done.iter().filter_map(Done::decode_rate).collect());
        let (slow, fast, last) = (rate(&without), rate(&with), with[with.len() - 1]);
        printer.line(&format!(
            "         {} + {tokens} tokens: {slow:.2} tokens/s without, {fast:.2} with: ratio {:.3}; {} of {} guesses held; {}",
            last.prompt_tokens,
            fast / slow,
            last.accepted_tokens,
            last.drafted_tokens,
            if is_equal { "same bytes" } else { "DIFFERENT BYTES" }
        ))?;
    }
    Ok(())
}

/// One reply of a fresh worker, as `nfl run` gives it.
fn reply(
    path: &Path,
    prompt: &str,
    tokens: u32,
    speculation: Speculation,
) -> Result<(String, Done), Box<dyn Error>> {
    let prediction = speculation != Speculation::Off;
    let context = ContextOptions {
        context_tokens: Some(2048),
        ..ContextOptions::with_threads(nfl::hardware::default_threads())
    };
    let load =
        LoadRequest::new(path, ModelOptions { prediction, ..ModelOptions::default() }, context);
    let program = Path::new(env!("CARGO_BIN_EXE_nfl"));
    let engine = Engine::start(program, &load, &mut |_| ControlFlow::Continue(()))?;
    let prompt = Prompt::Text { text: prompt.to_owned(), add_special: true, parse_special: false };
    let request =
        Generation { ignore_end: true, speculation, ..Generation::greedy(prompt, tokens) };
    let mut text = String::new();
    let done = engine.generate(&request, &mut |event| {
        if let Event::Token { text: piece, .. } = event {
            text.push_str(&piece);
        }
        ControlFlow::Continue(())
    })?;
    Ok((text, done))
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    f64::midpoint(values[(values.len() - 1) / 2], values[values.len() / 2])
}
