//! Loading what is waited for: one model at a time, each when there is room for it.
//!
//! One at a time, because two would compete for one disk, and what each has taken of memory could not be told apart. No
//! lock is held while machines are looked at, plans are made and models are loaded.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nfl_models::Footprint;
use nfl_models::gguf::Gguf;

use super::error::Refusal;
use super::memory::{Holding, emptied, fits};
use super::state::{Model, State};
use super::wanted::{Room, Wanted, Way};
use super::{Shared, saved};
use crate::chat::responder::{ChatError, Responder};
use crate::engine::options::{LoadRequest, QUEUE_MAX, Speculation};
use crate::engine::plan::{
    DevicePlan, FileLoad, Guessers, Machine, PlanError, Planned, Wishes, default_context,
};
use crate::store::{Kind, is_for_go};

/// Conversations side by side that are tried when nobody says how many.
const SEQUENCES: [u32; 2] = [4, 2];

/// How long a driver may take to give back the memory of a model that is gone.
const RETURN_TIME: Duration = Duration::from_secs(5);
const RETURN_PAUSE: Duration = Duration::from_millis(200);

/// Why nothing was loaded.
enum Stop {
    /// It cannot be.
    Refused(Refusal),
    /// Nobody waits for it any more.
    Abandoned,
}

/// A load that was planned.
struct Prepared {
    request: LoadRequest,
    holding: Holding,
}

impl Shared {
    /// Loads what is waited for until nobody waits: the work of one thread.
    pub(super) fn load_all(self: &Arc<Self>) {
        let mut state = self.lock();
        loop {
            self.settle(&mut state);
            let Some(wanted) = state.first() else {
                state.loads = false;
                return;
            };
            drop(state);
            let outcome = match self.recent_failure(&wanted.way) {
                Some(refusal) => Err(Stop::Refused(refusal)),
                None => self.load(&wanted),
            };
            state = self.lock();
            state.stop_draining();
            match outcome {
                Ok(model) => state.add(model, self.options.keep_alive, Instant::now()),
                Err(Stop::Refused(refusal)) => state.refuse(Some(&wanted.way), &refusal),
                Err(Stop::Abandoned) => {}
            }
            state.serve();
            self.changed.notify_all();
        }
    }

    fn recent_failure(&self, way: &Way) -> Option<Refusal> {
        self.lock().recent_failure(way, Instant::now())
    }

    fn load(self: &Arc<Self>, wanted: &Arc<Wanted>) -> Result<Model, Stop> {
        let prepared = self.make_room(wanted)?;
        let responder = self.start(wanted, &prepared.request);
        let responder = responder.inspect_err(|stop| {
            if let Stop::Refused(refusal @ (Refusal::Load(_) | Refusal::Stalled(_))) = stop {
                self.lock().note_failure(&wanted.way, refusal, Instant::now());
            }
        })?;
        let info = responder.info();
        let room = Room {
            context_tokens: info.context_tokens.max(info.embedding_tokens),
            unasked_tokens: unasked_tokens(wanted),
            sequences: prepared.request.context.sequences,
        };
        let holding = prepared.holding.loaded(info);
        let (way, held) = (wanted.way.clone(), Arc::clone(wanted));
        Ok(Model { way, room, holding, responder, held })
    }

    /// Waits until there is room for a model, and sees to it that there will be.
    fn make_room(self: &Arc<Self>, wanted: &Wanted) -> Result<Prepared, Stop> {
        let models_max = self.options.models_max.unwrap_or(usize::MAX);
        let mut prepared: Option<Prepared> = None;
        // Since when those are gone that had to go.
        let mut since = None;
        loop {
            let machine = self.emptied(wanted)?;
            let fits = |planned: &Prepared| fits(&machine, [].iter(), &planned.holding);
            let is_returning = since.is_some_and(|since: Instant| since.elapsed() < RETURN_TIME);
            let planned = match prepared.take() {
                Some(planned) if fits(&planned) => planned,
                Some(planned) if is_returning => {
                    // A driver may give memory back a little later.
                    prepared = Some(planned);
                    drop(self.wait_for(self.lock(), RETURN_PAUSE));
                    continue;
                }
                _ => prepare(&*self.loader, wanted, &machine, &self.options)?,
            };
            let mut state = self.lock();
            let mut was_free = true;
            while !state.make_way(&machine, &wanted.way, &planned.holding, models_max) {
                was_free = false;
                self.settle(&mut state);
                state = self.wait(state);
                check(&state, wanted)?;
            }
            drop(state);
            if was_free {
                return Ok(planned);
            }
            // What the machine has in truth is seen now.
            since = Some(Instant::now());
            prepared = Some(planned);
        }
    }

    /// The machine as it would be with nothing loaded.
    fn emptied(&self, wanted: &Wanted) -> Result<Machine, Stop> {
        let mut state = self.lock();
        loop {
            check(&state, wanted)?;
            if !state.ending.is_empty() {
                state = self.wait(state);
                continue;
            }
            let changes = state.changes;
            drop(state);
            let machine = self.loader.machine();
            state = self.lock();
            // What came or went meanwhile is in the numbers or is not.
            if state.changes == changes {
                return Ok(emptied(&machine, state.holdings()));
            }
        }
    }

    /// Starts the model, watching that it moves and that somebody waits for it.
    fn start(&self, wanted: &Wanted, request: &LoadRequest) -> Result<Responder, Stop> {
        let resolved = &wanted.held.resolved;
        let patience = self.options.load_timeout;
        let (mut share, mut since) = (0.0, Instant::now());
        let mut stop = None;
        let loaded = self.loader.load(resolved, request, &mut |now| {
            if now > share {
                (share, since) = (now, Instant::now());
            }
            if patience.is_some_and(|patience| since.elapsed() > patience) {
                stop = Some(Stop::Refused(Refusal::Stalled(since.elapsed())));
            } else if let Err(why) = check(&self.lock(), wanted) {
                stop = Some(why);
            }
            if stop.is_some() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        let refused = |error: ChatError| Stop::Refused(Refusal::Load(Arc::new(error)));
        let mut responder = match (loaded, stop) {
            (Ok(responder), _) => responder,
            (Err(_), Some(stop)) => return Err(stop),
            (Err(error), None) => return Err(refused(error)),
        };
        // Ollama's templates are written for Go: the file's own is used in their place.
        let template = resolved.template.as_deref().filter(|template| !is_for_go(template));
        if let Some(template) = template {
            responder.set_template(template).map_err(refused)?;
        }
        Ok(responder)
    }
}

/// Whether the model is still waited for.
fn check(state: &State, wanted: &Wanted) -> Result<(), Stop> {
    if state.is_closed {
        return Err(Stop::Refused(Refusal::Closed));
    }
    if state.is_wanted(&wanted.way) { Ok(()) } else { Err(Stop::Abandoned) }
}

/// Plans a load on an empty machine.
fn prepare(
    loader: &dyn super::Loader,
    wanted: &Wanted,
    machine: &Machine,
    options: &super::PoolOptions,
) -> Result<Prepared, Stop> {
    let refused = |error: PlanError| Stop::Refused(Refusal::Plan(error));
    let resolved = &wanted.held.resolved;
    let guesses = matches!(options.speculation, Speculation::Auto | Speculation::Mtp);
    let load = |wishes: Wishes| FileLoad {
        guessers: Guessers { draft: None, prediction: guesses && !wanted.way.reads },
        wishes,
        threads: wanted.way.threads,
        ..FileLoad::new(&resolved.model)
    };
    let reads = wanted.way.reads;
    let asked = if wanted.way.wishes.sequences > 0 {
        Some(wanted.way.wishes.sequences)
    } else {
        options.sequences
    };
    let wishes = Wishes { sequences: asked.unwrap_or(1), ..wanted.way.wishes.clone() };
    let alone = loader.prepare(&load(wishes), reads, machine).map_err(refused)?;
    let (mut request, planned) = match (&alone.1, asked) {
        (Some(planned), None) if !reads => {
            let side_by_side = |sequences: u32| {
                let context_tokens = Some(planned.plan.context_tokens);
                let wishes = Wishes { context_tokens, sequences, ..wanted.way.wishes.clone() };
                let (request, more) = loader.prepare(&load(wishes), reads, machine).ok()?;
                is_as_good(more.as_ref()?, planned).then_some((request, more))
            };
            SEQUENCES.into_iter().find_map(side_by_side).unwrap_or(alone)
        }
        _ => alone,
    };
    request.context.queue_max = options.queue_max.clamp(1, QUEUE_MAX);
    request.readable.clone_from(&resolved.adapters);
    let states = options.states.as_ref().filter(|_| !reads);
    request.states = states.map(|states| saved::of_model(states, &wanted.way.identity));
    let holding = planned.as_ref().map_or_else(
        || Holding::files(file_bytes(wanted)),
        |planned| Holding::planned(planned, machine),
    );
    Ok(Prepared { request, holding })
}

/// Whether a plan for several conversations takes nothing from one of them, and leaves half of the memory to other models.
fn is_as_good(several: &Planned, one: &Planned) -> bool {
    let (several, one) = (&several.plan, &one.plan);
    let is_small = |device: &DevicePlan| {
        device.used_bytes() <= device.capacity_bytes.saturating_sub(device.margin_bytes) / 2
    };
    several.key_type == one.key_type
        && several.value_type == one.value_type
        && several.gpu_layers == one.gpu_layers
        && several.streamed_bytes <= one.streamed_bytes
        && several.devices.iter().all(is_small)
}

/// The context that a model would have that nobody asks for one.
fn unasked_tokens(wanted: &Wanted) -> u32 {
    if wanted.way.wishes.context_tokens.is_none() || wanted.way.reads {
        return 0;
    }
    let gguf = Gguf::open(&wanted.held.resolved.model).ok();
    let footprint = gguf.and_then(|gguf| Footprint::of(&gguf).ok());
    footprint.map_or(0, |footprint| default_context(&footprint, 1))
}

fn file_bytes(wanted: &Wanted) -> u64 {
    let resolved = &wanted.held.resolved;
    match &resolved.manifest {
        Some(manifest) => manifest.layers_of(Kind::Model).map(|layer| layer.bytes).sum(),
        None => std::fs::metadata(&resolved.model).map_or(0, |metadata| metadata.len()),
    }
}
