//! The plan: context, cache, micro-batch, and what lies where, for one model on one machine.
//!
//! A pure function of the model's [`Footprint`], the [`Machine`] and the person's [`Wishes`]. What
//! the person asks for is a constraint and never switches planning off; what cannot be had is
//! refused with numbers and with what would fit. No plan takes more than there is: bytes are added
//! up for each device and held against what it has free, less a margin.
//!
//! Speed of decoding is bytes read for each token over the bandwidth of where they lie, and main
//! memory is an order of magnitude slower than a GPU's. So the measure of a plan is the bytes that
//! a token reads from slow memory, and GPUs are filled by bytes read for each byte stored (see
//! [`layout`]).

mod candidates;
pub mod compute;
mod draft;
mod file;
mod here;
mod layout;
mod machine;
mod outcome;
mod refusal;
mod seed;
#[cfg(test)]
mod tests;
pub mod tuned;
mod words;

use std::collections::BTreeMap;

use nfl_models::footprint::Footprint;

use super::options::{ContextOptions, LoadMode, TensorOverride};
use candidates::{Candidate, candidates};
use layout::{Layout, Place, Problem};
use seed::Seed;

pub use candidates::default_context;
pub use draft::plan_with_draft;
pub use file::{Asking, FileLoad, Guessers, Here, Planned, with_usable_prediction};
pub use here::this_machine;
pub use machine::{GPU_MARGIN_BYTES, Gpu, Machine, MainMemory, Wishes};
pub use outcome::{ComputeSource, Decision, DevicePlan, Plan};
pub use refusal::PlanError;
pub use seed::plan_reserved;

/// The micro-batch of llama.cpp's defaults, in tokens.
const MICRO_BATCH_TOKENS: u32 = 512;

/// Micro-batches that are tried when weights are copied to a GPU for each of them.
const MICRO_BATCHES_LARGE: [u32; 2] = [2048, 1024];

/// What a larger micro-batch may cost in bytes read from slow memory: one part in so many.
const MICRO_BATCH_COST: u64 = 50;

/// Above this share of usable memory (in parts of 20), weights are left where the kernel can drop
/// them.
const TIGHT_PARTS: u64 = 18;

/// What main memory makes of a layout.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    /// Everything stays in memory; `tight` when hardly.
    Resident { tight: bool },
    /// So many bytes of weights do not, and are read from the file again and again.
    Streamed { bytes: u64 },
    /// Not even what must stay.
    TooLarge,
}

/// A candidate that was laid out.
struct Tried {
    candidate: Candidate,
    micro_batch_tokens: u32,
    layout: Layout,
    verdict: Verdict,
}

/// Plans a model on a machine, by formula where llama.cpp would have to be asked.
pub fn plan(footprint: &Footprint, machine: &Machine, wishes: &Wishes) -> Result<Plan, PlanError> {
    planned(footprint, machine, wishes, &[])
}

/// Plans by what llama.cpp was found to reserve, as far as that is known.
fn planned(
    footprint: &Footprint,
    machine: &Machine,
    wishes: &Wishes,
    seeds: &[Seed],
) -> Result<Plan, PlanError> {
    let pins = layout::pins(footprint, machine, wishes)?;
    let planner = Planner { footprint, machine, wishes, pins, seeds };
    planner.check()?;
    let candidates = candidates(footprint, wishes)?;
    let chosen = planner.choose(&candidates)?;
    let chosen = planner.enlarge_micro_batch(chosen);
    Ok(planner.describe(&chosen, &candidates))
}

struct Planner<'a> {
    footprint: &'a Footprint,
    machine: &'a Machine,
    wishes: &'a Wishes,
    pins: Vec<Option<Place>>,
    seeds: &'a [Seed],
}

impl Planner<'_> {
    /// Numbers that no memory would help.
    fn check(&self) -> Result<(), PlanError> {
        let trained = u32::try_from(self.footprint.shape().context_train).unwrap_or(u32::MAX);
        let mut options = ContextOptions::with_threads(1);
        options.context_tokens = self.wishes.context_tokens;
        options.micro_batch_tokens = self.micro_batch();
        options.context_for(trained)?;
        Ok(options.check()?)
    }

    fn micro_batch(&self) -> u32 {
        self.wishes.micro_batch_tokens.unwrap_or(MICRO_BATCH_TOKENS)
    }

    fn problem(&self, candidate: &Candidate, micro_batch_tokens: u32) -> Problem<'_> {
        let cache = candidate.cache(micro_batch_tokens, self.wishes.sequences);
        let fused = !self.wishes.no_fused_attention;
        Problem {
            footprint: self.footprint,
            machine: self.machine,
            cache,
            fused,
            pins: &self.pins,
            seed: self.seeds.iter().find(|seed| (seed.cache, seed.fused) == (cache, fused)),
            excess: self.seeds.iter().map(|seed| seed.excess).fold(1.0, f64::max),
        }
    }

    /// The best layout of a candidate; `None` when the layers that were asked for do not fit.
    fn lay_out(&self, candidate: &Candidate, micro_batch_tokens: u32) -> Option<Tried> {
        let layout = self.problem(candidate, micro_batch_tokens).best(self.wishes.gpu_layers)?;
        let verdict = self.verdict(&layout);
        Some(Tried { candidate: candidate.clone(), micro_batch_tokens, layout, verdict })
    }

    /// What a plan may take of main memory beside what GPUs take that live in it.
    fn memory_usable(&self, layout: &Layout) -> u64 {
        let gpus = self.machine.gpus.iter().zip(&layout.gpus);
        let shared: u64 =
            gpus.filter(|(gpu, _)| gpu.shares_memory).map(|(_, used)| used.total()).sum();
        self.machine.memory.usable_bytes().saturating_sub(shared)
    }

    fn may_stream(&self) -> bool {
        !self.wishes.lock_memory
            && self.wishes.load_mode != Some(LoadMode::Read)
            && self.wishes.repack != Some(true)
    }

    fn verdict(&self, layout: &Layout) -> Verdict {
        let usable = self.memory_usable(layout);
        let fixed = layout.memory.cache_bytes + layout.memory.compute_bytes;
        let all = fixed + layout.memory.weights_bytes;
        match usable {
            _ if all <= usable => Verdict::Resident { tight: all > usable / 20 * TIGHT_PARTS },
            _ if fixed <= usable && self.may_stream() => Verdict::Streamed { bytes: all - usable },
            _ => Verdict::TooLarge,
        }
    }

    /// The first candidate with all layers on GPUs and the rest in memory; else the first that
    /// stays in memory; else the first that can run at all.
    fn choose(&self, candidates: &[Candidate]) -> Result<Tried, PlanError> {
        let (mut resident, mut streamed, mut refused) = (None, None, None);
        for candidate in candidates {
            let Some(tried) = self.lay_out(candidate, self.micro_batch()) else { continue };
            let wanted = match self.wishes.gpu_layers {
                Some(_) => tried.layout.gpu_layers,
                None => self.problem(candidate, self.micro_batch()).layers_max(),
            };
            match tried.verdict {
                Verdict::Resident { .. } if tried.layout.gpu_layers >= wanted => return Ok(tried),
                Verdict::Resident { .. } => _ = resident.get_or_insert(tried),
                Verdict::Streamed { .. } => _ = streamed.get_or_insert(tried),
                Verdict::TooLarge => _ = refused.get_or_insert(tried),
            }
        }
        match (resident.or(streamed), refused) {
            (Some(tried), _) => Ok(tried),
            (None, Some(tried)) => Err(self.refuse_memory(&tried)),
            (None, None) => Err(self.refuse_layers(&candidates[candidates.len() - 1])),
        }
    }

    /// A prompt's weights that lie in main memory are copied to the GPU for every micro-batch:
    /// fewer, larger ones read a prompt faster, if they leave the GPU room.
    fn enlarge_micro_batch(&self, chosen: Tried) -> Tried {
        let behind =
            chosen.layout.gpu_layers > 0 && self.has_feed_forward_in_memory(&chosen.layout);
        if self.wishes.micro_batch_tokens.is_some() || !behind {
            return chosen;
        }
        let most = chosen.layout.slow_bytes + chosen.layout.slow_bytes / MICRO_BATCH_COST;
        let larger = MICRO_BATCHES_LARGE.into_iter().filter_map(|tokens| {
            let tried = self.lay_out(&chosen.candidate, tokens)?;
            let same = tried.layout.gpu_layers == chosen.layout.gpu_layers
                && matches!(tried.verdict, Verdict::Resident { .. })
                    == matches!(chosen.verdict, Verdict::Resident { .. })
                && tried.verdict != Verdict::TooLarge;
            (same && tried.layout.slow_bytes <= most && tokens <= chosen.candidate.context_tokens)
                .then_some(tried)
        });
        let mut larger = larger;
        larger.next().unwrap_or(chosen)
    }

    /// Why no larger micro-batch was taken where one would read prompts faster.
    fn micro_batch_hindrance(&self, chosen: &Tried) -> String {
        let [.., tokens] = MICRO_BATCHES_LARGE;
        if tokens > chosen.candidate.context_tokens {
            return format!("the context has no room for {tokens}, the next larger one");
        }
        match self.lay_out(&chosen.candidate, tokens) {
            Some(tried) if tried.layout.gpu_layers == chosen.layout.gpu_layers => {
                let most = chosen.layout.slow_bytes + chosen.layout.slow_bytes / MICRO_BATCH_COST;
                if tried.layout.slow_bytes > most {
                    "a larger one would take the GPU's memory from weights".to_owned()
                } else {
                    "a larger one would take main memory from weights".to_owned()
                }
            }
            _ => "a larger one would take the GPU's memory from layers".to_owned(),
        }
    }

    fn has_feed_forward_in_memory(&self, layout: &Layout) -> bool {
        self.footprint.weights().iter().zip(&layout.weights).any(|(weight, place)| {
            *place == Place::Memory
                && (weight.role.is_experts() || weight.role.is_dense_feed_forward())
        })
    }

    /// How the weights in main memory get there, and whether they are laid out anew.
    fn loading(&self, tried: &Tried) -> (LoadMode, bool) {
        let (mode, repack) = match tried.verdict {
            Verdict::Resident { tight: false } if tried.layout.gpu_layers == 0 => {
                (LoadMode::Auto, true)
            }
            Verdict::Resident { tight: false }
                if self.has_feed_forward_in_memory(&tried.layout) =>
            {
                (LoadMode::Read, true)
            }
            Verdict::Resident { tight: false } => (LoadMode::Auto, true),
            _ => (LoadMode::Map, false),
        };
        let pinned = self.wishes.load_mode.filter(|mode| *mode != LoadMode::Auto);
        (pinned.unwrap_or(mode), self.wishes.repack.unwrap_or(repack))
    }

    /// What of each token's reading comes from the file. Of experts, those that do not stay are
    /// chosen as often as any; a dense model's weights pass in a circle, and what is dropped is
    /// always what comes next, so that nothing can be counted on.
    fn disk_bytes(&self, tried: &Tried) -> u64 {
        let Verdict::Streamed { bytes } = tried.verdict else { return 0 };
        let (mut stored, mut read, mut dense) = (0_u64, 0_u64, 0_u64);
        for (weight, place) in self.footprint.weights().iter().zip(&tried.layout.weights) {
            match place {
                Place::Gpu(_) => {}
                Place::Memory if weight.role.is_experts() => {
                    stored += weight.bytes;
                    read += self.footprint.read_bytes(weight);
                }
                Place::Memory => dense += self.footprint.read_bytes(weight),
            }
        }
        if bytes <= stored {
            (u128::from(read) * u128::from(bytes) / u128::from(stored.max(1))) as u64
        } else {
            read + dense
        }
    }

    /// Patterns that move single tensors from the device of their layer: the person's own first.
    fn overrides(&self, layout: &Layout) -> Vec<TensorOverride> {
        let mut moved: BTreeMap<u32, (String, Vec<String>)> = BTreeMap::new();
        for ((weight, place), pin) in
            self.footprint.weights().iter().zip(&layout.weights).zip(&self.pins)
        {
            let Some(block) = weight.block else { continue };
            let by_person = pin.is_some() && !self.is_kept_expert(block, weight.role.is_experts());
            if by_person || layout.layers.get(block as usize) == Some(place) {
                continue;
            }
            let stem = weight.name.splitn(3, '.').nth(2).and_then(|rest| rest.split('.').next());
            let entry = moved.entry(block).or_insert((self.device_name(*place), Vec::new()));
            entry.1.extend(stem.map(str::to_owned));
        }
        let mut groups: BTreeMap<(String, Vec<String>), Vec<String>> = BTreeMap::new();
        for (block, (device, mut stems)) in moved {
            stems.sort_unstable();
            stems.dedup();
            groups.entry((device, stems)).or_default().push(block.to_string());
        }
        let generated = groups.into_iter().map(|((device, stems), blocks)| TensorOverride {
            pattern: format!(r"^blk\.({})\.({})\.", blocks.join("|"), stems.join("|")),
            device,
        });
        self.wishes.overrides.iter().cloned().chain(generated).collect()
    }

    fn is_kept_expert(&self, block: u32, is_experts: bool) -> bool {
        is_experts && self.wishes.cpu_expert_blocks.is_some_and(|kept| block < kept)
    }

    fn device_name(&self, place: Place) -> String {
        match place {
            Place::Memory => super::options::CPU.to_owned(),
            Place::Gpu(gpu) => self.machine.gpus[gpu].name.clone(),
        }
    }
}
