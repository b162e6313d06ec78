//! The families: how Hugging Face spells an architecture, and what its checkpoint becomes in GGUF.
//!
//! A family is data: names of tensors, defaults of the configuration, a few functions. Everything
//! else is shared: [`hyperparameters`] reads `config.json`, [`tensors`] plans the output,
//! [`provenance`] fills `general.*`. A new family is one file and one line in [`FAMILIES`].

mod card;
pub mod hyperparameters;
mod llama;
mod mistral;
mod mixtral;
mod name;
mod provenance;
pub mod tensors;

use crate::checkpoint::Checkpoint;
use crate::error::ConvertError;
use crate::vocabulary;
use hyperparameters::{Defaults, Hyperparameters};
use nfl_models::gguf::{Metadata, TensorInfo};
use nfl_models::{Level, Shape, TensorType, check_inventory};
use tensors::{Recipe, Rule};

/// One family of checkpoints.
#[derive(Debug)]
pub struct Family {
    /// What it is called in messages.
    pub name: &'static str,
    /// The names in `architectures` of `config.json`.
    pub classes: &'static [&'static str],
    /// `general.architecture` of the output.
    pub architecture: &'static str,
    /// What the family's own code assumes where `config.json` is silent.
    pub defaults: Defaults,
    /// Which tensor of the checkpoint becomes which of the output.
    pub rules: &'static [Rule],
    /// Tensors that are computed from the configuration.
    pub generated: fn(&Hyperparameters) -> Vec<Recipe>,
    /// What the output cannot express, in words for the user.
    pub losses: fn(&Hyperparameters) -> Vec<String>,
}

/// Every family that can be converted.
pub const FAMILIES: &[&Family] = &[&llama::FAMILY, &mistral::FAMILY, &mixtral::FAMILY];

/// The family that writes `class` into its `config.json`.
pub fn find(class: &str) -> Result<&'static Family, ConvertError> {
    let found = FAMILIES.iter().find(|family| family.classes.contains(&class));
    found.copied().ok_or_else(|| ConvertError::UnknownFamily { class: class.to_owned() })
}

/// The names of all classes that can be converted.
pub fn classes() -> impl Iterator<Item = &'static str> {
    FAMILIES.iter().flat_map(|family| family.classes.iter().copied())
}

/// A checkpoint, understood: what the output holds, before the choice of a level.
#[derive(Debug)]
pub struct Plan {
    /// The tensors in the order of upstream's converter: computed ones first, then by shard and
    /// name.
    pub recipes: Vec<Recipe>,
    /// Metadata of the F32 file.
    pub metadata: Metadata,
    /// What the user should know before it starts.
    pub warnings: Vec<String>,
}

impl Plan {
    /// Plans the conversion of a whole checkpoint, and checks it against the inventory of its
    /// architecture.
    pub fn new(checkpoint: &Checkpoint) -> Result<Self, ConvertError> {
        let family = find(checkpoint.config().architecture()?)?;
        let hyperparameters = Hyperparameters::read(checkpoint.config(), &family.defaults)?;
        let mut recipes = (family.generated)(&hyperparameters);
        recipes.extend(tensors::plan(checkpoint, family, &hyperparameters)?);
        let mut plan = Self::described(checkpoint, family, &hyperparameters, &recipes)?;
        check(&plan.metadata, &recipes, &hyperparameters)?;
        plan.recipes = recipes;
        Ok(plan)
    }

    /// Plans a file that holds the vocabulary and the hyper-parameters, and no tensors.
    pub fn vocabulary_only(checkpoint: &Checkpoint) -> Result<Self, ConvertError> {
        let family = find(checkpoint.config().architecture()?)?;
        let hyperparameters = Hyperparameters::read(checkpoint.config(), &family.defaults)?;
        Self::described(checkpoint, family, &hyperparameters, &[])
    }

    /// The metadata of the F32 file, in upstream's order.
    fn described(
        checkpoint: &Checkpoint,
        family: &Family,
        hyperparameters: &Hyperparameters,
        recipes: &[Recipe],
    ) -> Result<Self, ConvertError> {
        let mut metadata = Metadata::new();
        let mut warnings = (family.losses)(hyperparameters);
        metadata.set("general.architecture", family.architecture);
        metadata.set("general.type", "model");
        provenance::describe(checkpoint, recipes, &mut metadata, &mut warnings);
        hyperparameters.describe(family.architecture, &mut metadata, &mut warnings);
        metadata.set("general.quantization_version", QUANTIZATION_VERSION);
        let expected = Some(hyperparameters.vocabulary);
        let words = vocabulary::read(checkpoint.directory(), expected)?;
        warnings.extend(words.warnings);
        for (key, value) in words.metadata.iter() {
            metadata.set(key, value.clone());
        }
        Ok(Self { recipes: Vec::new(), metadata, warnings })
    }

    /// The metadata of a level's file.
    pub fn metadata(&self, level: Level) -> Metadata {
        let mut metadata = self.metadata.clone();
        if level.base_type().is_quantized() {
            mark_quantized(&mut metadata, level);
        } else {
            metadata.set("general.file_type", level.file_type());
        }
        metadata
    }
}

/// `GGML_QNT_VERSION`: the version of the block formats.
pub const QUANTIZATION_VERSION: u32 = 2;

/// Writes the level into the metadata as `llama-quantize` does: both keys go to the end.
pub fn mark_quantized(metadata: &mut Metadata, level: Level) {
    metadata.remove("general.quantization_version");
    metadata.set("general.quantization_version", QUANTIZATION_VERSION);
    metadata.remove("general.file_type");
    metadata.set("general.file_type", level.file_type());
}

/// Checks that the tensors to be written are those that the architecture owns, in their dimensions.
///
/// Which optional tensors there must be is what `config.json` says, not what happens to be in the
/// checkpoint.
fn check(
    metadata: &Metadata,
    recipes: &[Recipe],
    hyperparameters: &Hyperparameters,
) -> Result<(), ConvertError> {
    let infos: Vec<TensorInfo> = recipes
        .iter()
        .map(|recipe| TensorInfo {
            name: recipe.name.clone(),
            dimensions: recipe.dimensions.clone(),
            tensor_type: TensorType::F32,
            offset: 0,
            shard: 0,
        })
        .collect();
    let mut shape = Shape::from_header(metadata, &infos)?;
    shape.tied_output &= hyperparameters.tied_output;
    shape.attention_bias |= hyperparameters.attention_bias;
    shape.attention_output_bias |= hyperparameters.attention_bias;
    shape.mlp_bias |= hyperparameters.mlp_bias;
    Ok(check_inventory(&shape, &infos)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn every_family_is_sound() {
        let mut classes = HashSet::new();
        for family in FAMILIES {
            assert!(!family.classes.is_empty(), "{}", family.name);
            for class in family.classes {
                assert!(classes.insert(*class), "{class} is claimed twice");
                assert_eq!(find(class).unwrap().name, family.name);
            }
            let architecture = family.architecture;
            assert!(nfl_models::ARCHITECTURES.iter().any(|known| known.name == architecture));
            let targets: HashSet<_> = family.rules.iter().map(|rule| rule.target).collect();
            assert_eq!(targets.len(), family.rules.len(), "{}: a target twice", family.name);
            for rule in family.rules {
                let blocks = |text: &str| text.matches("{block}").count();
                assert_eq!(blocks(rule.source), blocks(rule.target), "{}", rule.source);
                assert!(!rule.target.contains("{expert}"), "experts are stacked: {}", rule.target);
            }
        }
    }

    #[test]
    fn an_unknown_class_names_the_nearest_and_all() {
        let error = find("LlamaForCausalLm").unwrap_err();
        assert_eq!(error.to_string(), "unknown architecture: LlamaForCausalLm");
        let hint = nfl_models::Hint::hint(&error).unwrap();
        assert!(hint.contains("LlamaForCausalLM"), "{hint}");
        assert!(hint.contains("MixtralForCausalLM"), "{hint}");
    }
}
