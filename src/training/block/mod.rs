//! A decoder's block: attention and a feed-forward part, each behind a norm and around it a residual.

mod attention;
mod feed_forward;

use candle_core::{Result, Tensor};

pub use attention::Attention;
pub use feed_forward::FeedForward;

use crate::training::linear::{Adapters, Gradients};
use crate::training::ops::activation::Activation;
use crate::training::ops::attention::View;
use crate::training::ops::norm::{rms_norm, rms_norm_back};
use crate::training::ops::rope::{Angles, Pairs};

/// What of a block's work is kept for the way back; the rest is computed again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keep {
    /// All that the way back reads.
    All,
    /// What matrix products made; norms and activations are computed again.
    Selective,
    /// What goes in.
    Boundary,
}

/// What all blocks of a decoder share.
#[derive(Debug, Clone)]
pub struct BlockShape {
    /// Heads of queries.
    pub heads: usize,
    /// Heads of keys and values.
    pub key_heads: usize,
    /// Added to mean squares.
    pub epsilon: f64,
    /// On the gate.
    pub activation: Activation,
    /// How positions turn heads.
    pub pairs: Pairs,
    /// Factor on what a part adds to the residual (Granite).
    pub residual_scale: Option<f64>,
}

/// What a block computes with besides its weights.
#[derive(Debug, Clone, Copy)]
pub struct Scene<'a> {
    /// What all blocks share.
    pub shape: &'a BlockShape,
    /// The position of each token in its document.
    pub positions: &'a [u32],
    /// By how much positions turn heads.
    pub angles: &'a Angles,
    /// Who sees whom.
    pub view: &'a View,
    /// Adapters of all linear maps.
    pub adapters: &'a Adapters,
}

/// A block's weights.
#[derive(Debug, Clone)]
pub struct Block {
    /// Tokens look at each other.
    pub attention: Attention,
    /// Each token for itself.
    pub feed_forward: FeedForward,
}

/// What is left of a block's work for the way back.
#[derive(Debug)]
pub struct Saved {
    x: Tensor,
    work: Option<Work>,
}

/// Results within a block.
#[derive(Debug)]
struct Work {
    attention: attention::Work,
    /// Between the two parts.
    middle: Tensor,
    feed_forward: feed_forward::Work,
}

impl Saved {
    /// Bytes that it holds.
    pub fn bytes(&self) -> usize {
        let bytes = |tensor: &Tensor| tensor.elem_count() * tensor.dtype().size_in_bytes();
        let work = self.work.iter().flat_map(|work| {
            let parts = work.attention.tensors().into_iter().chain(work.feed_forward.tensors());
            parts.chain([&work.middle])
        });
        work.chain([&self.x]).map(bytes).sum()
    }
}

impl Block {
    /// `x` \[tokens, hidden\] through the block.
    pub fn forward(&self, x: &Tensor, scene: Scene<'_>, keep: Keep) -> Result<(Tensor, Saved)> {
        let (y, mut work) = self.compute(x, scene)?;
        if keep == Keep::Selective {
            work.attention.forget();
            work.feed_forward.forget();
        }
        let work = (keep != Keep::Boundary).then_some(work);
        Ok((y, Saved { x: x.clone(), work }))
    }

    fn compute(&self, x: &Tensor, scene: Scene<'_>) -> Result<(Tensor, Work)> {
        let (middle, attention) = self.attention.forward(x, scene)?;
        let (y, feed_forward) = self.feed_forward.forward(&middle, scene)?;
        Ok((y, Work { attention, middle, feed_forward }))
    }

    /// The gradient of x from that of the result; gradients of adapters are added up.
    pub fn backward(
        &self,
        saved: Saved,
        dy: &Tensor,
        scene: Scene<'_>,
        gradients: &mut Gradients,
    ) -> Result<Tensor> {
        let Saved { x, work } = saved;
        let work = match work {
            Some(work) => work,
            None => self.compute(&x, scene)?.1,
        };
        let Work { attention, middle, feed_forward } = work;
        let mut back = Back { scene, gradients };
        let dmiddle = self.feed_forward.backward(&middle, feed_forward, dy, &mut back)?;
        self.attention.backward(&x, attention, &dmiddle, &mut back)
    }
}

/// What the way back through a part needs besides its weights and work.
struct Back<'a> {
    scene: Scene<'a>,
    gradients: &'a mut Gradients,
}

/// A norm where there is one; then also what went into it.
fn norm_some(x: Tensor, norm: Option<&Tensor>, epsilon: f64) -> Result<(Tensor, Option<Tensor>)> {
    match norm {
        Some(norm) => Ok((rms_norm(&x, norm, epsilon)?, Some(x))),
        None => Ok((x, None)),
    }
}

/// The way back through [`norm_some`]; `raw` is what went into the norm.
fn norm_some_back(
    raw: Option<&Tensor>,
    norm: Option<&Tensor>,
    epsilon: f64,
    dy: &Tensor,
) -> Result<Tensor> {
    match (raw, norm) {
        (Some(raw), Some(norm)) => rms_norm_back(raw, norm, epsilon, dy),
        _ => Ok(dy.clone()),
    }
}

#[cfg(test)]
mod tests;
