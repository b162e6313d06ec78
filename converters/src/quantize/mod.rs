//! From `f32` rows to the bytes of a tensor type: the encoder's interface, the plain float types,
//! and the mixture of a level.
//!
//! ggml's block encoders are handed in behind [`BlockEncoder`], so this crate and its tests need no
//! C++ build. F32, F16 and BF16 are done here: their rounding (to nearest, ties to even; a NaN
//! stays a quiet NaN) is fixed by IEEE 754.

pub mod category;
pub mod float;
pub mod mixture;
pub mod validate;

use nfl_models::{Hint, TensorType};

/// ggml's encoders and decoders for block types, as the engine provides them.
pub trait BlockEncoder: Sync {
    /// Encodes whole rows of `row_elements` values each as `tensor_type`.
    ///
    /// `target` holds exactly the rows' bytes. `importance` gives one weight per column (an
    /// importance matrix), or `None` for the encoder's own weighting, which is what
    /// `llama-quantize` uses when no matrix is given.
    #[expect(clippy::too_many_arguments, reason = "the parameters of ggml_quantize_chunk")]
    fn encode(
        &self,
        tensor_type: TensorType,
        source: &[f32],
        row_elements: usize,
        importance: Option<&[f32]>,
        target: &mut [u8],
    ) -> Result<(), EncodeError>;

    /// Decodes whole blocks of `tensor_type` to `f32`.
    fn decode(
        &self,
        tensor_type: TensorType,
        source: &[u8],
        target: &mut [f32],
    ) -> Result<(), EncodeError>;
}

/// Why rows could not be encoded or decoded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EncodeError {
    /// The encoder at hand does not know the type, in this direction.
    #[error("tensor type without a converter: {0}")]
    Unsupported(TensorType),
    /// The buffers do not belong together; a mistake of the caller.
    #[error("{tensor_type}: {elements} values and {bytes} bytes do not belong together")]
    Length {
        /// The type asked for.
        tensor_type: TensorType,
        /// Values on the `f32` side.
        elements: usize,
        /// Bytes on the encoded side.
        bytes: usize,
    },
    /// The encoder itself failed.
    #[error("{tensor_type}: {reason}")]
    Failed {
        /// The type asked for.
        tensor_type: TensorType,
        /// What the encoder says.
        reason: String,
    },
}

impl Hint for EncodeError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::Unsupported(_) => Some("convert from the F32, F16 or BF16 file instead".into()),
            Self::Length { .. } | Self::Failed { .. } => None,
        }
    }
}

/// Encodes rows as any type: the float types here, block types through `blocks`.
pub fn encode(
    blocks: &dyn BlockEncoder,
    tensor_type: TensorType,
    source: &[f32],
    row_elements: usize,
    target: &mut [u8],
) -> Result<(), EncodeError> {
    if float::is_float(tensor_type) {
        return float::encode(tensor_type, source, target);
    }
    blocks.encode(tensor_type, source, row_elements, None, target)
}

/// Decodes any type to `f32`: the float types here, block types through `blocks`.
pub fn decode(
    blocks: &dyn BlockEncoder,
    tensor_type: TensorType,
    source: &[u8],
    target: &mut [f32],
) -> Result<(), EncodeError> {
    if float::is_float(tensor_type) {
        return float::decode(tensor_type, source, target);
    }
    blocks.decode(tensor_type, source, target)
}
