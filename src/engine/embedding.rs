//! What may be asked of embeddings and of scores for documents.

use nfl_models::gguf::Gguf;
use serde::{Deserialize, Serialize};

use super::frames::Failure;

/// How the states of a text's tokens become one vector.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Pooling {
    /// Not at all: a vector a token.
    None,
    /// Their mean.
    Mean,
    /// That of the first token.
    Cls,
    /// That of the last token.
    Last,
    /// The scores of a classifier, for reranking.
    Rank,
}

impl Pooling {
    /// What a file says of its model; None where it says nothing.
    pub fn of(gguf: &Gguf) -> Option<Self> {
        let architecture = gguf.metadata().text("general.architecture")?;
        match gguf.metadata().u32(&format!("{architecture}.pooling_type"))? {
            0 => Some(Self::None),
            1 => Some(Self::Mean),
            2 => Some(Self::Cls),
            3 => Some(Self::Last),
            4 => Some(Self::Rank),
            _ => None,
        }
    }

    /// Its name on command lines and in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Mean => "mean",
            Self::Cls => "cls",
            Self::Last => "last",
            Self::Rank => "rank",
        }
    }
}

/// How embeddings are computed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EmbeddingOptions {
    /// How tokens become one vector. None: as the model's file says, and by their mean where it does not say.
    pub pooling: Option<Pooling>,
    /// Whether vectors are scaled to length 1; never done to scores.
    pub normalize: bool,
    /// Keep only so many numbers of each vector, the first: for models that were trained for that.
    pub dimensions: Option<u32>,
}

impl Default for EmbeddingOptions {
    fn default() -> Self {
        Self { pooling: None, normalize: true, dimensions: None }
    }
}

impl EmbeddingOptions {
    /// The scores of a reranking model.
    pub fn ranking() -> Self {
        Self { pooling: Some(Pooling::Rank), normalize: false, dimensions: None }
    }
}

/// What becomes a vector.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Passage {
    /// A text, with the special tokens that the model wants around it.
    Text(String),
    /// Tokens as they are.
    Tokens(Vec<i32>),
    /// A query and a document, put together as a reranking model wants them.
    Pair {
        /// What is looked for.
        query: String,
        /// Where it may be found.
        document: String,
    },
}

/// Texts to embed, or documents to score.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EmbeddingRequest {
    /// The texts; several are computed at once.
    pub passages: Vec<Passage>,
    /// How.
    pub options: EmbeddingOptions,
}

/// The embedding of one text.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Embedding {
    /// One vector, or one a token without pooling.
    pub vectors: Vec<Vec<f32>>,
    /// Tokens that were read.
    pub tokens: u32,
}

/// The answer to an [`EmbeddingRequest`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Embeddings {
    /// One for each text, in their order.
    pub embeddings: Vec<Embedding>,
    /// How they were pooled.
    pub pooling: Pooling,
    /// Of a reranking model, what each of its scores stands for, when its file names them.
    pub labels: Vec<String>,
}

impl Embeddings {
    /// Tokens that were read in all.
    pub fn tokens(&self) -> u64 {
        self.embeddings.iter().map(|each| u64::from(each.tokens)).sum()
    }
}

impl Embedding {
    /// Its vectors as they were asked for: cut first, then scaled.
    pub fn finish(&mut self, options: &EmbeddingOptions) {
        for vector in &mut self.vectors {
            vector.truncate(options.dimensions.map_or(usize::MAX, |count| count as usize));
            if options.normalize {
                normalize(vector);
            }
        }
    }
}

/// What a model can be asked for, from its file and its numbers.
#[derive(Debug, Clone, Copy)]
pub struct Abilities {
    /// What the file says of pooling.
    pub pooling: Option<Pooling>,
    /// Whether it has a classifier that gives what llama.cpp expects of it.
    pub ranks: bool,
    /// Numbers of an embedding.
    pub width: usize,
}

impl Abilities {
    /// How a request will be pooled, or why it cannot be answered.
    pub fn pooling_for(&self, options: &EmbeddingOptions) -> Result<Pooling, Failure> {
        let pooling = match options.pooling.or(self.pooling) {
            Some(Pooling::Rank) if !self.ranks => return Err(Failure::NoClassifier),
            Some(Pooling::Rank) if options.pooling.is_none() => return Err(Failure::OnlyRanks),
            Some(Pooling::None) | None if options.pooling.is_none() => Pooling::Mean,
            Some(pooling) => pooling,
            None => Pooling::Mean,
        };
        match options.dimensions {
            Some(_) if pooling == Pooling::Rank => {
                Err(Failure::Request("dimensions: scores have none to leave out".to_owned()))
            }
            Some(asked) if asked == 0 || asked as usize > self.width => {
                let width = self.width;
                let message = format!("dimensions: {asked} is outside 1 to {width}, the model's");
                Err(Failure::Request(message))
            }
            _ => Ok(pooling),
        }
    }
}

/// Scales a vector to length 1; one of nothing but zeros stays.
pub fn normalize(vector: &mut [f32]) {
    let length = vector.iter().map(|value| f64::from(*value).powi(2)).sum::<f64>().sqrt();
    if length > 0.0 {
        for value in vector {
            *value = (f64::from(*value) / length) as f32;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(pooling: Option<Pooling>, dimensions: Option<u32>) -> EmbeddingOptions {
        EmbeddingOptions { pooling, dimensions, ..EmbeddingOptions::default() }
    }

    #[test]
    fn what_nobody_says_is_the_mean_and_scores_are_only_given_when_asked_for() {
        let model = |pooling, ranks| Abilities { pooling, ranks, width: 64 };
        let plain = model(None, false);
        assert_eq!(plain.pooling_for(&asked(None, None)), Ok(Pooling::Mean));
        assert_eq!(plain.pooling_for(&asked(Some(Pooling::None), None)), Ok(Pooling::None));
        let none = model(Some(Pooling::None), false);
        assert_eq!(none.pooling_for(&asked(None, None)), Ok(Pooling::Mean));
        let last = model(Some(Pooling::Last), false);
        assert_eq!(last.pooling_for(&asked(None, Some(64))), Ok(Pooling::Last));
        assert_eq!(last.pooling_for(&asked(Some(Pooling::Cls), None)), Ok(Pooling::Cls));
        let ranking = EmbeddingOptions::ranking();
        assert_eq!(last.pooling_for(&ranking), Err(Failure::NoClassifier));
        let rank = model(Some(Pooling::Rank), true);
        assert_eq!(rank.pooling_for(&ranking), Ok(Pooling::Rank));
        assert_eq!(rank.pooling_for(&asked(None, None)), Err(Failure::OnlyRanks));
        for count in [0, 65] {
            let error = last.pooling_for(&asked(None, Some(count))).unwrap_err();
            assert!(error.to_string().contains("outside 1 to 64"), "{error}");
        }
    }

    #[test]
    fn a_vector_is_cut_before_it_is_scaled() {
        let vectors = vec![vec![3.0, 4.0, 12.0], vec![0.0, 0.0, 5.0]];
        let mut embedding = Embedding { vectors, tokens: 2 };
        embedding.finish(&asked(None, Some(2)));
        assert_eq!(embedding.vectors, [vec![0.6, 0.8], vec![0.0, 0.0]]);
    }
}
