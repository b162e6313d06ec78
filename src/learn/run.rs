//! A run: examples to samples, samples to steps, steps to an adapter.

use nfl_models::gguf::Gguf;
use nfl_models::template::{self, ChatTemplate};

use super::checkpoint::{self, Standing};
use super::error::LearnError;
use super::material;
use super::order::{Identity, Order, Outcome, Report};
use super::outputs;
use super::spans::Tokenizer;
use super::steps::{Listener, Run};
use crate::engine::runner::Runner;
use crate::training::base;
use crate::training::decoder::Decoder;
use crate::training::files::PeftConfig;
use crate::training::optimizer::{AdamW, Memory};
use crate::training::random::Random;
use crate::training::targets::{self, MAPS, Target};
use crate::training::trainer::{Recipe, Trainer};

/// Trains an adapter. `runner` has the model's vocabulary; `report` says whether to go on, and a run that is stopped
/// can be resumed.
pub fn learn(
    order: &Order,
    runner: &dyn Runner,
    report: &mut Listener<'_>,
) -> Result<Outcome, LearnError> {
    let gguf = Gguf::open(&order.model)?;
    let chat = gguf.metadata().text(template::METADATA_KEY).map(ChatTemplate::parse).transpose()?;
    let tokenizer = Tokenizer::new(runner, chat.as_ref());
    let (learned, evaluated) = material::read(order, &tokenizer)?;
    let (targets, mut trainer) = trainer(order, base::read(&gguf, order.length)?)?;
    outputs::make_folder(&order.output)?;
    let identity = Identity::of(order, &learned, &evaluated, &gguf);
    let (of_learned, of_evaluated) = (learned.contents.clone(), evaluated.contents.clone());
    let mut go = report(Report::Data { learned: of_learned, evaluated: of_evaluated });
    if !order.resume && order.output.join(checkpoint::FILE).exists() {
        return Err(LearnError::Unfinished(order.output.clone()));
    }
    if go.is_continue() {
        go = report(Report::Made(identity.clone()));
    }
    let mut standing = Standing::default();
    if order.resume {
        checkpoint::read(&order.output, &identity, &mut trainer, &mut standing)?;
        if go.is_continue() {
            go = report(Report::Resumed(trainer.memory.steps));
        }
    }
    let architecture = gguf.metadata().architecture().unwrap_or_default();
    let adapted = (architecture, targets.as_slice());
    let run = Run { order, trainer: &mut trainer, identity: &identity, standing, adapted };
    let outcome = run.go(&learned, &evaluated, go, report)?;
    if !outcome.stopped {
        outputs::Adapter {
            architecture,
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
