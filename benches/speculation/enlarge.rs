//! A small llama made large without changing what it computes: zeros around its numbers, and layers that add nothing.
//!
//! RMSNorm divides by the root of the mean over all dimensions: with zeros added the mean shrinks by the ratio of widths, so
//! the norm's weights and epsilon shrink with it. A longer head has more rotary frequencies: each pair of the small head moves
//! to the place of its own frequency. The product of query and key is divided by the root of the head length:
//! the queries grow by the root of the ratio.

use std::collections::HashMap;
use std::error::Error;

use nfl_models::gguf::{Gguf, Metadata};

use crate::shape::{HEAD, WIDTH, Weights};

/// The small model's numbers.
pub(crate) struct Enlarged {
    /// Row length and numbers by name.
    tensors: HashMap<String, (usize, Vec<f32>)>,
    width: usize,
    head: usize,
    layers: usize,
    epsilon: f32,
}

impl Enlarged {
    pub(crate) fn new(small: &Gguf) -> Result<Self, Box<dyn Error>> {
        let number = |key: &str| {
            small
                .metadata()
                .arch(key)
                .and_then(nfl_models::gguf::Value::as_u64)
                .ok_or(key.to_owned())
        };
        let epsilon = small
            .metadata()
            .arch("attention.layer_norm_rms_epsilon")
            .and_then(nfl_models::gguf::Value::as_f32)
            .ok_or("no epsilon")?;
        let width = number("embedding_length")? as usize;
        let head = width / number("attention.head_count")? as usize;
        let mut tensors = HashMap::new();
        for tensor in small.tensors() {
            let bytes = small.data(tensor).as_chunks::<4>().0;
            let numbers = bytes.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
            tensors.insert(tensor.name.clone(), (tensor.row_elements() as usize, numbers));
        }
        Ok(Self { tensors, width, head, layers: number("block_count")? as usize, epsilon })
    }

    /// Where a dimension of a head lies in the longer one.
    fn place(&self, dimension: usize, rotates: bool) -> usize {
        let (head, inside) = (dimension / self.head, dimension % self.head);
        let place = if rotates { inside / 2 * 2 * (HEAD / self.head) + inside % 2 } else { inside };
        head * HEAD + place
    }
}

impl Weights for Enlarged {
    fn row(&self, tensor: &str, layer: usize, row: usize, target: &mut [f32]) {
        let name = match tensor {
            "token_embd" | "output_norm" | "output" => format!("{tensor}.weight"),
            _ => format!("blk.{layer}.{tensor}.weight"),
        };
        // A tied output is the embedding; a layer beyond the small model's has nothing.
        let name = if self.tensors.contains_key(&name) || tensor != "output" {
            name
        } else {
            "token_embd.weight".into()
        };
        if tensor.starts_with("attn") || tensor.starts_with("ffn") {
            debug_assert!(layer < self.layers || !self.tensors.contains_key(&name));
        }
        let Some((columns, numbers)) = self.tensors.get(&name) else { return };
        let rows = numbers.len() / columns;
        let heads = matches!(tensor, "attn_q" | "attn_k" | "attn_v");
        let source = if heads {
            let rotates = tensor != "attn_v";
            (0..rows).find(|&source| self.place(source, rotates) == row)
        } else {
            (row < rows).then_some(row)
        };
        let Some(source) = source else { return };
        let source = &numbers[source * columns..(source + 1) * columns];
        let factor = match tensor {
            "attn_norm" | "ffn_norm" | "output_norm" => (self.width as f32 / WIDTH as f32).sqrt(),
            "attn_q" => (HEAD as f32 / self.head as f32).sqrt(),
            _ => 1.0,
        };
        for (index, number) in source.iter().enumerate() {
            let place = if tensor == "attn_output" { self.place(index, false) } else { index };
            target[place] = number * factor;
        }
    }

    fn metadata(&self, metadata: &mut Metadata) {
        let epsilon = self.epsilon * self.width as f32 / WIDTH as f32;
        metadata.set("llama.attention.layer_norm_rms_epsilon", epsilon);
    }
}
