//! `nfl finetune`: a model learns from examples, and an adapter is what it has learned.

use std::fs::File;
use std::io::Write;
use std::ops::ControlFlow;
use std::path::PathBuf;

use clap::{Args, ValueEnum};
use nfl_models::Role;
use serde_json::{Value, json};

use super::failure::Failure;
use super::loading;
use crate::engine::options::{ContextOptions, LoadRequest, ModelOptions};
use crate::engine::process::Engine;
use crate::learn::{Order, Outcome, Report, learn};
use crate::term::progress::Progress;
use crate::term::{Printer, interrupt, units};
use crate::training::block::Keep;
use crate::training::optimizer::Schedule;
use crate::training::targets::MAPS;

/// Teach a model from examples: a low-rank adapter on the frozen weights of the file that you run.
///
/// DATA is JSONL (or a JSON array, or a .txt): objects with text, with messages, with conversations, with prompt and
/// completion, or with instruction and output. In conversations the assistant's turns are learned, in the model's own chat
/// template. The output folder gets the adapter as PEFT has it and as GGUF: nfl run MODEL --adapter OUTPUT
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// A stored model's name, or a GGUF file of any level that can be trained on.
    #[arg(value_name = "MODEL")]
    pub(super) model: PathBuf,
    /// Adapters on frozen weights as they are quantised (the only kind of training there is).
    #[arg(long)]
    qlora: bool,
    /// The examples.
    #[arg(long, value_name = "FILE")]
    data: PathBuf,
    /// Examples that are not learned: their loss is told before, now and then, and at the end.
    #[arg(long, value_name = "FILE")]
    eval: Option<PathBuf>,
    /// The folder of the run.
    #[arg(short, long, value_name = "DIR")]
    output: PathBuf,
    /// Rank of the adapters.
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..=1024))]
    rank: u16,
    /// Strength of the adapters: their scale is alpha/rank.
    #[arg(long, value_name = "X", default_value_t = 32.0)]
    alpha: f64,
    /// Scale by alpha/√rank instead (rsLoRA).
    #[arg(long)]
    rslora: bool,
    /// Which linear maps get adapters.
    #[arg(long, value_enum, default_value_t = Targets::All)]
    targets: Targets,
    /// Steps of the optimiser.
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..))]
    steps: u64,
    /// Tokens of a micro-batch: examples are packed into it whole, longer ones are cut.
    #[arg(long, value_name = "N", default_value_t = 512, value_parser = clap::value_parser!(u32).range(8..=1 << 20))]
    length: u32,
    /// Micro-batches of a step.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=65_536))]
    batch: u32,
    /// Learning rate.
    #[arg(long, value_name = "X", default_value_t = 2e-4)]
    rate: f64,
    /// How the rate changes.
    #[arg(long, value_enum, default_value_t = ScheduleChoice::Cosine)]
    schedule: ScheduleChoice,
    /// Steps in which the rate rises to its full height.
    #[arg(long, value_name = "N", default_value_t = 5)]
    warmup: u64,
    /// Share of the weights, times the rate, that goes with each step.
    #[arg(long, value_name = "X", default_value_t = 0.01)]
    weight_decay: f64,
    /// Length that gradients are shortened to; 0 leaves them.
    #[arg(long, value_name = "X", default_value_t = 1.0)]
    clip: f64,
    /// Where all random numbers start.
    #[arg(long, value_name = "N", default_value_t = 3407)]
    seed: u64,
    /// Steps between checkpoints.
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u64).range(1..))]
    save_every: u64,
    /// Steps between looks at --eval.
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u64).range(1..))]
    eval_every: u64,
    /// Go on with the run in the output folder, bit for bit as if it had not stopped.
    #[arg(long)]
    resume: bool,
    /// Write a line of JSON for every step: step, loss, tokens_per_second, …
    #[arg(long, value_name = "FILE")]
    log: Option<PathBuf>,
    /// What is kept of each block between the two ways through it: less memory costs time.
    #[arg(long, value_enum, default_value_t = KeepChoice::Selective)]
    keep: KeepChoice,
}

/// Which linear maps get adapters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Targets {
    /// Those of attention and of the feed-forward part.
    All,
    /// Those of attention.
    Attention,
    /// Those of the feed-forward part.
    Mlp,
}

impl Targets {
    fn roles(self) -> Vec<Role> {
        let (attention, feed_forward) = MAPS.split_at(4);
        let maps = match self {
            Self::All => &MAPS[..],
            Self::Attention => attention,
            Self::Mlp => feed_forward,
        };
        maps.iter().map(|(role, _)| *role).collect()
    }
}

/// How the rate changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum ScheduleChoice {
    /// It stays.
    Constant,
    /// It falls in a straight line.
    Linear,
    /// It falls along half a cosine.
    Cosine,
}

/// What is kept of each block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum KeepChoice {
    /// All that the way back reads.
    All,
    /// What matrix products made.
    Selective,
    /// What goes in.
    Boundary,
}

impl Arguments {
    fn order(&self) -> Order {
        let name = self.model.file_stem().unwrap_or(self.model.as_os_str());
        Order {
            model: self.model.clone(),
            model_name: name.to_string_lossy().into_owned(),
            data: self.data.clone(),
            evaluation: self.eval.clone(),
            output: self.output.clone(),
            rank: usize::from(self.rank),
            alpha: self.alpha,
            rank_stabilized: self.rslora,
            roles: self.targets.roles(),
            steps: self.steps,
            length: self.length as usize,
            micro_batches: self.batch as usize,
            rate: self.rate,
            schedule: match self.schedule {
                ScheduleChoice::Constant => Schedule::Constant,
                ScheduleChoice::Linear => Schedule::Linear,
                ScheduleChoice::Cosine => Schedule::Cosine,
            },
            warmup: self.warmup,
            weight_decay: self.weight_decay,
            clip: self.clip,
            seed: self.seed,
            save_every: self.save_every,
            evaluate_every: self.eval_every,
            resume: self.resume,
            keep: match self.keep {
                KeepChoice::All => Keep::All,
                KeepChoice::Selective => Keep::Selective,
                KeepChoice::Boundary => Keep::Boundary,
            },
        }
    }
}

pub(super) fn run(arguments: &Arguments, printer: &Printer) -> Result<(), Failure> {
    for (name, value) in [("--alpha", arguments.alpha), ("--rate", arguments.rate)] {
        if !(value.is_finite() && value > 0.0) {
            return Err(Failure::usage(format!("{name}: {value}"), "give a number above 0"));
        }
    }
    if !arguments.qlora {
        printer.say("the base stays frozen and as it is quantised in the file, as --qlora says");
    }
    let vocabulary = ModelOptions { vocabulary_only: true, ..ModelOptions::default() };
    let load = LoadRequest::new(&arguments.model, vocabulary, ContextOptions::with_threads(1));
    let program = loading::program()?;
    let engine = loading::load(printer, |told| Engine::start(&program, &load, told))?;
    let mut teller = Teller::new(arguments, printer)?;
    let outcome = learn(&arguments.order(), &engine, &mut |report| teller.tell(report))?;
    teller.finish(&outcome)
}

/// Says what happens, to the person and to the log.
struct Teller<'a> {
    printer: &'a Printer,
    progress: Progress,
    log: Option<(PathBuf, File)>,
    failed: Option<Failure>,
    output: PathBuf,
    evaluated: Vec<f64>,
}

impl<'a> Teller<'a> {
    fn new(arguments: &Arguments, printer: &'a Printer) -> Result<Self, Failure> {
        let open = |path: &PathBuf| {
            let mut options = File::options();
            options.create(true).append(arguments.resume).write(true).truncate(!arguments.resume);
            let file = options.open(path).map_err(|error| io_failure(path, &error))?;
            Ok::<_, Failure>((path.clone(), file))
        };
        Ok(Self {
            printer,
            progress: Progress::steps(printer, arguments.steps),
            log: arguments.log.as_ref().map(open).transpose()?,
            failed: None,
            output: arguments.output.clone(),
            evaluated: Vec::new(),
        })
    }

    fn tell(&mut self, report: Report) -> ControlFlow<()> {
        match report {
            Report::Data { examples, tokens, learned, batches } => {
                let share = 100.0 * learned as f64 / tokens.max(1) as f64;
                self.say(&format!(
                    "data     {examples} examples, {tokens} tokens, {share:.0} % of them learned, in {batches} micro-batches"
                ));
            }
            Report::Resumed(0) => self.say("resumed  there is no checkpoint: from the beginning"),
            Report::Resumed(step) => self.say(&format!("resumed  behind step {step}")),
            Report::Evaluated { step, loss } => {
                self.evaluated.push(loss);
                self.say(&format!(
                    "eval     step {step}: loss {loss:.4}, perplexity {:.3}",
                    loss.exp()
                ));
                self.write(&json!({"step": step, "eval_loss": loss}));
            }
            Report::Stepped { step, took } => {
                let rate = step.tokens as f64 / took.as_secs_f64().max(1e-9);
                self.progress.message(&format!("loss {:.4}, {rate:.0} tokens/s", step.loss));
                self.progress.set(step.number);
                self.write(&json!({
                    "step": step.number,
                    "loss": step.loss,
                    "tokens_per_second": rate,
                    "learning_rate": step.rate,
                    "gradient_norm": step.gradient_norm,
                    "tokens": step.tokens,
                    "learned_tokens": step.learned,
                    "seconds": took.as_secs_f64(),
                }));
            }
        }
        if interrupt::requested() || self.failed.is_some() {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    }

    fn say(&self, text: &str) {
        self.progress.above(|| self.printer.say(text));
    }

    fn write(&mut self, line: &Value) {
        if let Some((path, file)) = &mut self.log
            && let Err(error) = writeln!(file, "{line}")
        {
            self.failed = Some(io_failure(path, &error));
        }
    }

    fn finish(self, outcome: &Outcome) -> Result<(), Failure> {
        self.progress.finish();
        if let Some(failure) = self.failed {
            return Err(failure);
        }
        if outcome.stopped {
            let message = format!("stopped behind step {}; a checkpoint is written", outcome.steps);
            let hint = Some("add --resume to the same command to go on".to_owned());
            return Err(Failure { message, hint, status: interrupt::EXIT_STATUS });
        }
        let output = self.output.display();
        self.printer.say(&format!(
            "adapter  {} numbers trained in {} steps: {output}/adapter.gguf, and PEFT's two files beside it",
            units::count(outcome.trained as u64),
            outcome.steps
        ));
        if let [first, .., last] = self.evaluated[..] {
            self.printer.say(&format!("eval     loss {first:.4} before, {last:.4} after"));
        }
        Ok(())
    }
}

fn io_failure(path: &std::path::Path, error: &std::io::Error) -> Failure {
    Failure::new(format!("{}: {error}", path.display()), None)
}
