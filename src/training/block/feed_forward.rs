//! The part of a block in which each token is taken for itself.

use candle_core::{Result, Tensor};

use super::{Back, Scene, norm_some, norm_some_back};
use crate::training::linear::{Linear, Passed};
use crate::training::ops::activation::{gated, gated_back};
use crate::training::ops::norm::{rms_norm, rms_norm_back};
use crate::training::ops::scaled;

/// x + norm(down(activation(gate(n))·up(n))) with n = norm(x).
#[derive(Debug, Clone)]
pub struct FeedForward {
    /// Before everything.
    pub norm: Tensor,
    /// The gate.
    pub gate: Linear,
    /// The way up.
    pub up: Linear,
    /// The way down.
    pub down: Linear,
    /// Before the residual (Gemma 2 and 3).
    pub post_norm: Option<Tensor>,
}

/// Results on the way.
#[derive(Debug)]
pub(super) struct Work {
    gate: Tensor,
    up: Tensor,
    /// Before the last norm, where there is one.
    fed_raw: Option<Tensor>,
    /// x·Aᵀ of the adapters of gate, up and down.
    inners: [Option<Tensor>; 3],
    /// The first norm's result and the gated activation; they are computed again where they were forgotten.
    cheap: Option<(Tensor, Tensor)>,
}

impl Work {
    /// Drops what is cheap to compute again.
    pub(super) fn forget(&mut self) {
        self.cheap = None;
    }

    pub(super) fn tensors(&self) -> Vec<&Tensor> {
        let cheap = self.cheap.iter().flat_map(|(normed, hidden)| [normed, hidden]);
        let some = self.inners.iter().chain([&self.fed_raw]).flatten();
        cheap.chain(some).chain([&self.gate, &self.up]).collect()
    }
}

impl FeedForward {
    pub(super) fn forward(&self, x: &Tensor, scene: Scene<'_>) -> Result<(Tensor, Work)> {
        let Scene { shape, adapters, .. } = scene;
        let normed = rms_norm(x, &self.norm, shape.epsilon)?;
        let (gate, gate_inner) = self.gate.forward(&normed, adapters)?;
        let (up, up_inner) = self.up.forward(&normed, adapters)?;
        let hidden = gated(shape.activation, &gate, &up)?;
        let (fed, down_inner) = self.down.forward(&hidden, adapters)?;
        let (fed, fed_raw) = norm_some(fed, self.post_norm.as_ref(), shape.epsilon)?;
        let inners = [gate_inner, up_inner, down_inner];
        let work = Work { gate, up, fed_raw, inners, cheap: Some((normed, hidden)) };
        Ok(((x + scaled(fed, shape.residual_scale)?)?, work))
    }

    /// The gradient of x from that of the result.
    pub(super) fn backward(
        &self,
        x: &Tensor,
        work: Work,
        dy: &Tensor,
        back: &mut Back<'_>,
    ) -> Result<Tensor> {
        let Back { scene, gradients } = back;
        let Scene { shape, adapters, .. } = *scene;
        let epsilon = shape.epsilon;
        let Work { gate, up, fed_raw, inners, cheap } = work;
        let (normed, hidden) = match cheap {
            Some(cheap) => cheap,
            None => (rms_norm(x, &self.norm, epsilon)?, gated(shape.activation, &gate, &up)?),
        };
        let [gate_inner, up_inner, down_inner] = &inners;
        let dadded = scaled(dy.clone(), shape.residual_scale)?;
        let dfed = norm_some_back(fed_raw.as_ref(), self.post_norm.as_ref(), epsilon, &dadded)?;
        let passed = Passed { x: &hidden, inner: down_inner.as_ref() };
        let dhidden = self.down.backward(passed, &dfed, adapters, gradients)?;
        let (dgate, dup) = gated_back(shape.activation, &gate, &up, &dhidden)?;
        let passed = |inner| Passed { x: &normed, inner };
        let through_gate =
            self.gate.backward(passed(gate_inner.as_ref()), &dgate, adapters, gradients)?;
        let through_up = self.up.backward(passed(up_inner.as_ref()), &dup, adapters, gradients)?;
        let dnormed = (through_gate + through_up)?;
        dy + rms_norm_back(x, &self.norm, epsilon, &dnormed)?
    }
}
