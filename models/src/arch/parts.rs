//! The parts that decoders share: what an architecture's file puts together, block by block.

use crate::inventory::{Role, TensorSpec};
use crate::shape::Shape;

/// Gathers the tensors of a model in the order in which llama.cpp names them.
pub(super) struct Parts<'a> {
    shape: &'a Shape,
    block: Option<u32>,
    specs: Vec<TensorSpec>,
}

impl<'a> Parts<'a> {
    /// A model of this shape: what stands before the blocks, each block by `block`, then the end.
    pub(super) fn model(shape: &'a Shape, block: impl Fn(&mut Self, u32)) -> Vec<TensorSpec> {
        let mut parts = Self { shape, block: None, specs: Vec::new() };
        parts.push(Role::TokenEmbedding, &[shape.embedding, shape.vocabulary]);
        if shape.rope_factors {
            parts.push(Role::RopeFactors, &[shape.rope_dimensions / 2]);
        }
        if shape.rope_long_factors {
            parts.push(Role::RopeFactorsLong, &[shape.rope_dimensions / 2]);
            parts.push(Role::RopeFactorsShort, &[shape.rope_dimensions / 2]);
        }
        for number in 0..shape.blocks {
            parts.block = Some(number);
            block(&mut parts, number);
            if shape.predicts(number) {
                parts.prediction();
            }
        }
        parts.block = None;
        parts.push(Role::OutputNorm, &[shape.embedding]);
        if !shape.tied_output {
            parts.push(Role::Output, &[shape.embedding, shape.vocabulary]);
        }
        parts.specs
    }

    /// A tensor of the block at hand.
    pub(super) fn push(&mut self, role: Role, dimensions: &[u64]) {
        self.specs.push(TensorSpec::new(role, self.block, dimensions));
    }

    /// A tensor that the block at hand may lack.
    pub(super) fn optional(&mut self, role: Role, dimensions: &[u64]) {
        let spec = TensorSpec::new(role, self.block, dimensions);
        self.specs.push(TensorSpec { required: false, ..spec });
    }

    /// What a block has besides when it guesses further tokens. What it lacks, it shares with the model.
    fn prediction(&mut self) {
        let (embedding, vocabulary) = (self.shape.embedding, self.shape.vocabulary);
        self.push(Role::PredictionProjection, &[2 * embedding, embedding]);
        self.norm(Role::PredictionEmbeddingNorm);
        self.norm(Role::PredictionStateNorm);
        self.optional(Role::PredictionEmbedding, &[embedding, vocabulary]);
        self.optional(Role::PredictionOutput, &[embedding, vocabulary]);
        self.optional(Role::PredictionOutputNorm, &[embedding]);
    }

    /// A vector as long as the embedding.
    pub(super) fn norm(&mut self, role: Role) {
        self.push(role, &[self.shape.embedding]);
    }

    /// Queries, keys, values and output of attention whose heads share keys in groups.
    pub(super) fn attention(&mut self) {
        let shape = self.shape;
        let query = u64::from(shape.heads) * shape.key_length;
        let key = u64::from(shape.heads_kv) * shape.key_length;
        let value = u64::from(shape.heads_kv) * shape.value_length;
        // What the heads give: one value vector each.
        let output = u64::from(shape.heads) * shape.value_length;
        if shape.fused_attention {
            self.push(Role::AttentionFused, &[shape.embedding, query + key + value]);
        } else {
            self.push(Role::AttentionQuery, &[shape.embedding, query]);
            self.push(Role::AttentionKey, &[shape.embedding, key]);
            self.push(Role::AttentionValue, &[shape.embedding, value]);
        }
        self.push(Role::AttentionOutput, &[output, shape.embedding]);
        if shape.attention_bias && !shape.fused_attention {
            self.push(Role::AttentionQueryBias, &[query]);
            self.push(Role::AttentionKeyBias, &[key]);
            self.push(Role::AttentionValueBias, &[value]);
        }
        if shape.attention_output_bias {
            self.norm(Role::AttentionOutputBias);
        }
    }

    /// Norms of each query and each key.
    pub(super) fn head_norms(&mut self) {
        self.push(Role::AttentionQueryNorm, &[self.shape.key_length]);
        self.push(Role::AttentionKeyNorm, &[self.shape.key_length]);
    }

    /// A feed-forward layer with a gate.
    pub(super) fn feed_forward(&mut self) {
        let shape = self.shape;
        self.push(Role::FeedForwardGate, &[shape.embedding, shape.feed_forward]);
        self.push(Role::FeedForwardUp, &[shape.embedding, shape.feed_forward]);
        self.push(Role::FeedForwardDown, &[shape.feed_forward, shape.embedding]);
        if shape.mlp_bias {
            self.push(Role::FeedForwardGateBias, &[shape.feed_forward]);
            self.push(Role::FeedForwardUpBias, &[shape.feed_forward]);
            self.norm(Role::FeedForwardDownBias);
        }
    }

    /// A router and the experts that it chooses from.
    pub(super) fn experts(&mut self) {
        let shape = self.shape;
        let (embedding, inner) = (shape.embedding, shape.expert_feed_forward);
        let count = u64::from(shape.experts);
        self.push(Role::Router, &[embedding, count]);
        self.push(Role::ExpertsGate, &[embedding, inner, count]);
        self.push(Role::ExpertsUp, &[embedding, inner, count]);
        self.push(Role::ExpertsDown, &[inner, embedding, count]);
    }

    /// The expert that every token uses, where there is one.
    pub(super) fn shared_expert(&mut self) {
        let (embedding, inner) = (self.shape.embedding, self.shape.shared_feed_forward);
        if inner > 0 {
            self.push(Role::SharedGate, &[embedding, inner]);
            self.push(Role::SharedUp, &[embedding, inner]);
            self.push(Role::SharedDown, &[inner, embedding]);
        }
    }
}
