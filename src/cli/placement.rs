//! Placement as people ask for it: the flags of every command that loads a model, and the plan that follows.

use std::path::Path;

use clap::Args;

use super::failure::Failure;
use crate::chat::carried;
use crate::engine::options::{CacheType, ExpertReading, LoadMode, LoadRequest, TensorOverride};
use crate::engine::plan::{FileLoad, Guessers, Planned, Wishes, this_machine};
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
pub(super) struct CacheTypes {
    pub(super) key: CacheType,
    pub(super) value: CacheType,
}

pub(super) fn cache_types(text: &str) -> Result<CacheTypes, String> {
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

impl PlacementArguments {
    /// What a stored model carries, where nothing else was asked for. What the planner decides better for each machine
    /// (layers on GPUs, threads, batches) is left to it.
    pub(super) fn complete(&mut self, parameters: &Parameters) {
        self.context = self.context.or(carried::context_tokens(parameters));
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

    /// What a worker is asked to load. What guesses is planned beside it.
    pub(super) fn request(
        &self,
        file: &Path,
        guessers: Guessers<'_>,
        program: &Path,
    ) -> Result<(LoadRequest, Option<Planned>), Failure> {
        let load = FileLoad { guessers, ..self.load(file) };
        Ok(load.request(program, &this_machine(program))?)
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
        let load = FileLoad { wishes, ..self.load(file) };
        Ok(load.request(program, &this_machine(program))?)
    }

    /// The same for a model that reads texts and writes none.
    pub(super) fn request_reader(
        &self,
        file: &Path,
        program: &Path,
    ) -> Result<(LoadRequest, Option<Planned>), Failure> {
        Ok(self.load(file).request_reader(&this_machine(program))?)
    }

    fn load<'a>(&self, file: &'a Path) -> FileLoad<'a> {
        FileLoad {
            wishes: self.wishes(),
            threads: self.threads,
            expert_reading: self.experts_from_disk,
            ..FileLoad::new(file)
        }
    }
}
