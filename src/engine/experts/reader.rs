//! The observer that reads what the router chose, and waits for it no earlier than the computation
//! must.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::cache::{Cache, State};
use super::counters::Counters;
use super::layer::{Layer, address, router_product};
use super::layout::{Extent, Layout};
use super::memory::Memory;
use super::pool::{Done, Job, Pool};
use super::predict::Router;
use super::trial::Trial;
use crate::engine::llama::{Model, Observer, Overlay, Span, Staging, TensorView};

/// Threads that read: enough to keep a drive busy, few enough to leave the cores alone.
const THREADS: usize = 4;

/// Slices that can be on the way at a time.
const ROOMS: usize = 192;

/// Tokens of a step up to which it counts as generation: experts of the next layer are guessed.
const GUESSED_TOKENS_MAX: usize = 4;

/// A guess is read when it leads the first that is not guessed by this many deviations.
const LEAD_LEAST: f32 = 0.3;

/// Steps after which the memory that is left is looked at again.
const CHECK_STEPS: u64 = 16;

/// In the first steps the kernel may still be reading ahead what loading made it read.
const UNCACHED_STEPS: u64 = 64;

/// Nodes of the graph (about a thousand a token) between looks at the memory that is left while
/// everything is there.
const IDLE_NODES: u32 = 1 << 16;

/// What the buffers of the computation may still take at the beginning.
const UNUSED_BYTES: u64 = 256 << 20;

/// Failed reads after which the kernel gets everything back.
const FAILURES_MAX: u64 = 3;

/// The name of the tensor with the chosen experts, before the number of the block.
const CHOICE: &str = "ffn_moe_topk-";

/// Reads the experts that are chosen.
#[derive(Debug)]
pub struct ExpertReader {
    // Before the overlay: its threads must end first.
    pool: Pool,
    overlay: Arc<Overlay>,
    layers: Vec<Layer>,
    experts: Vec<Expert>,
    cache: Cache,
    memory: Memory,
    counters: Arc<Counters>,
    trial: Trial,
    /// Experts that the running layer needs.
    needed: Vec<usize>,
    /// The layer that runs.
    current: usize,
    /// One for each layer of each step.
    clock: u64,
    steps: u64,
    tokens: u64,
    step_began: Instant,
    /// Tokens of the running step.
    step_tokens: usize,
    /// The name of the node that was asked about last, while the graph is being learnt.
    last_name: String,
    used: usize,
    /// All experts in the files.
    extents: Vec<Extent>,
    fixed_bytes: u64,
    /// Room that experts never exceed, whatever memory is left.
    budget_bytes_max: u64,
    is_off: bool,
    /// Nodes that passed while it was off.
    idle_nodes: u32,
}

/// One expert's way into memory.
#[derive(Debug, Default)]
struct Expert {
    layer: usize,
    /// Parts that are still being read, as bits.
    pending: u32,
    has_failed: bool,
    /// Its pages at the ends have been locked.
    has_ends: bool,
    is_guess: bool,
}

impl ExpertReader {
    /// Takes over the experts of a model that was just loaded from these files.
    pub fn new(model: &Arc<Model>, layout: &Layout, files: &[PathBuf]) -> io::Result<Self> {
        let room_bytes = usize::try_from(layout.slice_bytes_max()).unwrap_or(usize::MAX);
        let overlay = Arc::new(Overlay::open(model, files, ROOMS, room_bytes)?);
        let pool = Pool::start(&overlay, THREADS)?;
        let mut experts = Vec::new();
        let mut layers = Vec::new();
        let mut bytes = Vec::new();
        for (index, layout) in layout.layers.iter().enumerate() {
            let layer = Layer::new(layout, experts.len(), &overlay);
            for expert in 0..layout.experts {
                experts.push(Expert { layer: index, ..Expert::default() });
                bytes.push(layer.spans(expert).map(|span| span.bytes as u64).sum());
            }
            layers.push(layer);
        }
        let reader = Self {
            pool,
            overlay,
            layers,
            experts,
            cache: Cache::new(bytes),
            memory: Memory::open(),
            counters: Arc::default(),
            trial: Trial::default(),
            needed: Vec::new(),
            current: 0,
            clock: 1,
            steps: 0,
            tokens: 0,
            step_began: Instant::now(),
            step_tokens: 0,
            last_name: String::new(),
            used: layout.experts_used,
            extents: layout.parts().map(|part| part.extent).collect(),
            fixed_bytes: layout.fixed_bytes(),
            budget_bytes_max: u64::MAX,
            is_off: false,
            idle_nodes: 0,
        };
        reader.take_over(layout);
        Ok(reader)
    }

    /// Holds no more than this many bytes of experts, whatever memory is left.
    #[must_use]
    pub fn with_budget_at_most(self, bytes: u64) -> Self {
        Self { budget_bytes_max: bytes, ..self }
    }

    /// Reads experts into the room there is, all layers alike, for as long as `limit`: a model that
    /// was just loaded has none in memory, and the first tokens would wait for each. What is not
    /// chosen goes first later.
    pub fn fill(&mut self, limit: Duration) {
        let began = Instant::now();
        self.check_memory();
        let most = self.layers.iter().map(|layer| layer.experts).max().unwrap_or(0);
        'filling: for number in 0..most {
            for layer in 0..self.layers.len() {
                let Layer { first, experts, is_foreign, .. } = self.layers[layer];
                if is_foreign || number >= experts {
                    continue;
                }
                let expert = first + number;
                if began.elapsed() > limit || self.cache.is_full_for(expert) {
                    break 'filling;
                }
                self.fetch(expert, true, false);
            }
        }
        while self.experts.iter().any(|expert| expert.pending != 0) {
            match self.pool.wait() {
                Some(done) => self.arrive(&done),
                None => break,
            }
        }
        self.counters.held_bytes.store(self.cache.used_bytes(), Ordering::Relaxed);
    }

    /// What has been done so far; stays readable while the model computes.
    pub fn counters(&self) -> Arc<Counters> {
        Arc::clone(&self.counters)
    }

    /// Takes the experts out of the kernel's hands, and stops it from reading around what is
    /// touched now and then.
    fn take_over(&self, layout: &Layout) {
        for part in layout.parts() {
            self.each_span(part.extent, &|overlay, span| overlay.without_read_ahead(span));
            self.each_span(part.extent, &|overlay, span| overlay.unmap(span));
        }
        if let Some(embedding) = layout.embedding {
            self.each_span(embedding, &|overlay, span| overlay.without_read_ahead(span));
        }
        self.uncache();
    }

    /// Locks what every token needs, as far as half of the memory and the system's limit go. Not
    /// for models of which a device has taken parts.
    #[must_use]
    pub fn with_pinned(self, layout: &Layout) -> Self {
        let budget = self.memory.spare_bytes(0).unwrap_or(0) / 2;
        let mut locked = 0;
        for extent in &layout.fixed {
            locked += extent.bytes;
            if locked > budget || !self.each_span(*extent, &|overlay, span| overlay.lock(span)) {
                break;
            }
        }
        self
    }

    /// Drops experts from the page cache: they would be in the way of what is read past it, and a
    /// control group that is full gives cached pages up too slowly.
    fn uncache(&self) {
        for extent in &self.extents {
            self.each_span(*extent, &|overlay, span| overlay.uncache(span));
        }
    }

    fn each_span(&self, extent: Extent, act: &dyn Fn(&Overlay, Span) -> io::Result<()>) -> bool {
        let Some(address) = address(&self.overlay, extent) else { return true };
        let span = Span::within(address, extent.bytes as usize);
        span.bytes == 0 || act(&self.overlay, span).is_ok()
    }

    /// The layer of a node with chosen experts, when they are ours to read.
    fn choice(&self, name: &str) -> Option<usize> {
        let block = name.strip_prefix(CHOICE)?.parse::<u32>().ok()?;
        let layer = self.layers.binary_search_by_key(&block, |layer| layer.block).ok()?;
        (!self.layers[layer].is_foreign).then_some(layer)
    }

    /// While everything is in memory, only whether there still is room for it is looked at, and
    /// seldom. Nothing is computed while a node is asked about, so memory may be given back.
    fn is_time_to_look(&mut self) -> bool {
        self.idle_nodes += 1;
        if self.has_given_up() || self.idle_nodes < IDLE_NODES {
            return false;
        }
        self.idle_nodes = 0;
        self.check_memory();
        self.is_off = self.cache.is_complete();
        !self.is_off
    }

    fn has_given_up(&self) -> bool {
        self.counters.failures.load(Ordering::Relaxed) > FAILURES_MAX
    }

    /// Whether the computation must stop behind a node, because the next one needs what is still
    /// being read.
    fn is_barrier(&self, name: &str) -> bool {
        let layer = &self.layers[self.current];
        let parts = layer.parts.iter().enumerate();
        parts
            .filter(|(_, part)| part.before.as_deref() == Some(name))
            .any(|(part, _)| self.is_pending(part))
    }

    fn is_pending(&self, part: usize) -> bool {
        self.needed.iter().any(|&expert| self.experts[expert].pending & (1 << part) != 0)
    }

    /// Learns from a product with experts where its weights are and what comes right before it.
    fn learn(&mut self, tensor: TensorView<'_>) {
        let address = tensor.input(0).and_then(|weights| weights.address());
        let layer = &mut self.layers[self.current];
        match layer.parts.iter_mut().find(|part| Some(part.address) == address) {
            Some(part) if part.before.as_deref() != Some(&self.last_name) => {
                part.before = Some(self.last_name.clone());
            }
            Some(_) => {}
            // Weights that are not where the file is mapped: on a device, or repacked.
            None => layer.is_foreign = true,
        }
    }

    /// A layer has chosen.
    fn on_choice(&mut self, layer: usize, tensor: TensorView<'_>) {
        let Some(chosen) = tensor.integers() else { return };
        let tokens = (tensor.dimensions()[1] as usize).max(1);
        while let Some(done) = self.pool.poll() {
            self.arrive(&done);
        }
        if layer <= self.current || self.steps == 0 {
            self.begin_step(tokens);
        }
        self.current = layer;
        self.clock += 1;
        self.need(layer, &chosen);
        self.cancel_wrong_guesses(layer);
        let (first, count) = (self.layers[layer].first, self.layers[layer].experts);
        let is_prompt = tokens > GUESSED_TOKENS_MAX && 2 * self.needed.len() > count;
        for index in 0..self.needed.len() {
            let expert = self.needed[index];
            debug_assert!((first..first + count).contains(&expert), "an expert of this layer");
            self.fetch(expert, true, is_prompt);
        }
        if is_prompt {
            self.fetch_ahead(layer + 1);
        } else if tokens <= GUESSED_TOKENS_MAX && self.trial.is_on() {
            self.guess(layer, tensor);
        } else {
            self.learn_router(layer, tensor);
        }
        // What no barrier is known for is waited for here.
        for part in 0..self.layers[layer].parts.len() {
            let before = self.layers[layer].parts[part].before.as_deref();
            if before.is_none() || before == Some(tensor.name()) {
                self.wait_for(part);
            }
        }
    }

    fn begin_step(&mut self, tokens: usize) {
        let elapsed = self.step_began.elapsed().as_secs_f64();
        if self.step_tokens > 0 && self.step_tokens <= GUESSED_TOKENS_MAX && !self.needed.is_empty()
        {
            self.trial.record(elapsed);
        }
        if self.step_tokens > GUESSED_TOKENS_MAX && tokens <= GUESSED_TOKENS_MAX {
            self.cache.settle();
        }
        self.step_began = Instant::now();
        self.step_tokens = tokens;
        self.steps += 1;
        self.tokens += tokens as u64;
        Counters::add(&self.counters.tokens, tokens as u64);
        if self.steps.is_power_of_two() || self.steps.is_multiple_of(CHECK_STEPS) {
            self.check_memory();
        }
    }

    /// Fits the room for experts to the memory that is left.
    fn check_memory(&mut self) {
        if self.steps <= UNCACHED_STEPS {
            self.uncache();
        }
        let held = self.cache.used_bytes();
        let Some(spare) = self.memory.spare_bytes(held) else { return };
        let mut budget = (held + spare).saturating_sub(self.fixed_bytes);
        if self.steps < 2 {
            // Buffers of the computation are reserved, but take memory only when they are used.
            budget -= UNUSED_BYTES.min(budget / 8);
        }
        self.cache.set_budget(budget.min(self.budget_bytes_max));
        while self.cache.is_over_budget() {
            let Some(victim) = self.cache.victim(self.clock) else { break };
            self.give_back(victim, &mut []);
        }
        self.counters.budget_bytes.store(self.cache.budget_bytes(), Ordering::Relaxed);
        self.counters.held_bytes.store(self.cache.used_bytes(), Ordering::Relaxed);
    }

    /// Counts the chosen experts.
    fn need(&mut self, layer: usize, chosen: &[i32]) {
        let Layer { first, experts, .. } = self.layers[layer];
        let mut uses = vec![0_u32; experts];
        for &expert in chosen {
            if let Some(uses) = usize::try_from(expert).ok().and_then(|at| uses.get_mut(at)) {
                *uses += 1;
            }
        }
        self.needed.clear();
        for (expert, uses) in uses.into_iter().enumerate().filter(|(_, uses)| *uses > 0) {
            let expert = first + expert;
            self.needed.push(expert);
            self.cache.touch(expert, uses, self.tokens, self.clock);
            Counters::add(&self.counters.needed, 1);
            match self.cache.state(expert) {
                State::Present => Counters::add(&self.counters.present, 1),
                State::Loading => {
                    Counters::add(&self.counters.guessed, 1);
                    self.pool.hurry(expert);
                }
                State::Absent => {}
            }
        }
    }

    /// Guesses for this layer that were not chosen and not begun are forgotten.
    fn cancel_wrong_guesses(&mut self, layer: usize) {
        let (experts, layers, needed) = (&self.experts, &self.layers, &self.needed);
        let is_wrong = |expert: usize| experts[expert].layer == layer && !needed.contains(&expert);
        let jobs = self.pool.cancel(is_wrong, |expert| layers[experts[expert].layer].parts.len());
        for job in jobs {
            self.experts[job.expert].pending = 0;
            self.cache.drop_expert(job.expert);
            self.overlay.leave(job.room);
        }
    }

    /// Starts to read an expert that is absent; false when there is no room for it, and the kernel
    /// must serve.
    fn fetch(&mut self, expert: usize, is_needed_now: bool, is_passing: bool) -> bool {
        if self.cache.state(expert) != State::Absent {
            return true;
        }
        let layer = &self.layers[self.experts[expert].layer];
        let number = expert - layer.first;
        let spans: Vec<Span> = layer.spans(number).collect();
        let ends: Vec<_> = layer.ends(number).collect();
        let mut rooms = Vec::new();
        while rooms.len() < spans.len() {
            match self.overlay.room() {
                Some(room) => rooms.push(room),
                None if is_needed_now => match self.pool.wait() {
                    Some(done) => self.arrive(&done),
                    None => break,
                },
                None => break,
            }
        }
        let mut has_space = rooms.len() == spans.len();
        let mut reusable = rooms;
        while has_space && self.cache.is_full_for(expert) {
            match self.cache.victim(self.clock) {
                Some(victim) => {
                    let same = self.spans_of(victim).eq(spans.iter().map(|span| span.bytes));
                    self.give_back(victim, if same { &mut reusable } else { &mut [] });
                }
                None => has_space = false,
            }
        }
        if !has_space {
            for room in reusable {
                self.overlay.leave(room);
            }
            return false;
        }
        self.cache.begin(expert, is_passing);
        let state = &mut self.experts[expert];
        state.pending = (1 << spans.len()) - 1;
        state.is_guess = !is_needed_now;
        let with_ends = !std::mem::replace(&mut state.has_ends, true);
        let slices = spans.into_iter().zip(reusable).zip(ends).enumerate();
        let jobs = slices.map(|(part, ((span, room), ends))| {
            let ends = ends.filter(|_| with_ends);
            Job { expert, part, span, room, ends }
        });
        self.pool.add(jobs, is_needed_now);
        true
    }

    fn spans_of(&self, expert: usize) -> impl Iterator<Item = usize> + '_ {
        let layer = &self.layers[self.experts[expert].layer];
        layer.spans(expert - layer.first).map(|span| span.bytes)
    }

    /// Gives an expert's memory back, or to the rooms of one that comes.
    fn give_back(&mut self, expert: usize, rooms: &mut [Staging]) {
        let layer = &self.layers[self.experts[expert].layer];
        for (part, span) in layer.spans(expert - layer.first).enumerate() {
            if self.overlay.give_back(span, rooms.get_mut(part)).is_err() {
                Counters::add(&self.counters.failures, 1);
            }
        }
        self.cache.drop_expert(expert);
    }

    /// A slice was read.
    fn arrive(&mut self, done: &Done) {
        let expert = &mut self.experts[done.expert];
        let layer = &self.layers[expert.layer];
        expert.pending &= !(1 << done.part);
        expert.has_failed |= done.result.is_err();
        let bytes = layer.span(done.expert - layer.first, done.part).bytes;
        Counters::add(&self.counters.read_bytes, bytes as u64);
        if expert.pending != 0 {
            return;
        }
        self.cache.arrive(done.expert);
        if std::mem::take(&mut expert.has_failed) {
            Counters::add(&self.counters.failures, 1);
            self.give_back(done.expert, &mut []);
        }
    }

    /// Waits until the running layer's slices of one part have come.
    fn wait_for(&mut self, part: usize) {
        if !self.is_pending(part) {
            return;
        }
        let began = Instant::now();
        while self.is_pending(part) {
            match self.pool.wait() {
                Some(done) => self.arrive(&done),
                None => break,
            }
        }
        Counters::add(&self.counters.waited_us, began.elapsed().as_micros() as u64);
    }

    /// While a prompt goes through a layer, the next one's experts come: all will be needed.
    fn fetch_ahead(&mut self, layer: usize) {
        let Some(next) = self.layers.get(layer).filter(|next| !next.is_foreign) else { return };
        for expert in next.first..next.first + next.experts {
            self.cache.expect(expert, self.clock + 1);
            if !self.fetch(expert, false, true) {
                break;
            }
        }
    }

    fn learn_router(&mut self, layer: usize, tensor: TensorView<'_>) -> Option<Vec<f32>> {
        let product = router_product(tensor)?;
        if self.layers[layer].router.is_none() {
            let weights = product.input(0)?;
            let router = Router::new(weights.values()?, weights.dimensions()[0] as usize)?;
            self.layers[layer].router = Some(router);
        }
        product.input(1)?.values()
    }

    /// Begins to read what the next layer will probably choose.
    fn guess(&mut self, layer: usize, tensor: TensorView<'_>) {
        let Some(hidden) = self.learn_router(layer, tensor) else { return };
        let Some(next) = self.layers.get(layer + 1).filter(|next| !next.is_foreign) else {
            return;
        };
        let (Some(router), first) = (&next.router, next.first) else { return };
        let width = hidden.len() / self.step_tokens.max(1);
        let states = hidden.chunks_exact(width.max(1));
        let guesses: Vec<_> = states.flat_map(|state| router.guess(state, self.used)).collect();
        for guess in guesses.into_iter().filter(|guess| guess.lead >= LEAD_LEAST) {
            let expert = first + guess.expert;
            self.cache.expect(expert, self.clock + 1);
            if self.cache.state(expert) == State::Absent && self.fetch(expert, false, false) {
                Counters::add(&self.counters.guesses, 1);
            }
        }
    }
}

impl Observer for ExpertReader {
    fn wants(&mut self, tensor: &TensorView<'_>) -> bool {
        if self.is_off && !self.is_time_to_look() {
            return false;
        }
        let name = tensor.name();
        if tensor.is_expert_product() {
            self.learn(*tensor);
        }
        let wanted = self.choice(name).is_some() || self.is_barrier(name);
        self.last_name.clear();
        self.last_name.push_str(name);
        wanted
    }

    fn observe(&mut self, tensor: &TensorView<'_>) -> bool {
        match self.choice(tensor.name()) {
            Some(layer) => self.on_choice(layer, *tensor),
            None => {
                for part in 0..self.layers[self.current].parts.len() {
                    let before = self.layers[self.current].parts[part].before.as_deref();
                    if before == Some(tensor.name()) {
                        self.wait_for(part);
                    }
                }
            }
        }
        // When everything is there, or nothing can be read, nobody need be asked any more.
        self.is_off = self.cache.is_complete() || self.has_given_up();
        true
    }

    fn as_any(&mut self) -> &mut dyn std::any::Any {
        self
    }
}
