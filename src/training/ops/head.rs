//! The head: from states to the loss and back, without ever holding all logits.
//!
//! Cross-entropy −log softmax(h·Wᵀ)\[target\], summed over rows. A chunk of rows is computed at a time, its logits become
//! their own gradient in place, and only the gradient of the states is kept; with a large vocabulary the logits of a
//! whole batch would be the largest thing in memory.

use candle_core::{Result, Tensor};
use rayon::prelude::*;

use super::{Real, by_type, read};
use crate::training::weight::Weight;

/// Rows whose logits are held at once.
const CHUNK: usize = 128;

/// Loss and gradients of the head.
#[derive(Debug)]
pub struct HeadBack {
    /// Σ over rows of the cross-entropy, in nats.
    pub loss: f64,
    /// The gradient of the states, \[rows, width\], of Σ loss · `factor`.
    pub dstates: Tensor,
}

/// The loss of `states` \[rows, width\] for `targets` (one a row) under `weight` \[vocabulary, width\], and its gradient
/// times `factor`. `cap` bends logits into ±cap.
pub fn cross_entropy(
    states: &Tensor,
    weight: &Weight,
    targets: &[u32],
    factor: f64,
    cap: Option<f64>,
) -> Result<HeadBack> {
    let mut loss = 0.0;
    let mut parts = Vec::new();
    let held = weight.hold(states.dtype())?;
    for (number, targets) in targets.chunks(CHUNK).enumerate() {
        let rows = states.narrow(0, number * CHUNK, targets.len())?;
        let logits = held.forward(&rows)?;
        let (part, dlogits) = by_type!(logits, T => chunk_back::<T>(logits, targets, factor, cap))?;
        loss += part;
        parts.push(held.backward(&dlogits)?);
    }
    let dstates = if parts.is_empty() { states.zeros_like()? } else { Tensor::cat(&parts, 0)? };
    Ok(HeadBack { loss, dstates })
}

/// The loss alone, for evaluation: Σ over rows.
pub fn loss(states: &Tensor, weight: &Weight, targets: &[u32], cap: Option<f64>) -> Result<f64> {
    let held = weight.hold(states.dtype())?;
    let mut loss = 0.0;
    for (number, targets) in targets.chunks(CHUNK).enumerate() {
        let logits = held.forward(&states.narrow(0, number * CHUNK, targets.len())?)?;
        loss += by_type!(logits, T => chunk_back::<T>(logits, targets, 0.0, cap))?.0;
    }
    Ok(loss)
}

fn chunk_back<T: Real>(
    logits: Tensor,
    targets: &[u32],
    factor: f64,
    cap: Option<f64>,
) -> Result<(f64, Tensor)> {
    let (_, words) = logits.dims2()?;
    let mut all = read::<T, _>(&logits, <[T]>::to_vec)?;
    let (shape, device) = (logits.shape().clone(), logits.device().clone());
    drop(logits);
    let loss = all
        .par_chunks_mut(words)
        .zip(targets)
        .map(|(row, target)| row_back(row, *target as usize, factor, cap))
        .sum();
    Ok((loss, Tensor::from_vec(all, shape, &device)?))
}

/// Turns a row of logits into its gradient: (softmax − 1 at the target)·slope·factor. Returns the loss.
fn row_back<T: Real>(row: &mut [T], target: usize, factor: f64, cap: Option<f64>) -> f64 {
    if let Some(cap) = cap {
        for logit in row.iter_mut() {
            *logit = T::of(cap) * (*logit / T::of(cap)).tanh();
        }
    }
    let largest = row.iter().fold(T::of(f64::NEG_INFINITY), |largest, x| largest.larger(*x));
    let sum: f64 = row.iter().map(|x| (*x - largest).exp().wide()).sum();
    let log_sum = largest.wide() + sum.ln();
    let loss = log_sum - row[target].wide();
    let shift = T::of(log_sum);
    for (place, logit) in row.iter_mut().enumerate() {
        let slope = cap.map_or(1.0, |cap| 1.0 - (logit.wide() / cap).powi(2));
        let wanted = if place == target { 1.0 } else { 0.0 };
        *logit = ((*logit - shift).exp() - T::of(wanted)) * T::of(slope * factor);
    }
    loss
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::training::ops::check;

    #[test]
    fn gradients_are_those_of_the_formula() {
        let rows = CHUNK + 7;
        let (states, weight) = (check::noise(1, &[rows, 6]), check::noise(2, &[11, 6]));
        let targets: Vec<u32> = (0..rows as u32).map(|row| row * 7 % 11).collect();
        let weight = Weight::Dense(weight);
        for cap in [None, Some(0.5)] {
            let found = cross_entropy(&states, &weight, &targets, 0.25, cap).unwrap();
            let value = |x: &Tensor| Ok(0.25 * loss(x, &weight, &targets, cap)?);
            check::gradient("states", &states, &found.dstates, &value);
            assert!((found.loss - loss(&states, &weight, &targets, cap).unwrap()).abs() < 1e-9);
        }
    }
}
