//! What may be asked of embeddings and of scores for documents.

use serde::{Deserialize, Serialize};

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

/// How embeddings are computed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EmbeddingOptions {
    /// How tokens become one vector; the model's own way when None.
    pub pooling: Option<Pooling>,
    /// Whether vectors are scaled to length 1; never done to scores.
    pub normalize: bool,
}

impl Default for EmbeddingOptions {
    fn default() -> Self {
        Self { pooling: None, normalize: true }
    }
}

/// The embedding of one text.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Embedding {
    /// One vector, or one a token without pooling.
    pub vectors: Vec<Vec<f32>>,
    /// Tokens that were read.
    pub tokens: u32,
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
