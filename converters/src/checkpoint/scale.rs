//! Scales of FP8 weights: which tensor holds them and which of its elements belongs to which
//! weight.
//!
//! Three spellings are in use: `<name>_scale_inv` (DeepSeek, with blocks of `weight_block_size`;
//! despite its name it is multiplied), `<name>_scale` (compressed-tensors, FBGEMM, ModelOpt: one
//! for the tensor or one for a row), and Mistral's `qscale_weight`. One rule covers their shapes:
//! the scale's dimensions stand at the weight's first dimensions, and each is 1 (one scale for
//! all), equal (one for each), or the number of blocks.

use super::config::{Config, wrong};
use super::{CheckpointError, SourceTensor};

/// How to find the scale of an element.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Scale {
    /// Which tensor of the checkpoint holds the scales.
    pub(super) tensor: usize,
    /// For each dimension of the weight: its length, how many elements share a scale, and the
    /// distance of the next scale in its tensor.
    dimensions: Vec<Dimension>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Dimension {
    length: u64,
    block: u64,
    stride: u64,
}

/// Names that the scale of the weight `name` may have, the most common first.
pub(super) fn names_of(name: &str) -> impl Iterator<Item = String> {
    let mistral = name.strip_suffix("weight").map(|stem| format!("{stem}qscale_weight"));
    [format!("{name}_scale_inv"), format!("{name}_scale")].into_iter().chain(mistral)
}

/// Whether `name` is a scale of activations or of the key-value cache, which weights do not need.
pub(super) fn is_of_activations(name: &str) -> bool {
    const ENDINGS: [&str; 9] = [
        "activation_scale",
        ".input_scale",
        ".input_scale_ub",
        ".output_scale",
        ".k_scale",
        ".v_scale",
        ".q_scale",
        ".prob_scale",
        ".qscale_act",
    ];
    ENDINGS.iter().any(|ending| name.ends_with(ending))
}

/// `weight_block_size` of `quantization_config`, or `block_structure` as compressed-tensors spells
/// it.
pub(super) fn block_size(config: &Config) -> Result<Option<[u64; 2]>, CheckpointError> {
    let Some(settings) = quantization(config)? else { return Ok(None) };
    let own = settings.value("weight_block_size").cloned();
    let Some(value) = own.or_else(|| block_structure(&settings)) else { return Ok(None) };
    let sides: Option<Vec<u64>> =
        value.as_array().map(|sides| sides.iter().filter_map(serde_json::Value::as_u64).collect());
    match sides.as_deref() {
        Some(&[rows, columns]) if rows > 0 && columns > 0 => Ok(Some([rows, columns])),
        _ => Err(wrong("weight_block_size", &value, "two integers from 1")),
    }
}

/// The settings of quantisation, under the present or the former key.
pub(super) fn quantization(config: &Config) -> Result<Option<Config>, CheckpointError> {
    match config.optional_object("quantization_config")? {
        Some(settings) => Ok(Some(settings)),
        None => config.optional_object("compression_config"),
    }
}

fn block_structure(settings: &Config) -> Option<serde_json::Value> {
    let groups = settings.value("config_groups")?.as_object()?;
    let structure = groups.values().next()?.get("weights")?.get("block_structure")?;
    (!structure.is_null()).then(|| structure.clone())
}

impl Scale {
    /// The layout of the scales in `scale` (the tensor number `index`) for the elements of
    /// `weight`.
    pub(super) fn new(
        weight: &SourceTensor,
        scale: &SourceTensor,
        index: usize,
        block: Option<[u64; 2]>,
    ) -> Result<Self, CheckpointError> {
        let refuse = |reason: String| CheckpointError::Scale { name: weight.name.clone(), reason };
        let (lengths, counts) = (&weight.shape, &scale.shape);
        if counts.len() > lengths.len() && scale.elements() != 1 {
            return Err(refuse(format!("shape {counts:?} for a weight of {lengths:?}")));
        }
        // Blocks, where they are, tile the last two dimensions.
        let first_tiled = lengths.len().saturating_sub(2);
        let mut dimensions = Vec::with_capacity(lengths.len());
        for (axis, &length) in lengths.iter().enumerate() {
            let count = if scale.elements() == 1 { 1 } else { *counts.get(axis).unwrap_or(&1) };
            let tile = block.filter(|_| axis >= first_tiled).map(|block| block[axis - first_tiled]);
            let shared = match tile {
                _ if count == length => 1,
                _ if count == 1 => length.max(1),
                Some(tile) if length.div_ceil(tile) == count => tile,
                _ => {
                    return Err(refuse(format!(
                        "shape {counts:?} for a weight of {lengths:?} in blocks of {block:?}"
                    )));
                }
            };
            dimensions.push(Dimension { length, block: shared, stride: count });
        }
        // From the number of scales in each dimension to the distance between them.
        let mut stride = 1;
        for dimension in dimensions.iter_mut().rev() {
            let count = dimension.stride;
            dimension.stride = if count == 1 { 0 } else { stride };
            stride *= count;
        }
        Ok(Self { tensor: index, dimensions })
    }

    /// Multiplies `values`, the weight's elements from `start` on, with their scales.
    ///
    /// `scale_at` gives the scale number so-and-so of the scale tensor.
    pub(super) fn apply(&self, start: u64, values: &mut [f32], scale_at: impl Fn(u64) -> f32) {
        let whole = Dimension { length: u64::MAX, block: u64::MAX, stride: 0 };
        let (columns, outer) = match self.dimensions.split_last() {
            Some((columns, outer)) => (*columns, outer),
            None => (whole, &[][..]),
        };
        let mut position = start;
        let mut rest = values;
        while !rest.is_empty() {
            let column = position % columns.length;
            let block = column / columns.block;
            let run_end = columns.length.min((block + 1).saturating_mul(columns.block));
            let run = (run_end - column).min(rest.len() as u64);
            let index = offset(outer, position / columns.length) + block * columns.stride;
            let scale = scale_at(index);
            let (these, after) = rest.split_at_mut(run as usize);
            for value in these {
                *value *= scale;
            }
            rest = after;
            position += run;
        }
    }
}

/// Where in the scale tensor the scales of row number `row` (counted over all outer dimensions)
/// begin.
fn offset(outer: &[Dimension], mut row: u64) -> u64 {
    let mut offset = 0;
    for dimension in outer.iter().rev() {
        offset += row % dimension.length / dimension.block * dimension.stride;
        row /= dimension.length;
    }
    offset
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::SourceType;
    use super::*;

    fn tensor(shape: &[u64]) -> SourceTensor {
        SourceTensor::for_tests("w", shape, SourceType::F8E4M3)
    }

    /// The scale of every element, in order.
    fn scales(weight: &[u64], scale: &[u64], block: Option<[u64; 2]>) -> Vec<f32> {
        let layout = Scale::new(&tensor(weight), &tensor(scale), 0, block).unwrap();
        let elements: u64 = weight.iter().product();
        let mut whole = vec![1.0; elements as usize];
        layout.apply(0, &mut whole, |index| index as f32);
        // In pieces of any length the result is the same.
        for piece in [1, 2, 3, 5, 7] {
            let mut values = vec![1.0; elements as usize];
            for (number, values) in values.chunks_mut(piece).enumerate() {
                layout.apply((number * piece) as u64, values, |index| index as f32);
            }
            assert_eq!(values, whole, "pieces of {piece}");
        }
        whole
    }

    #[test]
    fn blocks_that_do_not_divide_end_short() {
        let found = scales(&[3, 5], &[2, 3], Some([2, 2]));
        assert_eq!(found, [0., 0., 1., 1., 2., 0., 0., 1., 1., 2., 3., 3., 4., 4., 5.]);
    }

    #[test]
    fn one_scale_for_the_tensor_in_any_spelling() {
        for shape in [&[][..], &[1], &[1, 1], &[1, 1, 1]] {
            assert_eq!(scales(&[2, 3], shape, None), [0.0; 6]);
        }
        assert_eq!(scales(&[], &[], None), [0.0]);
    }

    #[test]
    fn one_scale_for_each_row() {
        for shape in [&[3][..], &[3, 1]] {
            assert_eq!(scales(&[3, 2], shape, Some([128, 128])), [0., 0., 1., 1., 2., 2.]);
        }
    }

    #[test]
    fn stacked_experts_have_blocks_in_their_last_two_dimensions() {
        let found = scales(&[2, 2, 3], &[2, 1, 2], Some([2, 2]));
        assert_eq!(found, [0., 0., 1., 0., 0., 1., 2., 2., 3., 2., 2., 3.]);
        assert_eq!(scales(&[2, 2, 2], &[2], None), [0., 0., 0., 0., 1., 1., 1., 1.]);
    }

    #[test]
    fn shapes_that_do_not_fit_are_refused() {
        for (weight, scale, block) in [
            (&[4, 4][..], &[2, 2][..], None),
            (&[4, 4], &[2, 2], Some([3, 4])),
            (&[4, 4], &[3, 4], Some([2, 2])),
            (&[4], &[4, 2], None),
        ] {
            assert!(Scale::new(&tensor(weight), &tensor(scale), 0, block).is_err(), "{scale:?}");
        }
    }

    #[test]
    fn block_sizes_are_found_in_both_spellings() {
        let size = |value| block_size(&Config::from_value(value).unwrap());
        let deepseek = json!({"quantization_config": {"weight_block_size": [128, 64]}});
        assert_eq!(size(deepseek).unwrap(), Some([128, 64]));
        let compressed = json!({"quantization_config": {"config_groups": {"group_0": {"weights":
            {"block_structure": [32, 16]}}}}});
        assert_eq!(size(compressed).unwrap(), Some([32, 16]));
        assert_eq!(
            size(json!({"quantization_config": {"weight_block_size": null}})).unwrap(),
            None
        );
        assert!(size(json!({"quantization_config": {"weight_block_size": [0, 128]}})).is_err());
        assert!(size(json!({"quantization_config": {"weight_block_size": [-1]}})).is_err());
    }
}
