//! The one shape of all the models, and how a file of it is written.

use std::error::Error;
use std::fs::File;
use std::io::BufWriter;
use std::path::Path;

use nfl::engine::llama::encode_blocks;
use nfl_models::TensorType;
use nfl_models::gguf::{Gguf, Metadata, TensorPlan, Writer};

use crate::counting::{self, Guess};
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

/// Writes all models.
pub(crate) fn make(stories: &Path, directory: &Path) -> Result<(), Box<dyn Error>> {
    let small = Gguf::open(stories)?;
    std::fs::create_dir_all(directory)?;
    write(&small, &Enlarged::new(&small)?, &directory.join("stories.gguf"))?;
    for (kind, name) in [(Kind::Edit, "edit"), (Kind::Records, "records"), (Kind::Random, "random")]
    {
        let path = directory.join(format!("{name}.gguf"));
        write(&small, &Handmade::new(&small, kind)?, &path)?;
    }
    counting::make(&small, Guess::Right, &directory.join("counting.gguf"))?;
    counting::make(&small, Guess::Beside, &directory.join("misled.gguf"))?;
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
    let mut entries = Vec::new();
    for (name, per_layer, rows, columns) in tensors(vocabulary) {
        let layers = if per_layer { (0..LAYERS).map(Some).collect() } else { vec![None] };
        entries.extend(layers.into_iter().map(|layer| Entry {
            name,
            layer,
            rows,
            columns,
            experts: 1,
        }));
    }
    let fill = |entry: &Entry, row: usize, target: &mut [f32]| {
        weights.row(entry.name, entry.layer.unwrap_or(0), row, target);
    };
    write_rows(path, &metadata, &entries, &fill)
}

/// A tensor: what it is called in each layer, and rows and columns. Vectors have one row and stay F32.
pub(crate) struct Entry {
    pub(crate) name: &'static str,
    pub(crate) layer: Option<usize>,
    pub(crate) rows: usize,
    pub(crate) columns: usize,
    /// Matrices of this size, one upon the other.
    pub(crate) experts: usize,
}

impl Entry {
    fn plan(&self) -> TensorPlan {
        let suffix = if self.name.ends_with("_b") { "bias" } else { "weight" };
        let name = match self.layer {
            Some(layer) => format!("blk.{layer}.{}.{suffix}", self.name),
            None => format!("{}.{suffix}", self.name),
        };
        let (columns, rows, experts) = (self.columns as u64, self.rows as u64, self.experts as u64);
        let (dimensions, tensor_type) = match (rows, experts) {
            (1, 1) => (vec![columns], TensorType::F32),
            (_, 1) => (vec![columns, rows], TensorType::Q8_0),
            _ => (vec![columns, rows, experts], TensorType::Q8_0),
        };
        TensorPlan { name, dimensions, tensor_type }
    }
}

/// Writes a file whose rows are filled in, all zeros before.
pub(crate) fn write_rows(
    path: &Path,
    metadata: &Metadata,
    entries: &[Entry],
    fill: &dyn Fn(&Entry, usize, &mut [f32]),
) -> Result<(), Box<dyn Error>> {
    let plans: Vec<TensorPlan> = entries.iter().map(Entry::plan).collect();
    let kinds: Vec<TensorType> = plans.iter().map(|plan| plan.tensor_type).collect();
    let mut writer = Writer::new(BufWriter::new(File::create(path)?), metadata, plans)?;
    for (entry, kind) in entries.iter().zip(kinds) {
        let columns = entry.columns;
        let mut numbers = vec![0.0_f32; columns];
        let bytes = columns / kind.block_elements() as usize * kind.block_bytes() as usize;
        let mut encoded = vec![0_u8; bytes];
        for row in 0..entry.rows * entry.experts {
            numbers.fill(0.0);
            fill(entry, row, &mut numbers);
            encode_blocks(kind, &numbers, columns, None, &mut encoded)?;
            writer.write(&encoded)?;
        }
        writer.finish_tensor()?;
    }
    writer.finish()?;
    Ok(())
}
