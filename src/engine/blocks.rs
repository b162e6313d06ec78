//! ggml's block encoders behind the converter's trait, so that the converter itself needs no C++.

use nfl_converters::quantize::{BlockEncoder, EncodeError};
use nfl_models::TensorType;

use super::llama::{self, BlockError};

/// ggml's own encoders: tensor bytes equal those of `llama-quantize`.
#[derive(Debug, Clone, Copy, Default)]
pub struct GgmlBlocks;

impl BlockEncoder for GgmlBlocks {
    fn encode(
        &self,
        tensor_type: TensorType,
        source: &[f32],
        row_elements: usize,
        importance: Option<&[f32]>,
        target: &mut [u8],
    ) -> Result<(), EncodeError> {
        llama::encode_blocks(tensor_type, source, row_elements, importance, target)
            .map_err(|error| failure(tensor_type, &error))
    }

    fn decode(
        &self,
        tensor_type: TensorType,
        source: &[u8],
        target: &mut [f32],
    ) -> Result<(), EncodeError> {
        llama::decode_blocks(tensor_type, source, target)
            .map_err(|error| failure(tensor_type, &error))
    }
}

fn failure(tensor_type: TensorType, error: &BlockError) -> EncodeError {
    match *error {
        BlockError::Unsupported(kind) => EncodeError::Unsupported(kind),
        BlockError::Length { elements, bytes } => {
            EncodeError::Length { tensor_type, elements, bytes }
        }
        BlockError::NoImportance(_) | BlockError::NotFinite(_) => {
            EncodeError::Failed { tensor_type, reason: error.to_string() }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A deterministic wave with a few outliers.
    fn wave(length: usize) -> Vec<f32> {
        (0..length).map(|i| (i as f32 * 0.37).sin() * (1.0 + (i % 13) as f32 * 0.2)).collect()
    }

    fn largest_error(kind: TensorType) -> f32 {
        let source = wave(512);
        let mut bytes = vec![0; 2 * kind.row_bytes(256).unwrap() as usize];
        GgmlBlocks.encode(kind, &source, 256, None, &mut bytes).unwrap();
        // One byte further: encoded rows may begin anywhere in a mapped file.
        let mut shifted = vec![0];
        shifted.extend_from_slice(&bytes);
        let mut back = vec![0.0; 512];
        GgmlBlocks.decode(kind, &shifted[1..], &mut back).unwrap();
        source.iter().zip(&back).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
    }

    #[test]
    fn every_level_type_survives_a_round_trip() {
        use TensorType as T;
        // The bound is about half a step of the type on values up to 3.4.
        for (kind, bound) in [
            (T::F32, 0.0),
            (T::F16, 0.002),
            (T::BF16, 0.02),
            (T::Q8_0, 0.02),
            (T::Q6_K, 0.08),
            (T::Q5_0, 0.25),
            (T::Q5_1, 0.15),
            (T::Q5_K, 0.15),
            (T::Q4_0, 0.5),
            (T::Q4_1, 0.3),
            (T::Q4_K, 0.3),
            (T::Q3_K, 0.8),
            (T::Q2_K, 1.6),
            (T::IQ4_NL, 0.6),
            (T::IQ4_XS, 0.6),
        ] {
            let error = largest_error(kind);
            assert!(error <= bound, "{kind}: {error}");
        }
    }

    #[test]
    fn sizes_that_ggml_would_assert_on_are_errors() {
        let mut bytes = vec![0; 34];
        for (source, row) in [(32, 31), (32, 0), (64, 64), (33, 33), (0, 32)] {
            let result = GgmlBlocks.encode(TensorType::Q8_0, &wave(source), row, None, &mut bytes);
            assert!(matches!(result, Err(EncodeError::Length { .. })), "{source} {row}");
        }
        let decoded = GgmlBlocks.decode(TensorType::Q8_0, &bytes, &mut [0.0; 31]);
        assert!(matches!(decoded, Err(EncodeError::Length { .. })));
    }

    #[test]
    fn what_ggml_cannot_encode_is_said() {
        let source = wave(256);
        let mut bytes = vec![0; 66];
        let result = GgmlBlocks.encode(TensorType::IQ2_XXS, &source, 256, None, &mut bytes);
        assert!(matches!(result, Err(EncodeError::Failed { .. })), "{result:?}");
        let result = GgmlBlocks.encode(TensorType::I8, &source, 256, None, &mut bytes);
        assert!(matches!(result, Err(EncodeError::Unsupported(_))), "{result:?}");
    }
}
