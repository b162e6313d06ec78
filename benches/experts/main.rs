//! A Mixture of Experts of which memory holds a part: nfl against the page cache, and llama.cpp's own program.
//!
//! usage: `cargo bench --bench experts -- make FOLDER`, once, and then as root
//! `cargo bench --bench experts -- compare FOLDER [ROUNDS [TOKENS [SHARE]]]`
//!
//! `make` writes two models of 3.3 GB (16 layers, 64 experts of 3 × 1 MiB, 4 used; uniform and skewed router). `compare` runs
//! each in a memory control group that holds SHARE percent (60) of the file, with a cold page cache, at a read-ahead of 128 KiB
//! and of 8 MiB, in turn: `llama-completion` (when LLAMA_COMPLETION names it), nfl with `--experts-from-disk off`, and nfl with
//! `auto`. All sample the next token at temperature 1 from the model's whole distribution. Tokens per second are each program's
//! own count; bytes and page faults are the kernel's, of the whole run over its tokens. The read-ahead is put back at the end.

mod measure;
mod models;

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use measure::{Group, ReadAhead, Run, run};
use nfl::term::Printer;

/// The models and how skewed their routers are.
const MODELS: [(&str, f32); 2] = [("uniform.gguf", 0.0), ("skewed.gguf", 1.5)];

/// Read-ahead of the drive in KiB: Linux's default, and what cloud machines set.
const READ_AHEADS: [u32; 2] = [128, 8192];

fn main() -> ExitCode {
    let printer = Printer::new(false, false);
    let arguments: Vec<String> =
        std::env::args().skip(1).filter(|word| !word.starts_with("--")).collect();
    let folder = arguments.get(1).map(PathBuf::from);
    let result = match (arguments.first().map(String::as_str), folder) {
        (Some("make"), Some(folder)) => make(&folder, &printer),
        (Some("compare"), Some(folder)) => compare(&folder, &arguments[2..], &printer),
        _ => {
            printer.say("usage: cargo bench --bench experts -- make|compare FOLDER");
            return ExitCode::SUCCESS;
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            printer.error(&message, None);
            ExitCode::FAILURE
        }
    }
}

fn make(folder: &Path, printer: &Printer) -> Result<(), String> {
    for (name, skew) in MODELS {
        let path = folder.join(name);
        models::write(&path, skew).map_err(|error| format!("{}: {error}", path.display()))?;
        printer.say(&format!("{} is written", path.display()));
    }
    Ok(())
}

fn compare(folder: &Path, arguments: &[String], printer: &Printer) -> Result<(), String> {
    let number = |index: usize, otherwise: u32| {
        arguments.get(index).and_then(|word| word.parse().ok()).unwrap_or(otherwise)
    };
    let (rounds, tokens, share) = (number(0, 2), number(1, 64), number(2, 60));
    let only = arguments.get(3);
    let line = |text: &str| printer.line(text).map_err(|error| error.to_string());
    line(
        "model         read-ahead  program                tokens/s  MB read/token  major faults/token",
    )?;
    for (name, _) in MODELS.iter().filter(|(name, _)| only.is_none_or(|only| name.contains(only))) {
        let file = folder.join(name);
        let bytes = std::fs::metadata(&file).map_err(|error| error.to_string())?.len();
        for kilobytes in READ_AHEADS {
            let ahead = ReadAhead::set(&file, kilobytes)?;
            let group = Group::new(bytes / 100 * u64::from(share))?;
            let mut results: Vec<(&str, Vec<Run>)> = Vec::new();
            for _ in 0..rounds {
                for (program, command) in sides(&file, tokens) {
                    let measured = run(&command, &group)?;
                    match results.iter_mut().find(|(known, _)| *known == program) {
                        Some((_, runs)) => runs.push(measured),
                        None => results.push((program, vec![measured])),
                    }
                }
            }
            drop((group, ahead));
            for (program, runs) in results {
                let all = |of: fn(&Run) -> f64| {
                    let texts = runs.iter().map(|run| format!("{:.1}", of(run)));
                    texts.collect::<Vec<_>>().join(" ")
                };
                let count = f64::from(tokens);
                let median = |of: fn(&Run) -> f64| median(runs.iter().map(of).collect());
                line(&format!(
                    "{name:<13} {kilobytes:>6} KiB  {program:<22} {:>8.2}  {:>13.1}  {:>18.1}   ({})",
                    median(|run| run.tokens_per_second),
                    median(|run| run.read_bytes as f64) / count / 1e6,
                    median(|run| run.major_faults as f64) / count,
                    all(|run| run.tokens_per_second)
                ))?;
            }
        }
    }
    Ok(())
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// The programs to compare.
fn sides(file: &Path, tokens: u32) -> Vec<(&'static str, Command)> {
    let nfl = |mode: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_nfl"));
        command.arg("run").arg(file).args(["t300", "--raw", "--ignore-eos", "--verbose"]);
        command.args(["--no-repack", "--threads", "2", "--context", "512"]);
        command.args(["-n", &tokens.to_string(), "--temperature", "1", "--top-k", "0"]);
        command.args(["--top-p", "1", "--min-p", "0", "--seed", "1"]);
        command.args(["--experts-from-disk", mode]);
        command
    };
    let mut sides = Vec::new();
    if let Some(program) = std::env::var_os("LLAMA_COMPLETION") {
        let mut command = Command::new(program);
        command.arg("-m").arg(file).args(["-p", "t300", "-no-cnv", "--ignore-eos", "--perf"]);
        command.args(["--no-repack", "-t", "2", "-c", "512", "-n", &tokens.to_string()]);
        command.args(["--temp", "1", "--top-k", "0", "--top-p", "1", "--min-p", "0", "-s", "1"]);
        command.args(["--no-warmup"]);
        sides.push(("llama-completion", command));
    }
    sides.push(("nfl, page cache", nfl("off")));
    sides.push(("nfl, experts by rule", nfl("auto")));
    sides
}
