//! Element types of weights and their decoding to `f32`.
//!
//! Mapped data has no alignment (the header's length decides), so everything is read through byte
//! arrays; the loops over them compile to vector code.

use std::fmt;

use half::f16;
use half::slice::HalfFloatSliceExt;
use safetensors::Dtype;

/// The type of a tensor's elements in a checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SourceType {
    /// IEEE 754 double precision.
    F64,
    /// IEEE 754 single precision.
    F32,
    /// IEEE 754 half precision.
    F16,
    /// The upper half of single precision.
    BF16,
    /// Eight bits with four of exponent, no infinity (`float8_e4m3fn`,
    /// <https://arxiv.org/abs/2209.05433>).
    F8E4M3,
    /// Eight bits with five of exponent (`float8_e5m2`, the same paper).
    F8E5M2,
    /// A type that holds no floating-point weights; listed, but refused when its values are asked
    /// for.
    Other(Dtype),
}

impl SourceType {
    /// Whether its values can be read as `f32`.
    pub fn is_readable(self) -> bool {
        !matches!(self, Self::Other(_))
    }

    /// Whether values need a scale from another tensor.
    pub fn is_fp8(self) -> bool {
        matches!(self, Self::F8E4M3 | Self::F8E5M2)
    }

    /// Bytes of one element; `None` for types of other sizes than whole bytes.
    pub fn bytes(self) -> Option<usize> {
        Some(match self {
            Self::F64 => 8,
            Self::F32 => 4,
            Self::F16 | Self::BF16 => 2,
            Self::F8E4M3 | Self::F8E5M2 => 1,
            Self::Other(dtype) if dtype.bitsize() % 8 == 0 => dtype.bitsize() / 8,
            Self::Other(_) => return None,
        })
    }
}

impl From<Dtype> for SourceType {
    fn from(dtype: Dtype) -> Self {
        match dtype {
            Dtype::F64 => Self::F64,
            Dtype::F32 => Self::F32,
            Dtype::F16 => Self::F16,
            Dtype::BF16 => Self::BF16,
            Dtype::F8_E4M3 => Self::F8E4M3,
            Dtype::F8_E5M2 => Self::F8E5M2,
            other => Self::Other(other),
        }
    }
}

impl fmt::Display for SourceType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::F64 => f.write_str("F64"),
            Self::F32 => f.write_str("F32"),
            Self::F16 => f.write_str("F16"),
            Self::BF16 => f.write_str("BF16"),
            Self::F8E4M3 => f.write_str("F8_E4M3"),
            Self::F8E5M2 => f.write_str("F8_E5M2"),
            Self::Other(dtype) => dtype.fmt(f),
        }
    }
}

/// Decodes `source`, whose length must be that of `target.len()` elements. False when the type is
/// not readable.
pub(super) fn decode(source_type: SourceType, source: &[u8], target: &mut [f32]) -> bool {
    debug_assert!(
        source_type.bytes().is_none_or(|bytes| source.len() == target.len() * bytes),
        "the caller cuts the bytes to the elements"
    );
    match source_type {
        SourceType::F32 => each(source, target, f32::from_le_bytes),
        SourceType::F64 => each(source, target, |bytes| f64::from_le_bytes(bytes) as f32),
        SourceType::BF16 => each(source, target, bf16_value),
        SourceType::F16 => decode_f16(source, target),
        SourceType::F8E4M3 => table(source, target, &E4M3),
        SourceType::F8E5M2 => table(source, target, &E5M2),
        SourceType::Other(_) => return false,
    }
    true
}

/// One element of a scale tensor: also E8M0, a bare power of two that only scales have.
pub(super) fn decode_scale(source_type: SourceType, source: &[u8]) -> Option<f32> {
    if let (SourceType::Other(Dtype::F8_E8M0), [code]) = (source_type, source) {
        return Some(if *code == 255 {
            f32::NAN
        } else {
            2_f64.powi(i32::from(*code) - 127) as f32
        });
    }
    let mut value = [0.0];
    decode(source_type, source, &mut value).then_some(value[0])
}

fn each<const N: usize>(source: &[u8], target: &mut [f32], value: impl Fn([u8; N]) -> f32) {
    for (target, source) in target.iter_mut().zip(source.as_chunks::<N>().0) {
        *target = value(*source);
    }
}

/// A plain shift: unlike `half`, it leaves signalling NaNs as they are, as PyTorch does.
fn bf16_value(bytes: [u8; 2]) -> f32 {
    f32::from_bits(u32::from(u16::from_le_bytes(bytes)) << 16)
}

/// Through an aligned piece on the stack, so that `half`'s slice conversion can use the processor's
/// own instruction.
fn decode_f16(source: &[u8], target: &mut [f32]) {
    const PIECE: usize = 512;
    let mut piece = [f16::ZERO; PIECE];
    for (target, source) in target.chunks_mut(PIECE).zip(source.chunks(PIECE * 2)) {
        for (half, bytes) in piece.iter_mut().zip(source.as_chunks::<2>().0) {
            *half = f16::from_le_bytes(*bytes);
        }
        piece[..target.len()].convert_to_f32_slice(target);
    }
}

fn table(source: &[u8], target: &mut [f32], values: &[f32; 256]) {
    for (target, &code) in target.iter_mut().zip(source) {
        *target = values[usize::from(code)];
    }
}

/// The values of all E4M3 codes: bias 7, no infinity, NaN only where all seven lower bits are set.
static E4M3: [f32; 256] = values(3, 7, false);
/// The values of all E5M2 codes: bias 15, infinity and NaN as in IEEE 754.
static E5M2: [f32; 256] = values(2, 15, true);

const fn values(mantissa_bits: u32, bias: u32, has_infinity: bool) -> [f32; 256] {
    let mut values = [0.0; 256];
    let mut code: u32 = 0;
    while code < 256 {
        values[code as usize] = value(code, mantissa_bits, bias, has_infinity);
        code += 1;
    }
    values
}

const fn value(code: u32, mantissa_bits: u32, bias: u32, has_infinity: bool) -> f32 {
    let sign = (code >> 7) << 31;
    let exponent = (code & 0x7F) >> mantissa_bits;
    let exponent_max = 0x7F >> mantissa_bits;
    let mantissa = code & ((1 << mantissa_bits) - 1);
    let mantissa_max = (1 << mantissa_bits) - 1;
    if exponent == exponent_max && (has_infinity || mantissa == mantissa_max) {
        return f32::from_bits(sign | 0x7F80_0000 | mantissa << (23 - mantissa_bits));
    }
    if exponent > 0 {
        let bits = (exponent + 127 - bias) << 23 | mantissa << (23 - mantissa_bits);
        return f32::from_bits(sign | bits);
    }
    // Subnormal: the mantissa counts steps of 2^(1 - bias - mantissa_bits).
    let step = f32::from_bits((127 + 1 - bias - mantissa_bits) << 23);
    f32::from_bits((mantissa as f32 * step).to_bits() | sign)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The value of an FP8 code from the paper's definition, in double precision and without bit
    /// tricks.
    fn by_definition(code: u8, exponent_bits: u32, bias: i32, ieee: bool) -> f64 {
        let mantissa_bits = 7 - exponent_bits;
        let sign = if code >= 128 { -1.0 } else { 1.0 };
        let exponent = i32::from(code % 128) / (1 << mantissa_bits);
        let mantissa = f64::from(i32::from(code % 128) % (1 << mantissa_bits));
        let fraction = mantissa / f64::from(1 << mantissa_bits);
        let is_top = exponent == (1 << exponent_bits) - 1;
        if ieee && is_top {
            return if mantissa == 0.0 { sign * f64::INFINITY } else { f64::NAN };
        }
        if !ieee && code % 128 == 127 {
            return f64::NAN;
        }
        if exponent == 0 {
            sign * fraction * 2_f64.powi(1 - bias)
        } else {
            sign * (1.0 + fraction) * 2_f64.powi(exponent - bias)
        }
    }

    fn check_all_codes(source_type: SourceType, expected: impl Fn(u8) -> f64) {
        let codes: Vec<u8> = (0..=255).collect();
        let mut values = [0.0_f32; 256];
        assert!(decode(source_type, &codes, &mut values));
        for (code, value) in codes.into_iter().zip(values) {
            let expected = expected(code);
            assert_eq!(value.is_nan(), expected.is_nan(), "{source_type} {code:#04x}");
            if !expected.is_nan() {
                let expected = (expected as f32).to_bits();
                assert_eq!(value.to_bits(), expected, "{source_type} {code:#04x}: {value}");
            }
        }
    }

    #[test]
    fn every_fp8_code_has_the_value_of_its_definition() {
        check_all_codes(SourceType::F8E4M3, |code| by_definition(code, 4, 7, false));
        check_all_codes(SourceType::F8E5M2, |code| by_definition(code, 5, 15, true));
    }

    #[test]
    fn fp8_extremes_are_those_of_the_paper() {
        // Table 1 of arXiv:2209.05433: largest, smallest normal, smallest subnormal.
        let check = |table: &[f32; 256], code: usize, value: f32| {
            assert_eq!(table[code].to_bits(), value.to_bits(), "{code:#x}");
        };
        check(&E4M3, 0x7E, 448.0);
        check(&E4M3, 0x08, 2_f32.powi(-6));
        check(&E4M3, 0x01, 2_f32.powi(-9));
        check(&E5M2, 0x7B, 57344.0);
        check(&E5M2, 0x04, 2_f32.powi(-14));
        check(&E5M2, 0x01, 2_f32.powi(-16));
    }

    #[test]
    fn half_types_at_odd_addresses_equal_the_half_crate() {
        let codes: Vec<u16> = (0..=u16::MAX).collect();
        let mut bytes = vec![0_u8];
        bytes.extend(codes.iter().flat_map(|code| code.to_le_bytes()));
        let mut values = vec![0.0; codes.len()];
        assert!(decode(SourceType::F16, &bytes[1..], &mut values));
        for (&code, value) in codes.iter().zip(&values) {
            let expected = f16::from_bits(code).to_f32();
            assert!(value.to_bits() == expected.to_bits() || value.is_nan() && expected.is_nan());
        }
        assert!(decode(SourceType::BF16, &bytes[1..], &mut values));
        for (&code, value) in codes.iter().zip(&values) {
            let expected = half::bf16::from_bits(code).to_f32();
            assert!(value.to_bits() == expected.to_bits() || value.is_nan() && expected.is_nan());
        }
    }

    #[test]
    fn e8m0_scales_are_powers_of_two() {
        let scale = |code: u8| decode_scale(SourceType::Other(Dtype::F8_E8M0), &[code]).unwrap();
        let powers = [(0, -127), (1, -126), (126, -1), (127, 0), (128, 1), (254, 127)];
        for (code, power) in powers {
            assert_eq!(f64::from(scale(code)).to_bits(), 2_f64.powi(power).to_bits(), "{code}");
        }
        assert!(scale(255).is_nan());
        assert_eq!(decode_scale(SourceType::Other(Dtype::I8), &[1]), None);
    }
}
