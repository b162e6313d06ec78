//! The mixture: which type each tensor gets at a level.
//!
//! The rules are those of llama.cpp's `llama_tensor_get_type` and `tensor_type_fallback`
//! (llama-quant.cpp, ggml 0.26) for the levels of [`Level`]. They count tensors in the loader's
//! order (by block, then by name), not in the file's, so a checkpoint whose blocks are stored out
//! of order still gets the same choice.

use super::category::{Candidate, Category, allows_quantization, block_number, file_order};
use nfl_models::gguf::Metadata;
use nfl_models::{Level, TensorType};

/// What the rules want to know about the model as a whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Traits {
    /// `general.architecture`
    pub architecture: String,
    /// Number of blocks.
    pub blocks: i64,
    /// Number of experts; 0 in a dense model.
    pub experts: u64,
    /// Query heads of the first block.
    pub heads: u64,
    /// Key-value heads of the first block.
    pub heads_kv: u64,
    /// Whether an importance matrix accompanies the conversion.
    pub importance: bool,
}

impl Traits {
    /// Reads them from the metadata of a GGUF file; what is absent counts as llama.cpp's loader
    /// counts it.
    pub fn of(metadata: &Metadata) -> Self {
        let architecture = metadata.architecture().unwrap_or_default().to_owned();
        let number = |suffix: &str| first_number(metadata, &format!("{architecture}.{suffix}"));
        let heads = number("attention.head_count").unwrap_or(0);
        Self {
            blocks: number("block_count").map_or(0, |count| i64::try_from(count).unwrap_or(0)),
            experts: number("expert_count").unwrap_or(0),
            heads,
            heads_kv: number("attention.head_count_kv").unwrap_or(heads),
            importance: false,
            architecture,
        }
    }

    /// Query heads that share one key-value head.
    fn shared_heads(&self) -> u64 {
        self.heads.checked_div(self.heads_kv).unwrap_or(0)
    }

    /// llama.cpp's `LLM_TYPE_70B`: what its loader infers from the number of blocks.
    fn is_70b(&self) -> bool {
        match self.architecture.as_str() {
            "llama" => self.blocks == 80 && self.experts != 8 && self.heads != self.heads_kv,
            "qwen2" | "deci" | "olmo" => self.blocks == 80,
            "jais2" => self.blocks == 68,
            _ => false,
        }
    }
}

/// A number, or the first of an array (some architectures give one per block).
fn first_number(metadata: &Metadata, key: &str) -> Option<u64> {
    metadata.u64(key).or_else(|| metadata.array(key)?.value(0)?.as_u64())
}

/// The type chosen for one tensor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Choice {
    /// What is written.
    pub tensor_type: TensorType,
    /// What the level wanted, when the tensor's rows are no multiple of that type's block.
    pub wanted: Option<TensorType>,
    /// The type is useless without an importance matrix, and there is none.
    pub needs_importance: bool,
}

impl Choice {
    fn of(tensor_type: TensorType) -> Self {
        Self { tensor_type, wanted: None, needs_importance: false }
    }
}

/// A tensor whose block cannot be told, in a model with experts.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{tensor}: names no block below {blocks}")]
pub struct BlockError {
    /// Its name.
    pub tensor: String,
    /// Number of blocks of the model.
    pub blocks: i64,
}

/// The choice for every tensor of a model, in the order of `tensors`.
pub fn choose(
    traits: &Traits,
    level: Level,
    tensors: &[Candidate<'_>],
) -> Result<Vec<Choice>, BlockError> {
    let mut order: Vec<usize> = (0..tensors.len()).collect();
    order.sort_by_key(|index| file_order(tensors[*index].name));
    let categories: Vec<Category> =
        tensors.iter().map(|tensor| Category::of(tensor.name)).collect();
    let count = |category| categories.iter().filter(|found| **found == category).count() as i64;
    let mut mixture = Mixture {
        traits,
        level,
        base: level.base_type(),
        tied_output: count(Category::Output) == 0,
        values: count(Category::AttentionValue),
        value_index: 0,
        down_index: 0,
    };
    let mut choices = vec![Choice::of(TensorType::F32); tensors.len()];
    for index in order {
        choices[index] = mixture.choose(&tensors[index], categories[index])?;
    }
    Ok(choices)
}

/// The rules at work: how many tensors of a kind there are, and how many have been seen.
struct Mixture<'a> {
    traits: &'a Traits,
    level: Level,
    base: TensorType,
    tied_output: bool,
    values: i64,
    value_index: i64,
    down_index: i64,
}

impl Mixture<'_> {
    fn choose(&mut self, tensor: &Candidate<'_>, category: Category) -> Result<Choice, BlockError> {
        if !allows_quantization(tensor) {
            return Ok(Choice::of(tensor.source_type));
        }
        if !self.base.is_quantized() {
            return Ok(Choice::of(self.base));
        }
        let row = tensor.dimensions[0];
        let preferred = self.preferred(tensor, category)?;
        let mut choice = Choice::of(preferred);
        if !divides(preferred, row) {
            choice =
                Choice { wanted: Some(preferred), ..Choice::of(smaller_block(preferred, row)) };
        } else if self.is_output(category) && !divides(self.base, row) && preferred != self.base {
            // the rule for the output already steps back to Q8_0; it counts as a fall-back all the
            // same
            choice.wanted = Some(TensorType::Q6_K);
        }
        choice.needs_importance = self.level == Level::Q2_K_S
            && choice.tensor_type == TensorType::Q2_K
            && !self.traits.importance
            && !matches!(category, Category::Output | Category::TokenEmbedding);
        Ok(choice)
    }

    /// The type by the level's rules, before looking whether the rows allow it.
    fn preferred(
        &mut self,
        tensor: &Candidate<'_>,
        category: Category,
    ) -> Result<TensorType, BlockError> {
        if self.is_output(category) {
            return Ok(self.output(tensor.dimensions[0]));
        }
        Ok(match category {
            Category::AttentionValue => {
                let index = self.value_index;
                self.value_index += 1;
                self.attention_value(index)
            }
            Category::AttentionKey if self.traits.experts == 8 => TensorType::Q8_0,
            Category::AttentionOutput => self.attention_output(),
            Category::FeedForwardDown => {
                let index = self.down_index;
                self.down_index += 1;
                let block = self.block(tensor, index)?;
                self.feed_forward_down(block)
            }
            Category::FeedForwardUp | Category::FeedForwardGate => {
                self.block(tensor, 0)?;
                self.base
            }
            _ => self.base,
        })
    }

    /// The output matrix, or the embedding that serves as one.
    fn is_output(&self, category: Category) -> bool {
        category == Category::Output || (category == Category::TokenEmbedding && self.tied_output)
    }

    fn output(&self, row: u64) -> TensorType {
        if self.is_falcon() || !divides(self.base, row) || self.base == TensorType::Q8_0 {
            TensorType::Q8_0
        } else {
            TensorType::Q6_K
        }
    }

    fn attention_value(&self, index: i64) -> TensorType {
        use Level as L;
        use TensorType as T;
        let shared = self.traits.shared_heads() >= 4;
        let mut chosen = match self.level {
            L::Q2_K if !shared => T::Q3_K,
            L::Q2_K => T::Q4_K,
            L::Q2_K_S if shared => T::Q4_K,
            L::Q3_K_M if index >= 2 => T::Q4_K,
            L::Q3_K_M | L::Q3_K_L => T::Q5_K,
            L::IQ4_NL | L::IQ4_XS if shared => T::Q5_K,
            L::Q4_K_M | L::Q5_K_M if more_bits(index, self.values) => T::Q6_K,
            L::Q4_K_S if index < 4 => T::Q5_K,
            _ => self.base,
        };
        if self.traits.is_70b() && matches!(chosen, T::Q3_K | T::Q4_K) {
            chosen = T::Q5_K; // eight heads share these values: a small matrix that matters much
        }
        if self.traits.experts == 8 { T::Q8_0 } else { chosen }
    }

    fn attention_output(&self) -> TensorType {
        use Level as L;
        use TensorType as T;
        if self.is_falcon() {
            return if self.level == L::Q3_K_L { T::Q4_K } else { self.base };
        }
        if self.traits.experts == 8 {
            let raised =
                [L::Q2_K, L::Q3_K_S, L::Q3_K_M, L::Q4_K_S, L::Q4_K_M, L::IQ4_NL, L::IQ4_XS];
            return if raised.contains(&self.level) { T::Q5_K } else { self.base };
        }
        match self.level {
            L::Q2_K => T::Q3_K,
            L::Q3_K_M => T::Q4_K,
            L::Q3_K_L => T::Q5_K,
            _ => self.base,
        }
    }

    fn feed_forward_down(&self, block: i64) -> TensorType {
        use Level as L;
        use TensorType as T;
        let blocks = self.traits.blocks;
        let falcon = self.is_falcon();
        let first_eighth = block < blocks / 8;
        let first_sixteenth = block < blocks / 16;
        let more = more_bits(block, blocks);
        let importance = self.traits.importance;
        match self.level {
            L::Q2_K => T::Q3_K,
            L::Q2_K_S if first_eighth => T::Q4_K,
            L::Q3_K_M if first_sixteenth => T::Q5_K,
            L::Q3_K_M if !falcon || more => T::Q4_K,
            L::Q3_K_L => {
                if falcon {
                    T::Q4_K
                } else {
                    T::Q5_K
                }
            }
            L::Q4_K_M if falcon && first_sixteenth => T::Q6_K,
            L::Q4_K_M if falcon && more => T::Q5_K,
            L::Q4_K_M if !falcon && more => T::Q6_K,
            L::IQ4_NL | L::IQ4_XS if first_eighth && !importance => T::Q5_K,
            L::Q5_K_M if more => T::Q6_K,
            L::Q4_K_S if first_eighth && !falcon => T::Q5_K,
            L::Q4_0 if first_eighth && importance => T::Q4_1,
            L::Q5_0 if first_eighth && importance => T::Q5_1,
            _ => self.base,
        }
    }

    /// The block a feed-forward tensor belongs to: counted in a dense model, read from the name in
    /// one with experts.
    fn block(&self, tensor: &Candidate<'_>, index: i64) -> Result<i64, BlockError> {
        if self.traits.experts <= 1 {
            return Ok(index);
        }
        let found = block_number(tensor.name).filter(|block| *block < self.traits.blocks);
        found.ok_or_else(|| BlockError {
            tensor: tensor.name.to_owned(),
            blocks: self.traits.blocks,
        })
    }

    fn is_falcon(&self) -> bool {
        self.traits.architecture == "falcon"
    }
}

/// The first and last eighth of the blocks, and every third in between.
fn more_bits(index: i64, count: i64) -> bool {
    index < count / 8 || index >= 7 * count / 8 || (index - count / 8) % 3 == 2
}

fn divides(tensor_type: TensorType, row: u64) -> bool {
    row.is_multiple_of(tensor_type.block_elements())
}

/// The type with a smaller block that stands in for `wanted`, or F16 when not even 32 divides the
/// row.
fn smaller_block(wanted: TensorType, row: u64) -> TensorType {
    let smaller = match wanted {
        TensorType::IQ4_XS => TensorType::IQ4_NL,
        TensorType::Q2_K | TensorType::Q3_K => TensorType::Q4_0,
        TensorType::Q4_K => TensorType::Q5_0,
        TensorType::Q5_K => TensorType::Q5_1,
        TensorType::Q6_K => TensorType::Q8_0,
        other => other,
    };
    if divides(smaller, row) { smaller } else { TensorType::F16 }
}
