//! Weights that stay as they are: dense ones, or the blocks of a GGUF file.

use std::sync::Arc;

use candle_core::quantized::QTensor;
use candle_core::{DType, Device, Result, Tensor};

/// A frozen matrix \[out, in\].
#[derive(Debug, Clone)]
pub enum Weight {
    /// Numbers as they are.
    Dense(Tensor),
    /// Blocks, made dense for each use: only one matrix at a time exists twice.
    Blocks(Arc<QTensor>),
}

/// A matrix that is ready for products.
#[derive(Debug)]
pub struct Held(Tensor);

impl Weight {
    /// Rows and their length.
    pub fn dimensions(&self) -> Result<(usize, usize)> {
        match self {
            Self::Dense(tensor) => tensor.dims2(),
            Self::Blocks(blocks) => blocks.shape().dims2(),
        }
    }

    /// Bytes that it takes while nobody computes with it.
    pub fn bytes(&self) -> usize {
        match self {
            Self::Dense(tensor) => tensor.elem_count() * tensor.dtype().size_in_bytes(),
            Self::Blocks(blocks) => blocks.storage_size_in_bytes(),
        }
    }

    /// Makes it ready.
    pub fn hold(&self, kind: DType) -> Result<Held> {
        match self {
            Self::Dense(tensor) => tensor.to_dtype(kind).map(Held),
            Self::Blocks(blocks) => blocks.dequantize(&Device::Cpu)?.to_dtype(kind).map(Held),
        }
    }
}

impl Held {
    /// x·Wᵀ: \[rows, in\] to \[rows, out\].
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        x.matmul(&self.0.t()?)
    }

    /// dy·W: the gradient of x, \[rows, out\] to \[rows, in\].
    pub fn backward(&self, dy: &Tensor) -> Result<Tensor> {
        dy.matmul(&self.0)
    }

    /// The numbers themselves.
    pub fn numbers(&self) -> &Tensor {
        &self.0
    }

    /// Some rows of W: \[rows, in\].
    pub fn rows(&self, numbers: &Tensor) -> Result<Tensor> {
        self.0.index_select(numbers, 0)
    }
}
