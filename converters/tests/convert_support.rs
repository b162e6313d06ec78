//! What the tests of conversion share: the material, and a small encoder of two block types written
//! from their definition.

use nfl_converters::Step;
use nfl_converters::quantize::{BlockEncoder, EncodeError};
use nfl_models::TensorType;
use std::ops::ControlFlow;
use std::path::PathBuf;

/// The checkpoints that upstream's converter was run on.
pub(crate) const CHECKPOINTS: [&str; 4] = [
    "stories260K-hf-llama",
    "stories260K-hf-llama-ffn256",
    "stories260K-hf-mixtral-4x-top2",
    "stories260K-hf-mixtral-split4-top4",
];

/// A file or folder of the material; `None`, with a line on stderr, where the material is absent.
pub(crate) fn material(path: &str) -> Option<PathBuf> {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../shared/material");
    let found = root.join(path);
    if !found.exists() {
        eprintln!("skipped: {path} is not there");
        return None;
    }
    Some(found)
}

/// Goes on at every step.
pub(crate) fn on(_: Step<'_>) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

/// Q8_0 and Q4_0: 32 values a block, an F16 scale, then the values as signed bytes or as nibbles
/// around 8.
pub(crate) struct Reference;

const BLOCK: usize = 32;

fn half_bytes(value: f32) -> [u8; 2] {
    half::f16::from_f32(value).to_le_bytes()
}

fn half_value(bytes: &[u8]) -> f32 {
    half::f16::from_le_bytes([bytes[0], bytes[1]]).to_f32()
}

fn inverse(scale: f32) -> f32 {
    if scale == 0.0 { 0.0 } else { 1.0 / scale }
}

fn encode_q8_0(values: &[f32], block: &mut [u8]) {
    let largest = values.iter().fold(0.0_f32, |largest, value| largest.max(value.abs()));
    let scale = largest / 127.0;
    block[..2].copy_from_slice(&half_bytes(scale));
    for (byte, value) in block[2..].iter_mut().zip(values) {
        *byte = (value * inverse(scale)).round() as i8 as u8;
    }
}

fn encode_q4_0(values: &[f32], block: &mut [u8]) {
    let mut largest = 0.0_f32;
    for value in values {
        if value.abs() > largest.abs() {
            largest = *value;
        }
    }
    let scale = largest / -8.0;
    block[..2].copy_from_slice(&half_bytes(scale));
    let nibble = |value: f32| ((value * inverse(scale) + 8.5) as u8).min(15);
    for index in 0..BLOCK / 2 {
        let (low, high) = (nibble(values[index]), nibble(values[index + BLOCK / 2]));
        block[2 + index] = low | high << 4;
    }
}

impl BlockEncoder for Reference {
    fn encode(
        &self,
        tensor_type: TensorType,
        source: &[f32],
        row_elements: usize,
        importance: Option<&[f32]>,
        target: &mut [u8],
    ) -> Result<(), EncodeError> {
        assert!(source.len().is_multiple_of(row_elements), "pieces are whole rows");
        assert!(importance.is_none());
        let bytes = tensor_type.row_bytes(source.len() as u64);
        assert_eq!(bytes, Some(target.len() as u64), "the target has room for exactly the rows");
        let encode = match tensor_type {
            TensorType::Q8_0 => encode_q8_0,
            TensorType::Q4_0 => encode_q4_0,
            other => return Err(EncodeError::Unsupported(other)),
        };
        let blocks = target.chunks_exact_mut(tensor_type.block_bytes() as usize);
        source.chunks_exact(BLOCK).zip(blocks).for_each(|(values, block)| encode(values, block));
        Ok(())
    }

    fn decode(
        &self,
        tensor_type: TensorType,
        source: &[u8],
        target: &mut [f32],
    ) -> Result<(), EncodeError> {
        if tensor_type != TensorType::Q8_0 {
            return Err(EncodeError::Unsupported(tensor_type));
        }
        for (block, values) in source.chunks_exact(34).zip(target.chunks_exact_mut(BLOCK)) {
            let scale = half_value(block);
            for (value, byte) in values.iter_mut().zip(&block[2..]) {
                *value = scale * f32::from(*byte as i8);
            }
        }
        Ok(())
    }
}
