//! Low-rank adapters (Hu et al. 2021, arXiv:2106.09685): y += s·(x·Aᵀ)·Bᵀ.

use candle_core::{DType, Device, Result, Tensor};

/// One adapter: A \[rank, in\] and B \[out, rank\].
#[derive(Debug, Clone)]
pub struct Lora {
    /// The projection down.
    pub a: Tensor,
    /// The projection up; zero before training, so that the model begins as it is.
    pub b: Tensor,
    /// s: alpha/rank, or alpha/√rank (rsLoRA, Kalajdzievski 2023, arXiv:2312.03732).
    pub scale: f64,
}

/// The gradient of one adapter.
#[derive(Debug, Clone)]
pub struct LoraGradient {
    /// Of A.
    pub a: Tensor,
    /// Of B.
    pub b: Tensor,
}

impl Lora {
    /// An adapter as PEFT begins: A uniform within ±√(1/in) (Kaiming with a = √5), B zero.
    pub fn new(
        rank: usize,
        dimensions: (usize, usize),
        scale: f64,
        random: &mut impl FnMut() -> f32,
    ) -> Result<Self> {
        let (outputs, inputs) = dimensions;
        let bound = (1.0 / inputs as f32).sqrt();
        let values: Vec<f32> = (0..rank * inputs).map(|_| (2.0 * random() - 1.0) * bound).collect();
        Ok(Self {
            a: Tensor::from_vec(values, (rank, inputs), &Device::Cpu)?,
            b: Tensor::zeros((outputs, rank), DType::F32, &Device::Cpu)?,
            scale,
        })
    }

    /// x·Aᵀ, which the way back needs.
    pub fn inner(&self, x: &Tensor) -> Result<Tensor> {
        x.matmul(&self.a.t()?)
    }

    /// What it adds to the result.
    pub fn outer(&self, inner: &Tensor) -> Result<Tensor> {
        (inner * self.scale)?.matmul(&self.b.t()?)
    }

    /// Its gradient, and what it adds to that of x.
    pub fn backward(
        &self,
        x: &Tensor,
        inner: &Tensor,
        dy: &Tensor,
    ) -> Result<(LoraGradient, Tensor)> {
        let dinner = (dy.matmul(&self.b)? * self.scale)?;
        let gradient =
            LoraGradient { a: dinner.t()?.matmul(x)?, b: (dy.t()?.matmul(inner)? * self.scale)? };
        let dx = dinner.matmul(&self.a)?;
        Ok((gradient, dx))
    }
}
