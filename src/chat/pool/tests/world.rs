//! A machine and models that are played: of a model nothing exists but its size.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use super::super::*;
use crate::engine::embedding::{EmbeddingRequest, Embeddings};
use crate::engine::frames::{self, Done, Failure, Generation, LoadInfo, MemoryUse, Reason, Status};
use crate::engine::llama::Logprobs;
use crate::engine::options::{CPU, CacheType, LoadMode, Sampling};
use crate::engine::plan::{ComputeSource, DevicePlan, Plan};
use crate::engine::process::{Death, EngineError};
use crate::engine::runner::Runner;

pub(super) const GIB: u64 = 1 << 30;

/// Main memory of the machine that is played; one part in twenty of it stays free.
pub(super) const MEMORY_BYTES: u64 = 100 * GIB;

/// Loads models of which nothing exists but their size: `/NAME-GIB.gguf`.
#[derive(Debug, Clone, Default)]
pub(super) struct World(pub(super) Arc<Counts>);

#[derive(Debug, Default)]
pub(super) struct Counts {
    pub(super) taken_bytes: AtomicU64,
    pub(super) loads: AtomicU32,
    /// Loads wait while it is set.
    pub(super) is_held: AtomicBool,
    /// What the next loads fail with.
    pub(super) fails: AtomicBool,
    /// By name, the latest one: ends it from outside.
    pub(super) lives: Mutex<BTreeMap<String, Arc<Life>>>,
}

/// A model that is played.
#[derive(Debug)]
struct Player {
    info: LoadInfo,
    busy: AtomicU32,
    life: Arc<Life>,
}

/// The process that a model is played in: its memory is free when it is dead.
#[derive(Debug)]
pub(super) struct Life {
    world: World,
    bytes: u64,
    is_over: AtomicBool,
}

impl Life {
    pub(super) fn end(&self) {
        if !self.is_over.swap(true, SeqCst) {
            self.world.0.taken_bytes.fetch_sub(self.bytes, SeqCst);
        }
    }
}

fn size(path: &std::path::Path) -> u64 {
    let stem = path.file_stem().unwrap().to_str().unwrap();
    stem.rsplit_once('-').unwrap().1.parse::<u64>().unwrap() * GIB
}

impl Loader for World {
    fn load(
        &self,
        resolved: &Resolved,
        request: &LoadRequest,
        on_progress: OnProgress<'_>,
    ) -> Result<Responder, ChatError> {
        self.0.loads.fetch_add(1, SeqCst);
        loop {
            if on_progress(0.5).is_break() {
                return Err(ChatError::Engine(EngineError::Cancelled));
            }
            if !self.0.is_held.load(SeqCst) {
                break;
            }
            thread::sleep(Duration::from_millis(1));
        }
        if self.0.fails.load(SeqCst) {
            let failure = Failure::Load("it is broken".to_owned());
            return Err(ChatError::Engine(EngineError::Failed(failure)));
        }
        let bytes = size(&resolved.model);
        let taken = self.0.taken_bytes.fetch_add(bytes, SeqCst) + bytes;
        assert!(taken <= MEMORY_BYTES, "{} GiB are taken", taken / GIB);
        let memory = MemoryUse { anonymous_bytes: Some(bytes), ..MemoryUse::default() };
        let context_tokens = request.context.context_tokens.unwrap_or(4096);
        let info = LoadInfo { context_tokens, memory, ..LoadInfo::default() };
        let life = Life { world: self.clone(), bytes, is_over: AtomicBool::new(false) };
        let life = Arc::new(life);
        let name = resolved.model.display().to_string();
        self.0.lives.lock().unwrap().insert(name, Arc::clone(&life));
        let player = Player { info, busy: AtomicU32::new(0), life };
        Ok(Responder::with(Box::new(player), None, Sampling::default()))
    }

    fn machine(&self) -> Machine {
        let available_bytes = MEMORY_BYTES - self.0.taken_bytes.load(SeqCst);
        Machine { gpus: Vec::new(), memory: MainMemory { available_bytes, margin_bytes: 0 } }
    }

    fn prepare(
        &self,
        load: &FileLoad<'_>,
        reads: bool,
        machine: &Machine,
    ) -> Result<(LoadRequest, Option<Planned>), PlanError> {
        let bytes = size(load.file);
        if bytes > machine.memory.usable_bytes() {
            return Err(PlanError::Memory {
                what: "the model".to_owned(),
                needed: format!("{} GiB", bytes / GIB),
                usable: format!("{} GiB", machine.memory.usable_bytes() / GIB),
                advice: "take another".to_owned(),
            });
        }
        let request = LoadRequest { embeddings_only: reads, ..load.unplanned() };
        let mut plan = plan(bytes, machine);
        plan.context_tokens = load.wishes.context_tokens.unwrap_or(plan.context_tokens);
        Ok((request, Some(Planned { plan, tuned: None, draft: None })))
    }
}

fn plan(bytes: u64, machine: &Machine) -> Plan {
    let memory = DevicePlan {
        name: CPU.to_owned(),
        description: String::new(),
        capacity_bytes: machine.memory.available_bytes,
        margin_bytes: machine.memory.margin_bytes,
        weights_bytes: bytes,
        cache_bytes: 0,
        compute_bytes: 0,
        why: String::new(),
    };
    Plan {
        context_tokens: 4096,
        key_type: CacheType::F16,
        value_type: CacheType::F16,
        micro_batch_tokens: 512,
        gpu_layers: 0,
        split: Vec::new(),
        overrides: Vec::new(),
        load_mode: LoadMode::Auto,
        repack: true,
        fused_attention: true,
        devices: vec![memory],
        compute_source: ComputeSource::Formula { why: String::new() },
        streamed_bytes: 0,
        fast_bytes_per_token: 0,
        slow_bytes_per_token: 0,
        disk_bytes_per_token: 0,
        decisions: Vec::new(),
        warnings: Vec::new(),
    }
}

impl Player {
    fn dead() -> EngineError {
        EngineError::WorkerDied {
            death: Death { signal: Some(9), status: None },
            words: Vec::new(),
        }
    }
}

impl Runner for Player {
    fn info(&self) -> &LoadInfo {
        &self.info
    }

    fn is_alive(&self) -> bool {
        !self.life.is_over.load(SeqCst)
    }

    /// Says as many tokens as are asked for, one a millisecond.
    fn generate(
        &self,
        generation: &Generation,
        cancel: &Cancel,
        on_event: &mut dyn FnMut(frames::Event) -> ControlFlow<()>,
    ) -> Result<Done, EngineError> {
        self.busy.fetch_add(1, SeqCst);
        let mut reason = Reason::Length;
        for _ in 0..generation.tokens_max.unwrap_or(u32::MAX) {
            if !self.is_alive() {
                return Err(Self::dead());
            }
            let text = "a".to_owned();
            let token = frames::Event::Token { id: None, text, logprobs: None };
            if cancel.is_requested() || on_event(token).is_break() {
                reason = Reason::Cancelled;
                break;
            }
            thread::sleep(Duration::from_millis(1));
        }
        self.busy.fetch_sub(1, SeqCst);
        Ok(Done { reason, ..Done::cancelled() })
    }

    fn embed(&self, _: EmbeddingRequest, _: &Cancel) -> Result<Embeddings, EngineError> {
        Err(EngineError::Failed(Failure::NotLoaded))
    }

    fn tokenize(&self, _: &str, _: bool, _: bool) -> Result<Vec<i32>, EngineError> {
        Err(EngineError::Failed(Failure::NotLoaded))
    }

    fn detokenize(&self, _: &[i32], _: bool) -> Result<Vec<u8>, EngineError> {
        Err(EngineError::Failed(Failure::NotLoaded))
    }

    fn score(&self, _: &[i32], _: usize) -> Result<Vec<f64>, EngineError> {
        Err(EngineError::Failed(Failure::NotLoaded))
    }

    fn logprobs(&self, _: &[i32], _: usize, _: u32) -> Result<Vec<Logprobs>, EngineError> {
        Err(EngineError::Failed(Failure::NotLoaded))
    }

    fn status(&self) -> Result<Status, EngineError> {
        Ok(Status::default())
    }

    fn memory(&self) -> Result<MemoryUse, EngineError> {
        Ok(self.info.memory)
    }

    fn restart(&mut self) -> Result<(), EngineError> {
        Err(Self::dead())
    }

    fn unload(self: Box<Self>) -> Result<(), EngineError> {
        if self.is_alive() {
            assert_eq!(self.busy.load(SeqCst), 0, "a busy model was unloaded");
        }
        Ok(())
    }

    fn kill(&self) {
        self.life.end();
    }
}

impl Drop for Player {
    fn drop(&mut self) {
        self.life.end();
    }
}
