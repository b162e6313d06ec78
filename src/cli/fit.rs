//! `nfl fit`: where a model would lie and what it would take, on this machine or on one that is described.

use std::path::{Path, PathBuf};

use clap::Args;
use nfl_converters::Outline;
use nfl_models::gguf::Gguf;
use nfl_models::{Footprint, Level};
use serde_json::json;

use super::failure::Failure;
use super::loading;
use super::placement::PlacementArguments;
use crate::engine::plan::{
    Asking, ComputeSource, Gpu, Here, Machine, MainMemory, Plan, plan, plan_with_draft,
    this_machine, with_usable_prediction,
};
use crate::term::{Printer, table, units};

/// Show where a model would lie, what it would take, and why.
///
/// MODEL is a stored model, a GGUF file, or a checkpoint's config.json or directory: then --level says what it would be converted to.
/// Without --gpu and --ram it is planned for this machine.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// A stored model's name, a GGUF file, a config.json, or a directory with one.
    pub(super) model: PathBuf,
    /// The level that a checkpoint would be converted to.
    #[arg(short, long, default_value = "q4_k_m", value_name = "LEVEL")]
    level: Level,
    /// Plan for a machine with a GPU that has so much free memory, such as 12GiB; once for each GPU.
    #[arg(long, value_name = "SIZE", value_parser = size)]
    gpu: Vec<u64>,
    /// Plan for a machine with so much main memory, such as 32GiB.
    #[arg(long, value_name = "SIZE", value_parser = size)]
    ram: Option<u64>,
    /// A draft model beside it: a GGUF file, or a configuration at the same level.
    #[arg(long, value_name = "MODEL")]
    pub(super) draft: Option<PathBuf>,
    /// Print the plan as JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    placement: PlacementArguments,
}

fn size(text: &str) -> Result<u64, String> {
    units::parse_bytes(text).ok_or_else(|| format!("{text}: no size such as 12GiB"))
}

pub(super) fn run(arguments: &Arguments, printer: &Printer) -> Result<(), Failure> {
    let model = Model::read(&arguments.model, arguments.level)?;
    let draft = arguments.draft.as_deref().map(|path| Model::read(path, arguments.level));
    let draft = draft.transpose()?;
    let (plan, draft_plan) = plans_of(&model, draft.as_ref(), arguments)?;
    let draft = draft.as_ref().zip(draft_plan.as_ref());
    if arguments.json {
        let mut document = document(&model, &plan, &arguments.model);
        if let (Some((draft, plan)), Some(path)) = (draft, &arguments.draft) {
            document["draft"] = self::document(draft, plan, path);
        }
        let text = serde_json::to_string_pretty(&document).expect("keys are strings");
        return Ok(printer.line(&text)?);
    }
    printer.line(describe(&model, &plan).trim_end())?;
    if let Some((draft, plan)) = draft {
        printer.line(&format!("\ndraft model: {}", describe(draft, plan).trim_end()))?;
    }
    for warning in &plan.warnings {
        printer.warn(warning);
    }
    Ok(())
}

/// A model that may be no more than a configuration.
struct Model {
    footprint: Footprint,
    /// The level that its sizes are predicted for; None for a file that has its own.
    level: Option<Level>,
}

impl Model {
    fn read(path: &Path, level: Level) -> Result<Self, Failure> {
        let is_configuration =
            path.is_dir() || path.extension().is_some_and(|extension| extension == "json");
        if is_configuration {
            let footprint = Outline::read(path)?.footprint(level)?;
            return Ok(Self { footprint, level: Some(level) });
        }
        let gguf = Gguf::open(path)?;
        Ok(Self { footprint: with_usable_prediction(Footprint::of(&gguf)?, &gguf), level: None })
    }
}

/// The plans of a model and its draft model for this machine, by what llama.cpp says that it will reserve; by formula for
/// a machine that is described, or a model that is not there yet.
fn plans_of(
    model: &Model,
    draft: Option<&Model>,
    arguments: &Arguments,
) -> Result<(Plan, Option<Plan>), Failure> {
    let program = loading::program()?;
    let is_described = !arguments.gpu.is_empty() || arguments.ram.is_some();
    let machine =
        if is_described { described(arguments, &program) } else { this_machine(&program) };
    let (footprint, wishes) = (&model.footprint, arguments.placement.wishes());
    let draft = draft.map(|draft| &draft.footprint);
    let why = match (is_described, model.level) {
        (true, _) => "the machine is only described",
        (false, Some(_)) => "there is no GGUF file yet",
        (false, None) => {
            let (file, program, machine) = (&arguments.model, &program, &machine);
            let here = Here { file, program, footprint, draft, machine };
            return Ok(here.plan(&wishes, Asking::Always)?);
        }
    };
    let mut plan_on = |machine: &Machine| {
        let plan = plan(footprint, machine, &wishes)?;
        Ok(Plan { compute_source: ComputeSource::Formula { why: why.to_owned() }, ..plan })
    };
    Ok(match draft {
        Some(draft) => {
            let (model, draft) = plan_with_draft(draft, &machine, &wishes, &mut plan_on)?;
            (model, Some(draft))
        }
        None => (plan_on(&machine)?, None),
    })
}

/// The machine that is described, with this one's numbers for what is not.
fn described(arguments: &Arguments, program: &Path) -> Machine {
    let gpu = |(index, bytes): (usize, &u64)| {
        Gpu::with_free(format!("GPU{index}"), "described".to_owned(), *bytes)
    };
    let memory = match arguments.ram {
        Some(bytes) => MainMemory::installed(bytes),
        None => this_machine(program).memory,
    };
    Machine { gpus: arguments.gpu.iter().enumerate().map(gpu).collect(), memory }
}

fn describe(model: &Model, plan: &Plan) -> String {
    let footprint = &model.footprint;
    let level = model.level.map_or(String::new(), |level| format!(" at {level}"));
    let head = format!(
        "{}{level}: {} of weights, {} read for each token\n\n",
        footprint.shape().architecture.name,
        units::bytes(footprint.weights_bytes()),
        units::bytes(footprint.bytes_per_token()),
    );
    format!("{head}{}{}\n{}\n{}", devices(plan), source(plan), decisions(plan), cost(plan))
}

/// Which of the numbers were measured.
fn source(plan: &Plan) -> String {
    match &plan.compute_source {
        ComputeSource::Reserved { took_ms } => format!(
            "compute as llama.cpp reserves it here (asked in {took_ms} ms); weights and KV added up\n"
        ),
        ComputeSource::Formula { why } => {
            format!("compute by formula ({why}); weights and KV added up\n")
        }
    }
}

/// Device, weights, KV, compute, free, why.
fn devices(plan: &Plan) -> String {
    let head = ["device", "weights", "KV", "compute", "free", "why"].map(str::to_owned).to_vec();
    let mut rows = vec![head];
    for device in &plan.devices {
        rows.push(vec![
            device.name.clone(),
            units::bytes(device.weights_bytes),
            units::bytes(device.cache_bytes),
            units::bytes(device.compute_bytes),
            units::bytes(device.free_bytes()),
            device.why.clone(),
        ]);
    }
    table::render(&rows, &[1, 2, 3, 4])
}

pub(super) fn decisions(plan: &Plan) -> String {
    let rows: Vec<Vec<String>> = plan
        .decisions
        .iter()
        .map(|each| vec![each.what.clone(), each.value.clone(), each.why.clone()])
        .collect();
    table::render(&rows, &[])
}

fn cost(plan: &Plan) -> String {
    let memory = units::bytes(plan.slow_bytes_per_token - plan.disk_bytes_per_token);
    let mut parts = vec![format!("{memory} from main memory")];
    if plan.disk_bytes_per_token > 0 {
        parts.push(format!("{} from the file", units::bytes(plan.disk_bytes_per_token)));
    }
    if plan.uses_gpu() {
        parts.push(format!("{} from GPUs", units::bytes(plan.fast_bytes_per_token)));
    }
    format!("With a full context each token reads {}.\n", parts.join(", "))
}

fn document(model: &Model, plan: &Plan, path: &Path) -> serde_json::Value {
    let footprint = &model.footprint;
    let (source, took_ms, why) = match &plan.compute_source {
        ComputeSource::Reserved { took_ms } => ("llama.cpp", Some(*took_ms), None),
        ComputeSource::Formula { why } => ("formula", None, Some(why.as_str())),
    };
    let devices: Vec<_> = plan
        .devices
        .iter()
        .map(|device| {
            json!({
                "device": device.name,
                "description": device.description,
                "capacity_bytes": device.capacity_bytes,
                "margin_bytes": device.margin_bytes,
                "weights_bytes": device.weights_bytes,
                "kv_bytes": device.cache_bytes,
                "compute_bytes": device.compute_bytes,
                "free_bytes": device.free_bytes(),
                "why": device.why,
            })
        })
        .collect();
    let decisions: Vec<_> = plan
        .decisions
        .iter()
        .map(|each| json!({"what": each.what, "value": each.value, "why": each.why}))
        .collect();
    let overrides: Vec<_> = plan
        .overrides
        .iter()
        .map(|each| json!({"pattern": each.pattern, "device": each.device}))
        .collect();
    json!({
        "model": path.display().to_string(),
        "architecture": footprint.shape().architecture.name,
        "level": model.level.map(Level::name),
        "weights_bytes": footprint.weights_bytes(),
        "bytes_per_token": footprint.bytes_per_token(),
        "context": plan.context_tokens,
        "kv_key_type": plan.key_type.to_string(),
        "kv_value_type": plan.value_type.to_string(),
        "micro_batch": plan.micro_batch_tokens,
        "gpu_layers": plan.gpu_layers,
        "split": plan.split,
        "overrides": overrides,
        "mmap": plan.load_mode != crate::engine::options::LoadMode::Read,
        "repack": plan.repack,
        "flash_attention": plan.fused_attention,
        "devices": devices,
        "compute_source": { "from": source, "took_ms": took_ms, "why": why },
        "streamed_bytes": plan.streamed_bytes,
        "fast_bytes_per_token": plan.fast_bytes_per_token,
        "slow_bytes_per_token": plan.slow_bytes_per_token,
        "disk_bytes_per_token": plan.disk_bytes_per_token,
        "decisions": decisions,
        "warnings": plan.warnings,
    })
}
