//! Adapters as files: PEFT's two and the GGUF that llama.cpp reads, which say the same.
//!
//! PEFT: `adapter_config.json` and `adapter_model.safetensors` with
//! `base_model.model.MODULE.lora_A.weight` \[rank, in\] and `….lora_B.weight` \[out, rank\]
//! (peft/utils/save_and_load.py). GGUF: `TENSOR.lora_a` and `TENSOR.lora_b` with `adapter.lora.alpha`; llama.cpp scales by
//! alpha/rank (src/llama-adapter.h), so that of an rsLoRA is written as α·√rank.

use std::collections::HashMap;
use std::io::Write;

use candle_core::{Device, Tensor};
use nfl_models::TensorType;
use nfl_models::gguf::{Metadata, TensorPlan, WriteError, Writer};
use safetensors::SafeTensorError;
use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use serde::{Deserialize, Serialize};

use crate::training::decoder::Decoder;
use crate::training::linear::Adapters;
use crate::training::lora::Lora;
use crate::training::ops::values;
use crate::training::targets::Target;

/// What PEFT keeps beside an adapter's numbers.
#[expect(clippy::struct_excessive_bools, reason = "the fields are PEFT's")]
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PeftConfig {
    /// `LORA`.
    pub peft_type: String,
    /// `CAUSAL_LM`.
    pub task_type: String,
    /// Rank.
    pub r: usize,
    /// α.
    pub lora_alpha: f64,
    /// Dropout in training.
    pub lora_dropout: f64,
    /// Whether the scale is α/√rank.
    #[serde(default)]
    pub use_rslora: bool,
    /// Whether directions and lengths are trained apart.
    #[serde(default)]
    pub use_dora: bool,
    /// The last parts of the names of adapted modules.
    pub target_modules: Vec<String>,
    /// Biases that are trained.
    pub bias: String,
    /// Rows instead of columns, as GPT-2 has them.
    pub fan_in_fan_out: bool,
    /// Whether it is done.
    pub inference_mode: bool,
    /// The model that it belongs to.
    pub base_model_name_or_path: String,
}

impl PeftConfig {
    /// s of the formula.
    pub fn scale(&self) -> f64 {
        let rank = self.r as f64;
        self.lora_alpha / if self.use_rslora { rank.sqrt() } else { rank }
    }

    /// The bytes of `adapter_config.json`.
    pub fn json(&self) -> Result<Vec<u8>, FileError> {
        Ok(serde_json::to_vec_pretty(self)?)
    }
}

/// Why an adapter cannot be written or read.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// The safetensors file.
    #[error("adapter_model.safetensors: {0}")]
    SafeTensors(#[from] SafeTensorError),
    /// A tensor that should be there, of this type and these dimensions.
    #[error("adapter_model.safetensors: {0}")]
    Tensor(String),
    /// PEFT's settings.
    #[error("adapter_config.json: {0}")]
    Config(#[from] serde_json::Error),
    /// The GGUF file.
    #[error(transparent)]
    Gguf(#[from] WriteError),
    /// candle refused.
    #[error(transparent)]
    Candle(#[from] candle_core::Error),
}

/// Rows in the order of the other kind of file: GGUF's Llamas have pairs side by side, checkpoints in two halves.
fn reorder(rows: &[f32], width: usize, heads: usize, to_checkpoint: bool) -> Vec<f32> {
    let head_rows = rows.len() / width / heads;
    let half = head_rows / 2;
    let mut out = vec![0.0; rows.len()];
    for head in 0..heads {
        for pair in 0..half {
            for side in 0..2 {
                let gguf = head * head_rows + 2 * pair + side;
                let checkpoint = head * head_rows + side * half + pair;
                let (source, target) =
                    if to_checkpoint { (gguf, checkpoint) } else { (checkpoint, gguf) };
                out[target * width..][..width].copy_from_slice(&rows[source * width..][..width]);
            }
        }
    }
    out
}

/// B as checkpoints have it.
fn outer_rows(target: Target, lora: &Lora, decoder: &Decoder) -> candle_core::Result<Vec<f32>> {
    let rows = values(&lora.b)?;
    let rank = lora.b.dim(1)?;
    Ok(match target.reordered_heads(decoder) {
        Some(heads) => reorder(&rows, rank, heads, true),
        None => rows,
    })
}

/// The bytes of `adapter_model.safetensors`.
pub fn peft(
    targets: &[Target],
    adapters: &Adapters,
    decoder: &Decoder,
) -> Result<Vec<u8>, FileError> {
    let bytes =
        |values: Vec<f32>| values.into_iter().flat_map(f32::to_le_bytes).collect::<Vec<u8>>();
    let mut all: Vec<(String, Vec<usize>, Vec<u8>)> = Vec::new();
    for (target, lora) in targets.iter().zip(&adapters.0) {
        let name = format!("base_model.model.{}", target.module());
        let outer = outer_rows(*target, lora, decoder)?;
        all.push((
            format!("{name}.lora_A.weight"),
            lora.a.dims().to_vec(),
            bytes(values(&lora.a)?),
        ));
        all.push((format!("{name}.lora_B.weight"), lora.b.dims().to_vec(), bytes(outer)));
    }
    let views = all.iter().map(|(name, dimensions, bytes)| {
        TensorView::new(Dtype::F32, dimensions.clone(), bytes).map(|view| (name.as_str(), view))
    });
    let views = views.collect::<Result<Vec<_>, _>>()?;
    let note = HashMap::from([("format".to_owned(), "pt".to_owned())]);
    Ok(safetensors::serialize(views, Some(note))?)
}

/// Adapters from the bytes of `adapter_model.safetensors`.
pub fn read_peft(
    bytes: &[u8],
    scale: f64,
    targets: &[Target],
    decoder: &Decoder,
) -> Result<Adapters, FileError> {
    let file = SafeTensors::deserialize(bytes)?;
    let mut adapters = Adapters::default();
    for target in targets {
        let tensor = |end: &str| -> Result<(Vec<f32>, (usize, usize)), FileError> {
            let name = format!("base_model.model.{}.{end}.weight", target.module());
            let view = file.tensor(&name)?;
            let &[rows, width] = view.shape() else {
                return Err(FileError::Tensor(format!("{name} is no matrix")));
            };
            if view.dtype() != Dtype::F32 {
                return Err(FileError::Tensor(format!("{name} is not of 32 bits")));
            }
            let (numbers, _) = view.data().as_chunks::<4>();
            Ok((numbers.iter().map(|four| f32::from_le_bytes(*four)).collect(), (rows, width)))
        };
        let (a, a_shape) = tensor("lora_A")?;
        let (b, b_shape) = tensor("lora_B")?;
        let b = match target.reordered_heads(decoder) {
            Some(heads) => reorder(&b, b_shape.1, heads, false),
            None => b,
        };
        let a = Tensor::from_vec(a, a_shape, &Device::Cpu)?;
        adapters.0.push(Lora { a, b: Tensor::from_vec(b, b_shape, &Device::Cpu)?, scale });
    }
    Ok(adapters)
}

/// Writes the adapter as a GGUF file for a model of `architecture`.
pub fn gguf(
    out: impl Write,
    architecture: &str,
    name: &str,
    targets: &[Target],
    adapters: &Adapters,
) -> Result<(), FileError> {
    let mut metadata = Metadata::new();
    metadata.set("general.architecture", architecture);
    metadata.set("general.type", "adapter");
    metadata.set("general.name", name);
    metadata.set("adapter.type", "lora");
    let scale = adapters.0.first().map_or(1.0, |lora| lora.scale);
    let rank = adapters.0.first().map_or(1, |lora| lora.a.dims()[0]);
    metadata.set("adapter.lora.alpha", (scale * rank as f64) as f32);
    let plan = |name: String, tensor: &Tensor| TensorPlan {
        name,
        dimensions: tensor.dims().iter().rev().map(|length| *length as u64).collect(),
        tensor_type: TensorType::F32,
    };
    let plans = targets.iter().zip(&adapters.0).flat_map(|(target, lora)| {
        let name = target.tensor();
        [plan(format!("{name}.lora_a"), &lora.a), plan(format!("{name}.lora_b"), &lora.b)]
    });
    let mut writer = Writer::new(out, &metadata, plans.collect())?;
    for lora in &adapters.0 {
        for tensor in [&lora.a, &lora.b] {
            let bytes: Vec<u8> = values(tensor)?.into_iter().flat_map(f32::to_le_bytes).collect();
            writer.write(&bytes)?;
            writer.finish_tensor()?;
        }
    }
    writer.finish()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_order_of_rows_goes_both_ways() {
        // Two heads of four rows: pairs 0 and 1 with sides a and b.
        let gguf: Vec<f32> = (0..8).map(|row| row as f32).collect();
        let checkpoint = reorder(&gguf, 1, 2, true);
        assert_eq!(checkpoint, [0.0, 2.0, 1.0, 3.0, 4.0, 6.0, 5.0, 7.0]);
        assert_eq!(reorder(&checkpoint, 1, 2, false), gguf);
    }
}
