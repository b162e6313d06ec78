//! How rows of logits depend on the tokens that are computed with them, and what a step of several tokens costs.
//!
//! usage: `cargo bench --bench rows -- FILE [TOKENS [DEPTH [ATTENTION [STEADY]]]]`
//!
//! A reply is computed token by token (what everybody takes for the truth), then again in steps of several tokens: as
//! a speculating engine computes it. Printed: how far the logits are apart, how far that moves the margin between the
//! likeliest token and the next, and how close the margins of this reply are.

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

use nfl::engine::llama::{AbortFlag, Backend, Context, Model, Token, TokenizeOptions, argmax};
use nfl::engine::options::{ContextOptions, FlashAttention, ModelOptions};
use nfl::term::Printer;

/// Tokens of a step.
const STEPS: &[usize] = &[1, 2, 3, 4, 5, 8, 16];

/// What a row says: the likeliest token, the one after it, and the whole row.
struct Row {
    best: usize,
    second: usize,
    logits: Vec<f32>,
}

impl Row {
    fn new(logits: &[f32]) -> Self {
        let best = argmax(logits);
        let mut others = logits.to_vec();
        others[best] = f32::NEG_INFINITY;
        Self { best, second: argmax(&others), logits: logits.to_vec() }
    }

    fn margin(&self) -> f32 {
        self.logits[self.best] - self.logits[self.second]
    }
}

fn prompt(model: &Arc<Model>) -> Vec<Token> {
    let options = TokenizeOptions { add_special: true, parse_special: false };
    let text =
        "Once upon a time there was a little girl who liked to play with her dog in the park.";
    model.vocabulary().tokenize(text, options).unwrap_or_else(|_| (3..40).collect())
}

fn main() -> ExitCode {
    let printer = Printer::new(false, false);
    let arguments: Vec<String> =
        std::env::args().skip(1).filter(|word| !word.starts_with("--")).collect();
    let Some(file) = arguments.first() else {
        printer
            .say("usage: cargo bench --bench rows -- FILE [TOKENS [DEPTH [ATTENTION [STEADY]]]]");
        return ExitCode::SUCCESS;
    };
    let number = |index: usize, otherwise: u32| {
        arguments.get(index).and_then(|word| word.parse().ok()).unwrap_or(otherwise)
    };
    let tokens = number(1, 192) as usize;
    let depth = number(2, 20) as usize;
    let mut options = ContextOptions::with_threads(nfl::hardware::default_threads());
    if arguments.get(3).is_some_and(|word| word == "off") {
        options.flash_attention = FlashAttention::Off;
    }
    let model =
        Model::load(Backend::get(), Path::new(file), &ModelOptions::default(), &mut |_| true)
            .expect("the file loads");
    let mut context =
        Context::new(&model, &options, 4096, AbortFlag::default(), None).expect("the context fits");
    context.set_steady(number(4, 0) > 0);
    let prompt: Vec<Token> = prompt(&model).into_iter().cycle().take(depth).collect();
    let (reply, truth) = alone(&mut context, &prompt, tokens);
    let mut margins: Vec<f32> = truth.iter().map(Row::margin).collect();
    margins.sort_by(f32::total_cmp);
    let line = format!(
        "{file}: {} rows; margins: least {:.5}, 1 % {:.5}, 10 % {:.4}, median {:.3}",
        truth.len(),
        margins[0],
        margins[margins.len() / 100],
        margins[margins.len() / 10],
        margins[margins.len() / 2]
    );
    printer.line(&line).unwrap_or(());
    let mut alone_ms = 0.0;
    for &step in STEPS {
        let report = together(&mut context, &prompt, &reply, &truth, step);
        if step == 1 {
            alone_ms = report.step_ms;
        }
        let line = format!(
            "{step:3} tokens: {:8.3} ms a step ({:5.2} x), logits differ by {:.6} (mean of rows {:.6}), \
             margins by {:.6}, {} of {} choices differ",
            report.step_ms,
            report.step_ms / alone_ms,
            report.logits,
            report.logits_mean,
            report.margin,
            report.flips,
            report.rows
        );
        printer.line(&line).unwrap_or(());
    }
    ExitCode::SUCCESS
}

/// The greedy reply token by token, and its rows: row i chose token i of the reply.
fn alone(context: &mut Context, prompt: &[Token], tokens: usize) -> (Vec<Token>, Vec<Row>) {
    context.decode(prompt, prompt.len() - 1).expect("the prompt fits");
    let (mut reply, mut rows) = (Vec::new(), Vec::new());
    for _ in 0..tokens {
        let row = Row::new(context.logits(0).expect("a row"));
        reply.push(row.best as Token);
        rows.push(row);
        context.decode(&reply[reply.len() - 1..], 0).expect("a token fits");
    }
    (reply, rows)
}

struct Report {
    step_ms: f64,
    logits: f32,
    logits_mean: f32,
    margin: f32,
    flips: usize,
    rows: usize,
}

/// The same reply in steps of several tokens, whose keys and values stay in the cache.
fn together(
    context: &mut Context,
    prompt: &[Token],
    reply: &[Token],
    truth: &[Row],
    step: usize,
) -> Report {
    assert!(context.truncate(0, prompt.len()), "the cache can be cut");
    let mut report =
        Report { step_ms: 0.0, logits: 0.0, logits_mean: 0.0, margin: 0.0, flips: 0, rows: 0 };
    let mut times = Vec::new();
    for (index, chunk) in reply.chunks_exact(step).enumerate() {
        let start = Instant::now();
        context.decode(chunk, 0).expect("a step fits");
        times.push(start.elapsed().as_secs_f64() * 1000.0);
        for offset in 0..step {
            let Some(truth) = truth.get(index * step + offset + 1) else { continue };
            let logits = context.logits(offset).expect("a row");
            let difference = logits
                .iter()
                .zip(&truth.logits)
                .map(|(here, there)| (here - there).abs())
                .fold(0.0, f32::max);
            let margin = logits[truth.best] - logits[truth.second];
            report.logits = report.logits.max(difference);
            report.logits_mean += difference;
            report.margin = report.margin.max((margin - truth.margin()).abs());
            report.flips += usize::from(argmax(logits) != truth.best);
            report.rows += 1;
        }
    }
    report.logits_mean /= report.rows.max(1) as f32;
    times.sort_by(f64::total_cmp);
    report.step_ms = times[times.len() / 2];
    report
}
