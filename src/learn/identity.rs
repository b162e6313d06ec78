//! What must be the same for a run to go on: the order, as far as it changes results, the examples and the base.

use std::path::PathBuf;

use nfl_models::gguf::Gguf;
use sha2::{Digest as _, Sha256};

use super::material::Material;
use super::order::{Identity, Order};
use crate::store::Digest;
use crate::training::block::Keep;
use crate::training::samples::Sample;

impl Identity {
    /// Of a run.
    pub(super) fn of(order: &Order, learned: &Material, evaluated: &Material, gguf: &Gguf) -> Self {
        let mut data = Sha256::new();
        add(&mut data, learned);
        if order.patience.is_some() {
            // They decide when the run ends.
            add(&mut data, evaluated);
        }
        let mut base = Sha256::new();
        for tensor in gguf.tensors() {
            base.update(format!("{tensor:?}"));
            base.update(gguf.data(tensor));
        }
        let recipe = Sha256::new().chain_update(format!("{:?}", decisive(order)));
        Self { recipe: text(recipe), data: text(data), base: text(base) }
    }

    /// The first part in which another run is different, in words.
    pub(super) fn difference(&self, other: &Self) -> Option<&'static str> {
        let parts = [
            (&self.base, &other.base, "the model's file has other weights"),
            (&self.data, &other.data, "the examples are others"),
            (&self.recipe, &other.recipe, "the numbers of the run are others"),
        ];
        parts.iter().find(|(one, other, _)| one != other).map(|(.., words)| *words)
    }
}

/// An order without what changes no result. Looks at the evaluation examples change one only where the run may end
/// early.
fn decisive(order: &Order) -> Order {
    Order {
        output: PathBuf::new(),
        model: PathBuf::new(),
        data: PathBuf::new(),
        evaluation: None,
        evaluation_share: None,
        skip_bad: false,
        resume: false,
        save_every: 0,
        sample_every: None,
        evaluate_every: order.patience.map_or(0, |_| order.evaluate_every),
        keep: Keep::All,
        ..order.clone()
    }
}

fn add(hash: &mut Sha256, material: &Material) {
    let pairs = material.pairs.iter().flatten();
    for Sample { tokens, learned } in material.samples.iter().chain(pairs) {
        hash.update((tokens.len() as u64).to_le_bytes());
        for (token, learned) in tokens.iter().zip(learned) {
            hash.update(token.to_le_bytes());
            hash.update([u8::from(*learned)]);
        }
    }
}

fn text(hash: Sha256) -> String {
    Digest::from_bytes(hash.finalize().into()).to_string()
}
