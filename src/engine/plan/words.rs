//! A plan in words: each decision with its reason, each device with what lies on it, each refusal
//! with what would fit.

use std::fmt::Display;

use nfl_models::Role;
use nfl_models::footprint::Weight;

use super::candidates::Candidate;
use super::layout::{Layout, Place, Use};
use super::outcome::{ComputeSource, Decision, DevicePlan, Plan};
use super::refusal::PlanError;
use super::{Planner, Tried, Verdict, default_context};
use crate::engine::options::{CPU, CacheType, LoadMode};
use crate::term::units;

/// Steps in which a context is offered, in tokens.
const CONTEXT_STEP: u32 = 256;

fn decision(what: &str, value: impl Display, why: impl Into<String>) -> Decision {
    Decision { what: what.to_owned(), value: value.to_string(), why: why.into() }
}

impl Planner<'_> {
    /// The plan that follows from what was chosen.
    pub(super) fn describe(&self, tried: &Tried, candidates: &[Candidate]) -> Plan {
        let Candidate { context_tokens, key_type, value_type } = tried.candidate;
        let (load_mode, repack) = self.loading(tried);
        let streamed_bytes = match tried.verdict {
            Verdict::Streamed { bytes } => bytes,
            _ => 0,
        };
        let disk_bytes_per_token = self.disk_bytes(tried);
        let layout = &tried.layout;
        Plan {
            context_tokens,
            key_type,
            value_type,
            micro_batch_tokens: tried.micro_batch_tokens,
            gpu_layers: layout.gpu_layers,
            split: if layout.gpu_layers > 0 { layout.split.clone() } else { Vec::new() },
            overrides: self.overrides(layout),
            load_mode,
            repack,
            fused_attention: !self.wishes.no_fused_attention,
            devices: self.devices(tried, streamed_bytes),
            compute_source: ComputeSource::Formula { why: String::new() },
            streamed_bytes,
            fast_bytes_per_token: layout.fast_bytes,
            slow_bytes_per_token: layout.slow_bytes,
            disk_bytes_per_token,
            decisions: self.decisions(tried, &candidates[0]),
            warnings: self.warnings(streamed_bytes, disk_bytes_per_token),
        }
    }

    fn decisions(&self, tried: &Tried, wanted: &Candidate) -> Vec<Decision> {
        vec![
            self.context_decision(tried, wanted),
            self.cache_decision(tried, wanted),
            self.micro_batch_decision(tried),
            self.layers_decision(&tried.layout),
            self.loading_decision(tried),
            self.repack_decision(tried),
        ]
    }

    fn context_decision(&self, tried: &Tried, wanted: &Candidate) -> Decision {
        let tokens = tried.candidate.context_tokens;
        let trained = self.footprint.shape().context_train;
        let why = if self.wishes.context_tokens.is_some() {
            "asked for".to_owned()
        } else if tokens < wanted.context_tokens {
            format!("memory is short: {} would not fit as well", wanted.context_tokens)
        } else if u64::from(tokens) == trained {
            "all that the model was trained on".to_owned()
        } else {
            format!(
                "the cache stays small beside the weights; trained on {trained}, --ctx asks for more"
            )
        };
        debug_assert!(
            self.wishes.context_tokens.is_some()
                || tokens <= default_context(self.footprint, self.wishes.sequences)
        );
        decision("context", tokens, why)
    }

    fn cache_decision(&self, tried: &Tried, wanted: &Candidate) -> Decision {
        let Candidate { key_type, value_type, .. } = tried.candidate;
        let value = if key_type == value_type {
            key_type.to_string()
        } else {
            format!("{key_type} keys, {value_type} values")
        };
        let why = if self.wishes.key_type.is_some() && self.wishes.value_type.is_some() {
            "asked for".to_owned()
        } else if (key_type, value_type) == (wanted.key_type, wanted.value_type) {
            "exact, and it fits".to_owned()
        } else {
            format!("half the size of {}, so that the context need not be shorter", wanted.key_type)
        };
        decision("cache type", value, why)
    }

    fn micro_batch_decision(&self, tried: &Tried) -> Decision {
        let tokens = tried.micro_batch_tokens;
        let why = if self.wishes.micro_batch_tokens.is_some() {
            "asked for".to_owned()
        } else if tokens > super::MICRO_BATCH_TOKENS {
            "weights in main memory are copied to the GPU once for each: fewer read a prompt faster"
                .to_owned()
        } else if self.has_feed_forward_in_memory(&tried.layout) && tried.layout.gpu_layers > 0 {
            self.micro_batch_hindrance(tried)
        } else {
            "no weights are copied to a GPU for each: larger ones gain nothing".to_owned()
        };
        decision("micro-batch", tokens, why)
    }

    fn layers_decision(&self, layout: &Layout) -> Decision {
        let all = self.footprint.shape().blocks + 1;
        let value = format!("{} of {all}", layout.gpu_layers);
        let behind = self.has_feed_forward_in_memory(layout);
        let why = match (self.wishes.gpu_layers, layout.gpu_layers) {
            (Some(_), _) if !self.machine.gpus.is_empty() => "asked for",
            (_, 0) if self.machine.gpus.is_empty() => "there is no GPU",
            (_, 0) => "not even one layer without its feed-forward part fits on a GPU",
            (_, count) if count == all && !behind => "everything fits",
            (_, count) if count == all => {
                "what every token reads whole fits on GPUs; of the rest, what does not fit stays in \
                 main memory"
            }
            _ => "what every token reads whole does not fit for more",
        };
        decision("layers on GPUs", value, why)
    }

    fn loading_decision(&self, tried: &Tried) -> Decision {
        let (mode, _) = self.loading(tried);
        let value = match mode {
            LoadMode::Read => "read",
            LoadMode::Auto | LoadMode::Map => "mapped",
        };
        let pinned = self.wishes.load_mode.is_some_and(|mode| mode != LoadMode::Auto);
        let why = match tried.verdict {
            _ if pinned => "asked for",
            Verdict::Streamed { .. } => {
                "main memory does not hold all: the kernel keeps what it can"
            }
            Verdict::Resident { tight: true } => "memory is tight: mapped pages can be dropped",
            _ if mode == LoadMode::Read => {
                "weights in memory of our own are copied to the GPU faster, and they fit"
            }
            _ => "loads at once and shares memory with other programs that use the file",
        };
        decision("weights", value, why)
    }

    fn repack_decision(&self, tried: &Tried) -> Decision {
        let (_, repack) = self.loading(tried);
        let why = match tried.verdict {
            _ if self.wishes.repack.is_some() => "asked for",
            Verdict::Streamed { .. } => "a copy of our own could not be dropped from memory",
            Verdict::Resident { tight: true } => "memory is too tight for a copy beside the file",
            _ => "matrices laid out for this CPU compute faster, and the copy fits",
        };
        decision("repack", if repack { "yes" } else { "no" }, why)
    }

    fn warnings(&self, streamed_bytes: u64, disk_bytes_per_token: u64) -> Vec<String> {
        let mut warnings = Vec::new();
        if streamed_bytes > 0 {
            warnings.push(format!(
                "main memory is {} short: each token reads about {} from the file, which will be \
                 slow (a smaller level, more memory or a GPU helps)",
                units::bytes(streamed_bytes),
                units::bytes(disk_bytes_per_token)
            ));
        }
        if let Some(layers) = self.wishes.gpu_layers.filter(|layers| *layers > 0)
            && self.machine.gpus.is_empty()
        {
            warnings.push(format!(
                "--gpu-layers {layers}: this nfl finds no GPU, all layers run on the CPU (see \
                 README: GPU)"
            ));
        }
        warnings
    }

    fn devices(&self, tried: &Tried, streamed_bytes: u64) -> Vec<DevicePlan> {
        let layout = &tried.layout;
        let slack = self.problem(&tried.candidate, tried.micro_batch_tokens).gpu_slack();
        let row = |name: &str, description: &str, used: &Use, why: String| DevicePlan {
            name: name.to_owned(),
            description: description.to_owned(),
            capacity_bytes: 0,
            margin_bytes: 0,
            weights_bytes: used.weights_bytes,
            cache_bytes: used.cache_bytes,
            compute_bytes: used.compute_bytes,
            why,
        };
        let mut devices = Vec::new();
        for (index, gpu) in self.machine.gpus.iter().enumerate() {
            let why = self.contents(layout, Place::Gpu(index));
            let plan = row(&gpu.name, &gpu.description, &layout.gpus[index], why);
            let (capacity_bytes, margin_bytes) = (gpu.free_bytes, gpu.margin_bytes + slack);
            devices.push(DevicePlan { capacity_bytes, margin_bytes, ..plan });
        }
        let mut why = self.contents(layout, Place::Memory);
        if streamed_bytes > 0 {
            why = format!("{why}; {} more are read from the file", units::bytes(streamed_bytes));
        }
        let memory = row(CPU, "main memory", &layout.memory, why);
        devices.push(DevicePlan {
            weights_bytes: memory.weights_bytes - streamed_bytes,
            capacity_bytes: self.machine.memory.available_bytes,
            margin_bytes: self.machine.memory.margin_bytes,
            ..memory
        });
        devices
    }

    /// What lies on a device, in words.
    fn contents(&self, layout: &Layout, place: Place) -> String {
        let blocks = self.footprint.shape().blocks;
        let mut parts = Vec::new();
        let layers: Vec<u32> =
            (0..blocks).filter(|block| layout.layers[*block as usize] == place).collect();
        if !layers.is_empty() {
            parts.push(format!("attention and cache of {}", ranges(&layers, blocks)));
        }
        let is = |choose: fn(Role) -> bool| {
            let mut whole = Vec::new();
            let mut partly = Vec::new();
            for block in 0..blocks {
                let of_block = |(weight, _): &(&Weight, &Place)| {
                    weight.block == Some(block) && choose(weight.role)
                };
                let weights = self.footprint.weights().iter().zip(&layout.weights);
                let (mut here, mut all) = (0, 0);
                for (_, each) in weights.filter(of_block) {
                    all += 1;
                    here += usize::from(*each == place);
                }
                match here {
                    0 => {}
                    _ if here == all => whole.push(block),
                    _ => partly.push(block),
                }
            }
            (whole, partly)
        };
        for (name, (whole, partly)) in
            [("feed-forward", is(Role::is_dense_feed_forward)), ("experts", is(Role::is_experts))]
        {
            if !whole.is_empty() {
                parts.push(format!("{name} of {}", ranges(&whole, blocks)));
            }
            if !partly.is_empty() {
                parts.push(format!("part of the {name} of {}", ranges(&partly, blocks)));
            }
        }
        if layout.layers.last() == Some(&place) {
            parts.push("output".to_owned());
        }
        if place == Place::Memory {
            parts.push("token embedding".to_owned());
        }
        if parts.is_empty() { "nothing".to_owned() } else { parts.join(", ") }
    }

    /// More than main memory holds: the cache, or weights that must be in memory.
    pub(super) fn refuse_memory(&self, tried: &Tried) -> PlanError {
        let used = &tried.layout.memory;
        let usable = self.memory_usable(&tried.layout);
        let context = tried.candidate.context_tokens;
        let fixed = used.cache_bytes + used.compute_bytes;
        if fixed > usable {
            let kind = tried.candidate.key_type;
            let what = format!("a context of {context} tokens ({kind})");
            let advice = self.context_advice(&tried.candidate);
            let (needed, usable) = (units::bytes(fixed), units::bytes(usable));
            return PlanError::Memory { what, needed, usable, advice };
        }
        let why = match (self.wishes.lock_memory, self.wishes.load_mode) {
            (true, _) => "--mlock",
            (_, Some(LoadMode::Read)) => "--no-mmap",
            _ => "repacking",
        };
        PlanError::Memory {
            what: format!(
                "keeping all weights and a context of {context} tokens in memory ({why})"
            ),
            needed: units::bytes(used.total()),
            usable: units::bytes(usable),
            advice: format!("leave {why} out: mapped weights need not all be in memory"),
        }
    }

    /// The longest contexts that would fit.
    fn context_advice(&self, candidate: &Candidate) -> String {
        let small = (CacheType::Q8_0, CacheType::Q8_0);
        let exact = (candidate.key_type, candidate.value_type);
        let mut offers = Vec::new();
        for (key_type, value_type) in [exact, small] {
            if offers.len() == 1 && exact == small {
                break;
            }
            if let Some(tokens) = self.longest_context(candidate, key_type, value_type) {
                let kind = if key_type == value_type {
                    format!(" --kv {key_type}")
                } else {
                    String::new()
                };
                offers.push(format!("--ctx {tokens}{kind}"));
            }
        }
        if offers.is_empty() {
            return "free some memory, or choose a smaller model".to_owned();
        }
        format!("this would fit: {}", offers.join(", or "))
    }

    fn longest_context(
        &self,
        candidate: &Candidate,
        key_type: CacheType,
        value_type: CacheType,
    ) -> Option<u32> {
        let fits = |steps: u32| {
            let context_tokens = steps * CONTEXT_STEP;
            let candidate = Candidate { context_tokens, key_type, value_type };
            let tried = self.lay_out(&candidate, self.micro_batch());
            tried.is_some_and(|tried| tried.verdict != Verdict::TooLarge)
        };
        let (mut least, mut most) = (0, candidate.context_tokens / CONTEXT_STEP + 1);
        while most - least > 1 {
            let middle = least + (most - least) / 2;
            if fits(middle) { least = middle } else { most = middle }
        }
        (least > 0).then_some(least * CONTEXT_STEP)
    }

    /// Layers that were asked for and do not fit.
    pub(super) fn refuse_layers(&self, candidate: &Candidate) -> PlanError {
        let layers = self.wishes.gpu_layers.unwrap_or(0);
        let problem = self.problem(candidate, self.micro_batch());
        let fits = (0..=layers.min(problem.layers_max()))
            .rev()
            .find(|count| problem.layout(*count, false).is_some());
        let usable: u64 = self.machine.gpus.iter().map(super::Gpu::usable_bytes).sum();
        PlanError::GpuLayers {
            layers,
            context_tokens: candidate.context_tokens.into(),
            usable: units::bytes(usable),
            advice: match fits {
                Some(count) if count > 0 => {
                    format!("--gpu-layers {count} fits; without it, nfl chooses what is fastest")
                }
                _ => "leave --gpu-layers out, or ask for a smaller --ctx".to_owned(),
            },
        }
    }
}

/// Numbers of blocks as people write them: "all 48 blocks", "blocks 0–3, 7".
fn ranges(blocks: &[u32], all: u32) -> String {
    if blocks.len() == all as usize {
        return format!("all {all} blocks");
    }
    let mut runs: Vec<(u32, u32)> = Vec::new();
    for &block in blocks {
        match runs.last_mut() {
            Some((_, last)) if *last + 1 == block => *last = block,
            _ => runs.push((block, block)),
        }
    }
    let run = |(first, last): (u32, u32)| {
        if first == last { first.to_string() } else { format!("{first}–{last}") }
    };
    let list: Vec<String> = runs.into_iter().map(run).collect();
    format!("{} {}", if blocks.len() == 1 { "block" } else { "blocks" }, list.join(", "))
}
