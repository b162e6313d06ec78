//! The part of a block in which tokens look at each other.

use candle_core::{Result, Tensor};

use super::{Back, Scene, norm_some, norm_some_back};
use crate::training::linear::{Linear, Passed};
use crate::training::ops::attention::{attention, attention_back};
use crate::training::ops::norm::{rms_norm, rms_norm_back};
use crate::training::ops::rope::{rope, rope_back};
use crate::training::ops::scaled;

/// x + norm(o(attention(q, k, v of norm(x)))).
#[derive(Debug, Clone)]
pub struct Attention {
    /// Before everything.
    pub norm: Tensor,
    /// Queries.
    pub q: Linear,
    /// Keys.
    pub k: Linear,
    /// Values.
    pub v: Linear,
    /// Of each query head, before it is turned (Qwen3, Gemma 3).
    pub q_norm: Option<Tensor>,
    /// Of each key head.
    pub k_norm: Option<Tensor>,
    /// Out of attention.
    pub o: Linear,
    /// Before the residual (Gemma 2 and 3).
    pub post_norm: Option<Tensor>,
}

/// Results on the way.
#[derive(Debug)]
pub(super) struct Work {
    /// The norm's result; it is computed again where it was forgotten.
    normed: Option<Tensor>,
    /// Before their norms, where there are such.
    q_raw: Option<Tensor>,
    k_raw: Option<Tensor>,
    /// Turned.
    q: Tensor,
    k: Tensor,
    v: Tensor,
    /// Heads side by side.
    mixed: Tensor,
    /// Before the last norm, where there is one.
    attended_raw: Option<Tensor>,
    /// x·Aᵀ of the adapters of q, k, v and o.
    inners: [Option<Tensor>; 4],
}

impl Work {
    /// Drops what is cheap to compute again.
    pub(super) fn forget(&mut self) {
        self.normed = None;
    }

    pub(super) fn tensors(&self) -> Vec<&Tensor> {
        let some = [&self.normed, &self.q_raw, &self.k_raw, &self.attended_raw];
        let some = some.into_iter().chain(&self.inners).flatten();
        some.chain([&self.q, &self.k, &self.v, &self.mixed]).collect()
    }
}

impl Attention {
    pub(super) fn forward(&self, x: &Tensor, scene: Scene<'_>) -> Result<(Tensor, Work)> {
        let Scene { shape, adapters, .. } = scene;
        let tokens = x.dim(0)?;
        let normed = rms_norm(x, &self.norm, shape.epsilon)?;
        let (q, q_inner) = self.q.forward(&normed, adapters)?;
        let (k, k_inner) = self.k.forward(&normed, adapters)?;
        let (v, v_inner) = self.v.forward(&normed, adapters)?;
        let (q, q_raw) = turn(&q, shape.heads, self.q_norm.as_ref(), scene)?;
        let (k, k_raw) = turn(&k, shape.key_heads, self.k_norm.as_ref(), scene)?;
        let v = v.reshape((tokens, shape.key_heads, ()))?;
        let mixed = attention(&q, &k, &v, scene.view)?.reshape((tokens, ()))?;
        let (attended, o_inner) = self.o.forward(&mixed, adapters)?;
        let (attended, attended_raw) = norm_some(attended, self.post_norm.as_ref(), shape.epsilon)?;
        let inners = [q_inner, k_inner, v_inner, o_inner];
        let normed = Some(normed);
        let work = Work { normed, q_raw, k_raw, q, k, v, mixed, attended_raw, inners };
        Ok(((x + scaled(attended, shape.residual_scale)?)?, work))
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
        let (tokens, epsilon) = (x.dim(0)?, shape.epsilon);
        let normed = match work.normed {
            Some(normed) => normed,
            None => rms_norm(x, &self.norm, epsilon)?,
        };
        let [q_inner, k_inner, v_inner, o_inner] = &work.inners;
        let post_norm = self.post_norm.as_ref();
        let dadded = scaled(dy.clone(), shape.residual_scale)?;
        let dattended = norm_some_back(work.attended_raw.as_ref(), post_norm, epsilon, &dadded)?;
        let passed = Passed { x: &work.mixed, inner: o_inner.as_ref() };
        let dmixed = self.o.backward(passed, &dattended, adapters, gradients)?;
        let dmixed = dmixed.reshape((tokens, shape.heads, ()))?;
        let (dq, dk, dv) = attention_back(&work.q, &work.k, &work.v, scene.view, &dmixed)?;
        let dq = turn_back(&dq, work.q_raw.as_ref(), self.q_norm.as_ref(), *scene)?;
        let dk = turn_back(&dk, work.k_raw.as_ref(), self.k_norm.as_ref(), *scene)?;
        let dv = dv.reshape((tokens, ()))?;
        let passed = |inner| Passed { x: &normed, inner };
        let through_q = self.q.backward(passed(q_inner.as_ref()), &dq, adapters, gradients)?;
        let through_k = self.k.backward(passed(k_inner.as_ref()), &dk, adapters, gradients)?;
        let through_v = self.v.backward(passed(v_inner.as_ref()), &dv, adapters, gradients)?;
        let dnormed = ((through_q + through_k)? + through_v)?;
        dy + rms_norm_back(x, &self.norm, epsilon, &dnormed)?
    }
}

/// Heads of \[tokens, heads · width\], behind their norm where there is one, turned by their positions; also what went
/// into the norm.
fn turn(
    x: &Tensor,
    heads: usize,
    norm: Option<&Tensor>,
    scene: Scene<'_>,
) -> Result<(Tensor, Option<Tensor>)> {
    let x = x.reshape((x.dim(0)?, heads, ()))?;
    let (x, raw) = norm_some(x, norm, scene.shape.epsilon)?;
    Ok((rope(&x, scene.positions, scene.angles, scene.shape.pairs)?, raw))
}

/// The way back through [`turn`].
fn turn_back(
    dy: &Tensor,
    raw: Option<&Tensor>,
    norm: Option<&Tensor>,
    scene: Scene<'_>,
) -> Result<Tensor> {
    let dx = rope_back(dy, scene.positions, scene.angles, scene.shape.pairs)?;
    let dx = norm_some_back(raw, norm, scene.shape.epsilon, &dx)?;
    dx.reshape((dx.dim(0)?, ()))
}
