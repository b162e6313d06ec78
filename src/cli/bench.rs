//! `nfl bench`: how fast models read and write on this machine, alone or against each other.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use clap::{Args, Parser};
use serde_json::{Value, json};

use super::failure::Failure;
use crate::engine::options::{ContextOptions, FlashAttention, LoadMode, LoadRequest, ModelOptions};
use crate::engine::process::CancelHandle;
use crate::eval::bench::{BenchError, Figures, Outcome, Ratio, Side, Workload, measure};
use crate::hardware;
use crate::term::progress::Progress;
use crate::term::{Printer, interrupt, neutral, table, units};

/// Measure how fast models read a prompt and write.
///
/// Tokens are random and counted as llama.cpp's llama-bench counts them; the way through the worker process, the choice
/// of each token and its text are inside the time. Several files, or --vs, are loaded together and measured in turns.
#[derive(Debug, Args)]
#[command(after_help = "nfl bench a.gguf                          one model\n\
    nfl bench a.gguf b.gguf                   two models, interleaved; ratios to the first\n\
    nfl bench a.gguf --vs '--threads 1'       one model with and without other options\n\
    nfl bench a.gguf --depth 0,4096           with an empty and with a filled context")]
pub(super) struct Arguments {
    /// GGUF files; of a split model, any of its files.
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Tokens to read at once; 0 leaves reading out.
    #[arg(long, value_name = "N", default_value_t = 512)]
    prompt: u32,
    /// Tokens to write one after the other; 0 leaves writing out.
    #[arg(short = 'n', long, value_name = "N", default_value_t = 128)]
    tokens: u32,
    /// Rounds after the warm-up.
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1000))]
    repeat: u32,
    /// Tokens that are in the context before: one test each, separated by commas.
    #[arg(long, value_name = "LIST", value_delimiter = ',', default_value = "0")]
    depth: Vec<u32>,
    /// Measure each file with these options too, and compare.
    #[arg(long, value_name = "OPTIONS", allow_hyphen_values = true)]
    vs: Option<String>,
    /// Print everything as JSON, each sample included.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    load: LoadArguments,
}

/// How a model is loaded; what `--vs` takes.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Memory and speed")]
#[expect(clippy::struct_excessive_bools, reason = "independent switches")]
struct LoadArguments {
    /// Threads [default: the physical cores].
    #[arg(long, value_name = "N")]
    threads: Option<u32>,
    /// Tokens computed at once when reading.
    #[arg(long, value_name = "N", default_value_t = 512)]
    micro_batch: u32,
    /// Layers on the GPU [default: all, when there is one].
    #[arg(long, value_name = "N")]
    gpu_layers: Option<u32>,
    /// Keep the experts of a Mixture of Experts on the CPU.
    #[arg(long)]
    cpu_moe: bool,
    /// Compute attention in separate steps.
    #[arg(long)]
    no_flash_attention: bool,
    /// Read the file into memory instead of mapping it.
    #[arg(long)]
    no_mmap: bool,
    /// Pin the weights in memory.
    #[arg(long)]
    mlock: bool,
    /// Leave weights as they are in the file.
    #[arg(long)]
    no_repack: bool,
}

/// What `--vs` is read as.
#[derive(Debug, Parser)]
#[command(no_binary_name = true, disable_help_flag = true)]
struct Versus {
    #[command(flatten)]
    load: LoadArguments,
}

/// One side of the measurement, as it was asked for.
struct Asked {
    file: PathBuf,
    /// What distinguishes it from another side with the same file; else empty.
    options: String,
    load: LoadArguments,
}

pub(super) fn run(arguments: &Arguments, printer: &Printer) -> Result<(), Failure> {
    let workload = Workload {
        prompt_tokens: arguments.prompt,
        generated_tokens: arguments.tokens,
        depths: arguments.depth.clone(),
        repeats: arguments.repeat,
    };
    if workload.prompt_tokens == 0 && workload.generated_tokens == 0 {
        let hint = "give --prompt or --tokens a number above 0";
        return Err(Failure::usage("nothing to measure: --prompt 0 and --tokens 0", hint));
    }
    let asked = asked(arguments)?;
    let mut sides = Vec::new();
    for side in &asked {
        sides.push(start(side, &workload, printer)?);
    }
    let outcomes = take_turns(&mut sides, &workload, printer)?;
    if arguments.json {
        let document = document(&asked, &sides, &workload, &outcomes);
        let text = serde_json::to_string_pretty(&document).expect("keys are strings");
        return Ok(printer.line(&text)?);
    }
    printer.line(report(&asked, &sides, &workload, &outcomes).trim_end())?;
    Ok(())
}

/// Every file, with the usual options and with those of `--vs`.
fn asked(arguments: &Arguments) -> Result<Vec<Asked>, Failure> {
    let versus = match &arguments.vs {
        None => None,
        Some(options) => {
            let parsed = Versus::try_parse_from(options.split_whitespace()).map_err(|error| {
                let text = error.to_string();
                let first = text.lines().next().unwrap_or_default();
                let reason = first.trim_start_matches("error: ");
                let hint = "--vs takes the options under \"Memory and speed\": nfl bench --help";
                Failure::usage(format!("--vs {options}: {reason}"), hint)
            })?;
            Some((options, parsed.load))
        }
    };
    let mut sides = Vec::new();
    for file in &arguments.files {
        let (file, load) = (file.clone(), arguments.load.clone());
        sides.push(Asked { file: file.clone(), options: String::new(), load });
        if let Some((options, load)) = &versus {
            sides.push(Asked { file, options: options.trim().to_owned(), load: load.clone() });
        }
    }
    Ok(sides)
}

fn request(side: &Asked, workload: &Workload) -> LoadRequest {
    let load = &side.load;
    let threads = load.threads.unwrap_or_else(hardware::default_threads);
    let flash_attention =
        if load.no_flash_attention { FlashAttention::Off } else { FlashAttention::Auto };
    let model = ModelOptions {
        load_mode: if load.no_mmap { LoadMode::Read } else { LoadMode::Auto },
        lock_memory: load.mlock,
        gpu_layers: load.gpu_layers,
        cpu_experts: load.cpu_moe,
        repack: !load.no_repack,
        ..ModelOptions::default()
    };
    let context = ContextOptions {
        context_tokens: Some(workload.context_tokens()),
        micro_batch_tokens: load.micro_batch,
        flash_attention,
        ..ContextOptions::with_threads(threads)
    };
    LoadRequest::new(&side.file, model, context)
}

fn start(side: &Asked, workload: &Workload, printer: &Printer) -> Result<Side, Failure> {
    let program = std::env::current_exe()
        .map_err(|error| Failure::new(format!("the path of nfl itself: {error}"), None))?;
    let mut progress = Progress::permille(printer);
    progress.message("loading");
    let started = Side::start(&program, &request(side, workload), &mut |share| {
        progress.set((share * 1000.0) as u64);
        if interrupt::requested() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    drop(progress);
    if interrupt::requested() {
        return Err(Failure::interrupted());
    }
    let started = started?;
    for warning in &started.info().warnings {
        printer.warn(warning);
    }
    Ok(started)
}

fn take_turns(
    sides: &mut [Side],
    workload: &Workload,
    printer: &Printer,
) -> Result<Vec<Vec<Outcome>>, Failure> {
    let handles: Vec<_> = sides.iter().map(Side::cancel_handle).collect();
    let guard = interrupt::on_request(move || handles.iter().for_each(CancelHandle::cancel));
    let steps = workload.steps() * sides.len() as u64;
    let mut progress = Progress::permille(printer);
    progress.message("measuring");
    let mut done = 0;
    let outcomes = measure(sides, workload, &mut || {
        progress.set(done * 1000 / steps);
        done += 1;
        if interrupt::requested() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    drop(guard);
    drop(progress);
    match outcomes {
        Err(BenchError::Stopped) => Err(Failure::interrupted()),
        outcomes => Ok(outcomes?),
    }
}

fn name(path: &Path) -> String {
    path.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned())
}

/// The tests of an outcome: what was done, and how fast.
fn tests<'a>(
    outcome: &'a Outcome,
    workload: &Workload,
) -> impl Iterator<Item = (String, &'a Figures)> {
    let at = if outcome.depth > 0 { format!(" at {}", outcome.depth) } else { String::new() };
    let prefill = (format!("prefill {}{at}", workload.prompt_tokens), &outcome.prefill);
    let decode = (format!("decode {}{at}", workload.generated_tokens), &outcome.decode);
    [prefill, decode].into_iter().filter_map(|(test, figures)| Some((test, figures.as_ref()?)))
}

fn report(
    asked: &[Asked],
    sides: &[Side],
    workload: &Workload,
    outcomes: &[Vec<Outcome>],
) -> String {
    let compares = sides.len() > 1;
    let mut header = vec!["model", "size", "threads", "test", "tokens/s", "least", "most"];
    if compares {
        header.extend(["ratio", "from", "to"]);
    }
    let mut rows = vec![header.into_iter().map(str::to_owned).collect::<Vec<_>>()];
    for (place, side) in sides.iter().enumerate() {
        let info = side.info();
        let named = format!("{} {}", name(&asked[place].file), asked[place].options);
        for (outcome, first) in outcomes[place].iter().zip(&outcomes[0]) {
            for ((test, figures), (_, base)) in tests(outcome, workload).zip(tests(first, workload))
            {
                let mut row = vec![
                    neutral(named.trim_end()),
                    units::bytes(info.weights_bytes),
                    info.threads.to_string(),
                    test,
                ];
                row.extend([figures.median(), figures.min(), figures.max()].map(speed));
                if compares && place > 0 {
                    let Ratio { of_medians, min, max } = figures.ratio_to(base);
                    row.extend([of_medians, min, max].map(|ratio| format!("{ratio:.3}")));
                }
                rows.push(row);
            }
        }
    }
    table::render(&rows, &[1, 2, 4, 5, 6, 7, 8, 9])
}

fn speed(value: f64) -> String {
    format!("{value:.2}")
}

/// One side's object; for one file the whole document.
fn document(
    asked: &[Asked],
    sides: &[Side],
    workload: &Workload,
    outcomes: &[Vec<Outcome>],
) -> Value {
    let object = |place: usize| {
        side_document(&asked[place], sides[place].info(), workload, &outcomes[place])
    };
    if sides.len() == 1 {
        return object(0);
    }
    let ratio = |place: usize, of: fn(&Outcome) -> Option<&Figures>| -> Vec<Value> {
        let pairs = outcomes[place].iter().zip(&outcomes[0]);
        let ratio = |(ours, base): (&Outcome, &Outcome)| {
            let ratio = of(ours)?.ratio_to(of(base)?);
            let Ratio { of_medians, min, max } = ratio;
            Some(json!({ "depth": ours.depth, "of_medians": of_medians, "min": min, "max": max }))
        };
        pairs.filter_map(ratio).collect()
    };
    let ratios = |place: usize| {
        json!({
            "side": place,
            "to": 0,
            "prefill": ratio(place, |outcome| outcome.prefill.as_ref()),
            "decode": ratio(place, |outcome| outcome.decode.as_ref()),
        })
    };
    json!({
        "sides": (0..sides.len()).map(object).collect::<Vec<_>>(),
        "ratios": (1..sides.len()).map(ratios).collect::<Vec<_>>(),
    })
}

fn side_document(
    asked: &Asked,
    info: &crate::engine::frames::LoadInfo,
    workload: &Workload,
    outcomes: &[Outcome],
) -> Value {
    let figures = |figures: &Option<Figures>| {
        figures.as_ref().map(|figures| {
            json!({
                "median": figures.median(),
                "min": figures.min(),
                "max": figures.max(),
                "samples": figures.samples(),
            })
        })
    };
    let speeds = |outcome: &Outcome| {
        json!({
            "depth": outcome.depth,
            "prefill_tokens_per_second": figures(&outcome.prefill),
            "decode_tokens_per_second": figures(&outcome.decode),
        })
    };
    let mut object = json!({
        "file": asked.file.display().to_string(),
        "options": asked.options,
        "model": info.description,
        "architecture": info.architecture,
        "parameters": info.parameters,
        "weights_bytes": info.weights_bytes,
        "threads": info.threads,
        "micro_batch_tokens": asked.load.micro_batch,
        "devices": info.devices.iter().map(|device| device.description.trim()).collect::<Vec<_>>(),
        "build": { "nfl": env!("CARGO_PKG_VERSION"), "system": std::env::consts::OS, "processor": std::env::consts::ARCH },
        "prompt_tokens": workload.prompt_tokens,
        "generated_tokens": workload.generated_tokens,
        "repeat": workload.repeats,
    });
    // The figures of the first depth stand where a script looks for them; all are in the list.
    for (key, value) in speeds(&outcomes[0]).as_object().into_iter().flatten() {
        object[key.as_str()] = value.clone();
    }
    object["depths"] = outcomes.iter().map(speeds).collect();
    object
}
