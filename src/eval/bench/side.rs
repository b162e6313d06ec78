//! One side of a measurement: a model in its worker, and the clock beside it.

use std::path::Path;
use std::thread::{self, ScopedJoinHandle};
use std::time::{Duration, Instant};

use super::tokens::Tokens;
use super::{BenchError, Test, Workload};
use crate::engine::frames::{Done, Event, Generation, LoadInfo, Prompt, Reason};
use crate::engine::options::LoadRequest;
use crate::engine::process::{Answer, CancelHandle, Engine, EngineError, OnProgress};

/// A model in its worker, to be measured.
#[derive(Debug)]
pub struct Side {
    engine: Engine,
    request: LoadRequest,
    tokens: Tokens,
}

impl Side {
    /// Starts `program` as a worker with the model.
    pub fn start(
        program: &Path,
        request: LoadRequest,
        on_progress: OnProgress<'_>,
    ) -> Result<Self, EngineError> {
        let engine = Engine::start(program, &request, on_progress)?;
        let tokens = Tokens::new(engine.info().vocabulary_tokens);
        Ok(Self { engine, request, tokens })
    }

    /// What was asked to be loaded.
    pub fn request(&self) -> &LoadRequest {
        &self.request
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
    pub(super) fn warm_up(&mut self, workload: &Workload) -> Result<(), BenchError> {
        if workload.prompt_tokens > 0 {
            self.prefill(&[Vec::new()], workload.prompt_tokens)?;
        }
        if workload.generated_tokens > 0 {
            self.decode(&[Vec::new()], 1)?;
        }
        Ok(())
    }

    /// One round: tokens a second of reading and of writing, of all sequences together.
    pub(super) fn round(
        &mut self,
        workload: &Workload,
        test: Test,
    ) -> Result<(Option<f64>, Option<f64>), BenchError> {
        let before: Vec<Vec<i32>> =
            (0..test.batch).map(|_| self.tokens.fresh(test.depth)).collect();
        if test.depth > 0 {
            self.fill(&before)?;
        }
        let (prompt, generated) = (workload.prompt_tokens, workload.generated_tokens);
        let prefill = if prompt > 0 { Some(self.prefill(&before, prompt)?) } else { None };
        // What was read behind it makes a sequence a longer conversation, which the worker leaves
        // alone: it takes the place of another one, and of several some are gone then.
        if test.depth > 0 && test.batch > 1 && prompt > 0 {
            self.fill(&before)?;
        }
        let decode = if generated > 0 { Some(self.decode(&before, generated)?) } else { None };
        Ok((prefill, decode))
    }

    /// Puts into the context of each sequence what is to be there.
    fn fill(&self, before: &[Vec<i32>]) -> Result<(), BenchError> {
        self.generate(before.to_vec(), None, 1).map(|_| ())
    }

    /// Reads so many tokens of each sequence behind what is in its context.
    fn prefill(&mut self, before: &[Vec<i32>], count: u32) -> Result<f64, BenchError> {
        let prompts = self.prompts(before, count);
        let times = self.generate(prompts, Some(depth(before)), 1)?;
        Ok(f64::from(count) * before.len() as f64 / times.until_first.as_secs_f64())
    }

    /// Writes so many tokens of each sequence behind what is in its context and one more.
    fn decode(&mut self, before: &[Vec<i32>], count: u32) -> Result<f64, BenchError> {
        let prompts = self.prompts(before, 1);
        let times = self.generate(prompts, Some(depth(before)), count + 1)?;
        Ok(times.tokens_after as f64 / times.after_first.as_secs_f64())
    }

    fn prompts(&mut self, before: &[Vec<i32>], count: u32) -> Vec<Vec<i32>> {
        before.iter().map(|before| [&before[..], &self.tokens.fresh(count)].concat()).collect()
    }

    /// Lets all prompts be continued at once; of each, `depth` tokens must be in the context.
    fn generate(
        &self,
        prompts: Vec<Vec<i32>>,
        depth: Option<u32>,
        count: u32,
    ) -> Result<Times, BenchError> {
        let engine = &self.engine;
        let started = Instant::now();
        let answers = prompts.into_iter().map(|prompt| {
            let prompt = Prompt::Tokens(prompt);
            engine.submit(&Generation { ignore_end: true, ..Generation::greedy(prompt, count) })
        });
        let mut answers = answers.collect::<Result<Vec<_>, _>>()?;
        // One is listened to here, so that a single sequence costs no thread.
        let own = answers.pop();
        let heard = thread::scope(|scope| {
            let others: Vec<_> = answers
                .into_iter()
                .map(|answer| scope.spawn(move || listen(answer, depth, count)))
                .collect();
            let own = own.map(|answer| listen(answer, depth, count));
            // All are waited for, also behind one that failed.
            let others: Vec<_> = others.into_iter().map(ScopedJoinHandle::join).collect();
            let others = others.into_iter().map(|each| each.expect("listening does not panic"));
            own.into_iter().chain(others).collect::<Result<Vec<_>, _>>()
        })?;
        Ok(Times::of(started, &heard))
    }
}

/// Tokens in the context of each sequence.
fn depth(before: &[Vec<i32>]) -> u32 {
    before.first().map_or(0, |before| before.len() as u32)
}

/// When a reply's tokens arrived, and its end.
#[derive(Debug)]
struct Heard {
    tokens: Vec<Instant>,
    ended: Instant,
}

fn listen(mut answer: Answer<'_>, depth: Option<u32>, count: u32) -> Result<Heard, BenchError> {
    let mut tokens = Vec::with_capacity(count as usize);
    loop {
        match answer.next_event()? {
            Event::Token { id: Some(_), .. } => tokens.push(Instant::now()),
            Event::Done(done) => {
                let ended = Instant::now();
                check(&done, depth, count)?;
                return Ok(Heard { tokens, ended });
            }
            _ => {}
        }
    }
}

/// How long sequences that were asked for at once took.
#[derive(Debug, PartialEq)]
struct Times {
    /// Until each had its first token.
    until_first: Duration,
    /// From there to the end of all.
    after_first: Duration,
    /// Tokens that arrived in that time.
    tokens_after: usize,
}

impl Times {
    fn of(started: Instant, heard: &[Heard]) -> Self {
        let first = heard.iter().filter_map(|each| each.tokens.first()).max().copied();
        let first = first.unwrap_or(started);
        let ended = heard.iter().map(|each| each.ended).max().unwrap_or(first);
        let tokens = heard.iter().flat_map(|each| &each.tokens);
        let tokens_after = tokens.filter(|arrived| **arrived > first).count();
        Self { until_first: first - started, after_first: ended - first, tokens_after }
    }
}

/// Whether as much was computed as is timed.
fn check(done: &Done, depth: Option<u32>, asked: u32) -> Result<(), BenchError> {
    if done.reason == Reason::Cancelled {
        return Err(BenchError::Stopped);
    }
    if done.generated_tokens != asked {
        let (generated, reason) = (done.generated_tokens, done.reason);
        return Err(BenchError::Short { asked, generated, reason });
    }
    match depth {
        Some(depth) if done.cached_tokens != depth => {
            Err(BenchError::Depth { depth, kept: done.cached_tokens })
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_goes_from_the_last_beginning_to_the_last_end() {
        let started = Instant::now();
        let ms = Duration::from_millis;
        let heard = |tokens: &[u64], ended| Heard {
            tokens: tokens.iter().map(|at| started + ms(*at)).collect(),
            ended: started + ms(ended),
        };
        // One began early: what it wrote while the other was read is not counted.
        let times = Times::of(started, &[heard(&[10, 20, 30, 40], 41), heard(&[20, 30, 40], 42)]);
        let expected = Times { until_first: ms(20), after_first: ms(22), tokens_after: 2 + 2 };
        assert_eq!(times, expected);
    }

    #[test]
    fn what_was_not_computed_is_not_timed() {
        let done = Done {
            reason: Reason::Length,
            cached_tokens: 8,
            generated_tokens: 4,
            ..Done::cancelled()
        };
        assert!(check(&done, Some(8), 4).is_ok());
        assert!(matches!(check(&done, Some(0), 4), Err(BenchError::Depth { kept: 8, .. })));
        assert!(matches!(check(&done, Some(8), 5), Err(BenchError::Short { generated: 4, .. })));
        let cancelled = Done { reason: Reason::Cancelled, ..done };
        assert!(matches!(check(&cancelled, None, 4), Err(BenchError::Stopped)));
    }
}
