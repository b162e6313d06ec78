//! The footprint of a model: bytes of its weights, tensor by tensor; bytes of its key-value cache,
//! block by block, as llama.cpp allocates it.

use crate::gguf::{Gguf, TensorInfo};
use crate::inventory::Role;
use crate::shape::{Shape, ShapeError};
use crate::tensor::TensorType;

/// llama.cpp rounds the context up to a multiple of this many tokens.
pub const CONTEXT_STEP_TOKENS: u64 = 256;

/// The micro-batch of llama.cpp's defaults, in tokens: windows are cached with room for one.
const MICRO_BATCH_TOKENS: u64 = 512;

/// One tensor's part of the footprint.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Weight {
    /// Its name.
    pub name: String,
    /// What it does.
    pub role: Role,
    /// Which block it belongs to; `None` for those of the model as a whole.
    pub block: Option<u32>,
    /// How its numbers are stored.
    pub tensor_type: TensorType,
    /// Its size.
    pub bytes: u64,
}

/// How many bytes a model takes. Buffers for intermediate results come on top; they depend on the
/// batch, not on the model.
#[derive(Clone, PartialEq, Debug)]
pub struct Footprint {
    weights: Vec<Weight>,
    shape: Shape,
    /// Whether the layer that guesses further tokens is loaded.
    predicts: bool,
}

/// How a key-value cache is laid out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Cache {
    /// Tokens of context.
    pub context_tokens: u64,
    /// Tokens that are computed at once: a window is cached with room for that many more.
    pub micro_batch_tokens: u64,
    /// Sequences that share the context: each has its own window.
    pub sequences: u64,
    /// Type of the keys.
    pub key: TensorType,
    /// Type of the values.
    pub value: TensorType,
}

impl Footprint {
    /// The footprint of an open model.
    pub fn of(gguf: &Gguf) -> Result<Self, ShapeError> {
        Ok(Self::new(Shape::of(gguf)?, gguf.tensors()))
    }

    /// The footprint of a shape with these tensors.
    pub fn new(shape: Shape, tensors: &[TensorInfo]) -> Self {
        let weight = |tensor: &TensorInfo| {
            let (role, block) = Role::of_name(&tensor.name);
            let (name, bytes) = (tensor.name.clone(), tensor.bytes());
            Weight { name, role, block, tensor_type: tensor.tensor_type, bytes }
        };
        Self { weights: tensors.iter().map(weight).collect(), shape, predicts: true }
    }

    /// The footprint when the blocks that guess further tokens stay in the file.
    #[must_use]
    pub fn without_prediction(mut self) -> Self {
        let shape = &self.shape;
        self.weights.retain(|weight| !weight.block.is_some_and(|block| shape.predicts(block)));
        Self { predicts: false, ..self }
    }

    /// Whether blocks that guess further tokens are counted.
    pub fn has_prediction(&self) -> bool {
        self.predicts && self.shape.prediction_blocks > 0
    }

    /// The numbers of the model.
    pub fn shape(&self) -> &Shape {
        &self.shape
    }

    /// Every tensor.
    pub fn weights(&self) -> &[Weight] {
        &self.weights
    }

    /// Bytes of the weights with a role.
    pub fn role_bytes(&self, role: Role) -> u64 {
        self.sum(|weight| weight.role == role)
    }

    /// Bytes of the weights, role by role; roles without tensors are left out.
    pub fn roles(&self) -> impl Iterator<Item = (Role, u64)> + '_ {
        let mut roles: Vec<Role> = self.weights.iter().map(|weight| weight.role).collect();
        roles.sort_unstable();
        roles.dedup();
        roles.into_iter().map(|role| (role, self.role_bytes(role)))
    }

    /// Bytes of the weights of one block.
    pub fn block_bytes(&self, block: u32) -> u64 {
        self.sum(|weight| weight.block == Some(block))
    }

    /// Bytes of all weights.
    pub fn weights_bytes(&self) -> u64 {
        self.sum(|_| true)
    }

    /// Bytes of the weights of all experts.
    pub fn experts_bytes(&self) -> u64 {
        self.sum(|weight| weight.role.is_experts())
    }

    fn sum(&self, choose: impl Fn(&Weight) -> bool) -> u64 {
        self.weights.iter().filter(|weight| choose(weight)).map(|weight| weight.bytes).sum()
    }

    /// Bytes of a tensor that one token makes the machine read: of experts those that it uses, of
    /// an embedding one row (a tied one is read whole, as output matrix), of blocks that guess further tokens nothing: those
    /// are read for guesses.
    pub fn read_bytes(&self, weight: &Weight) -> u64 {
        let shape = &self.shape;
        if weight.block.is_some_and(|block| shape.predicts(block)) {
            return 0;
        }
        match weight.role {
            role if role.is_experts() && shape.experts > 0 => {
                weight.bytes / u64::from(shape.experts) * u64::from(shape.experts_used)
            }
            Role::TokenEmbedding if !shape.tied_output => {
                weight.bytes.checked_div(shape.vocabulary).unwrap_or(0)
            }
            _ => weight.bytes,
        }
    }

    /// Bytes of weights that one token makes the machine read. Memory bandwidth over this is the
    /// highest speed of decoding.
    pub fn bytes_per_token(&self) -> u64 {
        self.weights.iter().map(|weight| self.read_bytes(weight)).sum()
    }

    /// Bytes of keys and values that one token leaves in the cache of one block; `None` when a
    /// head's length is no multiple of the type's block, which llama.cpp refuses too.
    fn cell_bytes(&self, key: TensorType, value: TensorType) -> Option<u64> {
        let shape = &self.shape;
        let heads = u64::from(shape.heads_kv);
        key.row_bytes(shape.key_length)?;
        let keys = key.row_bytes(heads * shape.key_length)?;
        if shape.latent.as_ref().is_some_and(|latent| latent.split) {
            return Some(keys); // values are made from the latent vector that is cached as the key
        }
        value.row_bytes(shape.value_length)?;
        Some(keys + value.row_bytes(heads * shape.value_length)?)
    }

    /// Bytes of keys and values that each token of context leaves in the cache, until windows are
    /// full; `None` when the types do not suit the heads.
    pub fn kv_bytes_per_token(&self, key: TensorType, value: TensorType) -> Option<u64> {
        let blocks = (0..self.shape.blocks).filter(|block| self.has_cache(*block)).count();
        Some(blocks as u64 * self.cell_bytes(key, value)?)
    }

    fn has_cache(&self, block: u32) -> bool {
        self.predicts || !self.shape.predicts(block)
    }

    /// Bytes of the cache of one block: its cells are the context's, or those of its window and one
    /// micro-batch, in steps of 256. A block that guesses further tokens follows one sequence at a time.
    pub fn kv_block_bytes(&self, block: u32, cache: &Cache) -> Option<u64> {
        if !self.has_cache(block) {
            return Some(0);
        }
        let followed = if self.shape.predicts(block) { cache.sequences.max(1) } else { 1 };
        let cells = cache.context_tokens / followed;
        let cells = cells.checked_next_multiple_of(CONTEXT_STEP_TOKENS)?;
        let cells = match self.shape.window(block) {
            None => cells,
            Some(window) => {
                let needed = window.checked_mul(cache.sequences)?;
                let needed = needed.checked_add(cache.micro_batch_tokens)?;
                cells.min(needed).checked_next_multiple_of(CONTEXT_STEP_TOKENS)?
            }
        };
        cells.checked_mul(self.cell_bytes(cache.key, cache.value)?)
    }

    /// Bytes of the whole cache.
    pub fn kv_bytes(&self, cache: &Cache) -> Option<u64> {
        let mut blocks = (0..self.shape.blocks).map(|block| self.kv_block_bytes(block, cache));
        blocks.try_fold(0_u64, |sum, bytes| sum.checked_add(bytes?))
    }

    /// Bytes of weights and cache together for a context, which is rounded up as llama.cpp does.
    pub fn total_bytes(&self, context: u64, key: TensorType, value: TensorType) -> Option<u64> {
        let micro_batch_tokens = MICRO_BATCH_TOKENS;
        let sequences = 1;
        let cache = Cache { context_tokens: context, micro_batch_tokens, sequences, key, value };
        self.weights_bytes().checked_add(self.kv_bytes(&cache)?)
    }
}
