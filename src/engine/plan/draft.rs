//! Two models on one machine: one that answers, and the small one that guesses for it.
//!
//! The small one is read several times for each step of the other, so it takes its place first, and the other is
//! planned in what is left. Both are bound by the context: the small one's is as long as the other's.

use nfl_models::Footprint;

use super::machine::{Machine, Wishes};
use super::outcome::{Decision, DevicePlan, Plan};
use super::plan;
use super::refusal::PlanError;
use crate::engine::options::CPU;
use crate::term::units;

/// Plans a model and its draft model so that both fit together; `model` plans the model on a machine, as wished.
pub fn plan_with_draft(
    draft: &Footprint,
    machine: &Machine,
    wishes: &Wishes,
    model: &mut dyn FnMut(&Machine) -> Result<Plan, PlanError>,
) -> Result<(Plan, Plan), PlanError> {
    let mut context_tokens = model(machine)?.context_tokens;
    loop {
        let first = plan(draft, machine, &wishes_of_draft(wishes, context_tokens))
            .map_err(PlanError::of_draft)?;
        let rest = without(machine, &first);
        let model = model(&rest).map_err(|error| PlanError::beside_draft(total(&first), error))?;
        // With less memory another of two evils may be the smaller one, and the context longer. There are a few contexts,
        // each longer than the one before, so this ends.
        if model.context_tokens > context_tokens {
            context_tokens = model.context_tokens;
            continue;
        }
        let left = without(machine, &model);
        let mut draft = plan(draft, &left, &wishes_of_draft(wishes, model.context_tokens))
            .map_err(PlanError::of_draft)?;
        for decision in draft.decisions.iter_mut().filter(|each| each.what == "context") {
            "as long as the other model's".clone_into(&mut decision.why);
        }
        return Ok((told(model, &draft), draft));
    }
}

/// What is wished for the draft model: all that is not about single layers and tensors of the other.
fn wishes_of_draft(wishes: &Wishes, context_tokens: u32) -> Wishes {
    Wishes {
        context_tokens: Some(context_tokens),
        sequences: 1,
        gpu_layers: wishes.gpu_layers.filter(|layers| *layers == 0),
        cpu_expert_blocks: None,
        overrides: Vec::new(),
        micro_batch_tokens: None,
        ..wishes.clone()
    }
}

/// A machine on which a plan was carried out.
fn without(machine: &Machine, plan: &Plan) -> Machine {
    let mut left = machine.clone();
    let used = |name: &str| {
        plan.devices.iter().find(|device| device.name == name).map_or(0, DevicePlan::used_bytes)
    };
    let mut memory = used(CPU);
    for gpu in &mut left.gpus {
        let bytes = used(&gpu.name);
        gpu.free_bytes = gpu.free_bytes.saturating_sub(bytes);
        memory += if gpu.shares_memory { bytes } else { 0 };
    }
    left.memory.available_bytes = left.memory.available_bytes.saturating_sub(memory);
    for gpu in left.gpus.iter_mut().filter(|gpu| gpu.shares_memory) {
        gpu.free_bytes = gpu.free_bytes.min(left.memory.available_bytes);
    }
    left
}

fn total(plan: &Plan) -> u64 {
    plan.devices.iter().map(DevicePlan::used_bytes).sum()
}

/// The plan of the model with a word about the draft model beside it.
fn told(model: Plan, draft: &Plan) -> Plan {
    let places: Vec<String> = draft
        .devices
        .iter()
        .filter(|device| device.used_bytes() > 0)
        .map(|device| format!("{} on {}", units::bytes(device.used_bytes()), device.name))
        .collect();
    let decision = Decision {
        what: "draft model".to_owned(),
        value: units::bytes(total(draft)),
        why: format!(
            "takes its place first, weights, cache and compute counted: {}",
            places.join(", ")
        ),
    };
    let warnings = draft.warnings.iter().map(|warning| format!("draft model: {warning}"));
    Plan {
        decisions: model.decisions.iter().cloned().chain([decision]).collect(),
        warnings: model.warnings.iter().cloned().chain(warnings).collect(),
        ..model
    }
}
