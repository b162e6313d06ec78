//! Noise on embeddings (NEFTune, Jain et al. 2023, arXiv:2310.05914): uniform within ±α/√(L·d) for a document of L
//! tokens and embeddings of d numbers. Answers become longer and closer to what was asked, because less is learned by
//! heart.

use candle_core::{Result, Tensor};

use super::random::Random;

/// Noise on the embeddings of a batch.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Noise {
    /// α.
    pub strength: f64,
    /// Where its random numbers start.
    pub seed: u64,
}

impl Noise {
    /// Embeddings \[tokens, d\] of documents of these lengths, with the noise.
    pub fn add(self, x: &Tensor, documents: &[usize]) -> Result<Tensor> {
        let width = x.dim(1)?;
        let mut random = Random::new(self.seed);
        let mut noise = Vec::with_capacity(x.elem_count());
        for tokens in documents {
            let bound = (self.strength / ((tokens * width) as f64).sqrt()) as f32;
            noise.extend((0..tokens * width).map(|_| (2.0 * random.unit() - 1.0) * bound));
        }
        x + Tensor::from_vec(noise, x.shape(), x.device())?.to_dtype(x.dtype())?
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::training::ops::values;
    use candle_core::{DType, Device};

    #[test]
    fn noise_fills_its_bounds_evenly_and_is_the_seeds() {
        let x = Tensor::zeros((1000, 64), DType::F32, &Device::Cpu).unwrap();
        let noise = Noise { strength: 5.0, seed: 7 };
        let found = values(&noise.add(&x, &[100, 900]).unwrap()).unwrap();
        for (part, tokens) in [(&found[..6400], 100.0), (&found[6400..], 900.0)] {
            let bound = 5.0 / f64::sqrt(tokens * 64.0);
            let wide = || part.iter().map(|x| f64::from(*x) / bound);
            let (count, largest) = (part.len() as f64, wide().map(f64::abs).fold(0.0, f64::max));
            let (mean, square) =
                (wide().sum::<f64>() / count, wide().map(|x| x * x).sum::<f64>() / count);
            assert!(largest <= 1.0 && largest > 0.99, "{largest}");
            // Of numbers that are even between −1 and 1 the mean is 0 and the mean square 1/3.
            assert!(mean.abs() < 0.03 && (square - 1.0 / 3.0).abs() < 0.02, "{mean} {square}");
        }
        assert_eq!(values(&noise.add(&x, &[100, 900]).unwrap()).unwrap(), found);
        let other = Noise { seed: 8, ..noise };
        assert_ne!(values(&other.add(&x, &[100, 900]).unwrap()).unwrap(), found);
    }
}
