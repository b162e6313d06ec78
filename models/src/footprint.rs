//! The footprint of a model: bytes of its weights by role, bytes of its key-value cache by token.

use std::collections::BTreeMap;

use crate::gguf::{Gguf, TensorInfo};
use crate::inventory::Role;
use crate::shape::{Shape, ShapeError};
use crate::tensor::TensorType;

/// llama.cpp rounds the context up to a multiple of this many tokens.
const CONTEXT_STEP_TOKENS: u64 = 256;

/// How many bytes a model takes. Buffers for intermediate results come on top; they depend on the
/// batch, not on the model.
#[derive(Clone, PartialEq, Debug)]
pub struct Footprint {
    by_role: BTreeMap<Role, u64>,
    by_block: BTreeMap<u32, u64>,
    shape: Shape,
}

impl Footprint {
    /// The footprint of an open model.
    pub fn of(gguf: &Gguf) -> Result<Self, ShapeError> {
        Ok(Self::new(Shape::of(gguf)?, gguf.tensors()))
    }

    /// The footprint of a shape with these tensors.
    pub fn new(shape: Shape, tensors: &[TensorInfo]) -> Self {
        let (mut by_role, mut by_block) = (BTreeMap::new(), BTreeMap::new());
        for tensor in tensors {
            let (role, block) = Role::of_name(&tensor.name);
            *by_role.entry(role).or_insert(0) += tensor.bytes();
            if let Some(block) = block {
                *by_block.entry(block).or_insert(0) += tensor.bytes();
            }
        }
        Self { by_role, by_block, shape }
    }

    /// Bytes of the weights with a role.
    pub fn role_bytes(&self, role: Role) -> u64 {
        self.by_role.get(&role).copied().unwrap_or(0)
    }

    /// Bytes of the weights, role by role; roles without tensors are left out.
    pub fn roles(&self) -> impl Iterator<Item = (Role, u64)> + '_ {
        self.by_role.iter().map(|(role, bytes)| (*role, *bytes))
    }

    /// Bytes of the weights of one block.
    pub fn block_bytes(&self, block: u32) -> u64 {
        self.by_block.get(&block).copied().unwrap_or(0)
    }

    /// Bytes of all weights.
    pub fn weights_bytes(&self) -> u64 {
        self.by_role.values().sum()
    }

    /// Bytes of the weights of all experts.
    pub fn experts_bytes(&self) -> u64 {
        self.roles().filter(|(role, _)| role.is_experts()).map(|(_, bytes)| bytes).sum()
    }

    /// Bytes of weights that one token makes the machine read: all but the experts that it does not
    /// use, and one row of the embedding. Memory bandwidth over this is the highest speed of
    /// decoding.
    pub fn bytes_per_token(&self) -> u64 {
        let experts = self.experts_bytes();
        let used = match self.shape.experts {
            0 => experts,
            all => experts / u64::from(all) * u64::from(self.shape.experts_used),
        };
        // A tied embedding is read whole, as output matrix.
        let embedding =
            if self.shape.tied_output { 0 } else { self.role_bytes(Role::TokenEmbedding) };
        self.weights_bytes() - experts + used - embedding
            + embedding.checked_div(self.shape.vocabulary).unwrap_or(0)
    }

    /// Bytes of keys and values that each token of context leaves in the cache; `None` when a
    /// head's length is no multiple of the type's block, which llama.cpp refuses too.
    pub fn kv_bytes_per_token(&self, key: TensorType, value: TensorType) -> Option<u64> {
        let shape = &self.shape;
        key.row_bytes(shape.key_length)?;
        value.row_bytes(shape.value_length)?;
        let heads = u64::from(shape.heads_kv);
        let keys = key.row_bytes(heads * shape.key_length)?;
        let values = value.row_bytes(heads * shape.value_length)?;
        Some(u64::from(shape.blocks) * (keys + values))
    }

    /// Bytes of weights and cache together for a context, which is rounded up as llama.cpp does.
    pub fn total_bytes(&self, context: u64, key: TensorType, value: TensorType) -> Option<u64> {
        let context = context.checked_next_multiple_of(CONTEXT_STEP_TOKENS)?;
        let cache = self.kv_bytes_per_token(key, value)?.checked_mul(context)?;
        self.weights_bytes().checked_add(cache)
    }
}
