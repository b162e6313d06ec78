//! The steps of a decoder, each forward and backward, on rows of numbers.
//!
//! candle's autograd drops gradients at fused operations without a word, so nothing here uses it: every function has a
//! partner whose name ends in `_back` that takes the gradient of its result and returns those of its arguments (a
//! vector-Jacobian product). Tensors are contiguous, row-major, f32 in use and f64 in tests.

pub mod activation;
pub mod attention;
pub mod head;
pub mod norm;
pub mod rope;

use candle_core::{CpuStorage, Device, Error, Result, Storage, Tensor, WithDType};

pub use candle_core::Error as TensorError;

/// Numbers that the steps are computed with.
pub trait Real:
    WithDType
    + Send
    + Sync
    + std::iter::Sum
    + std::ops::Neg<Output = Self>
    + std::ops::AddAssign
    + std::ops::SubAssign
    + std::ops::MulAssign
{
    /// The exponential function.
    #[must_use]
    fn exp(self) -> Self;
    /// The natural logarithm.
    #[must_use]
    fn ln(self) -> Self;
    /// The square root.
    #[must_use]
    fn sqrt(self) -> Self;
    /// The hyperbolic tangent.
    #[must_use]
    fn tanh(self) -> Self;
    /// The larger of two.
    #[must_use]
    fn larger(self, other: Self) -> Self;
    /// The number nearest to one of double precision.
    fn of(value: f64) -> Self;
    /// In double precision.
    fn wide(self) -> f64;
}

macro_rules! real {
    ($($kind:ty),*) => {$(
        impl Real for $kind {
            fn exp(self) -> Self {
                <$kind>::exp(self)
            }
            fn ln(self) -> Self {
                <$kind>::ln(self)
            }
            fn sqrt(self) -> Self {
                <$kind>::sqrt(self)
            }
            fn tanh(self) -> Self {
                <$kind>::tanh(self)
            }
            fn larger(self, other: Self) -> Self {
                self.max(other)
            }
            fn of(value: f64) -> Self {
                value as $kind
            }
            fn wide(self) -> f64 {
                f64::from(self)
            }
        }
    )*};
}
real!(f32, f64);

/// Runs the body with `$kind` as the type of a tensor's numbers.
macro_rules! by_type {
    ($tensor:expr, $kind:ident => $body:expr) => {
        match $tensor.dtype() {
            candle_core::DType::F32 => {
                type $kind = f32;
                $body
            }
            candle_core::DType::F64 => {
                type $kind = f64;
                $body
            }
            other => Err(candle_core::Error::UnsupportedDTypeForOp(other, "training").bt()),
        }
    };
}
pub(crate) use by_type;

/// Hands the numbers of a contiguous tensor in main memory to `work`, without a copy.
pub(crate) fn read<T: Real, R>(tensor: &Tensor, work: impl FnOnce(&[T]) -> R) -> Result<R> {
    let (storage, layout) = tensor.storage_and_layout();
    let Storage::Cpu(storage) = &*storage else {
        return Err(Error::Msg("a tensor of a GPU where one in main memory is needed".into()).bt());
    };
    let Some((start, end)) = layout.contiguous_offsets() else {
        return Err(Error::Msg("a tensor whose numbers do not lie side by side".into()).bt());
    };
    Ok(work(&slice::<T>(storage)?[start..end]))
}

fn slice<T: Real>(storage: &CpuStorage) -> Result<&[T]> {
    T::cpu_storage_as_slice(storage)
}

/// The length of rows and how many there are, for a tensor seen as a matrix of its last dimension.
pub(crate) fn rows(tensor: &Tensor) -> Result<(usize, usize)> {
    let width = tensor.dim(candle_core::D::Minus1)?;
    Ok((tensor.elem_count() / width.max(1), width))
}

/// `x` times a factor, where there is one; its gradient goes the same way.
pub(crate) fn scaled(x: Tensor, scale: Option<f64>) -> Result<Tensor> {
    match scale {
        Some(scale) => x * scale,
        None => Ok(x),
    }
}

/// The numbers of a tensor in main memory, row by row.
pub fn values(tensor: &Tensor) -> Result<Vec<f32>> {
    read::<f32, _>(&tensor.contiguous()?, <[f32]>::to_vec)
}

/// A tensor of numbers, row by row.
pub fn tensor(values: Vec<f32>, dimensions: &[usize]) -> Result<Tensor> {
    Tensor::from_vec(values, dimensions, &Device::Cpu)
}

#[cfg(test)]
pub(crate) mod check {
    //! Gradients against differences: f(x + h) − f(x − h) over 2h, in double precision.

    use candle_core::{Device, Result, Tensor};

    /// Numbers between −1 and 1 that look random.
    pub(crate) fn noise(seed: u64, shape: &[usize]) -> Tensor {
        let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
        let count = shape.iter().product();
        let values: Vec<f64> = (0..count)
            .map(|_| {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                (state >> 11) as f64 / (1u64 << 52) as f64 - 1.0
            })
            .collect();
        Tensor::from_vec(values, shape, &Device::Cpu).unwrap()
    }

    pub(crate) fn values(tensor: &Tensor) -> Vec<f64> {
        tensor.contiguous().unwrap().flatten_all().unwrap().to_vec1().unwrap()
    }

    /// Whether `gradient` is that of Σ weight · f(x) at `x`, at up to 40 places.
    pub(crate) fn gradient(
        what: &str,
        x: &Tensor,
        gradient: &Tensor,
        f: &dyn Fn(&Tensor) -> Result<f64>,
    ) {
        let (flat, given) = (values(x), values(gradient));
        assert_eq!(flat.len(), given.len(), "{what}");
        let step = (flat.len() / 40).max(1);
        let h = 1e-5;
        for place in (0..flat.len()).step_by(step) {
            let at = |delta: f64| {
                let mut moved = flat.clone();
                moved[place] += delta;
                f(&Tensor::from_vec(moved, x.dims(), &Device::Cpu).unwrap()).unwrap()
            };
            let expected = (at(h) - at(-h)) / (2.0 * h);
            let error = (given[place] - expected).abs() / (1.0 + expected.abs());
            assert!(error < 1e-7, "{what}[{place}]: {} given, {expected} found", given[place]);
        }
    }

    /// Σ weight · value.
    pub(crate) fn weighted(value: &Tensor, weight: &Tensor) -> f64 {
        values(value).iter().zip(values(weight)).map(|(a, b)| a * b).sum()
    }
}
