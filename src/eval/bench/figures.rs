//! Speeds of several rounds: the median and how far they spread.

/// Measurements of one thing, in the order of the rounds; never empty.
#[derive(Debug, Clone, PartialEq)]
pub struct Figures {
    samples: Vec<f64>,
    sorted: Vec<f64>,
}

impl Figures {
    /// None without samples.
    pub fn new(samples: Vec<f64>) -> Option<Self> {
        let mut sorted = samples.clone();
        sorted.sort_by(f64::total_cmp);
        (!samples.is_empty()).then_some(Self { samples, sorted })
    }

    /// In the order of the rounds.
    pub fn samples(&self) -> &[f64] {
        &self.samples
    }

    /// The middle one; of an even number the mean of the two in the middle.
    pub fn median(&self) -> f64 {
        let middle = self.sorted.len() / 2;
        if self.sorted.len().is_multiple_of(2) {
            f64::midpoint(self.sorted[middle - 1], self.sorted[middle])
        } else {
            self.sorted[middle]
        }
    }

    /// The least.
    pub fn min(&self) -> f64 {
        self.sorted[0]
    }

    /// The most.
    pub fn max(&self) -> f64 {
        self.sorted[self.sorted.len() - 1]
    }

    /// How this compares to another side of the same rounds.
    pub fn ratio_to(&self, other: &Self) -> Ratio {
        let pairs = self.samples.iter().zip(&other.samples).map(|(ours, theirs)| ours / theirs);
        let (min, max) = pairs
            .fold((f64::INFINITY, 0.0_f64), |(min, max), ratio| (min.min(ratio), max.max(ratio)));
        Ratio { of_medians: self.median() / other.median(), min, max }
    }
}

/// One side's speed over the other's: above 1 is faster.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Ratio {
    /// The median of the one over the median of the other.
    pub of_medians: f64,
    /// The least ratio of two measurements of one round.
    pub min: f64,
    /// The greatest.
    pub max: f64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[expect(clippy::float_cmp, reason = "the numbers are exact")]
    fn medians_and_ratios_are_those_of_the_samples() {
        let three = Figures::new(vec![30.0, 10.0, 20.0]).unwrap();
        assert_eq!((three.median(), three.min(), three.max()), (20.0, 10.0, 30.0));
        let two = Figures::new(vec![1.0, 4.0]).unwrap();
        assert_eq!(two.median(), 2.5);
        let half = Figures::new(vec![15.0, 10.0, 5.0]).unwrap();
        assert_eq!(half.ratio_to(&three), Ratio { of_medians: 0.5, min: 0.25, max: 1.0 });
        assert_eq!(Figures::new(Vec::new()), None);
    }
}
