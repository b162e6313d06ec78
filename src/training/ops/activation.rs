//! Gated activations: SwiGLU and GeGLU (Shazeer 2020, arXiv:2002.05202).

use candle_core::{Result, Tensor};
use rayon::prelude::*;

use super::{Real, by_type, read};

/// Numbers that one thread takes at a time.
const CHUNK: usize = 4096;

/// The function on the gate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activation {
    /// x·σ(x).
    Silu,
    /// The tanh approximation of x·Φ(x).
    Gelu,
}

impl Activation {
    /// Value and derivative.
    fn at<T: Real>(self, x: T) -> (T, T) {
        let one = T::one();
        match self {
            Self::Silu => {
                let sigmoid = one / (one + (-x).exp());
                (x * sigmoid, sigmoid * (one + x * (one - sigmoid)))
            }
            Self::Gelu => {
                // 0.5·x·(1 + tanh(√(2/π)·(x + 0.044715·x³)))
                let root = T::of((2.0 / std::f64::consts::PI).sqrt());
                let (cubic, half) = (T::of(0.044_715), T::of(0.5));
                let tanh = (root * (x + cubic * x * x * x)).tanh();
                let inner = root * (one + T::of(3.0) * cubic * x * x);
                let value = half * x * (one + tanh);
                (value, half * (one + tanh) + half * x * (one - tanh * tanh) * inner)
            }
        }
    }
}

/// activation(gate)·up, number by number.
pub fn gated(activation: Activation, gate: &Tensor, up: &Tensor) -> Result<Tensor> {
    by_type!(gate, T => forward::<T>(activation, gate, up))
}

fn forward<T: Real>(activation: Activation, gate: &Tensor, up: &Tensor) -> Result<Tensor> {
    let mut y = vec![T::zero(); gate.elem_count()];
    read::<T, _>(gate, |gate| {
        read::<T, _>(up, |up| {
            let inputs = gate.par_chunks(CHUNK).zip(up.par_chunks(CHUNK));
            y.par_chunks_mut(CHUNK).zip(inputs).for_each(|(y, (gate, up))| {
                for ((y, gate), up) in y.iter_mut().zip(gate).zip(up) {
                    *y = activation.at(*gate).0 * *up;
                }
            });
        })
    })??;
    Tensor::from_vec(y, gate.shape(), gate.device())
}

/// The gradients of gate and up, in this order.
pub fn gated_back(
    activation: Activation,
    gate: &Tensor,
    up: &Tensor,
    dy: &Tensor,
) -> Result<(Tensor, Tensor)> {
    by_type!(gate, T => backward::<T>(activation, gate, up, dy))
}

fn backward<T: Real>(
    activation: Activation,
    gate: &Tensor,
    up: &Tensor,
    dy: &Tensor,
) -> Result<(Tensor, Tensor)> {
    let count = gate.elem_count();
    let (mut dgate, mut dup) = (vec![T::zero(); count], vec![T::zero(); count]);
    read::<T, _>(gate, |gate| {
        read::<T, _>(up, |up| {
            read::<T, _>(dy, |dy| {
                let inputs =
                    gate.par_chunks(CHUNK).zip(up.par_chunks(CHUNK)).zip(dy.par_chunks(CHUNK));
                let outputs = dgate.par_chunks_mut(CHUNK).zip(dup.par_chunks_mut(CHUNK));
                outputs.zip(inputs).for_each(|((dgate, dup), ((gate, up), dy))| {
                    for index in 0..gate.len() {
                        let (value, slope) = activation.at(gate[index]);
                        dgate[index] = slope * up[index] * dy[index];
                        dup[index] = value * dy[index];
                    }
                });
            })
        })
    })???;
    let dgate = Tensor::from_vec(dgate, gate.shape(), gate.device())?;
    Ok((dgate, Tensor::from_vec(dup, up.shape(), up.device())?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::training::ops::check;

    #[test]
    fn gradients_are_those_of_the_formulas() {
        let (gate, up) = (check::noise(1, &[6, 9]), check::noise(2, &[6, 9]));
        let dy = check::noise(3, &[6, 9]);
        for activation in [Activation::Silu, Activation::Gelu] {
            let value =
                |g: &Tensor, u: &Tensor| Ok(check::weighted(&gated(activation, g, u)?, &dy));
            let (dgate, dup) = gated_back(activation, &gate, &up, &dy).unwrap();
            check::gradient("gate", &gate, &dgate, &|gate| value(gate, &up));
            check::gradient("up", &up, &dup, &|up| value(&gate, up));
        }
    }
}
