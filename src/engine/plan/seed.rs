//! Plans that rest on what llama.cpp itself reserves, where it can be asked.
//!
//! A formula tells how large the buffers for intermediate results will be; llama.cpp knows. So a plan
//! by formula is put before llama.cpp, and planned again with its numbers: what they free is filled,
//! what they take is given up. The answer holds for one placement and another may need more, so the
//! question is asked again until the plan that follows is the one that was asked about.

use nfl_models::footprint::{Cache, Footprint};

use super::machine::{Machine, Wishes};
use super::outcome::{ComputeSource, Plan};
use super::refusal::PlanError;
use crate::engine::reserve::Reserved;

/// How often llama.cpp is asked for one plan, at the most.
const ROUNDS_MAX: u32 = 4;

/// What llama.cpp reserves with a context, a cache and a micro-batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Seed {
    pub(super) cache: Cache,
    pub(super) fused: bool,
    /// Bytes on each GPU, in the machine's order.
    pub(super) gpus: Vec<u64>,
    /// Bytes in main memory.
    pub(super) memory: u64,
}

impl Seed {
    fn of(reserved: &Reserved, plan: &Plan, machine: &Machine, wishes: &Wishes) -> Self {
        let is_of = |name: &str| machine.gpus.iter().position(|gpu| gpu.name == name);
        let mut seed = Self {
            cache: plan.cache(wishes.sequences),
            fused: !wishes.no_fused_attention,
            gpus: vec![0; machine.gpus.len()],
            memory: 0,
        };
        for (name, bytes) in &reserved.buffers {
            match is_of(name) {
                Some(gpu) => seed.gpus[gpu] += bytes,
                None => seed.memory += bytes,
            }
        }
        seed
    }

    /// Whether both tell of the same context, cache and micro-batch.
    fn is_alike(&self, other: &Self) -> bool {
        (self.cache, self.fused) == (other.cache, other.fused)
    }

    /// The larger of two answers: placements that were planned in turn need no more than this.
    fn raise(&mut self, other: &Self) {
        for (ours, theirs) in self.gpus.iter_mut().zip(&other.gpus) {
            *ours = (*ours).max(*theirs);
        }
        self.memory = self.memory.max(other.memory);
    }
}

/// Plans a model on this machine by what llama.cpp reserves, which `reserve` asks for a plan. Where it
/// cannot be asked the plan is that of [`plan`](super::plan), and says why.
///
/// # Errors
/// As [`plan`](super::plan): also when what was pinned does not fit by llama.cpp's own numbers.
pub fn plan_reserved(
    footprint: &Footprint,
    machine: &Machine,
    wishes: &Wishes,
    reserve: &mut dyn FnMut(&Plan) -> Result<Reserved, String>,
) -> Result<Plan, PlanError> {
    let mut plan = super::plan(footprint, machine, wishes)?;
    let mut seeds: Vec<Seed> = Vec::new();
    let mut took_ms = 0.0;
    let mut compute_source = ComputeSource::Formula { why: "no plan would settle".to_owned() };
    for _ in 0..ROUNDS_MAX {
        let reserved = match reserve(&plan) {
            Ok(reserved) => reserved,
            Err(why) => {
                let plan = super::plan(footprint, machine, wishes)?;
                return Ok(Plan { compute_source: ComputeSource::Formula { why }, ..plan });
            }
        };
        took_ms += reserved.took_ms;
        let found = Seed::of(&reserved, &plan, machine, wishes);
        match seeds.iter_mut().find(|seed| seed.is_alike(&found)) {
            Some(seed) => seed.raise(&found),
            None => seeds.push(found),
        }
        let next = super::planned(footprint, machine, wishes, &seeds)?;
        let is_settled = next.places_as(&plan);
        plan = next;
        if is_settled {
            compute_source = ComputeSource::Reserved { took_ms: took_ms.round() as u64 };
            break;
        }
    }
    Ok(Plan { compute_source, ..plan })
}
