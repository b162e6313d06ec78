//! A whole decoder: from tokens to the loss, and back to the gradients of its adapters.

use candle_core::{Device, Result, Tensor};

use crate::training::block::{Block, BlockShape, Keep, Saved, Scene};
use crate::training::linear::{Adapters, Gradients};
use crate::training::noise::Noise;
use crate::training::ops::attention::View;
use crate::training::ops::norm::{rms_norm, rms_norm_back};
use crate::training::ops::rope::Angles;
use crate::training::ops::{head, scaled};
use crate::training::weight::Weight;

/// Tokens of documents, one after the other.
#[derive(Debug, Clone, Default)]
pub struct Batch {
    /// The tokens.
    pub tokens: Vec<u32>,
    /// Lengths of the documents.
    pub documents: Vec<usize>,
    /// What is to be learned at each token: the one that follows it, where that counts.
    pub targets: Vec<Option<u32>>,
    /// Noise on its embeddings.
    pub noise: Option<Noise>,
}

impl Batch {
    /// How many tokens are to be learned.
    pub fn learned(&self) -> usize {
        self.targets.iter().flatten().count()
    }

    fn positions(&self) -> Vec<u32> {
        self.documents.iter().flat_map(|length| 0..*length as u32).collect()
    }
}

/// How one kind of blocks sees positions and other tokens.
#[derive(Debug, Clone)]
pub struct Sight {
    /// By how much positions turn heads.
    pub angles: Angles,
    /// Tokens that attention looks back.
    pub window: Option<usize>,
}

/// A model's frozen weights.
#[derive(Debug, Clone)]
pub struct Decoder {
    /// \[vocabulary, hidden\].
    pub embedding: Weight,
    /// Factor on embeddings (Gemma, Granite).
    pub embedding_scale: Option<f64>,
    /// The blocks, each with the number of its sight.
    pub blocks: Vec<(Block, usize)>,
    /// What blocks share.
    pub shape: BlockShape,
    /// The kinds of sight.
    pub sights: Vec<Sight>,
    /// Factor on products of queries and keys.
    pub attention_scale: f64,
    /// Bends attention's scores.
    pub attention_cap: Option<f64>,
    /// Before the head.
    pub output_norm: Tensor,
    /// \[vocabulary, hidden\]; the embedding where they are one.
    pub head: Weight,
    /// Factor on logits (Granite).
    pub logit_scale: Option<f64>,
    /// Bends logits.
    pub logit_cap: Option<f64>,
}

/// Loss of a batch.
#[derive(Debug, Clone, Copy)]
pub struct Loss {
    /// Σ over learned tokens, in nats.
    pub sum: f64,
    /// Learned tokens.
    pub tokens: usize,
}

/// How a batch is learned.
#[derive(Debug, Clone, Copy)]
pub struct Lesson<'a> {
    /// The adapters.
    pub adapters: &'a Adapters,
    /// What each block keeps for the way back.
    pub keeps: &'a [Keep],
    /// Gradients are of Σ loss times this.
    pub factor: f64,
}

/// A batch as blocks see it.
struct Pass<'a> {
    decoder: &'a Decoder,
    batch: &'a Batch,
    adapters: &'a Adapters,
    positions: Vec<u32>,
    views: Vec<View>,
}

impl<'a> Pass<'a> {
    fn new(decoder: &'a Decoder, batch: &'a Batch, adapters: &'a Adapters) -> Self {
        let view = |sight: &Sight| {
            let (scale, cap) = (decoder.attention_scale, decoder.attention_cap);
            View::new(&batch.documents, sight.window, scale, cap)
        };
        let views = decoder.sights.iter().map(view).collect();
        Self { decoder, batch, adapters, positions: batch.positions(), views }
    }

    fn scene(&self, sight: usize) -> Scene<'_> {
        Scene {
            shape: &self.decoder.shape,
            positions: &self.positions,
            angles: &self.decoder.sights[sight].angles,
            view: &self.views[sight],
            adapters: self.adapters,
        }
    }

    /// The states behind the last block, and what each block saved; without `keeps` nothing is.
    fn run(&self, keeps: &[Keep]) -> Result<(Tensor, Vec<Saved>)> {
        let mut x = self.decoder.embed(&self.batch.tokens)?;
        if let Some(noise) = self.batch.noise {
            x = noise.add(&x, &self.batch.documents)?;
        }
        let mut all = Vec::with_capacity(keeps.len());
        for (number, (block, sight)) in self.decoder.blocks.iter().enumerate() {
            let keep = keeps.get(number).copied();
            let (y, saved) =
                block.forward(&x, self.scene(*sight), keep.unwrap_or(Keep::Boundary))?;
            all.extend(keep.map(|_| saved));
            x = y;
        }
        Ok((x, all))
    }
}

impl Decoder {
    fn embed(&self, tokens: &[u32]) -> Result<Tensor> {
        let table = self.embedding.hold(self.output_norm.dtype())?;
        let x = table.rows(&Tensor::new(tokens, &Device::Cpu)?)?;
        scaled(x, self.embedding_scale)
    }

    /// The loss of a batch under adapters; nothing is kept.
    pub fn loss(&self, batch: &Batch, adapters: &Adapters) -> Result<Loss> {
        let (x, _) = Pass::new(self, batch, adapters).run(&[])?;
        let (rows, targets, _) = learned(&x, batch)?;
        let states = self.output(&rows)?;
        let sum = head::loss(&states, &self.head, &targets, self.logit_cap)?;
        Ok(Loss { sum, tokens: targets.len() })
    }

    /// The logits of every token, \[tokens, vocabulary\]: for comparisons.
    pub fn logits(&self, batch: &Batch, adapters: &Adapters) -> Result<Tensor> {
        let (x, _) = Pass::new(self, batch, adapters).run(&[])?;
        let x = self.output(&x)?;
        let logits = self.head.hold(x.dtype())?.forward(&x)?;
        match self.logit_cap {
            Some(cap) => (logits / cap)?.tanh()? * cap,
            None => Ok(logits),
        }
    }

    /// Adds the gradients of Σ loss · factor to `gradients`.
    pub fn learn(
        &self,
        batch: &Batch,
        lesson: &Lesson<'_>,
        gradients: &mut Gradients,
    ) -> Result<Loss> {
        let pass = Pass::new(self, batch, lesson.adapters);
        let (x, saved) = pass.run(lesson.keeps)?;
        let (rows, targets, places) = learned(&x, batch)?;
        let states = self.output(&rows)?;
        let (factor, cap) = (lesson.factor, self.logit_cap);
        let found = head::cross_entropy(&states, &self.head, &targets, factor, cap)?;
        let drows = self.output_back(&rows, found.dstates)?;
        let mut dx = x.zeros_like()?.index_add(&places, &drows, 0)?;
        drop((x, rows, states));
        for ((block, sight), saved) in self.blocks.iter().zip(saved).rev() {
            dx = block.backward(saved, &dx, pass.scene(*sight), gradients)?;
        }
        Ok(Loss { sum: found.loss, tokens: targets.len() })
    }

    /// What the head sees of states behind the last block; the factor on logits is in it.
    fn output(&self, states: &Tensor) -> Result<Tensor> {
        scaled(rms_norm(states, &self.output_norm, self.shape.epsilon)?, self.logit_scale)
    }

    /// The way back through [`Self::output`].
    fn output_back(&self, states: &Tensor, dy: Tensor) -> Result<Tensor> {
        let dy = scaled(dy, self.logit_scale)?;
        rms_norm_back(states, &self.output_norm, self.shape.epsilon, &dy)
    }
}

/// The states of the tokens behind which something is to be learned, what that is, and where they are.
fn learned(x: &Tensor, batch: &Batch) -> Result<(Tensor, Vec<u32>, Tensor)> {
    let (places, targets): (Vec<u32>, Vec<u32>) = (0..)
        .zip(&batch.targets)
        .filter_map(|(place, target): (u32, _)| target.map(|target| (place, target)))
        .unzip();
    let places = Tensor::new(places, &Device::Cpu)?;
    Ok((x.index_select(&places, 0)?, targets, places))
}
