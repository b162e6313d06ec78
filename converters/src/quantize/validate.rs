//! Finds NaN and infinity before they are written: in `f32` rows, and in the scales of encoded
//! blocks.
//!
//! `llama-quantize` refuses a file whose blocks hold a scale that is not finite. A finite input can
//! still end there: a weight beyond 65504 has no F16, and block scales are F16 too.

use half::{bf16, f16};
use nfl_models::TensorType;

/// Index of the first value that is NaN or infinite.
pub fn first_non_finite(values: &[f32]) -> Option<usize> {
    // a sum over whole chunks first: the compiler turns it into vector code, the position is only
    // sought when needed
    const EXPONENT: u32 = 0x7f80_0000;
    let bad = |value: &f32| value.to_bits() & EXPONENT == EXPONENT;
    let found = values.iter().map(|value| u32::from(bad(value))).fold(0, |found, bad| found | bad);
    if found == 0 { None } else { values.iter().position(bad) }
}

/// Whether every number that scales a block of `bytes` (or every value of a float type) is finite.
///
/// Types whose layout is not known here count as finite; `bytes` is a whole number of blocks.
pub fn is_finite(tensor_type: TensorType, bytes: &[u8]) -> bool {
    match tensor_type {
        TensorType::F32 => {
            bytes.as_chunks::<4>().0.iter().all(|b| f32::from_le_bytes(*b).is_finite())
        }
        TensorType::F16 => {
            bytes.as_chunks::<2>().0.iter().all(|b| f16::from_le_bytes(*b).is_finite())
        }
        TensorType::BF16 => {
            bytes.as_chunks::<2>().0.iter().all(|b| bf16::from_le_bytes(*b).is_finite())
        }
        _ => {
            let offsets = scale_offsets(tensor_type);
            let block_bytes = tensor_type.block_bytes() as usize;
            bytes.chunks_exact(block_bytes).all(|block| {
                offsets
                    .iter()
                    .all(|at| f16::from_le_bytes([block[*at], block[*at + 1]]).is_finite())
            })
        }
    }
}

/// Where a block keeps its F16 scales (and minimum), in bytes from its start. Source: the structs
/// of ggml-common.h.
fn scale_offsets(tensor_type: TensorType) -> &'static [usize] {
    match tensor_type {
        TensorType::Q4_0
        | TensorType::Q5_0
        | TensorType::Q8_0
        | TensorType::IQ4_NL
        | TensorType::IQ4_XS => &[0],
        TensorType::Q4_1 | TensorType::Q5_1 | TensorType::Q4_K | TensorType::Q5_K => &[0, 2],
        TensorType::Q2_K => &[80, 82],
        TensorType::Q3_K => &[108],
        TensorType::Q6_K => &[208],
        _ => &[],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_first_value_that_is_not_finite() {
        let mut values = vec![1.0_f32; 100];
        assert_eq!(first_non_finite(&values), None);
        values[63] = f32::NEG_INFINITY;
        assert_eq!(first_non_finite(&values), Some(63));
        values[7] = f32::NAN;
        assert_eq!(first_non_finite(&values), Some(7));
    }

    #[test]
    fn finds_a_scale_that_is_not_finite_in_every_block_type() {
        let types = [
            TensorType::F16,
            TensorType::BF16,
            TensorType::F32,
            TensorType::Q4_0,
            TensorType::Q4_1,
            TensorType::Q5_0,
            TensorType::Q5_1,
            TensorType::Q8_0,
            TensorType::Q2_K,
            TensorType::Q3_K,
            TensorType::Q4_K,
            TensorType::Q5_K,
            TensorType::Q6_K,
            TensorType::IQ4_NL,
            TensorType::IQ4_XS,
        ];
        for tensor_type in types {
            let block = tensor_type.block_bytes() as usize;
            let mut bytes = vec![0_u8; 3 * block];
            assert!(is_finite(tensor_type, &bytes), "{tensor_type}");
            let scales = scale_offsets(tensor_type);
            assert!(scales.iter().all(|at| at + 2 <= block), "{tensor_type}");
            let at = block + scales.last().copied().unwrap_or(0);
            let infinite: &[u8] = match tensor_type {
                TensorType::F32 => &[0, 0, 0x80, 0x7f],
                TensorType::BF16 => &[0x80, 0x7f],
                _ => &[0, 0x7c],
            };
            bytes[at..at + infinite.len()].copy_from_slice(infinite);
            assert!(!is_finite(tensor_type, &bytes), "{tensor_type}");
        }
    }
}
