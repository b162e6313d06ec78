//! The one shape of all the models, and how a file of it is written.

use std::error::Error;
use std::fs::File;
use std::io::BufWriter;
use std::path::Path;

use nfl::engine::llama::encode_blocks;
use nfl_models::TensorType;
use nfl_models::gguf::{Gguf, Metadata, TensorPlan, Writer};

use crate::enlarge::Enlarged;
use crate::handmade::{Handmade, Kind};

pub(crate) const WIDTH: usize = 2048;
pub(crate) const HEAD: usize = 128;
pub(crate) const HEADS: usize = 16;
pub(crate) const HEADS_KV: usize = 8;
pub(crate) const INNER: usize = 5632;
pub(crate) const LAYERS: usize = 12;
const CONTEXT: u32 = 4096;

/// Where the numbers of a model come from.
pub(crate) trait Weights {
    /// Row `row` of a tensor, all zeros when it is called.
    fn row(&self, tensor: &str, layer: usize, row: usize, target: &mut [f32]);
    /// Sets what differs from the small model's metadata.
    fn metadata(&self, metadata: &mut Metadata);
}

/// Name, whether each layer has one, and rows and columns. Vectors have one row and stay F32.
fn tensors(vocabulary: usize) -> Vec<(&'static str, bool, usize, usize)> {
    vec![
        ("token_embd", false, vocabulary, WIDTH),
        ("attn_norm", true, 1, WIDTH),
        ("attn_q", true, HEADS * HEAD, WIDTH),
        ("attn_k", true, HEADS_KV * HEAD, WIDTH),
        ("attn_v", true, HEADS_KV * HEAD, WIDTH),
        ("attn_output", true, WIDTH, HEADS * HEAD),
        ("ffn_norm", true, 1, WIDTH),
        ("ffn_gate", true, INNER, WIDTH),
        ("ffn_up", true, INNER, WIDTH),
        ("ffn_down", true, WIDTH, INNER),
        ("output_norm", false, 1, WIDTH),
        ("output", false, vocabulary, WIDTH),
    ]
}

/// Writes all four models.
pub(crate) fn make(stories: &Path, directory: &Path) -> Result<(), Box<dyn Error>> {
    let small = Gguf::open(stories)?;
    std::fs::create_dir_all(directory)?;
    write(&small, &Enlarged::new(&small)?, &directory.join("stories.gguf"))?;
    for (kind, name) in [(Kind::Edit, "edit"), (Kind::Records, "records"), (Kind::Random, "random")]
    {
        let path = directory.join(format!("{name}.gguf"));
        write(&small, &Handmade::new(&small, kind)?, &path)?;
    }
    Ok(())
}

fn write(small: &Gguf, weights: &dyn Weights, path: &Path) -> Result<(), Box<dyn Error>> {
    let mut metadata = small.metadata().clone();
    for (key, value) in [
        ("embedding_length", WIDTH),
        ("block_count", LAYERS),
        ("feed_forward_length", INNER),
        ("attention.head_count", HEADS),
        ("attention.head_count_kv", HEADS_KV),
        ("attention.key_length", HEAD),
        ("attention.value_length", HEAD),
        ("rope.dimension_count", HEAD),
        ("context_length", CONTEXT as usize),
    ] {
        metadata.set(format!("llama.{key}"), value as u32);
    }
    weights.metadata(&mut metadata);
    let vocabulary = small.tensor("token_embd.weight").ok_or("no embedding")?.rows() as usize;
    let mut plans = Vec::new();
    let mut order = Vec::new();
    for (name, per_layer, rows, columns) in tensors(vocabulary) {
        for layer in 0..if per_layer { LAYERS } else { 1 } {
            let full = if per_layer {
                format!("blk.{layer}.{name}.weight")
            } else {
                format!("{name}.weight")
            };
            let (dimensions, tensor_type) = match rows {
                1 => (vec![columns as u64], TensorType::F32),
                _ => (vec![columns as u64, rows as u64], TensorType::Q8_0),
            };
            plans.push(TensorPlan { name: full, dimensions, tensor_type });
            order.push((name, layer, rows, columns, tensor_type));
        }
    }
    let mut writer = Writer::new(BufWriter::new(File::create(path)?), &metadata, plans)?;
    for (name, layer, rows, columns, kind) in order {
        let mut numbers = vec![0.0_f32; columns];
        let bytes = columns / kind.block_elements() as usize * kind.block_bytes() as usize;
        let mut encoded = vec![0_u8; bytes];
        for row in 0..rows {
            numbers.fill(0.0);
            weights.row(name, layer, row, &mut numbers);
            encode_blocks(kind, &numbers, columns, None, &mut encoded)?;
            writer.write(&encoded)?;
        }
        writer.finish_tensor()?;
    }
    writer.finish()?;
    Ok(())
}
