//! How fast a model reads and writes, through its worker as every user of it goes.
//!
//! Counted as llama.cpp's `llama-bench` counts (`tools/llama-bench/llama-bench.cpp`): random tokens,
//! one warm-up, a fresh context each round; *prefill* is N tokens computed in batches up to the
//! logits of the last, *decode* is N tokens computed one after the other. It leaves out sampling and
//! text; here both are inside, with the way through the worker's pipes: prefill is timed from the
//! request to the first token's arrival, decode from that arrival to the end, N computations later,
//! each with its greedy choice, its text and its message.
//!
//! Several sequences at once are asked for at once and share the worker's batches, as those of
//! several users do; their speed is that of all together.
//!
//! Sides that are compared are loaded at the same time and take turns, so that a machine that gets
//! warm or busy meets them alike.

mod figures;
mod side;
mod tokens;

use std::ops::ControlFlow;
use std::thread;
use std::time::Duration;

use nfl_models::Hint;
use thiserror::Error;

use crate::engine::frames::Reason;
use crate::engine::process::EngineError;

pub use figures::{Figures, Ratio};
pub use side::Side;

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
    /// Sequences that are computed at once, one test each.
    pub batches: Vec<u32>,
    /// Rounds.
    pub repeats: u32,
}

impl Workload {
    /// The context that a sequence of the deepest test needs.
    pub fn context_tokens(&self) -> u32 {
        let deepest = self.depths.iter().copied().max().unwrap_or(0);
        // Writing begins after one token of prompt, and computes the last token too.
        let longest = self.prompt_tokens.max(self.generated_tokens.saturating_add(1));
        deepest.saturating_add(longest).saturating_add(1)
    }

    /// The sequences that the widest test needs.
    pub fn sequences(&self) -> u32 {
        self.batches.iter().copied().max().unwrap_or(1)
    }

    /// Rounds of all tests of one side, warm-up included.
    pub fn steps(&self) -> u64 {
        self.tests().count() as u64 * u64::from(self.repeats) + 1
    }

    /// Depth and sequences of each test.
    fn tests(&self) -> impl Iterator<Item = Test> {
        let batches = &self.batches;
        self.depths
            .iter()
            .flat_map(move |&depth| batches.iter().map(move |&batch| Test { depth, batch }))
    }
}

/// One test of a workload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Test {
    depth: u32,
    batch: u32,
}

/// What came of one test of one side.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    /// Tokens that were in the context of each sequence before.
    pub depth: u32,
    /// Sequences at once; speeds are of all together.
    pub batch: u32,
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

/// Measures the sides in turns; the outcomes are by side and by test. `step` is called before each
/// round and says whether to go on.
pub fn measure(
    sides: &mut [Side],
    workload: &Workload,
    step: &mut dyn FnMut() -> ControlFlow<()>,
) -> Result<Vec<Vec<Outcome>>, BenchError> {
    let mut turn = |side: &mut Side, test: Option<Test>| {
        if step().is_break() {
            return Err(BenchError::Stopped);
        }
        match test {
            Some(test) => side.round(workload, test),
            None => side.warm_up(workload).map(|()| (None, None)),
        }
    };
    for side in &mut *sides {
        turn(side, None)?;
    }
    let mut outcomes = vec![Vec::new(); sides.len()];
    for test in workload.tests() {
        let mut samples = vec![(Vec::new(), Vec::new()); sides.len()];
        for round in 0..workload.repeats {
            for place in order(sides.len(), round) {
                if sides.len() > 1 {
                    thread::sleep(PAUSE);
                }
                let (prefill, decode) = turn(&mut sides[place], Some(test))?;
                samples[place].0.extend(prefill);
                samples[place].1.extend(decode);
            }
        }
        for (outcome, (prefill, decode)) in outcomes.iter_mut().zip(samples) {
            let (prefill, decode) = (Figures::new(prefill), Figures::new(decode));
            let Test { depth, batch } = test;
            outcome.push(Outcome { depth, batch, prefill, decode });
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
            batches: vec![1, 4],
            repeats: 2,
        };
        assert_eq!(workload(512, 128, &[0, 1024]).context_tokens(), 1024 + 512 + 1);
        assert_eq!(workload(0, 128, &[0]).context_tokens(), 130);
        let deep = workload(512, 128, &[0, 1024]);
        assert_eq!((deep.sequences(), deep.steps()), (4, 2 * 2 * 2 + 1));
    }
}
