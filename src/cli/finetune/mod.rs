//! `nfl finetune`: a model learns from examples, and an adapter is what it has learned.

mod metrics;
mod recipe;
mod sample;
mod settings;
mod teller;

use std::path::PathBuf;

use clap::Args;

use super::failure::Failure;
use super::{loading, model};
use crate::engine::options::{ContextOptions, LoadRequest, ModelOptions};
use crate::engine::process::Engine;
use crate::hardware;
use crate::learn::{Order, learn, preview};
use crate::term::Printer;
use recipe::Recipe;
use settings::{Preset, Settings};
use teller::Teller;

/// Teach a model from examples: a low-rank adapter on the frozen weights of the file that you run.
///
/// DATA is JSONL, a JSON array, CSV or TSV with a head line, Parquet, or a .txt: objects with text, with messages, with
/// conversations, with prompt and completion, with instruction and output, or with prompt, chosen and rejected. In
/// conversations the assistant's turns are learned, in the model's own chat template; --preview shows it. The output
/// folder gets the adapter as PEFT has it and as GGUF (nfl run MODEL --adapter OUTPUT), the recipe, the numbers of all
/// steps and a picture of the losses.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// A stored model's name, or a GGUF file of any level that can be trained on.
    #[arg(value_name = "MODEL", required_unless_present = "recipe")]
    pub(super) model: Option<PathBuf>,
    /// Adapters on frozen weights as they are quantised (the only kind of training there is).
    #[arg(long)]
    qlora: bool,
    /// The examples.
    #[arg(long, value_name = "FILE", required_unless_present = "recipe")]
    data: Option<PathBuf>,
    /// The folder of the run.
    #[arg(short, long, value_name = "DIR", required_unless_present = "preview")]
    output: Option<PathBuf>,
    /// Show the first examples as the model would read them, what is learned in green or in brackets, and end.
    #[arg(long, value_name = "N", num_args = 0..=1, default_missing_value = "3")]
    preview: Option<usize>,
    /// Numbers that are usual for a purpose.
    #[arg(long, value_enum)]
    preset: Option<Preset>,
    /// Run what a recipe says: the recipe.toml of another run, or one of your own with flags' names as keys.
    #[arg(long, value_name = "FILE")]
    recipe: Option<PathBuf>,
    /// Go on with the run in the output folder, bit for bit as if it had not stopped.
    #[arg(long)]
    resume: bool,
    /// Where a line of JSON is written for every step: step, loss, tokens_per_second, … [default: metrics.jsonl in the
    /// output folder]
    #[arg(long, value_name = "FILE")]
    log: Option<PathBuf>,
    /// Write the same numbers for TensorBoard.
    #[arg(long, value_name = "DIR")]
    tensorboard: Option<PathBuf>,
    /// Let the model go on with this text now and then, to hear what it has learned.
    #[arg(long, value_name = "TEXT")]
    sample: Option<String>,
    /// Steps between samples.
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u64).range(1..))]
    sample_every: u64,
    #[command(flatten, next_help_heading = "Examples and numbers")]
    settings: Settings,
}

impl Arguments {
    /// What a run is made of, each from where it is said first.
    fn recipe(&self) -> Result<Recipe, Failure> {
        let mut recipe = self.recipe.as_deref().map(Recipe::read).transpose()?.unwrap_or_default();
        let complete = self.settings.complete(&recipe.settings, self.preset);
        recipe.settings = complete.map_err(|error| Failure::new(error, None))?;
        recipe.model = self.model.clone().or(recipe.model);
        recipe.data = self.data.clone().or(recipe.data);
        check(&recipe.settings)?;
        Ok(recipe)
    }
}

fn missing(what: &str) -> Failure {
    Failure::usage(format!("the recipe has no {what}"), &format!("give {what} on the command line"))
}

/// Whether a number can be used.
type Rule<'a> = &'a dyn Fn(&f64) -> bool;

fn check(settings: &Settings) -> Result<(), Failure> {
    let above = |value: &f64| value.is_finite() && *value > 0.0;
    let not_below = |value: &f64| value.is_finite() && *value >= 0.0;
    let share = |value: &f64| *value > 0.0 && *value < 1.0;
    let rules: [(_, _, Rule<'_>, _); 7] = [
        ("--alpha", settings.alpha, &above, "a number above 0"),
        ("--rate", settings.rate, &above, "a number above 0"),
        ("--beta", settings.beta, &above, "a number above 0"),
        ("--neftune", settings.neftune, &not_below, "0 or more"),
        ("--clip", settings.clip, &not_below, "0 or more"),
        ("--weight-decay", settings.weight_decay, &not_below, "0 or more"),
        ("--eval-split", settings.eval_split, &share, "a share between 0 and 1, such as 0.1"),
    ];
    for (name, value, is_right, wanted) in rules {
        if let Some(value) = value.filter(|value| !is_right(value)) {
            return Err(Failure::usage(format!("{name}: {value}"), &format!("give {wanted}")));
        }
    }
    if settings.patience.is_some() && settings.eval.is_none() && settings.eval_split.is_none() {
        let hint = "give --eval FILE or --eval-split 0.1";
        return Err(Failure::usage("--patience needs examples to look at", hint));
    }
    Ok(())
}

/// What the engine is asked for. The settings are complete: what is missing has no usual value.
fn order(recipe: &Recipe, output: PathBuf, resume: bool) -> Result<Order, Failure> {
    let settings = &recipe.settings;
    let model = recipe.model.clone().ok_or_else(|| missing("MODEL"))?;
    let name = model.file_stem().unwrap_or(model.as_os_str());
    let order = || {
        Some(Order {
            model_name: name.to_string_lossy().into_owned(),
            data: recipe.data.clone()?,
            evaluation: settings.eval.clone(),
            evaluation_share: settings.eval_split,
            skip_bad: settings.skip_bad,
            long: settings.too_long?.into(),
            preference: settings.beta.filter(|_| settings.dpo),
            output,
            rank: usize::from(settings.rank?),
            alpha: settings.alpha?,
            rank_stabilized: settings.rslora,
            roles: settings.targets?.roles(),
            steps: settings.steps?,
            length: settings.length? as usize,
            micro_batches: settings.batch? as usize,
            rate: settings.rate?,
            schedule: settings.schedule?.into(),
            warmup: settings.warmup?,
            weight_decay: settings.weight_decay?,
            clip: settings.clip?,
            noise: settings.neftune?,
            patience: settings.patience,
            seed: settings.seed?,
            save_every: settings.save_every?,
            evaluate_every: settings.eval_every?,
            sample_every: None,
            resume,
            keep: settings.keep?.into(),
            model: model.clone(),
        })
    };
    order().ok_or_else(|| missing("--data"))
}

pub(super) fn run(arguments: &Arguments, printer: &Printer) -> Result<(), Failure> {
    let mut recipe = arguments.recipe()?;
    let mut held = None;
    if let (None, Some(named)) = (&arguments.model, &recipe.model) {
        let (store, resolved) = model::resolve(named)?;
        (held, recipe.model) = (store, Some(resolved.model));
    }
    let output = arguments.output.clone().unwrap_or_default();
    let mut order = order(&recipe, output, arguments.resume)?;
    order.sample_every = arguments.sample.as_ref().map(|_| arguments.sample_every);
    let speaks = arguments.sample.is_some() && arguments.preview.is_none();
    let vocabulary = ModelOptions { vocabulary_only: !speaks, ..ModelOptions::default() };
    let threads = if speaks { hardware::default_threads() } else { 1 };
    let mut load =
        LoadRequest::new(&order.model, vocabulary, ContextOptions::with_threads(threads));
    if speaks {
        load.context.context_tokens = Some(sample::CONTEXT_TOKENS);
        load.readable.push(sample::folder(&order.output)?);
    }
    let program = loading::program()?;
    let engine = loading::load(printer, |told| Engine::start(&program, &load, told))?;
    if let Some(count) = arguments.preview {
        for shown in preview(&order.model, &order.data, count, &engine)? {
            let (place, tokens, learned) = (&shown.place, shown.tokens, shown.learned);
            printer.say(&format!("{place}: {tokens} tokens, {learned} of them learned"));
            printer.marked(&shown.parts)?;
        }
        return Ok(());
    }
    if !arguments.qlora {
        printer.say("the base stays frozen and as it is quantised in the file, as --qlora says");
    }
    let mut teller = Teller::new(arguments, &recipe, &order, &engine, printer);
    let outcome = learn(&order, &engine, &mut |report| teller.tell(report));
    drop(held);
    teller.finish(outcome)
}
