//! Where each tensor and each block's cache lies, for a given context, cache type and micro-batch.
//!
//! llama.cpp puts whole layers on GPUs, counted from the last, and lets single tensors be moved
//! elsewhere. So a layout is a number of layers for each GPU, and the feed-forward tensors that stay
//! behind in main memory. What every token reads whole goes first: attention, norms, router, shared
//! experts and the cache with their layer, the output, then dense feed-forward layers; routed
//! experts, of which a token reads a few, fill what is left, whole layers first.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use nfl_models::Role;
use nfl_models::footprint::{Cache, Footprint, Weight};
use regex::Regex;

use super::compute::{Behind, Graph, compute_bytes, gpu_compute_bytes, host_compute_bytes};
use super::machine::{Machine, Wishes};
use super::refusal::PlanError;
use super::seed::Seed;
use crate::engine::llama::PREDICTION_BATCH_TOKENS;
use crate::engine::options::CPU;

/// What a GPU's buffer for intermediate results may exceed the formula by: one part in so many. It
/// is left free, and not counted as taken.
const GPU_COMPUTE_SLACK: u64 = 8;

/// A place: main memory, or a GPU by its number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    Memory,
    Gpu(usize),
}

/// Bytes on one device.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[expect(clippy::struct_field_names, reason = "units stand last in names, here as everywhere")]
pub(super) struct Use {
    pub(super) weights_bytes: u64,
    pub(super) cache_bytes: u64,
    pub(super) compute_bytes: u64,
}

impl Use {
    pub(super) fn total(&self) -> u64 {
        self.weights_bytes + self.cache_bytes + self.compute_bytes
    }
}

/// What is fixed while layouts are tried.
pub(super) struct Problem<'a> {
    pub(super) footprint: &'a Footprint,
    pub(super) machine: &'a Machine,
    pub(super) cache: Cache,
    pub(super) fused: bool,
    /// Where the person wants single tensors, by their number in the footprint.
    pub(super) pins: &'a [Option<Place>],
    /// What llama.cpp was found to reserve with this cache, when it was asked.
    pub(super) seed: Option<&'a Seed>,
    /// How many times as much as the formula tells a GPU may reserve, by what was found with others.
    pub(super) excess: f64,
}

/// Where everything lies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Layout {
    /// Layers on GPUs, the output counted.
    pub(super) gpu_layers: u32,
    /// Of these, each GPU's.
    pub(super) split: Vec<u32>,
    /// The device of each layer; the last is the output's.
    pub(super) layers: Vec<Place>,
    /// The place of each tensor of the footprint.
    pub(super) weights: Vec<Place>,
    /// What each GPU holds.
    pub(super) gpus: Vec<Use>,
    /// What main memory holds.
    pub(super) memory: Use,
    /// Bytes that each token reads from main memory, the cache full.
    pub(super) slow_bytes: u64,
    /// The same from GPUs.
    pub(super) fast_bytes: u64,
}

/// The person's places for single tensors.
pub(super) fn pins(
    footprint: &Footprint,
    machine: &Machine,
    wishes: &Wishes,
) -> Result<Vec<Option<Place>>, PlanError> {
    let mut rules = Vec::new();
    for each in &wishes.overrides {
        let pattern = Regex::new(&each.pattern).map_err(|error| PlanError::Pattern {
            pattern: each.pattern.clone(),
            reason: error.to_string().lines().last().unwrap_or_default().trim().to_owned(),
        })?;
        let place = if each.device.eq_ignore_ascii_case(CPU) {
            Place::Memory
        } else {
            let found = machine.gpus.iter().position(|gpu| gpu.name == each.device);
            Place::Gpu(found.ok_or_else(|| PlanError::unknown_device(&each.device, machine))?)
        };
        rules.push((pattern, place));
    }
    let kept = wishes.cpu_expert_blocks.unwrap_or(0);
    let pin = |weight: &Weight| {
        let rule = rules.iter().find(|(pattern, _)| pattern.is_match(&weight.name));
        let is_kept = weight.role.is_experts() && weight.block.is_some_and(|block| block < kept);
        rule.map(|(_, place)| *place).or(is_kept.then_some(Place::Memory))
    };
    Ok(footprint.weights().iter().map(pin).collect())
}

impl Problem<'_> {
    fn blocks(&self) -> u32 {
        self.footprint.shape().blocks
    }

    /// Layers that can lie on GPUs: the blocks and the output.
    pub(super) fn layers_max(&self) -> u32 {
        if self.machine.gpus.is_empty() { 0 } else { self.blocks() + 1 }
    }

    fn cache_of(&self, block: u32) -> u64 {
        self.footprint.kv_block_bytes(block, &self.cache).unwrap_or(0)
    }

    fn graph(&self) -> Graph {
        Graph {
            context_tokens: self.cache.context_tokens,
            micro_batch_tokens: self.cache.micro_batch_tokens,
            sequences: self.cache.sequences,
            fused: self.fused,
        }
    }

    /// Bytes of intermediate results in main memory.
    fn memory_compute(&self) -> u64 {
        let (shape, graph) = (self.footprint.shape(), self.graph());
        let bytes = match self.seed {
            Some(seed) => seed.memory,
            None if self.machine.gpus.is_empty() => compute_bytes(shape, &graph),
            None => host_compute_bytes(shape, &graph),
        };
        bytes + self.prediction_compute()
    }

    /// Bytes of intermediate results of the layer that guesses, which is computed in a context of its own, for one
    /// sequence. They are counted wherever it might be computed.
    fn prediction_compute(&self) -> u64 {
        if !self.footprint.has_prediction() {
            return 0;
        }
        let own = Graph {
            context_tokens: self.cache.context_tokens / self.cache.sequences.max(1),
            micro_batch_tokens: PREDICTION_BATCH_TOKENS.into(),
            sequences: 1,
            fused: self.fused,
        };
        compute_bytes(self.footprint.shape(), &own)
    }

    /// What each GPU computes with though it lies in main memory. The first one takes over what
    /// belongs to layers that lie there whole.
    fn behind(&self, layout: &Layout) -> Vec<Behind> {
        let mut behind = vec![Behind::default(); self.machine.gpus.len()];
        let gpu_of = |layer: usize| match layout.layers.get(layer) {
            Some(Place::Gpu(gpu)) => *gpu,
            _ => 0,
        };
        let output = layout.layers.len() - 1;
        for (weight, place) in self.footprint.weights().iter().zip(&layout.weights) {
            if behind.is_empty() || *place != Place::Memory {
                continue;
            }
            if let Some(block) = weight.block {
                let copied = &mut behind[gpu_of(block as usize)].weights_bytes;
                *copied = weight.bytes.max(*copied);
            } else if layout.layers[output] == Place::Memory {
                let copied = &mut behind[gpu_of(output)].output_bytes;
                *copied = weight.bytes.max(*copied);
            }
        }
        for (block, place) in (0..self.blocks()).zip(&layout.layers) {
            if let (Place::Memory, Some(first)) = (place, behind.first_mut()) {
                first.cache_bytes = first.cache_bytes.max(self.cache_of(block));
            }
        }
        behind
    }

    /// The layers of each GPU when so many lie on GPUs: in proportion to what each can take.
    fn split(&self, gpu_layers: u32) -> Vec<u32> {
        let gpus = self.machine.gpus.iter().enumerate();
        let room: Vec<u128> = gpus
            .map(|(index, gpu)| {
                let taken = self.gpu_compute(index, &Behind::default()) + self.gpu_slack();
                u128::from(gpu.usable_bytes().saturating_sub(taken))
            })
            .collect();
        let total: u128 = room.iter().sum::<u128>().max(1);
        let mut passed = 0_u128;
        let mut given = 0_u32;
        let mut split = Vec::with_capacity(room.len());
        for each in room {
            passed += each;
            let upto = ((u128::from(gpu_layers) * passed + total / 2) / total) as u32;
            split.push(upto.min(gpu_layers) - given);
            given = upto.min(gpu_layers);
        }
        if let Some(last) = split.last_mut() {
            *last += gpu_layers - given;
        }
        split
    }

    /// Bytes of intermediate results on a GPU.
    fn gpu_compute(&self, gpu: usize, behind: &Behind) -> u64 {
        let bytes = if let Some(seed) = self.seed {
            seed.gpus[gpu]
        } else {
            let bytes = gpu_compute_bytes(self.footprint.shape(), &self.graph(), behind);
            (bytes as f64 * self.excess) as u64
        };
        bytes + self.prediction_compute()
    }

    /// What is left free on each GPU because a formula may be wrong.
    pub(super) fn gpu_slack(&self) -> u64 {
        match self.seed {
            Some(_) => 0,
            None => compute_bytes(self.footprint.shape(), &self.graph()) / GPU_COMPUTE_SLACK,
        }
    }

    /// A layout with so many layers on GPUs, whole or with their feed-forward tensors as far as
    /// they fit; `None` when not even the rest of the layers fits.
    pub(super) fn layout(&self, gpu_layers: u32, whole: bool) -> Option<Layout> {
        let split = self.split(gpu_layers);
        let mut layers = vec![Place::Memory; self.blocks() as usize + 1];
        let mut layer = layers.len() - gpu_layers as usize;
        for (gpu, count) in split.iter().enumerate() {
            for _ in 0..*count {
                layers[layer] = Place::Gpu(gpu);
                layer += 1;
            }
        }
        let weights: Vec<Place> = self
            .footprint
            .weights()
            .iter()
            .zip(self.pins)
            .map(|(weight, pin)| pin.unwrap_or(Self::place_by_layer(weight, &layers, whole)))
            .collect();
        let mut layout = self.account(Layout {
            gpu_layers,
            split,
            layers,
            weights,
            gpus: Vec::new(),
            memory: Use::default(),
            slow_bytes: 0,
            fast_bytes: 0,
        });
        if !self.fits_gpus(&layout) {
            return None;
        }
        if !whole {
            self.fill(&mut layout);
            layout = self.account(layout);
        }
        Some(layout)
    }

    /// Where a tensor goes when nobody pins it, before anything is filled up.
    fn place_by_layer(weight: &Weight, layers: &[Place], whole: bool) -> Place {
        let waits = weight.role.is_experts() || weight.role.is_dense_feed_forward();
        match (weight.block, weight.role) {
            (Some(_), _) if waits && !whole => Place::Memory,
            (Some(block), _) => layers.get(block as usize).copied().unwrap_or(Place::Memory),
            // A tied embedding is copied for the output; that copy is counted with the output.
            (None, Role::TokenEmbedding) => Place::Memory,
            (None, _) => layers.last().copied().unwrap_or(Place::Memory),
        }
    }

    fn fits_gpus(&self, layout: &Layout) -> bool {
        self.rooms(layout).all(|room| room.is_some())
    }

    /// What each GPU could take besides; `None` of one that has too much.
    fn rooms(&self, layout: &Layout) -> impl Iterator<Item = Option<u64>> {
        let slack = self.gpu_slack();
        let gpus = self.machine.gpus.iter().zip(&layout.gpus);
        gpus.map(move |(gpu, used)| {
            // Where nothing lies, ggml decides what it computes.
            let is_empty = used.weights_bytes + used.cache_bytes == 0;
            let room = gpu.usable_bytes().checked_sub(used.total() + slack);
            if is_empty { Some(room.unwrap_or(0)) } else { room }
        })
    }

    /// Moves feed-forward tensors to the GPU of their layer while they fit: dense ones first, then
    /// experts, from the last block to the first, so that whole layers come about.
    fn fill(&self, layout: &mut Layout) {
        let mut room: Vec<u64> = self.rooms(layout).flatten().collect();
        for part in self.parts(layout) {
            let Place::Gpu(gpu) = layout.layers[part.block as usize] else { continue };
            if part.bytes <= room[gpu] {
                room[gpu] -= part.bytes;
                for index in part.weights {
                    layout.weights[index] = Place::Gpu(gpu);
                }
            }
        }
    }

    /// What can be moved on its own, a matrix and its bias, in the order in which it is: experts
    /// last; of each kind by block from the last, and up before gate before down.
    fn parts(&self, layout: &Layout) -> Vec<Part> {
        let mut parts: BTreeMap<(bool, Reverse<u32>, u8), Part> = BTreeMap::new();
        for (index, weight) in self.footprint.weights().iter().enumerate() {
            let waits = weight.role.is_experts() || weight.role.is_dense_feed_forward();
            let (Some(block), true, None) = (weight.block, waits, self.pins[index]) else {
                continue;
            };
            if !matches!(layout.layers.get(block as usize), Some(Place::Gpu(_))) {
                continue;
            }
            let key = (weight.role.is_experts(), Reverse(block), part_order(weight.role));
            let part = parts.entry(key).or_insert(Part { block, bytes: 0, weights: Vec::new() });
            part.bytes += weight.bytes;
            part.weights.push(index);
        }
        parts.into_values().collect()
    }

    /// Adds up what lies where.
    fn account(&self, mut layout: Layout) -> Layout {
        let shape = self.footprint.shape();
        let mut gpus = vec![Use::default(); self.machine.gpus.len()];
        let mut memory = Use::default();
        let (mut slow, mut fast) = (0, 0);
        let output = *layout.layers.last().unwrap_or(&Place::Memory);
        for (weight, place) in self.footprint.weights().iter().zip(&layout.weights) {
            let row = weight.bytes.checked_div(shape.vocabulary).unwrap_or(0);
            let is_tied = weight.role == Role::TokenEmbedding && shape.tied_output;
            match place {
                Place::Gpu(gpu) => {
                    gpus[*gpu].weights_bytes += weight.bytes;
                    fast += self.footprint.read_bytes(weight);
                }
                Place::Memory => {
                    memory.weights_bytes += weight.bytes;
                    match output {
                        Place::Gpu(gpu) if is_tied => {
                            gpus[gpu].weights_bytes += weight.bytes;
                            fast += weight.bytes;
                            slow += row;
                        }
                        _ => slow += self.footprint.read_bytes(weight),
                    }
                }
            }
        }
        for (block, place) in (0..self.blocks()).zip(&layout.layers) {
            let bytes = self.cache_of(block);
            match place {
                Place::Gpu(gpu) => {
                    gpus[*gpu].cache_bytes += bytes;
                    fast += bytes;
                }
                Place::Memory => {
                    memory.cache_bytes += bytes;
                    slow += bytes;
                }
            }
        }
        // Also a GPU on which nothing lies computes.
        for (gpu, (used, behind)) in gpus.iter_mut().zip(self.behind(&layout)).enumerate() {
            used.compute_bytes = self.gpu_compute(gpu, &behind);
        }
        memory.compute_bytes = self.memory_compute();
        (layout.gpus, layout.memory) = (gpus, memory);
        (layout.slow_bytes, layout.fast_bytes) = (slow, fast);
        layout
    }

    /// The best layout: most of what is read whole on GPUs, then most of all. It is never worse
    /// than as many whole layers as fit, which is tried as well.
    pub(super) fn best(&self, gpu_layers: Option<u32>) -> Option<Layout> {
        let counts = match gpu_layers {
            Some(count) => count.min(self.layers_max())..=count.min(self.layers_max()),
            None => 0..=self.layers_max(),
        };
        let split = counts.clone().rev().find_map(|count| self.layout(count, false));
        let whole = counts.rev().find_map(|count| self.layout(count, true));
        match (split, whole) {
            (Some(split), Some(whole)) if whole.slow_bytes < split.slow_bytes => Some(whole),
            (split, whole) => split.or(whole),
        }
    }
}

/// Tensors that are moved together.
struct Part {
    block: u32,
    bytes: u64,
    weights: Vec<usize>,
}

fn part_order(role: Role) -> u8 {
    use Role as R;
    match role {
        R::FeedForwardUp | R::FeedForwardUpBias | R::ExpertsUp | R::ExpertsUpBias => 0,
        R::FeedForwardGate | R::FeedForwardGateBias | R::ExpertsGate | R::ExpertsGateBias => 1,
        R::ExpertsGateUp => 2,
        _ => 3,
    }
}
