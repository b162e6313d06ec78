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
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Seed {
    pub(super) cache: Cache,
    pub(super) fused: bool,
    /// Bytes on each GPU, in the machine's order.
    pub(super) gpus: Vec<u64>,
    /// Bytes in main memory.
    pub(super) memory: u64,
    /// How many times as much as was thought some GPU reserves; at least 1. It warns of what was
    /// not asked about.
    pub(super) excess: f64,
}

impl Seed {
    fn of(reserved: &Reserved, plan: &Plan, machine: &Machine, wishes: &Wishes) -> Self {
        let is_of = |name: &str| machine.gpus.iter().position(|gpu| gpu.name == name);
        let mut seed = Self {
            cache: plan.cache(wishes.sequences),
            fused: !wishes.no_fused_attention,
            gpus: vec![0; machine.gpus.len()],
            memory: 0,
            excess: 1.0,
        };
        for (name, bytes) in &reserved.buffers {
            match is_of(name) {
                Some(gpu) => seed.gpus[gpu] += bytes,
                None => seed.memory += bytes,
            }
        }
        for (found, told) in seed.gpus.iter().zip(&plan.devices) {
            seed.excess = seed.excess.max(*found as f64 / told.compute_bytes.max(1) as f64);
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
        self.excess = self.excess.max(other.excess);
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

#[cfg(test)]
mod tests {
    use super::super::plan;
    use super::super::tests::{footprint, machine};
    use super::*;
    use nfl_models::Level;

    const GIB: u64 = 1 << 30;
    const MIB: u64 = 1 << 20;

    const MIXTURE: &str = "configs/Qwen3-30B-A3B.json";

    /// A llama.cpp whose buffer on the card grows with what stays behind.
    fn answer(plan: &Plan, bytes: u64) -> Reserved {
        let behind: usize = plan.overrides.iter().map(|each| each.pattern.len()).sum();
        let buffers = vec![
            ("GPU0".to_owned(), bytes + behind as u64 * MIB / 64),
            ("Vulkan_Host".to_owned(), 3 * MIB),
            ("CPU".to_owned(), MIB),
        ];
        Reserved { buffers, took_ms: 10.0 }
    }

    #[test]
    fn the_plan_rests_on_what_was_answered_for_it() {
        let Some(footprint) = footprint(MIXTURE, Level::Q4_K_M) else { return };
        for gpu in [6, 12, 24] {
            let machine = machine(&[gpu * GIB], 64 * GIB);
            let wishes = Wishes::default();
            let formula = plan(&footprint, &machine, &wishes).unwrap();
            for bytes in [20 * MIB, 200 * MIB, GIB] {
                let mut asked = 0;
                let found = plan_reserved(&footprint, &machine, &wishes, &mut |plan| {
                    asked += 1;
                    Ok(answer(plan, bytes))
                });
                let found = found.unwrap();
                let ComputeSource::Reserved { took_ms } = found.compute_source else {
                    panic!("{:?}", found.compute_source)
                };
                assert_eq!(took_ms, 10 * asked);
                let own = answer(&found, bytes);
                let card = &found.devices[0];
                assert!(card.compute_bytes >= own.buffers[0].1, "{card:?}");
                assert!(card.used_bytes() <= card.capacity_bytes - card.margin_bytes, "{card:?}");
                assert_eq!(found.devices[1].compute_bytes, 4 * MIB);
                // What llama.cpp does not need is filled; what it needs is not.
                let taken = card.compute_bytes;
                let told = formula.devices[0].compute_bytes;
                let (ours, theirs) = (found.slow_bytes_per_token, formula.slow_bytes_per_token);
                let is_alike = found.micro_batch_tokens == formula.micro_batch_tokens;
                assert!(!is_alike || taken > told || ours <= theirs, "{ours} {theirs}");
            }
        }
    }

    #[test]
    fn without_an_answer_the_formula_stands_with_the_reason() {
        let Some(footprint) = footprint(MIXTURE, Level::Q4_K_M) else { return };
        let machine = machine(&[12 * GIB], 64 * GIB);
        let wishes = Wishes::default();
        let formula = plan(&footprint, &machine, &wishes).unwrap();
        let mut answers = vec![Err("it died".to_owned()), Ok(answer(&formula, MIB))];
        let found =
            plan_reserved(&footprint, &machine, &wishes, &mut |_| answers.pop().unwrap()).unwrap();
        assert_eq!(found.compute_source, ComputeSource::Formula { why: "it died".to_owned() });
        assert_eq!(found.devices, formula.devices);
    }

    #[test]
    fn what_was_pinned_and_does_not_fit_is_refused() {
        let Some(footprint) = footprint(MIXTURE, Level::Q4_K_M) else { return };
        let machine = machine(&[12 * GIB], 64 * GIB);
        let wishes = Wishes {
            gpu_layers: Some(49),
            context_tokens: Some(16_384),
            micro_batch_tokens: Some(512),
            ..Wishes::default()
        };
        let refused =
            plan_reserved(&footprint, &machine, &wishes, &mut |plan| Ok(answer(plan, 12 * GIB)));
        assert!(matches!(refused, Err(PlanError::GpuLayers { .. })), "{refused:?}");
    }
}
