//! Which linear maps of a model get adapters, and what each is called in a GGUF file and in a checkpoint.

use nfl_models::Role;

use crate::training::decoder::Decoder;
use crate::training::linear::{Adapters, Linear};
use crate::training::lora::Lora;
use crate::training::ops::rope::Pairs;

/// A linear map of a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Target {
    /// What it does.
    pub role: Role,
    /// Its block.
    pub block: u32,
}

/// The linear maps of a block: role, and the name in checkpoints of the Llama kind.
pub const MAPS: [(Role, &str); 7] = [
    (Role::AttentionQuery, "self_attn.q_proj"),
    (Role::AttentionKey, "self_attn.k_proj"),
    (Role::AttentionValue, "self_attn.v_proj"),
    (Role::AttentionOutput, "self_attn.o_proj"),
    (Role::FeedForwardGate, "mlp.gate_proj"),
    (Role::FeedForwardUp, "mlp.up_proj"),
    (Role::FeedForwardDown, "mlp.down_proj"),
];

impl Target {
    /// Its name in a checkpoint, without the end.
    pub fn module(self) -> String {
        let known = MAPS.iter().find(|(role, _)| *role == self.role);
        format!("model.layers.{}.{}", self.block, known.map_or("", |(_, name)| name))
    }

    /// Its name in a GGUF file.
    pub fn tensor(self) -> String {
        self.role.tensor_name(Some(self.block))
    }

    /// Heads whose rows lie in another order in GGUF files of this decoder than in checkpoints: there pairs that turn are
    /// neighbours, here they are halves.
    pub fn reordered_heads(self, decoder: &Decoder) -> Option<usize> {
        if decoder.shape.pairs != Pairs::Neighbours {
            return None;
        }
        match self.role {
            Role::AttentionQuery => Some(decoder.shape.heads),
            Role::AttentionKey => Some(decoder.shape.key_heads),
            _ => None,
        }
    }
}

/// Gives adapters of a rank to all linear maps of the roles that are asked for.
pub fn adapt(
    decoder: &mut Decoder,
    roles: &[Role],
    rank: usize,
    scale: f64,
    random: &mut impl FnMut() -> f32,
) -> candle_core::Result<(Vec<Target>, Adapters)> {
    let mut targets = Vec::new();
    let mut adapters = Adapters::default();
    for (number, (block, _)) in decoder.blocks.iter_mut().enumerate() {
        for (role, _) in MAPS.iter().filter(|(role, _)| roles.contains(role)) {
            let map: &mut Linear = match role {
                Role::AttentionQuery => &mut block.attention.q,
                Role::AttentionKey => &mut block.attention.k,
                Role::AttentionValue => &mut block.attention.v,
                Role::AttentionOutput => &mut block.attention.o,
                Role::FeedForwardGate => &mut block.feed_forward.gate,
                Role::FeedForwardUp => &mut block.feed_forward.up,
                _ => &mut block.feed_forward.down,
            };
            map.adapter = Some(adapters.0.len());
            adapters.0.push(Lora::new(rank, map.weight.dimensions()?, scale, random)?);
            targets.push(Target { role: *role, block: number as u32 });
        }
    }
    Ok((targets, adapters))
}
