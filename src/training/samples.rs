//! Samples of tokens, packed into micro-batches.

use crate::training::decoder::Batch;

/// One document: its tokens, and which of them are to be learned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sample {
    /// The tokens.
    pub tokens: Vec<u32>,
    /// Whether the model is to say each.
    pub learned: Vec<bool>,
}

impl Sample {
    /// A text of which everything behind the first token is learned.
    pub fn text(tokens: Vec<u32>) -> Self {
        let learned = (0..tokens.len()).map(|place| place > 0).collect();
        Self { tokens, learned }
    }

    /// Parts of at most `tokens_max` tokens; a part that teaches nothing is left out.
    pub fn cut(&self, tokens_max: usize) -> impl Iterator<Item = Self> + '_ {
        let places = (0..self.tokens.len()).step_by(tokens_max.max(1));
        let part = move |start: usize| {
            let end = (start + tokens_max).min(self.tokens.len());
            let mut learned = self.learned[start..end].to_vec();
            // Nothing stands before the first token of a part.
            learned[0] = false;
            Self { tokens: self.tokens[start..end].to_vec(), learned }
        };
        places.map(part).filter(|part| part.learned.contains(&true))
    }
}

/// Puts samples together until `tokens_max` tokens are full; none is longer than that, and each keeps to itself.
pub fn pack(samples: &[Sample], tokens_max: usize) -> Vec<Batch> {
    let mut batches: Vec<Batch> = Vec::new();
    for sample in samples {
        let fits = |batch: &Batch| batch.tokens.len() + sample.tokens.len() <= tokens_max;
        if !batches.last().is_some_and(fits) {
            batches.push(Batch::default());
        }
        let Some(batch) = batches.last_mut() else { continue };
        batch.tokens.extend(&sample.tokens);
        batch.documents.push(sample.tokens.len());
        let next = (1..=sample.tokens.len()).map(|place| {
            let token = sample.tokens.get(place).copied();
            token.filter(|_| sample.learned[place])
        });
        batch.targets.extend(next);
    }
    batches
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_packed_whole_and_predict_their_own_next_token() {
        let samples =
            [Sample::text(vec![1, 2, 3]), Sample::text(vec![4, 5]), Sample::text(vec![6, 7])];
        let batches = pack(&samples, 5);
        assert_eq!(batches.len(), 2);
        assert_eq!(batches[0].tokens, [1, 2, 3, 4, 5]);
        assert_eq!(batches[0].documents, [3, 2]);
        assert_eq!(batches[0].targets, [Some(2), Some(3), None, Some(5), None]);
        assert_eq!(batches[1].targets, [Some(7), None]);
    }

    #[test]
    fn long_samples_are_cut_and_what_teaches_nothing_goes() {
        let mut sample = Sample::text((0..7).collect());
        sample.learned[4..].fill(false);
        let parts: Vec<Sample> = sample.cut(3).collect();
        assert_eq!(parts.len(), 1);
        assert_eq!(parts[0].learned, [false, true, true]);
    }
}
