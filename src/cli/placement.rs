//! Placement as people ask for it: the flags of every command that loads a model, and the plan that follows.

use std::path::Path;

use clap::Args;
use nfl_models::gguf::Gguf;
use nfl_models::{Footprint, prediction, preflight};

use super::failure::Failure;
use crate::engine::options::{
    BATCH_TOKENS_MAX, CacheType, ContextOptions, DraftRequest, ExpertReading, FlashAttention,
    LoadMode, LoadRequest, ModelOptions, TensorOverride,
};
use crate::engine::plan::tuned::{self, Tuned};
use crate::engine::plan::{
    Machine, Plan, PlanError, Wishes, plan, plan_reserved, plan_with_draft, this_machine,
};
use crate::engine::reserve::{Reserved, reserved};
use crate::hardware;
use crate::store::Parameters;

/// What is not asked for is planned: see `nfl fit`.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Memory and speed")]
#[expect(clippy::struct_excessive_bools, reason = "independent switches")]
pub(super) struct PlacementArguments {
    /// Context in tokens [default: 4096, and more while its cache is small beside the weights].
    #[arg(short, long = "ctx", visible_alias = "context", value_name = "N")]
    context: Option<u32>,
    /// Type of the cache: f16, q8_0 …; KEYS,VALUES for one each [default: f16, or q8_0 where memory is short].
    #[arg(long, value_name = "TYPE", value_parser = cache_types)]
    kv: Option<CacheTypes>,
    /// Tokens of a prompt that are computed at once [default: 512, more where experts are copied to a GPU].
    #[arg(long, value_name = "N")]
    micro_batch: Option<u32>,
    /// Threads [default: the physical cores].
    #[arg(long, value_name = "N")]
    threads: Option<u32>,
    /// Layers on GPUs, counted from the last; the output counts as one [default: all that fit].
    #[arg(long, value_name = "N")]
    gpu_layers: Option<u32>,
    /// Keep the experts of a Mixture of Experts on the CPU: of the first N blocks, or of all.
    #[arg(long, value_name = "N", num_args = 0..=1, default_missing_value = "4294967295")]
    cpu_moe: Option<u32>,
    /// Keep tensors whose names match REGEX on a device: CPU, or as `nfl fit` names it. May be given several times.
    #[arg(long, value_name = "REGEX=DEVICE", value_parser = tensor_override)]
    override_tensor: Vec<TensorOverride>,
    /// Read the file into memory instead of mapping it.
    #[arg(long)]
    no_mmap: bool,
    /// Pin the weights in memory.
    #[arg(long)]
    mlock: bool,
    /// Leave weights as they are in the file instead of laying them out anew for this CPU: slower, but mapped.
    #[arg(long)]
    no_repack: bool,
    /// Compute attention in separate steps instead of one fused pass: more memory, and at times faster on a CPU.
    #[arg(long)]
    no_flash_attention: bool,
    /// Read the experts of a Mixture of Experts from disk as the router chooses them: auto, when memory does not hold them
    /// all; on; or off, the system's page cache decides.
    #[arg(long, value_name = "WHEN", default_value = "auto", value_parser = expert_reading)]
    experts_from_disk: ExpertReading,
}

fn expert_reading(word: &str) -> Result<ExpertReading, String> {
    match word {
        "auto" => Ok(ExpertReading::Auto),
        "on" => Ok(ExpertReading::On),
        "off" => Ok(ExpertReading::Off),
        _ => Err("write auto, on or off".to_owned()),
    }
}

/// Types of keys and values.
#[derive(Debug, Clone, Copy)]
struct CacheTypes {
    key: CacheType,
    value: CacheType,
}

fn cache_types(text: &str) -> Result<CacheTypes, String> {
    let parse = |word: &str| word.parse::<CacheType>().map_err(|error| error.to_string());
    let (key, value) = text.split_once(',').unwrap_or((text, text));
    Ok(CacheTypes { key: parse(key)?, value: parse(value)? })
}

fn tensor_override(text: &str) -> Result<TensorOverride, String> {
    let (pattern, device) = text.rsplit_once('=').ok_or("write REGEX=DEVICE")?;
    if pattern.is_empty() || device.is_empty() {
        return Err("write REGEX=DEVICE".to_owned());
    }
    Ok(TensorOverride { pattern: pattern.to_owned(), device: device.to_owned() })
}

/// The footprint of a model whose layer that guesses further tokens is loaded if it can be used.
pub(super) fn with_usable_prediction(footprint: Footprint, gguf: &Gguf) -> Footprint {
    match prediction::find(gguf) {
        Ok(_) => footprint,
        Err(_) => footprint.without_prediction(),
    }
}

/// A plan and what it rests on.
pub(super) struct Planned {
    pub(super) plan: Plan,
    /// What measuring had found, when it was used.
    pub(super) tuned: Option<Tuned>,
    /// Of the draft model, when there is one whose tensors are known.
    pub(super) draft: Option<Plan>,
}

/// What guesses for a model, and takes memory beside it.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Guessers<'a> {
    /// A small model.
    pub(super) draft: Option<&'a Path>,
    /// The model's own layer for it, where the file has one that can be used.
    pub(super) prediction: bool,
}

/// What can be known of a file without loading it; None where nothing can be planned. The layer that guesses further
/// tokens is counted with `prediction`, and where it can be used.
fn footprint(file: &Path, prediction: bool) -> Option<Footprint> {
    let gguf = Gguf::open(file).ok()?;
    preflight(&gguf).ok()?;
    let footprint = Footprint::of(&gguf).ok()?;
    Some(if prediction {
        with_usable_prediction(footprint, &gguf)
    } else {
        footprint.without_prediction()
    })
}

impl PlacementArguments {
    /// What a stored model carries, where nothing else was asked for. What the planner decides better for each machine
    /// (layers on GPUs, threads, batches) is left to it.
    pub(super) fn complete(&mut self, parameters: &Parameters) {
        let tokens = parameters.integer("num_ctx").and_then(|count| u32::try_from(count).ok());
        self.context = self.context.or(tokens.filter(|count| *count > 0));
    }

    /// What the person asks for.
    pub(super) fn wishes(&self) -> Wishes {
        Wishes {
            context_tokens: self.context,
            key_type: self.kv.map(|types| types.key),
            value_type: self.kv.map(|types| types.value),
            micro_batch_tokens: self.micro_batch,
            gpu_layers: self.gpu_layers,
            cpu_expert_blocks: self.cpu_moe,
            overrides: self.override_tensor.clone(),
            load_mode: self.no_mmap.then_some(LoadMode::Read),
            lock_memory: self.mlock,
            repack: self.no_repack.then_some(false),
            no_fused_attention: self.no_flash_attention,
            ..Wishes::default()
        }
    }

    /// What a worker is asked to load: as planned, or as asked where nothing can be planned (an architecture whose
    /// tensors are not known here, or a file that the worker will refuse with its own words).
    ///
    /// What guesses is planned beside it.
    pub(super) fn request(
        &self,
        file: &Path,
        guessers: Guessers<'_>,
        program: &Path,
    ) -> Result<(LoadRequest, Option<Planned>), Failure> {
        self.request_for(file, guessers, program, &self.wishes())
    }

    /// The same with room for `sequences` conversations of at least `context_tokens` tokens each.
    pub(super) fn request_with_room(
        &self,
        file: &Path,
        program: &Path,
        context_tokens: u32,
        sequences: u32,
    ) -> Result<(LoadRequest, Option<Planned>), Failure> {
        let context_tokens = Some(self.context.unwrap_or(0).max(context_tokens));
        let wishes = Wishes { context_tokens, sequences, ..self.wishes() };
        self.request_for(file, Guessers::default(), program, &wishes)
    }

    fn request_for(
        &self,
        file: &Path,
        guessers: Guessers<'_>,
        program: &Path,
        wishes: &Wishes,
    ) -> Result<(LoadRequest, Option<Planned>), Failure> {
        let mut request = self.unplanned(file, hardware::default_threads());
        request.context.context_tokens = wishes.context_tokens;
        request.context.sequences = wishes.sequences.max(1);
        request.model.prediction = guessers.prediction;
        let planned = plan_file(file, guessers, program, wishes)?;
        let tuned = planned.as_ref().and_then(|planned| planned.tuned.as_ref());
        let threads = self.threads.or(tuned.and_then(|tuned| tuned.threads));
        if let Some(threads) = threads {
            (request.context.threads, request.context.prompt_threads) = (threads, threads);
        }
        if let Some(planned) = &planned {
            planned.plan.apply(&mut request.model, &mut request.context);
        }
        request.draft = guessers.draft.map(|path| {
            let mut draft = DraftRequest {
                path: path.to_owned(),
                // Of what is not known nothing goes to a GPU: it would be counted nowhere.
                model: ModelOptions {
                    gpu_layers: Some(0),
                    overrides: Vec::new(),
                    split: Vec::new(),
                    ..request.model.clone()
                },
                context: request.context.clone(),
            };
            if let Some(plan) = planned.as_ref().and_then(|planned| planned.draft.as_ref()) {
                plan.apply(&mut draft.model, &mut draft.context);
            }
            draft
        });
        Ok((request, planned))
    }

    /// The same for a model that reads texts and writes none: its context is as long as the longest text may be, and a
    /// text is computed in one go.
    pub(super) fn request_reader(
        &self,
        file: &Path,
        program: &Path,
    ) -> Result<(LoadRequest, Option<Planned>), Failure> {
        let threads = self.threads.unwrap_or_else(hardware::default_threads);
        let mut request = LoadRequest { embeddings_only: true, ..self.unplanned(file, threads) };
        let Some(footprint) = footprint(file, false) else { return Ok((request, None)) };
        let trained = u32::try_from(footprint.shape().context_train).unwrap_or(u32::MAX);
        let context_tokens = request.context.context_for(trained).map_err(PlanError::Option)?;
        let wishes = Wishes {
            context_tokens: Some(context_tokens),
            micro_batch_tokens: Some(context_tokens.min(BATCH_TOKENS_MAX)),
            ..self.wishes()
        };
        let plan = plan(&footprint, &this_machine(program), &wishes)?;
        plan.apply(&mut request.model, &mut request.context);
        Ok((request, Some(Planned { plan, tuned: None, draft: None })))
    }

    /// The flags as they stand.
    fn unplanned(&self, file: &Path, threads: u32) -> LoadRequest {
        let mut context = ContextOptions::with_threads(threads);
        context.context_tokens = self.context;
        if self.no_flash_attention {
            context.flash_attention = FlashAttention::Off;
        }
        if let Some(types) = self.kv {
            (context.key_type, context.value_type) = (types.key, types.value);
        }
        if let Some(tokens) = self.micro_batch {
            context.micro_batch_tokens = tokens;
            context.batch_tokens = context.batch_tokens.max(tokens);
        }
        LoadRequest::new(
            file,
            ModelOptions {
                load_mode: if self.no_mmap { LoadMode::Read } else { LoadMode::Auto },
                lock_memory: self.mlock,
                gpu_layers: self.gpu_layers,
                cpu_experts: self.cpu_moe.is_some_and(|blocks| blocks > 0),
                overrides: self.override_tensor.clone(),
                repack: !self.no_repack,
                expert_reading: self.experts_from_disk,
                ..ModelOptions::default()
            },
            context,
        )
    }
}

/// The plan for a file on this machine, by what measuring has found and still fits; None where nothing can be planned.
fn plan_file(
    file: &Path,
    guessers: Guessers<'_>,
    program: &Path,
    wishes: &Wishes,
) -> Result<Option<Planned>, Failure> {
    let Some(model) = footprint(file, guessers.prediction) else { return Ok(None) };
    let draft = guessers.draft.and_then(|draft| footprint(draft, false));
    let machine = this_machine(program);
    let here = Here { file, program, footprint: &model, draft: draft.as_ref(), machine: &machine };
    if let Some(tuned) = tuned::recall(file, &machine) {
        let mut wishes = wishes.clone();
        tuned.complete(&mut wishes);
        // What was measured may not fit any more.
        if let Ok((plan, draft)) = here.plan(&wishes, Asking::NearLimits) {
            return Ok(Some(Planned { plan, tuned: Some(tuned), draft }));
        }
    }
    let (plan, draft) = here.plan(wishes, Asking::NearLimits)?;
    Ok(Some(Planned { plan, tuned: None, draft }))
}

/// When llama.cpp is asked what it will reserve.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Asking {
    /// When the answer could change the plan.
    NearLimits,
    /// In any case: somebody wants to know.
    Always,
}

/// A file on this machine.
pub(super) struct Here<'a> {
    pub(super) file: &'a Path,
    pub(super) program: &'a Path,
    pub(super) footprint: &'a Footprint,
    /// Of the draft model beside it, when there is one whose tensors are known.
    pub(super) draft: Option<&'a Footprint>,
    pub(super) machine: &'a Machine,
}

impl Here<'_> {
    /// The plans of the model and of its draft model that follow from the wishes and from what llama.cpp says it will
    /// reserve for the model; the draft model's rests on the formula.
    pub(super) fn plan(
        &self,
        wishes: &Wishes,
        asking: Asking,
    ) -> Result<(Plan, Option<Plan>), PlanError> {
        let mut plan_on = |machine: &Machine| {
            plan_reserved(self.footprint, machine, wishes, &mut |plan| {
                self.reserved(plan, wishes, asking)
            })
        };
        match self.draft {
            Some(draft) => plan_with_draft(draft, self.machine, wishes, &mut plan_on)
                .map(|(model, draft)| (model, Some(draft))),
            None => plan_on(self.machine).map(|plan| (plan, None)),
        }
    }

    fn reserved(&self, plan: &Plan, wishes: &Wishes, asking: Asking) -> Result<Reserved, String> {
        if asking == Asking::NearLimits && !plan.is_near_limits() {
            return Err("memory is plenty, so that nothing depends on it".to_owned());
        }
        let mut context = ContextOptions::with_threads(1);
        context.sequences = wishes.sequences.max(1);
        let mut model = ModelOptions::default();
        plan.apply(&mut model, &mut context);
        reserved(self.program, self.file, &model, &context)
    }
}
