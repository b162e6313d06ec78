//! `nfl tune`: runs the best plans shortly, one after another and again, and remembers which was fastest.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use clap::Args;
use nfl_models::Footprint;
use nfl_models::gguf::Gguf;
use serde_json::json;

use super::failure::Failure;
use super::loading;
use crate::engine::frames::{Generation, Prompt};
use crate::engine::options::{ContextOptions, LoadMode, LoadRequest, ModelOptions};
use crate::engine::plan::tuned::{self, Tuned};
use crate::engine::plan::{Asking, Here, Plan, Wishes, this_machine};
use crate::engine::process::Engine;
use crate::hardware;
use crate::term::progress::Progress;
use crate::term::{Printer, interrupt, table};

/// The context that is measured with, in tokens: enough for prompt and reply.
const CONTEXT_TOKENS: u32 = 2048;

/// What another plan must gain to be preferred to the planned one: less is noise.
const GAIN_MIN: f64 = 0.03;

/// Find out by measuring how a model runs fastest here, and remember it for `nfl run`.
///
/// A few plans (threads, weights laid out anew or not, mapped or read, micro-batch, attention) are run shortly, in turns
/// so that a busy moment hits all alike. What wins by more than 3 % over the plan is remembered for this file on this
/// machine.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// A GGUF file; of a split model, any of its files.
    pub(super) file: PathBuf,
    /// Tokens of the prompt.
    #[arg(long, default_value_t = 256, value_name = "N", value_parser = clap::value_parser!(u32).range(16..=1024))]
    prompt: u32,
    /// Tokens to generate.
    #[arg(short = 'n', long, default_value_t = 32, value_name = "N", value_parser = clap::value_parser!(u32).range(4..=512))]
    tokens: u32,
    /// Turns of each plan.
    #[arg(long, default_value_t = 3, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=20))]
    repeat: u32,
    /// Print what was measured as JSON.
    #[arg(long)]
    json: bool,
}

/// One plan and what was measured of it.
struct Trial {
    tuned: Tuned,
    plan: Plan,
    /// Prompt and reply, in tokens per second, turn by turn.
    prompt_rates: Vec<f64>,
    decode_rates: Vec<f64>,
}

impl Trial {
    /// Milliseconds of a reply of 256 tokens to a prompt of 1024, by the medians.
    fn cost_ms(&self) -> f64 {
        1024e3 / median(&self.prompt_rates) + 256e3 / median(&self.decode_rates)
    }
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
}

pub(super) fn run(arguments: &Arguments, printer: &Printer) -> Result<(), Failure> {
    let program = loading::program()?;
    let footprint = Footprint::of(&Gguf::open(&arguments.file)?)?.without_prediction();
    let machine = this_machine(&program);
    let here = Here {
        file: &arguments.file,
        program: &program,
        footprint: &footprint,
        draft: None,
        machine: &machine,
    };
    let mut trials = trials(&here)?;
    let total = u64::from(arguments.repeat) * trials.len() as u64;
    let mut progress = Progress::steps(printer, total);
    for turn in 0..u64::from(arguments.repeat) {
        for index in 0..trials.len() {
            progress.message(&trials[index].tuned.describe());
            measure(&mut trials[index], arguments, &program)?;
            progress.set(turn * trials.len() as u64 + index as u64 + 1);
        }
    }
    drop(progress);
    let best = winner(&trials);
    let path = tuned::remember(&arguments.file, &machine, &trials[best].tuned)
        .map_err(|error| Failure::new(format!("what was found cannot be kept: {error}"), None))?;
    report(&trials, best, &path, arguments, printer)
}

/// The plan, and what differs from it in one thing each, as far as that fits.
fn trials(here: &Here<'_>) -> Result<Vec<Trial>, Failure> {
    let wishes = |tuned: &Tuned| {
        let context_tokens = Some(CONTEXT_TOKENS.min(trained(here.footprint)));
        let mut wishes = Wishes { context_tokens, ..Wishes::default() };
        tuned.complete(&mut wishes);
        wishes
    };
    let trial = |tuned: Tuned, plan: Plan| Trial {
        tuned,
        plan,
        prompt_rates: Vec::new(),
        decode_rates: Vec::new(),
    };
    let (planned, _) = here.plan(&wishes(&Tuned::default()), Asking::NearLimits)?;
    let threads = hardware::default_threads();
    let processors = std::thread::available_parallelism().map_or(1, usize::from) as u32;
    let other_threads = if processors > threads { processors } else { (threads / 2).max(1) };
    let micro_batch = if planned.micro_batch_tokens > 512 { 512 } else { 256 };
    let read = match planned.load_mode {
        LoadMode::Read => LoadMode::Map,
        _ => LoadMode::Read,
    };
    let mut others = vec![
        Tuned { repack: Some(!planned.repack), ..Tuned::default() },
        Tuned { load_mode: Some(read), ..Tuned::default() },
        Tuned { micro_batch_tokens: Some(micro_batch), ..Tuned::default() },
    ];
    if planned.fused_attention && !planned.value_type.tensor_type().is_quantized() {
        others.push(Tuned { fused_attention: Some(false), ..Tuned::default() });
    }
    if other_threads != threads {
        others.push(Tuned { threads: Some(other_threads), ..Tuned::default() });
    }
    let mut trials = vec![trial(Tuned::default(), planned)];
    for tuned in others {
        // What does not fit, or reads weights from the file again and again, is no better plan.
        if let Ok((plan, _)) = here.plan(&wishes(&tuned), Asking::NearLimits)
            && plan.streamed_bytes <= trials[0].plan.streamed_bytes
        {
            trials.push(trial(tuned, plan));
        }
    }
    Ok(trials)
}

fn trained(footprint: &Footprint) -> u32 {
    match u32::try_from(footprint.shape().context_train).unwrap_or(u32::MAX) {
        0 => u32::MAX,
        trained => trained,
    }
}

/// Loads the model as a trial has it, warms up, and takes one measurement.
fn measure(trial: &mut Trial, arguments: &Arguments, program: &Path) -> Result<(), Failure> {
    let go_on = || {
        if interrupt::requested() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    let threads = trial.tuned.threads.unwrap_or_else(hardware::default_threads);
    let (mut model, mut context) = (ModelOptions::default(), ContextOptions::with_threads(threads));
    trial.plan.apply(&mut model, &mut context);
    let request = LoadRequest::new(&arguments.file, model, context);
    let engine = Engine::start(program, &request, &mut |_| go_on());
    if interrupt::requested() {
        return Err(Failure::interrupted());
    }
    let engine = engine?;
    let vocabulary = engine.info().vocabulary_tokens.max(1);
    let room = engine.info().context_tokens;
    let tokens = arguments.tokens.min(room / 2);
    let length = arguments.prompt.min(room - tokens - 1);
    let cancel = engine.cancel_handle();
    let guard = interrupt::on_request(move || cancel.cancel());
    // Two prompts that begin differently, so that the second is read whole: the first warms up.
    for start in [1, 2] {
        let ids = (0..length).map(|index| ((start + index * 7919) % vocabulary) as i32).collect();
        let mut generation = Generation::greedy(Prompt::Tokens(ids), tokens);
        generation.ignore_end = true;
        let done = engine.generate(&generation, &mut |_| go_on())?;
        if interrupt::requested() {
            return Err(Failure::interrupted());
        }
        if start == 2 {
            trial.prompt_rates.extend(done.prompt_rate());
            trial.decode_rates.extend(done.decode_rate());
        }
    }
    drop(guard);
    Ok(())
}

/// The fastest; the plan itself, which is the first, unless another gains clearly.
fn winner(trials: &[Trial]) -> usize {
    let costs: Vec<f64> = trials.iter().map(Trial::cost_ms).collect();
    let least = (0..costs.len()).min_by(|a, b| costs[*a].total_cmp(&costs[*b])).unwrap_or(0);
    if costs[least] < costs[0] * (1.0 - GAIN_MIN) { least } else { 0 }
}

fn report(
    trials: &[Trial],
    best: usize,
    path: &Path,
    arguments: &Arguments,
    printer: &Printer,
) -> Result<(), Failure> {
    if arguments.json {
        let list: Vec<_> = trials
            .iter()
            .enumerate()
            .map(|(index, trial)| {
                json!({
                    "plan": trial.tuned.describe(),
                    "chosen": index == best,
                    "prefill_tokens_per_second": median(&trial.prompt_rates),
                    "decode_tokens_per_second": median(&trial.decode_rates),
                })
            })
            .collect();
        let document = json!({"plans": list, "remembered": path.display().to_string()});
        let text = serde_json::to_string_pretty(&document).expect("keys are strings");
        return Ok(printer.line(&text)?);
    }
    let head = ["plan", "prefill tokens/s", "decode tokens/s", ""].map(str::to_owned).to_vec();
    let mut rows = vec![head];
    for (index, trial) in trials.iter().enumerate() {
        rows.push(vec![
            trial.tuned.describe(),
            format!("{:.1}", median(&trial.prompt_rates)),
            format!("{:.1}", median(&trial.decode_rates)),
            if index == best { "chosen" } else { "" }.to_owned(),
        ]);
    }
    printer.line(table::render(&rows, &[1, 2]).trim_end())?;
    printer.say(&format!("remembered in {}; nfl run uses it", path.display()));
    Ok(())
}
