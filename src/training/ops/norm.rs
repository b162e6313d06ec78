//! RMSNorm (Zhang and Sennrich 2019, arXiv:1910.07467): x / √(mean(x²) + ε) · w, row by row.

use candle_core::{Result, Tensor};
use rayon::prelude::*;

use super::{Real, by_type, read, rows};

/// `x` \[rows, width\] and `weight` \[width\] in, the normalised rows out.
pub fn rms_norm(x: &Tensor, weight: &Tensor, epsilon: f64) -> Result<Tensor> {
    by_type!(x, T => forward::<T>(x, weight, epsilon))
}

fn forward<T: Real>(x: &Tensor, weight: &Tensor, epsilon: f64) -> Result<Tensor> {
    let (count, width) = rows(x)?;
    let mut y = vec![T::zero(); count * width];
    read::<T, _>(x, |x| {
        read::<T, _>(weight, |weight| {
            y.par_chunks_mut(width).zip(x.par_chunks(width)).for_each(|(y, x)| {
                let scale = inverse(x, epsilon);
                for ((y, x), w) in y.iter_mut().zip(x).zip(weight) {
                    *y = *x * scale * *w;
                }
            });
        })
    })??;
    Tensor::from_vec(y, x.shape(), x.device())
}

/// 1 / √(mean(x²) + ε); the mean in double precision.
fn inverse<T: Real>(x: &[T], epsilon: f64) -> T {
    let squares: f64 = x.iter().map(|x| x.wide() * x.wide()).sum();
    T::of(1.0 / (squares / x.len() as f64 + epsilon).sqrt())
}

/// The gradient of `x` from that of the result. With s = 1/√(mean(x²)+ε) and g = w·dy:
/// dx = s·g − x·s³/n·Σ(g·x).
pub fn rms_norm_back(x: &Tensor, weight: &Tensor, epsilon: f64, dy: &Tensor) -> Result<Tensor> {
    by_type!(x, T => backward::<T>(x, weight, epsilon, dy))
}

fn backward<T: Real>(x: &Tensor, weight: &Tensor, epsilon: f64, dy: &Tensor) -> Result<Tensor> {
    let (count, width) = rows(x)?;
    let mut dx = vec![T::zero(); count * width];
    read::<T, _>(x, |x| {
        read::<T, _>(weight, |weight| {
            read::<T, _>(dy, |dy| {
                let rows = x.par_chunks(width).zip(dy.par_chunks(width));
                dx.par_chunks_mut(width).zip(rows).for_each(|(dx, (x, dy))| {
                    let scale = inverse(x, epsilon);
                    let along: T =
                        x.iter().zip(dy).zip(weight).map(|((x, dy), w)| *x * *dy * *w).sum();
                    let pull = scale * scale * scale * along / T::of(width as f64);
                    for (((dx, x), dy), w) in dx.iter_mut().zip(x).zip(dy).zip(weight) {
                        *dx = scale * *w * *dy - *x * pull;
                    }
                });
            })
        })
    })???;
    Tensor::from_vec(dx, x.shape(), x.device())
}

/// The gradient of the weight: Σ over rows of x·s·dy.
pub fn rms_norm_weight_back(x: &Tensor, epsilon: f64, dy: &Tensor) -> Result<Tensor> {
    by_type!(x, T => weight_backward::<T>(x, epsilon, dy))
}

fn weight_backward<T: Real>(x: &Tensor, epsilon: f64, dy: &Tensor) -> Result<Tensor> {
    let (_, width) = rows(x)?;
    let mut dw = vec![T::zero(); width];
    read::<T, _>(x, |x| {
        read::<T, _>(dy, |dy| {
            for (x, dy) in x.chunks(width).zip(dy.chunks(width)) {
                let scale = inverse(x, epsilon);
                for ((dw, x), dy) in dw.iter_mut().zip(x).zip(dy) {
                    *dw += *x * scale * *dy;
                }
            }
        })
    })??;
    Tensor::from_vec(dw, width, x.device())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::training::ops::check;

    #[test]
    fn gradients_are_those_of_the_formula() {
        let (x, weight) = (check::noise(1, &[5, 12]), check::noise(2, &[12]));
        let dy = check::noise(3, &[5, 12]);
        let epsilon = 1e-5;
        let value = |x: &Tensor, w: &Tensor| Ok(check::weighted(&rms_norm(x, w, epsilon)?, &dy));
        let dx = rms_norm_back(&x, &weight, epsilon, &dy).unwrap();
        check::gradient("dx", &x, &dx, &|x| value(x, &weight));
        let dw = rms_norm_weight_back(&x, epsilon, &dy).unwrap();
        check::gradient("dw", &weight, &dw, &|w| value(&x, w));
    }
}
