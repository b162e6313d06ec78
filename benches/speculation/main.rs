//! What speculation wins and loses: seven workloads on models that cost what real ones cost and say what is known.
//!
//! usage: `cargo bench --bench speculation -- make STORIES.gguf DIRECTORY` then
//!        `cargo bench --bench speculation -- run DIRECTORY [ROUNDS [TOKENS [WORKLOAD]]]`
//!
//! `make` writes six models of one shape (570 M weights, Q8_0) from the vocabulary of a small one:
//! the small one itself, enlarged without changing what it computes (`stories`); and three whose weights are set by
//! hand: one copies its prompt with some tokens swapped (`edit`), one copies with new digits each time (`records`), one
//! writes what never occurred before (`random`); and two that count and guess by themselves, one always right (`counting`),
//! one always wrong (`misled`). Made once, about 0.6 GB each.
//!
//! `run` alternates between no guesses and guesses, prints the medians and their ratio, and checks that both replies are
//! the same to the byte.

mod counting;
mod enlarge;
mod handmade;
mod shape;
mod workloads;

use std::process::ExitCode;

use nfl::term::Printer;

fn main() -> ExitCode {
    let printer = Printer::new(false, false);
    let arguments: Vec<String> =
        std::env::args().skip(1).filter(|word| !word.starts_with("--")).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let result = match words[..] {
        ["make", stories, directory] => shape::make(stories.as_ref(), directory.as_ref()),
        ["run", directory, ref rest @ ..] => {
            let number = |index: usize, otherwise: u32| {
                rest.get(index).and_then(|word| word.parse().ok()).unwrap_or(otherwise)
            };
            let only = rest.get(2).copied();
            workloads::run(
                directory.as_ref(),
                (number(0, 3).max(1), number(1, 300)),
                only,
                &printer,
            )
        }
        _ => {
            printer.say("usage: cargo bench --bench speculation -- make STORIES.gguf DIRECTORY\n       cargo bench --bench speculation -- run DIRECTORY [ROUNDS [TOKENS [WORKLOAD]]]");
            return ExitCode::SUCCESS;
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            printer.error(&error.to_string(), None);
            ExitCode::FAILURE
        }
    }
}
