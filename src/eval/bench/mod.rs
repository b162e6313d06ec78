//! How fast a model reads and writes, through its worker as every user of it goes.
//!
//! Counted as llama.cpp's `llama-bench` counts (`tools/llama-bench/llama-bench.cpp`): random tokens,
//! one warm-up, a fresh context each round; *prefill* is N tokens computed in batches up to the
//! logits of the last, *decode* is N tokens computed one after the other. It leaves out sampling and
//! text; here both are inside, with the way through the worker's pipes: prefill is timed from the
//! request to the first token's arrival, decode from that arrival to the end, N computations later,
//! each with its greedy choice, its text and its message.
//!
//! Sides that are compared are loaded at the same time and take turns, so that a machine that gets
//! warm or busy meets them alike.

mod figures;
mod tokens;

use std::ops::ControlFlow;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use nfl_models::Hint;
use thiserror::Error;

use crate::engine::frames::{Done, Event, Generation, LoadInfo, Prompt, Reason};
use crate::engine::options::LoadRequest;
use crate::engine::process::{CancelHandle, Engine, EngineError, OnProgress};
use tokens::Tokens;

pub use figures::{Figures, Ratio};

/// Between measurements of two workers: the threads of the one that just computed go on spinning for
/// some milliseconds.
const PAUSE: Duration = Duration::from_millis(50);

/// What is measured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Workload {
    /// Tokens that are read at once; 0 leaves reading out.
    pub prompt_tokens: u32,
    /// Tokens that are written one after the other; 0 leaves writing out.
    pub generated_tokens: u32,
    /// Tokens that are in the context before, one test each.
    pub depths: Vec<u32>,
    /// Rounds.
    pub repeats: u32,
}

impl Workload {
    /// The context that the deepest test needs.
    pub fn context_tokens(&self) -> u32 {
        let deepest = self.depths.iter().copied().max().unwrap_or(0);
        // Writing begins after one token of prompt, and computes the last token too.
        let longest = self.prompt_tokens.max(self.generated_tokens.saturating_add(1));
        deepest.saturating_add(longest).saturating_add(1)
    }

    /// Rounds of all tests of one side, warm-up included.
    pub fn steps(&self) -> u64 {
        self.depths.len() as u64 * u64::from(self.repeats) + 1
    }
}

/// What came of one test of one side.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    /// Tokens that were in the context before.
    pub depth: u32,
    /// Tokens a second that were read; None when reading was left out.
    pub prefill: Option<Figures>,
    /// Tokens a second that were written; None when writing was left out.
    pub decode: Option<Figures>,
}

/// Why there are no figures.
#[derive(Debug, Error)]
pub enum BenchError {
    /// The engine failed.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// It was stopped.
    #[error("the measurement was stopped")]
    Stopped,
    /// A reply of another length than was asked for would be timed wrongly.
    #[error("{generated} tokens were written instead of {asked}: {reason:?}")]
    Short {
        /// Tokens that were asked for.
        asked: u32,
        /// Tokens that came.
        generated: u32,
        /// Why no more came.
        reason: Reason,
    },
    /// The context does not go on where it was.
    #[error("a context of {depth} tokens was asked for, the model kept {kept}")]
    Depth {
        /// Tokens that should have been in the context.
        depth: u32,
        /// Tokens that were.
        kept: u32,
    },
}

impl Hint for BenchError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::Engine(error) => error.hint(),
            Self::Depth { .. } => {
                Some("such a model forgets what it has read: measure it at depth 0".to_owned())
            }
            Self::Stopped | Self::Short { .. } => None,
        }
    }
}

/// A model in its worker, to be measured.
#[derive(Debug)]
pub struct Side {
    engine: Engine,
    tokens: Tokens,
}

impl Side {
    /// Starts `program` as a worker with the model.
    pub fn start(
        program: &Path,
        request: &LoadRequest,
        on_progress: OnProgress<'_>,
    ) -> Result<Self, EngineError> {
        let engine = Engine::start(program, request, on_progress)?;
        let tokens = Tokens::new(engine.info().vocabulary_tokens);
        Ok(Self { engine, tokens })
    }

    /// What was loaded.
    pub fn info(&self) -> &LoadInfo {
        self.engine.info()
    }

    /// Stops what runs, from any thread.
    pub fn cancel_handle(&self) -> CancelHandle {
        self.engine.cancel_handle()
    }

    /// As `llama-bench` does: one prompt, one token.
    fn warm_up(&mut self, workload: &Workload) -> Result<(), BenchError> {
        if workload.prompt_tokens > 0 {
            self.prefill(&[], workload.prompt_tokens)?;
        }
        if workload.generated_tokens > 0 {
            self.decode(&[], 1)?;
        }
        Ok(())
    }

    /// One round: tokens a second of reading and of writing.
    fn round(
        &mut self,
        workload: &Workload,
        depth: u32,
    ) -> Result<(Option<f64>, Option<f64>), BenchError> {
        let before = self.tokens.fresh(depth);
        if depth > 0 {
            self.generate(before.clone(), 0, 1)?;
        }
        let (prompt, generated) = (workload.prompt_tokens, workload.generated_tokens);
        let prefill = if prompt > 0 { Some(self.prefill(&before, prompt)?) } else { None };
        let decode = if generated > 0 { Some(self.decode(&before, generated)?) } else { None };
        Ok((prefill, decode))
    }

    fn prefill(&mut self, before: &[i32], count: u32) -> Result<f64, BenchError> {
        let prompt = [before, &self.tokens.fresh(count)].concat();
        let (first_token, _) = self.generate(prompt, before.len() as u32, 1)?;
        Ok(f64::from(count) / first_token.as_secs_f64())
    }

    fn decode(&mut self, before: &[i32], count: u32) -> Result<f64, BenchError> {
        let prompt = [before, &self.tokens.fresh(1)].concat();
        let (_, rest) = self.generate(prompt, before.len() as u32, count + 1)?;
        Ok(f64::from(count) / rest.as_secs_f64())
    }

    /// Times from the request to the first token, and from there to the end.
    fn generate(
        &mut self,
        prompt: Vec<i32>,
        depth: u32,
        count: u32,
    ) -> Result<(Duration, Duration), BenchError> {
        let request =
            Generation { ignore_end: true, ..Generation::greedy(Prompt::Tokens(prompt), count) };
        let started = Instant::now();
        let mut first = None;
        let done = self.engine.generate(&request, &mut |event| {
            if matches!(event, Event::Token { id: Some(_), .. }) {
                first.get_or_insert_with(Instant::now);
            }
            ControlFlow::Continue(())
        })?;
        let ended = Instant::now();
        check(&done, depth, count)?;
        let first = first.unwrap_or(ended);
        Ok((first - started, ended - first))
    }
}

/// Whether as much was computed as is timed.
fn check(done: &Done, depth: u32, asked: u32) -> Result<(), BenchError> {
    if done.reason == Reason::Cancelled {
        return Err(BenchError::Stopped);
    }
    if done.generated_tokens != asked {
        let (generated, reason) = (done.generated_tokens, done.reason);
        return Err(BenchError::Short { asked, generated, reason });
    }
    if done.cached_tokens != depth {
        return Err(BenchError::Depth { depth, kept: done.cached_tokens });
    }
    Ok(())
}

/// Measures the sides in turns; the outcomes are by side and by depth. `step` is called before each
/// round and says whether to go on.
pub fn measure(
    sides: &mut [Side],
    workload: &Workload,
    step: &mut dyn FnMut() -> ControlFlow<()>,
) -> Result<Vec<Vec<Outcome>>, BenchError> {
    let mut turn = |side: &mut Side, depth: Option<u32>| {
        if step().is_break() {
            return Err(BenchError::Stopped);
        }
        match depth {
            Some(depth) => side.round(workload, depth),
            None => side.warm_up(workload).map(|()| (None, None)),
        }
    };
    for side in &mut *sides {
        turn(side, None)?;
    }
    let mut outcomes = vec![Vec::new(); sides.len()];
    for &depth in &workload.depths {
        let mut samples = vec![(Vec::new(), Vec::new()); sides.len()];
        for round in 0..workload.repeats {
            for place in order(sides.len(), round) {
                if sides.len() > 1 {
                    thread::sleep(PAUSE);
                }
                let (prefill, decode) = turn(&mut sides[place], Some(depth))?;
                samples[place].0.extend(prefill);
                samples[place].1.extend(decode);
            }
        }
        for (outcome, (prefill, decode)) in outcomes.iter_mut().zip(samples) {
            let (prefill, decode) = (Figures::new(prefill), Figures::new(decode));
            outcome.push(Outcome { depth, prefill, decode });
        }
    }
    Ok(outcomes)
}

/// Who goes first changes from round to round.
fn order(sides: usize, round: u32) -> impl Iterator<Item = usize> {
    let backwards = round % 2 == 1;
    (0..sides).map(move |place| if backwards { sides - 1 - place } else { place })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sides_take_turns() {
        let orders = |round| order(3, round).collect::<Vec<_>>();
        assert_eq!((orders(0), orders(1)), (vec![0, 1, 2], vec![2, 1, 0]));
    }

    #[test]
    fn the_context_has_room_for_the_deepest_test() {
        let workload = |prompt_tokens, generated_tokens, depths: &[u32]| Workload {
            prompt_tokens,
            generated_tokens,
            depths: depths.to_vec(),
            repeats: 1,
        };
        assert_eq!(workload(512, 128, &[0, 1024]).context_tokens(), 1024 + 512 + 1);
        assert_eq!(workload(0, 128, &[0]).context_tokens(), 130);
    }

    #[test]
    fn what_was_not_computed_is_not_timed() {
        let done = Done {
            reason: Reason::Length,
            cached_tokens: 8,
            generated_tokens: 4,
            ..Done::cancelled()
        };
        assert!(check(&done, 8, 4).is_ok());
        assert!(matches!(check(&done, 0, 4), Err(BenchError::Depth { kept: 8, .. })));
        assert!(matches!(check(&done, 8, 5), Err(BenchError::Short { generated: 4, .. })));
        let cancelled = Done { reason: Reason::Cancelled, ..done };
        assert!(matches!(check(&cancelled, 8, 4), Err(BenchError::Stopped)));
    }
}
