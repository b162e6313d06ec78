//! The frozen base: a decoder from the GGUF file that is used for inference, block by block as it lies there.

use std::borrow::Cow;
use std::sync::Arc;

use candle_core::quantized::{GgmlDType, QStorage, QTensor};
use candle_core::{DType, Device, Tensor};
use nfl_models::gguf::{Gguf, TensorInfo};
use nfl_models::{Role, Shape, TensorType};
use thiserror::Error;

use crate::training::block::{Attention, Block, BlockShape, FeedForward};
use crate::training::decoder::{Decoder, Sight};
use crate::training::linear::Linear;
use crate::training::ops::activation::Activation;
use crate::training::ops::rope::{Angles, Pairs, frequencies};
use crate::training::weight::Weight;

/// Why a file cannot be trained on.
#[derive(Debug, Error)]
pub enum BaseError {
    /// Its shape cannot be told.
    #[error(transparent)]
    Shape(#[from] nfl_models::ShapeError),
    /// An architecture that has no way back here.
    #[error("{0} models cannot be trained yet")]
    Architecture(String),
    /// A tensor that should be there.
    #[error("the file has no tensor {0}")]
    Missing(String),
    /// A type of tensor without a way to numbers here.
    #[error("{name} is {kind}: this type cannot be trained on")]
    Type {
        /// The tensor.
        name: String,
        /// Its type.
        kind: TensorType,
    },
    /// candle refused.
    #[error(transparent)]
    Tensor(#[from] candle_core::Error),
}

/// What tells the architectures apart that are computed alike.
struct Build {
    name: &'static str,
    pairs: Pairs,
    activation: Activation,
}

/// Architectures that are trained. Pairs as in llama.cpp's `llama_model_rope_type`.
const BUILDS: &[Build] = &[
    Build { name: "llama", pairs: Pairs::Neighbours, activation: Activation::Silu },
    Build { name: "qwen2", pairs: Pairs::Halves, activation: Activation::Silu },
    Build { name: "qwen3", pairs: Pairs::Halves, activation: Activation::Silu },
    Build { name: "granite", pairs: Pairs::Neighbours, activation: Activation::Silu },
    Build { name: "gemma2", pairs: Pairs::Halves, activation: Activation::Gelu },
    Build { name: "gemma3", pairs: Pairs::Halves, activation: Activation::Gelu },
];

/// Reads the decoder of a file; positions up to `tokens_max` are prepared.
pub fn read(gguf: &Gguf, tokens_max: usize) -> Result<Decoder, BaseError> {
    let shape = Shape::of(gguf)?;
    let name = shape.architecture.name;
    let unknown = || BaseError::Architecture(name.to_owned());
    let build = BUILDS.iter().find(|build| build.name == name).ok_or_else(unknown)?;
    if shape.experts > 0 || shape.fused_attention || shape.latent.is_some() {
        return Err(unknown());
    }
    let reader = Reader { gguf, shape: &shape };
    let embedding = reader.matrix(Role::TokenEmbedding, None)?;
    let head =
        if shape.tied_output { embedding.clone() } else { reader.matrix(Role::Output, None)? };
    let mut blocks = Vec::new();
    let (sights, of_block) = reader.sights(tokens_max)?;
    for block in 0..shape.blocks - shape.prediction_blocks {
        blocks.push((reader.block(block)?, of_block[block as usize]));
    }
    let number = |key: &str| gguf.metadata().f32(&format!("{name}.{key}")).map(f64::from);
    let gemma = name.starts_with("gemma").then(|| (shape.embedding as f64).sqrt());
    // The largest Gemmas scale by the share of a head in the embedding (`LLM_TYPE_27B` in llama.cpp).
    let scaled_length = match (name, shape.blocks) {
        ("gemma2", 46) | ("gemma3", 62) => shape.embedding as f64 / f64::from(shape.heads),
        _ => shape.key_length as f64,
    };
    Ok(Decoder {
        embedding,
        embedding_scale: number("embedding_scale").or(gemma),
        blocks,
        shape: BlockShape {
            heads: shape.heads as usize,
            key_heads: shape.heads_kv as usize,
            epsilon: f64::from(shape.norm_epsilon),
            activation: build.activation,
            pairs: build.pairs,
            residual_scale: number("residual_scale"),
        },
        sights,
        attention_scale: number("attention.scale").unwrap_or(1.0 / scaled_length.sqrt()),
        attention_cap: number("attn_logit_softcapping"),
        output_norm: reader.vector(Role::OutputNorm, None)?,
        head,
        logit_scale: number("logit_scale").map(f64::recip),
        logit_cap: number("final_logit_softcapping"),
    })
}

struct Reader<'a> {
    gguf: &'a Gguf,
    shape: &'a Shape,
}

impl Reader<'_> {
    fn tensor(&self, name: &str) -> Result<&TensorInfo, BaseError> {
        self.gguf.tensor(name).ok_or_else(|| BaseError::Missing(name.to_owned()))
    }

    fn matrix(&self, role: Role, block: Option<u32>) -> Result<Weight, BaseError> {
        weight(self.gguf, self.tensor(&role.tensor_name(block))?)
    }

    fn vector(&self, role: Role, block: Option<u32>) -> Result<Tensor, BaseError> {
        self.numbers(&role.tensor_name(block))
    }

    fn numbers(&self, name: &str) -> Result<Tensor, BaseError> {
        let held = weight(self.gguf, self.tensor(name)?)?.hold(DType::F32)?;
        Ok(held.numbers().flatten_all()?)
    }

    fn optional(&self, role: Role, block: u32) -> Result<Option<Tensor>, BaseError> {
        let name = role.tensor_name(Some(block));
        self.gguf.tensor(&name).map(|_| self.numbers(&name)).transpose()
    }

    fn linear(&self, role: Role, block: u32) -> Result<Linear, BaseError> {
        let name = role.tensor_name(Some(block));
        let bias = name.replace(".weight", ".bias");
        let bias = self.gguf.tensor(&bias).map(|_| self.numbers(&bias)).transpose()?;
        Ok(Linear { weight: self.matrix(role, Some(block))?, bias, adapter: None })
    }

    fn block(&self, block: u32) -> Result<Block, BaseError> {
        let attention = Attention {
            norm: self.vector(Role::AttentionNorm, Some(block))?,
            q: self.linear(Role::AttentionQuery, block)?,
            k: self.linear(Role::AttentionKey, block)?,
            v: self.linear(Role::AttentionValue, block)?,
            q_norm: self.optional(Role::AttentionQueryNorm, block)?,
            k_norm: self.optional(Role::AttentionKeyNorm, block)?,
            o: self.linear(Role::AttentionOutput, block)?,
            post_norm: self.optional(Role::PostAttentionNorm, block)?,
        };
        let feed_forward = FeedForward {
            norm: self.vector(Role::FeedForwardNorm, Some(block))?,
            gate: self.linear(Role::FeedForwardGate, block)?,
            up: self.linear(Role::FeedForwardUp, block)?,
            down: self.linear(Role::FeedForwardDown, block)?,
            post_norm: self.optional(Role::PostFeedForwardNorm, block)?,
        };
        Ok(Block { attention, feed_forward })
    }

    /// The kinds of sight that blocks have, and which of them each block has.
    fn sights(&self, tokens_max: usize) -> Result<(Vec<Sight>, Vec<usize>), BaseError> {
        let shape = self.shape;
        let metadata = self.gguf.metadata();
        let key = |key: &str| format!("{}.{key}", shape.architecture.name);
        let pairs = shape.rope_dimensions as usize / 2;
        let factors = if shape.rope_factors {
            let name = Role::RopeFactors.tensor_name(None);
            Some(self.numbers(&name)?.to_vec1::<f32>()?)
        } else {
            None
        };
        let scaling = metadata.text(&key("rope.scaling.type"));
        let linear =
            metadata.f32(&key("rope.scaling.factor")).filter(|_| scaling == Some("linear"));
        if !matches!(scaling, None | Some("none" | "linear")) || shape.rope_long_factors {
            let name = format!("{} with scaled positions", shape.architecture.name);
            return Err(BaseError::Architecture(name));
        }
        let scale = linear.map_or(1.0, |factor| 1.0 / f64::from(factor));
        let base = f64::from(shape.rope_theta);
        // Gemma 3 turns positions faster where it looks back a window only.
        let local = metadata
            .f32(&key("rope.freq_base_swa"))
            .or((shape.architecture.name == "gemma3").then_some(10_000.0));
        let angles = |base: f64, scale: f64| {
            Angles::new(tokens_max, &frequencies(pairs, base, scale, factors.as_deref()))
        };
        let whole = Sight { angles: angles(base, scale), window: None };
        let windowed = shape.sliding_window.map(|window| Sight {
            angles: match local {
                Some(local) => angles(f64::from(local), 1.0),
                None => whole.angles.clone(),
            },
            window: Some(window as usize),
        });
        let of_block = (0..shape.blocks).map(|block| usize::from(shape.window(block).is_some()));
        let of_block = of_block.collect();
        Ok((std::iter::once(whole).chain(windowed).collect(), of_block))
    }
}

/// A tensor's blocks, copied out of the file.
fn weight(gguf: &Gguf, tensor: &TensorInfo) -> Result<Weight, BaseError> {
    let kind = blocks(tensor.tensor_type)
        .ok_or_else(|| BaseError::Type { name: tensor.name.clone(), kind: tensor.tensor_type })?;
    let shape: Vec<usize> = tensor.dimensions.iter().rev().map(|length| *length as usize).collect();
    let storage = QStorage::from_data(Cow::Borrowed(gguf.data(tensor)), &Device::Cpu, kind)?;
    let blocks = QTensor::new(storage, shape)?;
    if kind == GgmlDType::F32 {
        return Ok(Weight::Dense(blocks.dequantize(&Device::Cpu)?));
    }
    Ok(Weight::Blocks(Arc::new(blocks)))
}

fn blocks(kind: TensorType) -> Option<GgmlDType> {
    Some(match kind {
        TensorType::F32 => GgmlDType::F32,
        TensorType::F16 => GgmlDType::F16,
        TensorType::BF16 => GgmlDType::BF16,
        TensorType::Q4_0 => GgmlDType::Q4_0,
        TensorType::Q4_1 => GgmlDType::Q4_1,
        TensorType::Q5_0 => GgmlDType::Q5_0,
        TensorType::Q5_1 => GgmlDType::Q5_1,
        TensorType::Q8_0 => GgmlDType::Q8_0,
        TensorType::Q2_K => GgmlDType::Q2K,
        TensorType::Q3_K => GgmlDType::Q3K,
        TensorType::Q4_K => GgmlDType::Q4K,
        TensorType::Q5_K => GgmlDType::Q5K,
        TensorType::Q6_K => GgmlDType::Q6K,
        _ => return None,
    })
}
