//! A model's file on this machine: its plan, and what a worker is asked to load.

use std::path::Path;

use nfl_models::gguf::Gguf;
use nfl_models::{Footprint, prediction, preflight};

use super::machine::{Machine, Wishes};
use super::outcome::Plan;
use super::refusal::PlanError;
use super::tuned::{self, Tuned};
use super::{plan, plan_reserved, plan_with_draft};
use crate::engine::options::{
    BATCH_TOKENS_MAX, ContextOptions, DraftRequest, ExpertReading, FlashAttention, LoadMode,
    LoadRequest, ModelOptions,
};
use crate::engine::reserve::{Reserved, reserved};
use crate::hardware;

/// A file, and all that is wanted of loading it.
#[derive(Debug, Clone)]
pub struct FileLoad<'a> {
    /// The model, or the first of its shards.
    pub file: &'a Path,
    /// What guesses for it.
    pub guessers: Guessers<'a>,
    /// What the plan is bound by.
    pub wishes: Wishes,
    /// Threads that compute; what was measured, else the physical cores, when None.
    pub threads: Option<u32>,
    /// Whether experts beyond memory are read by our own rule.
    pub expert_reading: ExpertReading,
}

/// A plan and what it rests on.
#[derive(Debug, Clone)]
pub struct Planned {
    /// The plan.
    pub plan: Plan,
    /// What measuring had found, when it was used.
    pub tuned: Option<Tuned>,
    /// Of the draft model, when there is one whose tensors are known.
    pub draft: Option<Plan>,
}

/// What guesses for a model, and takes memory beside it.
#[derive(Debug, Clone, Copy, Default)]
pub struct Guessers<'a> {
    /// A small model.
    pub draft: Option<&'a Path>,
    /// The model's own layer for it, where the file has one that can be used.
    pub prediction: bool,
}

impl<'a> FileLoad<'a> {
    /// A file with no wishes.
    pub fn new(file: &'a Path) -> Self {
        Self {
            file,
            guessers: Guessers::default(),
            wishes: Wishes::default(),
            threads: None,
            expert_reading: ExpertReading::Auto,
        }
    }

    /// What a worker is asked to load: as planned, or as wished where nothing can be planned (an architecture whose
    /// tensors are not known here, or a file that the worker will refuse with its own words).
    ///
    /// What guesses is planned beside it. `program` is this executable.
    pub fn request(
        &self,
        program: &Path,
        machine: &Machine,
    ) -> Result<(LoadRequest, Option<Planned>), PlanError> {
        let mut request = self.unplanned();
        request.model.prediction = self.guessers.prediction;
        let planned = self.planned(program, machine)?;
        let tuned = planned.as_ref().and_then(|planned| planned.tuned.as_ref());
        if let Some(threads) = self.threads.or(tuned.and_then(|tuned| tuned.threads)) {
            (request.context.threads, request.context.prompt_threads) = (threads, threads);
        }
        if let Some(planned) = &planned {
            planned.plan.apply(&mut request.model, &mut request.context);
        }
        request.draft = self.guessers.draft.map(|path| {
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
    pub fn request_reader(
        &self,
        machine: &Machine,
    ) -> Result<(LoadRequest, Option<Planned>), PlanError> {
        let mut request = LoadRequest { embeddings_only: true, ..self.unplanned() };
        let Some(footprint) = footprint(self.file, false) else { return Ok((request, None)) };
        let trained = u32::try_from(footprint.shape().context_train).unwrap_or(u32::MAX);
        let context_tokens = request.context.context_for(trained)?;
        let wishes = Wishes {
            context_tokens: Some(context_tokens),
            micro_batch_tokens: Some(context_tokens.min(BATCH_TOKENS_MAX)),
            ..self.wishes.clone()
        };
        let plan = plan(&footprint, machine, &wishes)?;
        plan.apply(&mut request.model, &mut request.context);
        Ok((request, Some(Planned { plan, tuned: None, draft: None })))
    }

    /// The wishes as they stand.
    pub fn unplanned(&self) -> LoadRequest {
        let wishes = &self.wishes;
        let threads = self.threads.unwrap_or_else(hardware::default_threads);
        let mut context = ContextOptions::with_threads(threads);
        context.context_tokens = wishes.context_tokens;
        context.sequences = wishes.sequences.max(1);
        if wishes.no_fused_attention {
            context.flash_attention = FlashAttention::Off;
        }
        context.key_type = wishes.key_type.unwrap_or(context.key_type);
        context.value_type = wishes.value_type.unwrap_or(context.value_type);
        if let Some(tokens) = wishes.micro_batch_tokens {
            context.micro_batch_tokens = tokens;
            context.batch_tokens = context.batch_tokens.max(tokens);
        }
        let model = ModelOptions {
            load_mode: wishes.load_mode.unwrap_or(LoadMode::Auto),
            lock_memory: wishes.lock_memory,
            gpu_layers: wishes.gpu_layers,
            cpu_experts: wishes.cpu_expert_blocks.is_some_and(|blocks| blocks > 0),
            overrides: wishes.overrides.clone(),
            repack: wishes.repack.unwrap_or(true),
            expert_reading: self.expert_reading,
            ..ModelOptions::default()
        };
        LoadRequest::new(self.file, model, context)
    }

    /// The plan on this machine, by what measuring has found and still fits; None where nothing can be planned.
    fn planned(&self, program: &Path, machine: &Machine) -> Result<Option<Planned>, PlanError> {
        let Self { file, guessers, wishes, .. } = self;
        let Some(model) = footprint(file, guessers.prediction) else { return Ok(None) };
        let draft = guessers.draft.and_then(|draft| footprint(draft, false));
        let here = Here { file, program, footprint: &model, draft: draft.as_ref(), machine };
        if let Some(tuned) = tuned::recall(file, machine) {
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
}

/// The footprint of a model whose layer that guesses further tokens is loaded if it can be used.
pub fn with_usable_prediction(footprint: Footprint, gguf: &Gguf) -> Footprint {
    match prediction::find(gguf) {
        Ok(_) => footprint,
        Err(_) => footprint.without_prediction(),
    }
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

/// When llama.cpp is asked what it will reserve.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asking {
    /// When the answer could change the plan.
    NearLimits,
    /// In any case: somebody wants to know.
    Always,
}

/// A file on this machine.
#[derive(Debug)]
pub struct Here<'a> {
    /// The model, or the first of its shards.
    pub file: &'a Path,
    /// This executable, from which llama.cpp is asked.
    pub program: &'a Path,
    /// Of the model.
    pub footprint: &'a Footprint,
    /// Of the draft model beside it, when there is one whose tensors are known.
    pub draft: Option<&'a Footprint>,
    /// The machine.
    pub machine: &'a Machine,
}

impl Here<'_> {
    /// The plans of the model and of its draft model that follow from the wishes and from what llama.cpp says it will
    /// reserve for the model; the draft model's rests on the formula.
    pub fn plan(&self, wishes: &Wishes, asking: Asking) -> Result<(Plan, Option<Plan>), PlanError> {
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
