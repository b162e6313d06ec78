//! Learning from preferences against PyTorch and PEFT (`tests/golden/preference.py`): the loss, its gradients and its
//! course over steps, on the model and the adapter of `tests/training.rs`.

use nfl::learn::Preferences;
use nfl::training::block::Keep;
use nfl::training::decoder::Batch;
use nfl::training::files;
use nfl::training::linear::Adapters;
use nfl::training::lora::Lora;
use nfl::training::optimizer::{AdamW, Memory, Schedule};
use nfl::training::samples::{Sample, pack};
use nfl::training::trainer::{Recipe, Trainer};

use crate::training::{Case, Judge, golden, relative};

/// Tokens before each answer.
const PROMPT: usize = 5;

const BETA: f64 = 0.5;

#[test]
fn preferences_are_learned_as_in_pytorch() {
    let judge = Judge::read(&golden("preference.safetensors"));
    let batch = |name: String| -> Batch {
        let tokens: Vec<u32> =
            judge.row(&name).iter().map(|id| u32::try_from(*id).unwrap()).collect();
        let learned = (0..tokens.len()).map(|place| place >= PROMPT).collect();
        pack(&[Sample { tokens, learned }], usize::MAX).pop().unwrap()
    };
    let pair = |number: usize| ["better", "worse"].map(|kind| batch(format!("{number}.{kind}")));
    let mut preferences = Preferences::new((0..3).map(pair).collect(), BETA);
    let losses = judge.numbers("losses");
    let Case { decoder, adapters, targets, .. } = Case::new("llama", 2.0);
    let recipe = Recipe {
        steps: losses.len() as u64,
        rate: 2e-3,
        schedule: Schedule::Constant,
        warmup: 0,
        adamw: AdamW::default(),
        clip: 0.0,
    };
    let memory = Memory::new(&adapters);
    let keeps = vec![Keep::Selective; decoder.blocks.len()];
    let mut trainer = Trainer { decoder, adapters, memory, recipe, keeps };

    let (gradients, ..) = preferences.gradients(&trainer, &[0, 1, 2]).unwrap();
    let all = gradients.0.into_iter().map(Option::unwrap);
    let all = all.map(|gradient| Lora { a: gradient.a, b: gradient.b, scale: 1.0 }).collect();
    let ours = Judge::of(files::peft(&targets, &Adapters(all), &trainer.decoder).unwrap());
    for name in ours.names() {
        let error = relative(&ours.numbers(&name), &judge.numbers(&format!("grad.{name}")));
        assert!(error <= 1e-4, "the gradient of {name} differs by {error:e}");
    }
    for (number, expected) in losses.iter().enumerate() {
        let (step, _) = preferences.step(&mut trainer, &[0, 1, 2]).unwrap();
        let error = (step.loss - f64::from(*expected)).abs();
        assert!(error <= 1e-4, "the loss of step {number} differs by {error:e}");
    }
    let (loss, preferred) = preferences.evaluate(&trainer).unwrap();
    assert!(loss < f64::from(losses[19]) && preferred.accuracy > 0.99 && preferred.margin > 2.0);
}
