//! Rotary positions (Su et al. 2021, arXiv:2104.09864): pairs of numbers are turned by an angle that grows with the
//! position.

use candle_core::{Result, Tensor};
use rayon::prelude::*;

use super::{Real, by_type, read};

/// Which numbers of a head are a pair.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pairs {
    /// Neighbours, as GGUF files of the Llama family have them.
    Neighbours,
    /// One of the first half and one of the second (`NeoX`).
    Halves,
}

/// Angles of all positions: cosine and sine of each pair, \[positions, pairs\].
#[derive(Debug, Clone, PartialEq)]
pub struct Angles {
    cos: Vec<f64>,
    sin: Vec<f64>,
    pairs: usize,
}

impl Angles {
    /// Angles for positions below `positions`: each pair is turned by its frequency, in radians a position.
    pub fn new(positions: usize, frequencies: &[f64]) -> Self {
        let of_position = |position: usize| {
            frequencies.iter().map(move |frequency| (position as f64 * frequency).sin_cos())
        };
        let (sin, cos) = (0..positions).flat_map(of_position).unzip();
        Self { cos, sin, pairs: frequencies.len() }
    }
}

/// Frequencies of heads whose first 2·`pairs` numbers are turned: scale · base^(−i/pairs) / `factors`\[i\].
pub fn frequencies(pairs: usize, base: f64, scale: f64, factors: Option<&[f32]>) -> Vec<f64> {
    let frequency = |pair: usize| {
        let factor = factors.and_then(|factors| factors.get(pair)).map_or(1.0, |f| f64::from(*f));
        scale * base.powf(-(pair as f64) / pairs as f64) / factor
    };
    (0..pairs).map(frequency).collect()
}

/// Turns `x` \[tokens, heads, width\] by the angles of `positions`; the numbers behind the last pair stay.
pub fn rope(x: &Tensor, positions: &[u32], angles: &Angles, pairs: Pairs) -> Result<Tensor> {
    by_type!(x, T => turn::<T>(x, positions, angles, pairs, 1.0))
}

/// The gradient of `x`: turning is orthogonal, so the gradient is turned back.
pub fn rope_back(dy: &Tensor, positions: &[u32], angles: &Angles, pairs: Pairs) -> Result<Tensor> {
    by_type!(dy, T => turn::<T>(dy, positions, angles, pairs, -1.0))
}

fn turn<T: Real>(
    x: &Tensor,
    positions: &[u32],
    angles: &Angles,
    pairs: Pairs,
    direction: f64,
) -> Result<Tensor> {
    let (_, heads, width) = x.dims3()?;
    let count = angles.pairs;
    let mut y = read::<T, _>(x, <[T]>::to_vec)?;
    y.par_chunks_mut(heads * width).zip(positions).for_each(|(token, position)| {
        let row = *position as usize * count;
        let (cos, sin) = (&angles.cos[row..row + count], &angles.sin[row..row + count]);
        for head in token.chunks_mut(width) {
            for pair in 0..count {
                let (first, second) = match pairs {
                    Pairs::Neighbours => (2 * pair, 2 * pair + 1),
                    Pairs::Halves => (pair, pair + count),
                };
                let (cos, sin) = (T::of(cos[pair]), T::of(direction * sin[pair]));
                let (a, b) = (head[first], head[second]);
                head[first] = a * cos - b * sin;
                head[second] = a * sin + b * cos;
            }
        }
    });
    Tensor::from_vec(y, x.shape(), x.device())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::training::ops::check;

    #[test]
    fn gradients_are_those_of_the_formula() {
        let x = check::noise(1, &[4, 2, 10]);
        let dy = check::noise(2, &[4, 2, 10]);
        let angles = Angles::new(8, &frequencies(4, 10_000.0, 1.0, None));
        let positions = [0, 1, 2, 7];
        for pairs in [Pairs::Neighbours, Pairs::Halves] {
            let dx = rope_back(&dy, &positions, &angles, pairs).unwrap();
            let value =
                |x: &Tensor| Ok(check::weighted(&rope(x, &positions, &angles, pairs)?, &dy));
            check::gradient("dx", &x, &dx, &value);
        }
    }
}
