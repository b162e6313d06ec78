//! The outline of a model: what its `config.json` alone tells of it, without a tensor: shape,
//! metadata, and for any level the type and size of every tensor.
//!
//! It serves placement and footprint, so it knows more spellings than can be converted
//! ([`crate::families`]): an entry here says how the numbers are spelt, not how weights are read.

mod spellings;

use std::path::Path;

use crate::checkpoint::Config;
use crate::error::ConvertError;
use crate::families::hyperparameters::{Hyperparameters, RopeScaling};
use crate::quantize::category::Candidate;
use crate::quantize::mixture::{self, Traits};
use nfl_models::gguf::{Array, Metadata, TensorInfo};
use nfl_models::shape::{BLOCKS_MAX, LENGTH_MAX};
use nfl_models::{Footprint, Level, Role, Shape, TensorType, inventory};
use spellings::{SPELLINGS, Spelling};

/// What a configuration tells of a model.
#[derive(Debug, Clone, PartialEq)]
pub struct Outline {
    /// The hyper-parameters as a GGUF file of the model carries them.
    pub metadata: Metadata,
    /// The numbers of the model.
    pub shape: Shape,
    /// The type in which the experts were published, when that is a block type, which conversion
    /// keeps.
    pub experts_type: Option<TensorType>,
}

impl Outline {
    /// Reads a `config.json`, or that of a directory.
    ///
    /// # Errors
    /// When there is none, its architecture is not known, or its numbers do not go together.
    pub fn read(path: &Path) -> Result<Self, ConvertError> {
        Self::of(&Config::open(path)?)
    }

    /// The outline that a configuration tells.
    ///
    /// # Errors
    /// As [`Outline::read`].
    pub fn of(config: &Config) -> Result<Self, ConvertError> {
        let class = config.architecture()?;
        let spelling = SPELLINGS
            .iter()
            .find(|spelling| spelling.classes.contains(&class))
            .ok_or_else(|| ConvertError::UnknownShape { class: class.to_owned() })?;
        let hyperparameters = Hyperparameters::read(config, &spelling.defaults)?;
        let mut metadata = Metadata::new();
        metadata.set("general.architecture", spelling.architecture);
        // Warnings concern what a converted file cannot express; nothing is converted here.
        hyperparameters.describe(spelling.architecture, &mut metadata, &mut Vec::new());
        (spelling.more)(config, &mut Keys { metadata: &mut metadata, spelling })?;
        let mut shape = Shape::from_header(&metadata, &[])?;
        shape.tied_output =
            config.optional_bool("tie_word_embeddings")?.unwrap_or(spelling.tied_output);
        shape.attention_bias |= hyperparameters.attention_bias || spelling.attention_bias;
        shape.attention_output_bias |= hyperparameters.attention_bias;
        shape.mlp_bias |= hyperparameters.mlp_bias;
        shape.fused_attention = spelling.fused_attention;
        shape.rope_factors = hyperparameters.rope_factors().is_some();
        shape.rope_long_factors = hyperparameters.rope.scaling == RopeScaling::Long;
        shape.router_scores_bias = config.optional_str("topk_method")? == Some("noaux_tc");
        let experts_type = experts_type(config)?;
        Ok(Self { metadata, shape, experts_type })
    }

    /// Every tensor that a file of this level would hold, with the type that llama.cpp's mixture
    /// gives it.
    ///
    /// # Errors
    /// When the block of a tensor cannot be told: a mistake of the inventory.
    pub fn tensors(&self, level: Level) -> Result<Vec<TensorInfo>, ConvertError> {
        let specs = inventory(&self.shape);
        let published = |role: Role| {
            let stack = role.is_experts() && role.tensor_name(None).ends_with(".weight");
            self.experts_type.filter(|_| stack)
        };
        let candidates: Vec<Candidate<'_>> = specs
            .iter()
            .map(|spec| Candidate {
                name: &spec.name,
                dimensions: &spec.dimensions,
                source_type: TensorType::F32,
            })
            .collect();
        let choices = mixture::choose(&Traits::of(&self.metadata), level, &candidates)?;
        let mut offset = 0;
        let tensors = specs.iter().zip(choices).map(|(spec, choice)| {
            let mut tensor = TensorInfo {
                name: spec.name.clone(),
                dimensions: spec.dimensions.clone(),
                tensor_type: published(spec.role).unwrap_or(choice.tensor_type),
                offset,
                shard: 0,
            };
            if !tensor.dimensions[0].is_multiple_of(tensor.tensor_type.block_elements()) {
                tensor.tensor_type = TensorType::F16;
            }
            offset = (offset + tensor.bytes()).next_multiple_of(ALIGNMENT);
            tensor
        });
        Ok(tensors.collect())
    }

    /// The footprint of a file of this level.
    ///
    /// # Errors
    /// As [`Outline::tensors`].
    pub fn footprint(&self, level: Level) -> Result<Footprint, ConvertError> {
        Ok(Footprint::new(self.shape.clone(), &self.tensors(level)?))
    }
}

/// The names of all classes whose configurations can be read.
pub fn classes() -> impl Iterator<Item = &'static str> {
    SPELLINGS.iter().flat_map(|spelling| spelling.classes.iter().copied())
}

/// Of the tensors in a file, in bytes.
const ALIGNMENT: u64 = 32;

/// The type of experts that were published quantised.
fn experts_type(config: &Config) -> Result<Option<TensorType>, ConvertError> {
    let Some(quantization) = config.optional_object("quantization_config")? else {
        return Ok(None);
    };
    let method = quantization.optional_str("quant_method")?;
    Ok((method == Some("mxfp4")).then_some(TensorType::MXFP4))
}

/// Metadata being filled from a configuration, under the prefix of the architecture.
struct Keys<'a> {
    metadata: &'a mut Metadata,
    spelling: &'a Spelling,
}

impl Keys<'_> {
    /// Sets a number; every one that is read meets a limit far below 32 bits.
    fn set(&mut self, suffix: &str, value: u64) {
        self.metadata.set(format!("{}.{suffix}", self.spelling.architecture), value as u32);
    }

    fn set_float(&mut self, suffix: &str, value: f64) {
        self.metadata.set(format!("{}.{suffix}", self.spelling.architecture), value as f32);
    }

    /// Copies a number that must be there.
    fn copy(&mut self, config: &Config, key: &str, suffix: &str) -> Result<u64, ConvertError> {
        let value = config.within(key, 0..=LENGTH_MAX)?;
        self.set(suffix, value);
        Ok(value)
    }

    /// Copies a number that may be absent.
    fn copy_optional(
        &mut self,
        config: &Config,
        key: &str,
        suffix: &str,
    ) -> Result<(), ConvertError> {
        if config.value(key).is_some() {
            self.copy(config, key, suffix)?;
        }
        Ok(())
    }

    /// The number of experts, how many each token uses, and the size of one.
    fn experts(&mut self, config: &Config, count: &str, size: &str) -> Result<(), ConvertError> {
        self.copy(config, count, "expert_count")?;
        self.copy(config, "num_experts_per_tok", "expert_used_count")?;
        self.copy(config, size, "expert_feed_forward_length")?;
        Ok(())
    }

    /// The window, and which blocks have it: by list, by period, or as the architecture is known.
    fn window(&mut self, config: &Config, tokens: u64) -> Result<(), ConvertError> {
        const PATTERN: &str = "attention.sliding_window_pattern";
        let given = match config.value("sliding_window") {
            Some(_) => config.within("sliding_window", 0..=LENGTH_MAX)?,
            None => tokens,
        };
        self.set("attention.sliding_window", given);
        if let Some(types) = config.optional_array("layer_types")? {
            let windowed: Vec<bool> =
                types.iter().map(|kind| kind.as_str() == Some("sliding_attention")).collect();
            let key = format!("{}.{PATTERN}", self.spelling.architecture);
            self.metadata.set(key, Array::Bool(windowed));
        } else if config.value("sliding_window_pattern").is_some() {
            let period = config.within("sliding_window_pattern", 0..=BLOCKS_MAX)?;
            self.set(PATTERN, period);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nfl_models::Architecture;
    use std::collections::HashSet;

    #[test]
    fn every_spelling_is_sound() {
        let mut classes = HashSet::new();
        for spelling in SPELLINGS {
            assert!(Architecture::find(spelling.architecture).is_some());
            assert!(spelling.classes.iter().all(|class| classes.insert(*class)));
        }
        for family in crate::families::FAMILIES {
            assert!(family.classes.iter().all(|class| classes.contains(class)), "{}", family.name);
        }
    }
}
