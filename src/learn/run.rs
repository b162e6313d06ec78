//! A run: examples to samples, samples to steps, steps to an adapter.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::Instant;

use nfl_models::gguf::Gguf;
use nfl_models::template::{self, ChatTemplate};
use sha2::{Digest as _, Sha256};

use super::course::{Course, Random};
use super::error::LearnError;
use super::order::{Order, Outcome, Report};
use super::spans::Tokenizer;
use super::{checkpoint, data, outputs};
use crate::engine::runner::Runner;
use crate::store::Digest;
use crate::training::base;
use crate::training::block::Keep;
use crate::training::decoder::{Batch, Decoder};
use crate::training::files::PeftConfig;
use crate::training::optimizer::{AdamW, Memory};
use crate::training::samples::{Sample, pack};
use crate::training::targets::{self, MAPS, Target};
use crate::training::trainer::{Recipe, Trainer};

fn read_samples(
    path: &Path,
    length: usize,
    tokenizer: &Tokenizer<'_>,
) -> Result<(usize, Vec<Sample>), LearnError> {
    let examples = data::read(path)?;
    let mut samples = Vec::new();
    for example in &examples {
        samples.extend(tokenizer.sample(example)?.cut(length));
    }
    if samples.is_empty() {
        return Err(LearnError::NothingLearned(examples.len()));
    }
    Ok((examples.len(), samples))
}

/// What must be the same for a run to go on: the order, as far as it changes results, the samples and the base.
fn identity(order: &Order, samples: &[Sample], gguf: &Gguf) -> String {
    let decisive = Order {
        output: PathBuf::new(),
        model: PathBuf::new(),
        data: PathBuf::new(),
        evaluation: None,
        resume: false,
        save_every: 0,
        evaluate_every: 0,
        keep: Keep::All,
        ..order.clone()
    };
    let mut hash = Sha256::new();
    hash.update(format!("{decisive:?}{samples:?}"));
    for tensor in gguf.tensors() {
        hash.update(format!("{tensor:?}"));
        hash.update(gguf.data(tensor));
    }
    Digest::from_bytes(hash.finalize().into()).to_string()
}

/// Trains an adapter. `runner` has the model's vocabulary; `report` says whether to go on, and a run that is stopped can be
/// resumed.
pub fn learn(
    order: &Order,
    runner: &dyn Runner,
    report: &mut dyn FnMut(Report) -> ControlFlow<()>,
) -> Result<Outcome, LearnError> {
    let gguf = Gguf::open(&order.model)?;
    let chat = gguf.metadata().text(template::METADATA_KEY).map(ChatTemplate::parse).transpose()?;
    let tokenizer = Tokenizer { runner, template: chat.as_ref() };
    let (examples, samples) = read_samples(&order.data, order.length, &tokenizer)?;
    let evaluation = match &order.evaluation {
        Some(path) => pack(&read_samples(path, order.length, &tokenizer)?.1, order.length),
        None => Vec::new(),
    };
    let (targets, mut trainer) = trainer(order, base::read(&gguf, order.length)?)?;
    outputs::make_folder(&order.output)?;
    let identity = identity(order, &samples, &gguf);
    let mut go = report(Report::Data {
        examples,
        tokens: samples.iter().map(|sample| sample.tokens.len()).sum(),
        learned: samples.iter().flat_map(|sample| &sample.learned).filter(|yes| **yes).count(),
        batches: pack(&samples, order.length).len(),
    });
    if order.resume {
        checkpoint::read(&order.output, &identity, &mut trainer.adapters, &mut trainer.memory)?;
        if go.is_continue() {
            go = report(Report::Resumed(trainer.memory.steps));
        }
    } else if order.output.join(checkpoint::FILE).exists() {
        return Err(LearnError::Unfinished(order.output.clone()));
    }
    let passed = trainer.memory.steps * order.micro_batches as u64;
    let course = Course::new(&samples, order.length, order.seed, passed);
    let (trainer_of_run, evaluation) = (&mut trainer, evaluation.as_slice());
    let run = Run { order, trainer: trainer_of_run, course, evaluation, identity: &identity };
    let outcome = run.go(go, report)?;
    if !outcome.stopped {
        outputs::Adapter {
            architecture: gguf.metadata().architecture().unwrap_or_default(),
            name: &order.model_name,
            targets: &targets,
            adapters: &trainer.adapters,
            decoder: &trainer.decoder,
            config: &config(order),
        }
        .write(&order.output)?;
        checkpoint::remove(&order.output)?;
    }
    Ok(outcome)
}

/// A trainer before its first step, and the maps that it adapts.
fn trainer(order: &Order, mut decoder: Decoder) -> Result<(Vec<Target>, Trainer), LearnError> {
    let mut random = Random::new(order.seed);
    let scale = config(order).scale();
    let (targets, adapters) =
        targets::adapt(&mut decoder, &order.roles, order.rank, scale, &mut || random.unit())?;
    let recipe = Recipe {
        steps: order.steps,
        rate: order.rate,
        schedule: order.schedule,
        warmup: order.warmup,
        adamw: AdamW { weight_decay: order.weight_decay, ..AdamW::default() },
        clip: order.clip,
    };
    let memory = Memory::new(&adapters);
    let keeps = vec![order.keep; decoder.blocks.len()];
    Ok((targets, Trainer { decoder, adapters, memory, recipe, keeps }))
}

/// PEFT's settings of the adapter that an order makes.
fn config(order: &Order) -> PeftConfig {
    let modules = MAPS.iter().filter(|(role, _)| order.roles.contains(role));
    let last = |name: &str| name.rsplit('.').next().unwrap_or_default().to_owned();
    PeftConfig {
        peft_type: "LORA".to_owned(),
        task_type: "CAUSAL_LM".to_owned(),
        r: order.rank,
        lora_alpha: order.alpha,
        lora_dropout: 0.0,
        use_rslora: order.rank_stabilized,
        use_dora: false,
        target_modules: modules.map(|(_, name)| last(name)).collect(),
        bias: "none".to_owned(),
        fan_in_fan_out: false,
        inference_mode: true,
        base_model_name_or_path: order.model_name.clone(),
    }
}

/// The steps of a run.
struct Run<'a> {
    order: &'a Order,
    trainer: &'a mut Trainer,
    course: Course<'a>,
    evaluation: &'a [Batch],
    identity: &'a str,
}

impl Run<'_> {
    fn go(
        mut self,
        mut go: ControlFlow<()>,
        report: &mut dyn FnMut(Report) -> ControlFlow<()>,
    ) -> Result<Outcome, LearnError> {
        let order = self.order;
        if go.is_continue() && self.trainer.memory.steps == 0 {
            go = self.evaluate(report)?;
        }
        while go.is_continue() && self.trainer.memory.steps < order.steps {
            let started = Instant::now();
            let batches: Vec<Batch> =
                (0..order.micro_batches).map(|_| self.course.next()).collect();
            let step = self.trainer.step(&batches)?;
            go = report(Report::Stepped { step, took: started.elapsed() });
            let is_last = step.number == order.steps;
            if go.is_continue() && (is_last || step.number.is_multiple_of(order.evaluate_every)) {
                go = self.evaluate(report)?;
            }
            if is_last || go.is_break() || step.number.is_multiple_of(order.save_every) {
                self.save()?;
            }
        }
        let trained = self.trainer.adapters.0.iter();
        Ok(Outcome {
            steps: self.trainer.memory.steps,
            stopped: self.trainer.memory.steps < order.steps,
            trained: trained.map(|lora| lora.a.elem_count() + lora.b.elem_count()).sum(),
        })
    }

    fn save(&self) -> Result<(), LearnError> {
        let trainer = &self.trainer;
        checkpoint::write(&self.order.output, self.identity, &trainer.adapters, &trainer.memory)
    }

    fn evaluate(
        &self,
        report: &mut dyn FnMut(Report) -> ControlFlow<()>,
    ) -> Result<ControlFlow<()>, LearnError> {
        if self.evaluation.is_empty() {
            return Ok(ControlFlow::Continue(()));
        }
        let found = self.trainer.evaluate(self.evaluation)?;
        let loss = found.sum / found.tokens as f64;
        Ok(report(Report::Evaluated { step: self.trainer.memory.steps, loss }))
    }
}
