//! Where a model's file has the weights of each expert, and those that every token needs.

use std::collections::BTreeMap;

use nfl_models::gguf::{Gguf, TensorInfo};

/// A run of bytes in one of the model's files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    /// Which of the files.
    pub file: usize,
    /// Where it begins.
    pub offset: u64,
    /// How long it is.
    pub bytes: u64,
}

/// One tensor of experts: `count` slices of equal length, one after the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Part {
    /// All slices.
    pub extent: Extent,
    /// Bytes of one expert's slice.
    pub slice_bytes: u64,
}

/// The experts of one layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LayerLayout {
    /// The number of the block.
    pub block: u32,
    /// How many there are.
    pub experts: usize,
    /// Their tensors: what goes in before what comes out.
    pub parts: Vec<Part>,
}

/// A model's experts and the rest of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    /// Layers with experts, by block.
    pub layers: Vec<LayerLayout>,
    /// Experts that a token uses in each of them.
    pub experts_used: usize,
    /// What every token needs, the layers first.
    pub fixed: Vec<Extent>,
    /// The token embedding, of which a token needs one row.
    pub embedding: Option<Extent>,
}

impl Layout {
    /// The layout of a model; None when it has no experts.
    pub fn of(gguf: &Gguf) -> Option<Self> {
        let architecture = gguf.metadata().architecture()?;
        let used = gguf.metadata().get(&format!("{architecture}.expert_used_count"))?.as_u64()?;
        let mut layers: BTreeMap<u32, LayerLayout> = BTreeMap::new();
        let (mut fixed, mut late, mut embedding) = (Vec::new(), Vec::new(), None);
        let is_tied = gguf.tensor("output.weight").is_none();
        for tensor in gguf.tensors() {
            let offset = gguf.file_offset(tensor);
            let extent = Extent { file: tensor.shard, offset, bytes: tensor.bytes() };
            match place(tensor) {
                Place::Experts { block, rank, experts } => {
                    let slice_bytes = extent.bytes / experts;
                    let layer = layers.entry(block).or_insert_with(|| LayerLayout {
                        block,
                        experts: experts as usize,
                        parts: Vec::new(),
                    });
                    let part = Part { extent, slice_bytes };
                    let at = if rank == 0 { 0 } else { layer.parts.len() };
                    layer.parts.insert(at, part);
                }
                Place::Block => fixed.push(extent),
                Place::Embedding if !is_tied => embedding = Some(extent),
                Place::Embedding | Place::Other => late.push(extent),
            }
        }
        fixed.append(&mut late);
        let layers: Vec<LayerLayout> = layers.into_values().collect();
        let sound = layers.iter().all(|layer| {
            let slices = |part: &Part| part.extent.bytes / part.slice_bytes.max(1);
            layer.parts.iter().all(|part| slices(part) == layer.experts as u64)
        });
        (sound && !layers.is_empty() && used > 0).then_some(Self {
            layers,
            experts_used: used as usize,
            fixed,
            embedding,
        })
    }

    /// The tensors of experts of all layers.
    pub fn parts(&self) -> impl Iterator<Item = &Part> {
        self.layers.iter().flat_map(|layer| &layer.parts)
    }

    /// Bytes of all experts.
    pub fn experts_bytes(&self) -> u64 {
        self.parts().map(|part| part.extent.bytes).sum()
    }

    /// Bytes that every token needs.
    pub fn fixed_bytes(&self) -> u64 {
        self.fixed.iter().map(|extent| extent.bytes).sum()
    }

    /// Bytes of the longest slice.
    pub fn slice_bytes_max(&self) -> u64 {
        self.parts().map(|part| part.slice_bytes).max().unwrap_or(0)
    }
}

enum Place {
    Experts { block: u32, rank: usize, experts: u64 },
    Block,
    Embedding,
    Other,
}

/// The names of tensors of experts in every architecture of llama.cpp, and whether what comes out
/// of the layer comes out of them.
const EXPERTS: [(&str, usize); 4] =
    [("ffn_gate_up_exps", 0), ("ffn_gate_exps", 0), ("ffn_up_exps", 0), ("ffn_down_exps", 1)];

fn place(tensor: &TensorInfo) -> Place {
    if tensor.name == "token_embd.weight" {
        return Place::Embedding;
    }
    let inside = tensor.name.strip_prefix("blk.").and_then(|rest| rest.split_once('.'));
    let Some((block, name)) = inside else { return Place::Other };
    let Ok(block) = block.parse::<u32>() else { return Place::Other };
    let stem = name.strip_suffix(".weight").unwrap_or("");
    let experts = tensor.dimensions.get(2).copied().unwrap_or(0);
    match EXPERTS.iter().find(|(known, _)| *known == stem) {
        Some(&(_, rank)) if experts > 1 => Place::Experts { block, rank, experts },
        _ => Place::Block,
    }
}
