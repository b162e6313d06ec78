//! The steps of a run: what is learned next, when it is looked at, when it is kept, and when it is enough.

use std::ops::ControlFlow;
use std::time::Instant;

use super::checkpoint::{self, Best, Standing};
use super::course::Course;
use super::error::LearnError;
use super::material::Material;
use super::order::{Evaluated, Identity, Order, Outcome, Report};
use super::outputs;
use super::preference::{Preferences, Preferred};
use crate::training::decoder::Batch;
use crate::training::noise::Noise;
use crate::training::samples::pack;
use crate::training::targets::Target;
use crate::training::trainer::{Step, Trainer};

/// Whom a run tells what it does, and who says whether it goes on.
pub(super) type Listener<'a> = dyn FnMut(Report) -> ControlFlow<()> + 'a;

/// The steps of a run.
pub(super) struct Run<'a> {
    pub(super) order: &'a Order,
    pub(super) trainer: &'a mut Trainer,
    pub(super) identity: &'a Identity,
    pub(super) standing: Standing,
    /// The model's architecture, and the maps that are adapted.
    pub(super) adapted: (&'a str, &'a [Target]),
}

/// Takes one step, given how many micro-batches there were before it.
type Take<'a> = dyn FnMut(&mut Trainer, u64) -> Result<(Step, Option<Preferred>), LearnError> + 'a;

/// What a run looks at now and then.
enum Exam {
    Nothing,
    Texts(Vec<Batch>),
    Pairs(Preferences),
}

/// A pair as two batches of one document each.
fn batches_of(material: &Material) -> Vec<[Batch; 2]> {
    let batch = |sample| pack(std::slice::from_ref(sample), usize::MAX).pop().unwrap_or_default();
    material.pairs.iter().map(|[better, worse]| [batch(better), batch(worse)]).collect()
}

impl Run<'_> {
    /// Takes the steps that are left, one at least where one is left and `go` says so.
    pub(super) fn go(
        mut self,
        learned: &Material,
        evaluated: &Material,
        go: ControlFlow<()>,
        report: &mut Listener<'_>,
    ) -> Result<Outcome, LearnError> {
        let order = self.order;
        let passed = self.trainer.memory.steps * order.micro_batches as u64;
        if let Some(beta) = order.preference {
            let exam = match evaluated.pairs.as_slice() {
                [] => Exam::Nothing,
                _ => Exam::Pairs(Preferences::new(batches_of(evaluated), beta)),
            };
            let mut pairs = Preferences::new(batches_of(learned), beta);
            let pack = |order: &[usize]| order.to_vec();
            let mut course = Course::new(pairs.len(), &pack, order.seed, passed);
            self.all(exam, go, report, &mut |trainer, _| {
                let numbers: Vec<usize> = (0..order.micro_batches).map(|_| course.next()).collect();
                let (step, preferred) = pairs.step(trainer, &numbers)?;
                Ok((step, Some(preferred)))
            })
        } else {
            let exam = match evaluated.samples.as_slice() {
                [] => Exam::Nothing,
                samples => Exam::Texts(pack(samples, order.length)),
            };
            let samples = &learned.samples;
            let pack = |numbers: &[usize]| {
                let samples: Vec<_> =
                    numbers.iter().map(|number| samples[*number].clone()).collect();
                pack(&samples, order.length)
            };
            let mut course = Course::new(samples.len(), &pack, order.seed, passed);
            self.all(exam, go, report, &mut |trainer, passed| {
                let next = |number: u64| {
                    let mut batch: Batch = course.next();
                    let seed = order.seed.wrapping_add((passed + number).wrapping_mul(0x9E37_79B9));
                    let noise = Noise { strength: order.noise, seed };
                    batch.noise = Some(noise).filter(|noise| noise.strength > 0.0);
                    batch
                };
                let batches: Vec<Batch> = (0..order.micro_batches as u64).map(next).collect();
                Ok((trainer.step(&batches)?, None))
            })
        }
    }

    /// All steps.
    fn all(
        &mut self,
        mut exam: Exam,
        mut go: ControlFlow<()>,
        report: &mut Listener<'_>,
        step: &mut Take<'_>,
    ) -> Result<Outcome, LearnError> {
        let order = self.order;
        if go.is_continue() && self.trainer.memory.steps == 0 {
            go = self.evaluate(&mut exam, report)?;
        }
        while go.is_continue() && !self.is_over() {
            let started = Instant::now();
            let passed = self.trainer.memory.steps * order.micro_batches as u64;
            let (step, preferred) = step(self.trainer, passed)?;
            go = report(Report::Stepped { step, preferred, took: started.elapsed() });
            let is_last = step.number == order.steps;
            let is_due = is_last || step.number.is_multiple_of(order.evaluate_every);
            // A look that decides about the end is part of its step: a run that goes on does not take it again.
            if is_due && (go.is_continue() || order.patience.is_some()) {
                let more = self.evaluate(&mut exam, report)?;
                go = if go.is_continue() { more } else { go };
            }
            let is_heard = |every| step.number.is_multiple_of(every) || is_last;
            if go.is_continue() && order.sample_every.is_some_and(is_heard) {
                let (architecture, targets) = self.adapted;
                let adapters = &self.trainer.adapters;
                let adapter = outputs::gguf(architecture, &order.model_name, targets, adapters)?;
                go = report(Report::Sample { step: step.number, adapter });
            }
            let is_over = self.is_over();
            if is_over || go.is_break() || step.number.is_multiple_of(order.save_every) {
                checkpoint::write(&order.output, self.identity, self.trainer, &self.standing)?;
            }
        }
        Ok(self.end())
    }

    fn is_over(&self) -> bool {
        let is_patient = |patience| self.standing.misses < patience;
        self.trainer.memory.steps >= self.order.steps || !self.order.patience.is_none_or(is_patient)
    }

    /// Puts the best adapter in the place of the last one, where it was looked for.
    fn end(&mut self) -> Outcome {
        let stopped = !self.is_over();
        let mut best = None;
        if let Some(found) = self.standing.best.take().filter(|_| !stopped) {
            best = Some((found.step, found.loss));
            self.trainer.adapters = found.adapters;
        }
        let trained = self.trainer.adapters.0.iter();
        Outcome {
            steps: self.trainer.memory.steps,
            stopped,
            best,
            trained: trained.map(|lora| lora.a.elem_count() + lora.b.elem_count()).sum(),
        }
    }

    fn evaluate(
        &mut self,
        exam: &mut Exam,
        report: &mut Listener<'_>,
    ) -> Result<ControlFlow<()>, LearnError> {
        let (loss, preferred) = match exam {
            Exam::Nothing => return Ok(ControlFlow::Continue(())),
            Exam::Texts(batches) => {
                let found = self.trainer.evaluate(batches)?;
                (found.sum / found.tokens as f64, None)
            }
            Exam::Pairs(pairs) => {
                let (loss, preferred) = pairs.evaluate(self.trainer)?;
                (loss, Some(preferred))
            }
        };
        let step = self.trainer.memory.steps;
        if self.order.patience.is_some() {
            if self.standing.best.as_ref().is_none_or(|best| loss < best.loss) {
                let adapters = self.trainer.adapters.clone();
                self.standing = Standing { best: Some(Best { step, loss, adapters }), misses: 0 };
            } else {
                self.standing.misses += 1;
            }
        }
        Ok(report(Report::Evaluated(Evaluated { step, loss, preferred })))
    }
}
