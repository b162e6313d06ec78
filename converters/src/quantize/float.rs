//! F32, F16 and BF16: the types that need no block encoder.
//!
//! Rounding equals ggml's (`GGML_FP32_TO_FP16`, `ggml_compute_fp32_to_bf16`): to nearest, ties to
//! even, NaN made quiet.

use super::EncodeError;
use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};
use nfl_models::TensorType;

/// Values converted at a time on the stack.
const STEP: usize = 1024;

/// Whether this module converts `tensor_type`.
pub fn is_float(tensor_type: TensorType) -> bool {
    matches!(tensor_type, TensorType::F32 | TensorType::F16 | TensorType::BF16)
}

/// Writes `source` as little-endian values of a float type; `target` has exactly their bytes.
pub fn encode(
    tensor_type: TensorType,
    source: &[f32],
    target: &mut [u8],
) -> Result<(), EncodeError> {
    check(tensor_type, source.len(), target.len())?;
    match tensor_type {
        TensorType::F32 => {
            for (bytes, value) in target.chunks_exact_mut(4).zip(source) {
                bytes.copy_from_slice(&value.to_le_bytes());
            }
        }
        TensorType::F16 => {
            let mut values = [f16::ZERO; STEP];
            for (bytes, source) in target.chunks_mut(2 * STEP).zip(source.chunks(STEP)) {
                let values = &mut values[..source.len()];
                values.convert_from_f32_slice(source);
                for (bytes, value) in bytes.chunks_exact_mut(2).zip(values) {
                    bytes.copy_from_slice(&value.to_le_bytes());
                }
            }
        }
        _ => {
            for (bytes, value) in target.chunks_exact_mut(2).zip(source) {
                bytes.copy_from_slice(&bf16::from_f32(*value).to_le_bytes());
            }
        }
    }
    Ok(())
}

/// Reads little-endian values of a float type; `target` has exactly as many values.
pub fn decode(
    tensor_type: TensorType,
    source: &[u8],
    target: &mut [f32],
) -> Result<(), EncodeError> {
    check(tensor_type, target.len(), source.len())?;
    match tensor_type {
        TensorType::F32 => {
            for (value, bytes) in target.iter_mut().zip(source.as_chunks::<4>().0) {
                *value = f32::from_le_bytes(*bytes);
            }
        }
        TensorType::F16 => {
            let mut values = [f16::ZERO; STEP];
            for (target, bytes) in target.chunks_mut(STEP).zip(source.chunks(2 * STEP)) {
                let values = &mut values[..target.len()];
                for (value, bytes) in values.iter_mut().zip(bytes.as_chunks::<2>().0) {
                    *value = f16::from_le_bytes(*bytes);
                }
                values.convert_to_f32_slice(target);
            }
        }
        _ => {
            for (value, bytes) in target.iter_mut().zip(source.as_chunks::<2>().0) {
                *value = bf16::from_le_bytes(*bytes).to_f32();
            }
        }
    }
    Ok(())
}

fn check(tensor_type: TensorType, elements: usize, bytes: usize) -> Result<(), EncodeError> {
    if !is_float(tensor_type) {
        return Err(EncodeError::Unsupported(tensor_type));
    }
    if tensor_type.row_bytes(elements as u64) != Some(bytes as u64) {
        return Err(EncodeError::Length { tensor_type, elements, bytes });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// ggml's rule for BF16, on bits: add half of the last kept bit (minus one when that bit is
    /// even), then cut.
    fn ggml_bf16(value: f32) -> u16 {
        let bits = value.to_bits();
        if bits & 0x7fff_ffff > 0x7f80_0000 {
            return (bits >> 16) as u16 | 64;
        }
        ((bits.wrapping_add(0x7fff + ((bits >> 16) & 1))) >> 16) as u16
    }

    /// Round to nearest even by exact comparison with the two neighbours, in f64.
    fn nearest_f16(value: f32) -> u16 {
        let sign = if value.is_sign_negative() { 0x8000 } else { 0 };
        let magnitude = f64::from(value.abs());
        let mut best = (f64::INFINITY, 0_u16);
        for bits in 0..=0x7c00_u16 {
            // infinity takes the place of 2^16 in the comparison, as IEEE 754 rounds
            let candidate =
                if bits == 0x7c00 { 65536.0 } else { f64::from(f16::from_bits(bits).to_f32()) };
            let distance = (candidate - magnitude).abs();
            let nearer = distance.total_cmp(&best.0);
            if nearer.is_lt() || (nearer.is_eq() && bits % 2 == 0) {
                best = (distance, bits);
            }
        }
        best.1 | sign
    }

    #[test]
    fn bf16_rounds_as_ggml_does() {
        let mut state = 1_u32;
        for step in 0..200_000_u32 {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let bits = if step % 3 == 0 { state & 0xffff_8000 } else { state };
            let value = f32::from_bits(bits);
            let mut bytes = [0; 2];
            encode(TensorType::BF16, &[value], &mut bytes).unwrap();
            assert_eq!(u16::from_le_bytes(bytes), ggml_bf16(value), "{bits:#x}");
        }
    }

    #[test]
    fn f16_rounds_to_nearest_even() {
        let values = [
            0.0,
            -0.0,
            1.0,
            -1.0,
            0.1,
            65504.0,
            65519.9,
            1e-8,
            2.98e-8,
            2.981e-8,
            5.96e-8,
            6.1e-5,
            2049.0,
            2051.0,
            -2049.0,
            0.333_333_34,
            1.000_488_3,
            1.001_464_8,
        ];
        let mut bytes = [0; 36];
        encode(TensorType::F16, &values, &mut bytes).unwrap();
        for (value, bytes) in values.iter().zip(bytes.as_chunks::<2>().0) {
            assert_eq!(u16::from_le_bytes(*bytes), nearest_f16(*value), "{value}");
        }
        encode(TensorType::F16, &[65520.0, f32::NAN], &mut bytes[..4]).unwrap();
        assert_eq!(bytes[..2], [0x00, 0x7c]);
        assert!(f16::from_le_bytes([bytes[2], bytes[3]]).is_nan());
    }

    #[test]
    fn floats_decode_to_what_was_encoded() {
        let values: Vec<f32> = (0..3000_u16).map(|i| f32::from(i) / 8.0 - 150.0).collect();
        for tensor_type in [TensorType::F32, TensorType::F16, TensorType::BF16] {
            let kept = match tensor_type {
                TensorType::BF16 => &values[1136..1264], // eight bits of mantissa hold these
                _ => &values[..],
            };
            let mut bytes = vec![0; tensor_type.row_bytes(kept.len() as u64).unwrap() as usize];
            encode(tensor_type, kept, &mut bytes).unwrap();
            let mut back = vec![0.0; kept.len()];
            decode(tensor_type, &bytes, &mut back).unwrap();
            assert_eq!(back, kept, "{tensor_type}");
        }
    }

    #[test]
    fn wrong_lengths_and_types_are_errors() {
        let length = encode(TensorType::F16, &[1.0], &mut [0; 3]);
        assert!(matches!(length, Err(EncodeError::Length { elements: 1, bytes: 3, .. })));
        let unknown = decode(TensorType::Q8_0, &[0; 34], &mut [0.0; 32]);
        assert_eq!(unknown, Err(EncodeError::Unsupported(TensorType::Q8_0)));
    }
}
