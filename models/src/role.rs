//! Roles: what a tensor does in a model, and the name that GGUF gives it.

/// What a tensor does in a model.
#[expect(missing_docs, reason = "a variant's name is the field's word for it")]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Role {
    TokenEmbedding,
    OutputNorm,
    Output,
    OutputBias,
    RopeFactors,
    RopeFactorsLong,
    RopeFactorsShort,
    AttentionNorm,
    AttentionQuery,
    AttentionQueryBias,
    AttentionQueryNorm,
    AttentionKey,
    AttentionKeyBias,
    AttentionKeyNorm,
    AttentionValue,
    AttentionValueBias,
    /// Queries, keys and values in one matrix.
    AttentionFused,
    AttentionFusedBias,
    AttentionOutput,
    AttentionOutputBias,
    /// A logit for each head that stands for "no token at all".
    AttentionSinks,
    /// Down to the rank of the queries (latent attention).
    AttentionQueryDown,
    AttentionQueryDownNorm,
    AttentionQueryUp,
    /// Down to the latent vector that is cached in place of keys and values, and the rotated part.
    AttentionLatent,
    AttentionLatentNorm,
    AttentionLatentKey,
    AttentionLatentValue,
    /// Keys and values from the latent vector in one matrix, as in files before 2025.
    AttentionLatentBoth,
    PostAttentionNorm,
    FeedForwardNorm,
    PostFeedForwardNorm,
    FeedForwardGate,
    FeedForwardGateBias,
    FeedForwardUp,
    FeedForwardUpBias,
    FeedForwardDown,
    FeedForwardDownBias,
    Router,
    RouterBias,
    /// Added to the experts' scores for the choice alone.
    RouterScoresBias,
    ExpertsGate,
    ExpertsGateBias,
    ExpertsUp,
    ExpertsUpBias,
    /// Gate and up in one stack.
    ExpertsGateUp,
    ExpertsDown,
    ExpertsDownBias,
    /// The expert that every token uses.
    SharedGate,
    SharedUp,
    SharedDown,
    /// Puts a token's embedding and the state of the token before it together, in a layer that guesses further tokens.
    PredictionProjection,
    PredictionEmbedding,
    PredictionEmbeddingNorm,
    PredictionStateNorm,
    PredictionOutput,
    PredictionOutputNorm,
    /// A tensor that no architecture of ours names.
    Other,
}

/// Roles and the names of their tensors; those of a block are prefixed with `blk.N.`.
const NAMES: [(Role, &str); 57] = [
    (Role::TokenEmbedding, "token_embd.weight"),
    (Role::OutputNorm, "output_norm.weight"),
    (Role::Output, "output.weight"),
    (Role::OutputBias, "output.bias"),
    (Role::RopeFactors, "rope_freqs.weight"),
    (Role::RopeFactorsLong, "rope_factors_long.weight"),
    (Role::RopeFactorsShort, "rope_factors_short.weight"),
    (Role::AttentionNorm, "attn_norm.weight"),
    (Role::AttentionQuery, "attn_q.weight"),
    (Role::AttentionQueryBias, "attn_q.bias"),
    (Role::AttentionQueryNorm, "attn_q_norm.weight"),
    (Role::AttentionKey, "attn_k.weight"),
    (Role::AttentionKeyBias, "attn_k.bias"),
    (Role::AttentionKeyNorm, "attn_k_norm.weight"),
    (Role::AttentionValue, "attn_v.weight"),
    (Role::AttentionValueBias, "attn_v.bias"),
    (Role::AttentionFused, "attn_qkv.weight"),
    (Role::AttentionFusedBias, "attn_qkv.bias"),
    (Role::AttentionOutput, "attn_output.weight"),
    (Role::AttentionOutputBias, "attn_output.bias"),
    (Role::AttentionSinks, "attn_sinks.weight"),
    (Role::AttentionQueryDown, "attn_q_a.weight"),
    (Role::AttentionQueryDownNorm, "attn_q_a_norm.weight"),
    (Role::AttentionQueryUp, "attn_q_b.weight"),
    (Role::AttentionLatent, "attn_kv_a_mqa.weight"),
    (Role::AttentionLatentNorm, "attn_kv_a_norm.weight"),
    (Role::AttentionLatentKey, "attn_k_b.weight"),
    (Role::AttentionLatentValue, "attn_v_b.weight"),
    (Role::AttentionLatentBoth, "attn_kv_b.weight"),
    (Role::PostAttentionNorm, "post_attention_norm.weight"),
    (Role::FeedForwardNorm, "ffn_norm.weight"),
    (Role::PostFeedForwardNorm, "post_ffw_norm.weight"),
    (Role::FeedForwardGate, "ffn_gate.weight"),
    (Role::FeedForwardGateBias, "ffn_gate.bias"),
    (Role::FeedForwardUp, "ffn_up.weight"),
    (Role::FeedForwardUpBias, "ffn_up.bias"),
    (Role::FeedForwardDown, "ffn_down.weight"),
    (Role::FeedForwardDownBias, "ffn_down.bias"),
    (Role::Router, "ffn_gate_inp.weight"),
    (Role::RouterBias, "ffn_gate_inp.bias"),
    (Role::RouterScoresBias, "exp_probs_b.bias"),
    (Role::ExpertsGate, "ffn_gate_exps.weight"),
    (Role::ExpertsGateBias, "ffn_gate_exps.bias"),
    (Role::ExpertsUp, "ffn_up_exps.weight"),
    (Role::ExpertsUpBias, "ffn_up_exps.bias"),
    (Role::ExpertsGateUp, "ffn_gate_up_exps.weight"),
    (Role::ExpertsDown, "ffn_down_exps.weight"),
    (Role::ExpertsDownBias, "ffn_down_exps.bias"),
    (Role::SharedGate, "ffn_gate_shexp.weight"),
    (Role::SharedUp, "ffn_up_shexp.weight"),
    (Role::SharedDown, "ffn_down_shexp.weight"),
    (Role::PredictionProjection, "nextn.eh_proj.weight"),
    (Role::PredictionEmbedding, "nextn.embed_tokens.weight"),
    (Role::PredictionEmbeddingNorm, "nextn.enorm.weight"),
    (Role::PredictionStateNorm, "nextn.hnorm.weight"),
    (Role::PredictionOutput, "nextn.shared_head_head.weight"),
    (Role::PredictionOutputNorm, "nextn.shared_head_norm.weight"),
];

impl Role {
    /// Whether the tensor belongs to a block, rather than to the model as a whole.
    pub fn in_block(self) -> bool {
        !matches!(
            self,
            Self::TokenEmbedding
                | Self::OutputNorm
                | Self::Output
                | Self::OutputBias
                | Self::RopeFactors
                | Self::RopeFactorsLong
                | Self::RopeFactorsShort
                | Self::Other
        )
    }

    /// Whether the tensor holds the weights of all experts, of which a token uses a few.
    pub fn is_experts(self) -> bool {
        matches!(
            self,
            Self::ExpertsGate
                | Self::ExpertsGateBias
                | Self::ExpertsUp
                | Self::ExpertsUpBias
                | Self::ExpertsGateUp
                | Self::ExpertsDown
                | Self::ExpertsDownBias
        )
    }

    /// Whether the tensor belongs to a feed-forward layer that every token passes whole.
    pub fn is_dense_feed_forward(self) -> bool {
        matches!(
            self,
            Self::FeedForwardGate
                | Self::FeedForwardGateBias
                | Self::FeedForwardUp
                | Self::FeedForwardUpBias
                | Self::FeedForwardDown
                | Self::FeedForwardDownBias
        )
    }

    /// The name of the tensor with this role, in a block where it belongs to one.
    pub fn tensor_name(self, block: Option<u32>) -> String {
        let name = NAMES.iter().find(|(role, _)| *role == self).map_or("", |(_, name)| name);
        match block {
            Some(block) => format!("blk.{block}.{name}"),
            None => name.to_owned(),
        }
    }

    /// The role and block that a tensor's name tells, in any architecture.
    pub fn of_name(name: &str) -> (Self, Option<u32>) {
        let in_block = name.strip_prefix("blk.").and_then(|rest| rest.split_once('.'));
        let (suffix, block) = match in_block {
            Some((block, suffix)) => (suffix, block.parse().ok()),
            None => (name, None),
        };
        let found = NAMES.iter().find(|(role, each)| {
            *each == suffix && (role.in_block() == block.is_some() || *role == Self::RopeFactors)
        });
        (found.map_or(Self::Other, |(role, _)| *role), block)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_roles_are_one_to_one() {
        for (role, name) in NAMES {
            let block = role.in_block().then_some(7);
            assert_eq!(Role::of_name(&role.tensor_name(block)), (role, block), "{name}");
        }
        assert_eq!(Role::of_name("blk.3.ssm_in.weight"), (Role::Other, Some(3)));
        assert_eq!(Role::of_name("blk.3.output.weight"), (Role::Other, Some(3)));
        assert_eq!(Role::of_name("attn_q.weight"), (Role::Other, None));
    }
}
