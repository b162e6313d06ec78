//! Weights of 4 bits, NF4 with double quantisation (Dettmers et al. 2023, arXiv:2305.14314), bit for bit as bitsandbytes
//! 0.50 makes them on a processor.
//!
//! Blocks of 64 weights share a scale, their largest magnitude; a weight over it is the nearest of 16 values that a normal
//! distribution fills evenly. The scales are numbers of 8 bits themselves, less their mean: 4.127 bits a weight in all.

use rayon::prelude::*;

use crate::training::eight_bits::{BLOCK as SCALES, Numbers, SIGNED};

/// Weights that share a scale.
pub const BLOCK: usize = 64;

/// What the 16 codes stand for (`get_4bit_type("nf4")`).
const VALUES: [f32; 16] = [
    -1.0,
    -0.696_192_8,
    -0.525_073_05,
    -0.394_917_5,
    -0.284_441_38,
    -0.184_773_43,
    -0.091_050_036,
    0.0,
    0.079_580_3,
    0.160_930_2,
    0.246_112_3,
    0.337_915_24,
    0.440_709_83,
    0.562_617,
    0.722_956_84,
    1.0,
];

/// Between each value and the next.
const MIDDLES: [f32; 15] = {
    let mut middles = [0.0; 15];
    let mut code = 0;
    while code < 15 {
        middles[code] = 0.5 * (VALUES[code] + VALUES[code + 1]);
        code += 1;
    }
    middles
};

/// What stands in for a scale of zero, where one is divided by.
const SCALE_MIN: f32 = 1e-38;

/// Weights, quantised.
#[derive(Debug, Clone, PartialEq)]
pub struct Nf4 {
    /// Two weights a byte, the first in the high half.
    packed: Vec<u8>,
    /// One a block, less `offset`.
    scales: Numbers,
    /// The mean of the scales.
    offset: f32,
    weights: usize,
}

/// Quantises piece after piece, so that the weights need not be there all at once.
#[derive(Debug, Default)]
pub struct Builder {
    packed: Vec<u8>,
    scales: Vec<f32>,
    weights: usize,
}

impl Builder {
    /// Adds weights: whole blocks, except at the end.
    pub fn push(&mut self, weights: &[f32]) {
        debug_assert!(self.weights.is_multiple_of(BLOCK), "a piece behind a part of a block");
        self.weights += weights.len();
        let whole = weights.len() / BLOCK * BLOCK;
        let blocks = weights[..whole].par_chunks(BLOCK).map(|block| {
            let scale = largest(block);
            let inverse = 1.0 / scale.max(SCALE_MIN);
            (scale, pack(block, |weight| weight * inverse))
        });
        for (scale, packed) in blocks.collect::<Vec<_>>() {
            self.scales.push(scale);
            self.packed.extend(packed);
        }
        let rest = &weights[whole..];
        if !rest.is_empty() {
            // A part of a block is divided by its scale, where whole ones are multiplied by the inverse.
            let scale = largest(rest).max(SCALE_MIN);
            self.scales.push(scale);
            self.packed.extend(pack(rest, |weight| weight / scale));
        }
    }

    /// Quantises the scales.
    pub fn finish(self) -> Nf4 {
        let Self { packed, mut scales, weights } = self;
        let offset = mean(&scales);
        for scale in &mut scales {
            *scale -= offset;
        }
        Nf4 { packed, scales: SIGNED.quantize(&scales), offset, weights }
    }
}

fn largest(weights: &[f32]) -> f32 {
    weights.iter().fold(0.0, |largest, weight| largest.max(weight.abs()))
}

fn pack(weights: &[f32], scaled: impl Fn(f32) -> f32) -> Vec<u8> {
    let code = |weight: f32| code(scaled(weight).clamp(-1.0, 1.0));
    let pair = |pair: &[f32]| (code(pair[0]) << 4) | code(pair.get(1).copied().unwrap_or(0.0));
    weights.chunks(2).map(pair).collect()
}

/// The nearest of the 16 values; of two that are equally near, the lower.
fn code(weight: f32) -> u8 {
    MIDDLES.iter().filter(|middle| **middle < weight).count() as u8
}

impl Nf4 {
    /// Quantises weights.
    pub fn quantize(weights: &[f32]) -> Self {
        let mut builder = Builder::default();
        builder.push(weights);
        builder.finish()
    }

    /// Bytes that it takes.
    pub fn bytes(&self) -> usize {
        self.packed.len() + self.scales.codes.len() + 4 * self.scales.scales.len() + 4
    }

    /// Two weights a byte.
    pub fn packed(&self) -> &[u8] {
        &self.packed
    }

    /// The scales of blocks, less their mean.
    pub fn scales(&self) -> &Numbers {
        &self.scales
    }

    /// The mean of the scales.
    pub fn offset(&self) -> f32 {
        self.offset
    }

    /// Makes the weights from `start` on dense again.
    pub fn read(&self, start: usize, target: &mut [f32]) {
        debug_assert!(start + target.len() <= self.weights, "weights that are not there");
        let mut done = 0;
        while done < target.len() {
            let at = start + done;
            let length = (BLOCK - at % BLOCK).min(target.len() - done);
            let scale = self.scale(at / BLOCK);
            for (place, weight) in (at..).zip(&mut target[done..done + length]) {
                let byte = self.packed[place / 2];
                let code = if place % 2 == 0 { byte >> 4 } else { byte & 15 };
                *weight = VALUES[usize::from(code)] * scale;
            }
            done += length;
        }
    }

    fn scale(&self, block: usize) -> f32 {
        let value = SIGNED.values()[usize::from(self.scales.codes[block])];
        value * self.scales.scales[block / SCALES] + self.offset
    }
}

/// The mean, summed in the order of PyTorch's `mean` on one thread (`cascade_sum` in ATen's SumKernel.cpp): 32 sums side by
/// side, of 8 lanes each in 4 rows, which go into coarser ones now and then.
fn mean(numbers: &[f32]) -> f32 {
    let sum = if numbers.len() < 8 { sum::<1>(numbers) } else { sum::<8>(numbers) };
    sum / numbers.len().max(1) as f32
}

fn sum<const LANES: usize>(numbers: &[f32]) -> f32 {
    const ROWS: usize = 4;
    const LEVELS: usize = 4;
    let (vectors, rest) = numbers.as_chunks::<LANES>();
    let (groups, last) = vectors.as_chunks::<ROWS>();
    let add = |sums: &mut [f32; LANES], more: &[f32; LANES]| {
        sums.iter_mut().zip(more).for_each(|(sum, more)| *sum += more);
    };
    let size = groups.len();
    let power = (size.max(1).next_power_of_two().ilog2() / LEVELS as u32).max(4);
    let step = 1 << power;
    let mut levels = [[[0.0f32; LANES]; ROWS]; LEVELS];
    for (number, group) in (1..).zip(groups) {
        (0..ROWS).for_each(|row| add(&mut levels[0][row], &group[row]));
        if number % step != 0 {
            continue;
        }
        for level in 1..LEVELS {
            let finer = std::mem::replace(&mut levels[level - 1], [[0.0; LANES]; ROWS]);
            (0..ROWS).for_each(|row| add(&mut levels[level][row], &finer[row]));
            if number & ((step - 1) << (level as u32 * power)) != 0 {
                break;
            }
        }
    }
    let [mut sums, coarser @ ..] = levels;
    for level in &coarser {
        (0..ROWS).for_each(|row| add(&mut sums[row], &level[row]));
    }
    let [mut all, others @ ..] = sums;
    for more in last.iter().chain(&others) {
        add(&mut all, more);
    }
    rest.iter().chain(&all).fold(0.0, |sum, number| sum + number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_come_back_as_near_as_sixteen_values_are() {
        let weights: Vec<f32> = (0..1000).map(|place| (place as f32 * 0.37).sin()).collect();
        let nf4 = Nf4::quantize(&weights);
        let mut whole = vec![0.0; weights.len()];
        nf4.read(0, &mut whole);
        for (block, (ours, theirs)) in whole.chunks(64).zip(weights.chunks(64)).enumerate() {
            let largest = largest(theirs);
            for (one, other) in ours.iter().zip(theirs) {
                assert!((one - other).abs() < 0.17 * largest, "block {block}: {one}, {other}");
            }
        }
        let mut part = vec![0.0; 301];
        nf4.read(99, &mut part);
        assert_eq!(part, whole[99..400]);
    }

    #[test]
    fn two_pieces_are_as_good_as_one() {
        let weights: Vec<f32> = (0..500).map(|place| (place as f32 * 0.7).cos()).collect();
        let mut builder = Builder::default();
        builder.push(&weights[..192]);
        builder.push(&weights[192..]);
        assert_eq!(builder.finish(), Nf4::quantize(&weights));
    }

    #[test]
    fn the_mean_is_near_that_of_double_precision() {
        for count in [1, 5, 8, 33, 1000, 70_001] {
            let numbers: Vec<f32> = (0..count).map(|place| (place as f32).sin()).collect();
            let expected = numbers.iter().map(|x| f64::from(*x)).sum::<f64>() / f64::from(count);
            assert!((f64::from(mean(&numbers)) - expected).abs() < 1e-6);
        }
    }
}
