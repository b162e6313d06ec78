//! Perplexity through the engine against the figures of llama-perplexity.

use std::ops::ControlFlow;

use nfl::engine::options::{ContextOptions, LoadRequest, ModelOptions};
use nfl::engine::process::Engine;
use nfl::eval::perplexity;

use crate::fixture;

#[test]
fn perplexities_equal_the_oracles() {
    let Some(table) = fixture::material("oracle/ORACLE.tsv") else { return };
    let table = std::fs::read_to_string(table).unwrap();
    let text = std::fs::read_to_string(fixture::material("oracle/ppl-text.txt").unwrap()).unwrap();
    let mut problems = Vec::new();
    for line in table.lines().skip(1) {
        let cells: Vec<&str> = line.split('\t').collect();
        let expected: f64 = cells[3].split_whitespace().next().unwrap().parse().unwrap();
        let request = LoadRequest {
            path: fixture::material(cells[0]).unwrap(),
            model: ModelOptions::default(),
            context: ContextOptions {
                context_tokens: Some(256),
                ..ContextOptions::with_threads(2)
            },
        };
        let mut engine =
            Engine::start(fixture::program(), &request, &mut |_| ControlFlow::Continue(()))
                .unwrap();
        let measured = perplexity::measure(&mut engine, &text, 256).unwrap();
        eprintln!("{}: {:.4} ± {:.4}, oracle {expected}", cells[0], measured.value, measured.error);
        if (measured.value - expected).abs() > 0.01 {
            problems.push(format!("{}: {:.4}, oracle {expected}", cells[0], measured.value));
        }
    }
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}
