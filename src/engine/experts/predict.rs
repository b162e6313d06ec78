//! Guessing the experts of the next layer: its router, applied to what this layer's router saw.
//!
//! From layer to layer the hidden state changes little, so the next router mostly chooses from this
//! layer's state what it will choose from its own (the finding of Fate, arXiv 2502.12224).

/// A layer's router: one row of weights an expert.
#[derive(Debug, Clone, Default)]
pub struct Router {
    weights: Vec<f32>,
    width: usize,
}

/// An expert that will probably be chosen.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Guess {
    /// Its number in the layer.
    pub expert: usize,
    /// By how much it leads the first that would not be chosen, in deviations of all experts'
    /// scores.
    pub lead: f32,
}

impl Router {
    /// A router of rows of `width` weights. None when the numbers do not make whole rows.
    pub fn new(weights: Vec<f32>, width: usize) -> Option<Self> {
        let fits = width > 0 && !weights.is_empty() && weights.len().is_multiple_of(width);
        fits.then_some(Self { weights, width })
    }

    /// Experts to choose from.
    pub fn experts(&self) -> usize {
        self.weights.len() / self.width
    }

    /// The experts that `hidden` makes likeliest, the likeliest first.
    pub fn guess(&self, hidden: &[f32], used: usize) -> Vec<Guess> {
        if hidden.len() != self.width || used == 0 || used >= self.experts() {
            return Vec::new();
        }
        let rows = self.weights.chunks_exact(self.width);
        let mut scores: Vec<(f32, usize)> =
            rows.enumerate().map(|(expert, row)| (dot(row, hidden), expert)).collect();
        let deviation = deviation(scores.iter().map(|(score, _)| *score));
        scores.sort_unstable_by(|left, right| right.0.total_cmp(&left.0));
        let runner_up = scores[used].0;
        scores[..used]
            .iter()
            .map(|&(score, expert)| Guess { expert, lead: (score - runner_up) / deviation })
            .collect()
    }
}

/// The sum of products, in lanes so that the compiler uses vectors.
fn dot(left: &[f32], right: &[f32]) -> f32 {
    const LANES: usize = 16;
    let (left_lanes, left_rest) = left.as_chunks::<LANES>();
    let (right_lanes, right_rest) = right.as_chunks::<LANES>();
    let mut sums = [0.0_f32; LANES];
    for (left, right) in left_lanes.iter().zip(right_lanes) {
        for lane in 0..LANES {
            sums[lane] += left[lane] * right[lane];
        }
    }
    let rest: f32 = left_rest.iter().zip(right_rest).map(|(left, right)| left * right).sum();
    sums.iter().sum::<f32>() + rest
}

fn deviation(values: impl Iterator<Item = f32> + Clone) -> f32 {
    let count = values.clone().count().max(1) as f32;
    let mean = values.clone().sum::<f32>() / count;
    let variance = values.map(|value| (value - mean).powi(2)).sum::<f32>() / count;
    variance.sqrt().max(f32::MIN_POSITIVE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_likeliest_experts_lead() {
        // Row e is e * (1, 1, …): scores rise with the number.
        let weights: Vec<f32> = (0..8).flat_map(|expert| vec![expert as f32; 19]).collect();
        let router = Router::new(weights, 19).unwrap();
        assert_eq!(router.experts(), 8);
        let guesses = router.guess(&[1.0; 19], 2);
        assert_eq!(guesses.iter().map(|guess| guess.expert).collect::<Vec<_>>(), [7, 6]);
        // Scores 0, 19, …, 133 have deviation 19 * sqrt(63 / 12).
        let step = 1.0 / (63.0_f32 / 12.0).sqrt();
        assert!((guesses[0].lead - 2.0 * step).abs() < 1e-4, "{guesses:?}");
        assert!((guesses[1].lead - step).abs() < 1e-4);
    }

    #[test]
    fn what_does_not_fit_is_not_guessed() {
        assert!(Router::new(vec![0.0; 7], 2).is_none());
        assert!(Router::new(vec![0.0; 7], 0).is_none());
        let router = Router::new(vec![0.0; 8], 2).unwrap();
        assert!(router.guess(&[0.0; 3], 2).is_empty());
        assert!(router.guess(&[0.0; 2], 4).is_empty());
    }
}
