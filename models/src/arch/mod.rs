//! Architectures: how GGUF names a kind of model, and which tensors it owns. One file each, one
//! slice for all.

pub mod deepseek2;
pub mod gemma;
pub mod glm4moe;
pub mod gpt_oss;
pub mod granite;
pub mod llama;
pub mod olmo2;
mod parts;
pub mod phi3;
pub mod qwen2;
pub mod qwen3;

use std::fmt;

use crate::inventory::TensorSpec;
use crate::shape::Shape;

/// A kind of model, as `general.architecture` names it.
pub struct Architecture {
    /// The word in the file: `llama`.
    pub name: &'static str,
    /// What it covers, in one line.
    pub description: &'static str,
    /// Every tensor that a shape of it owns.
    pub inventory: fn(&Shape) -> Vec<TensorSpec>,
    /// Of so many blocks in a row, all but the last attend to a window only, unless the file says
    /// otherwise; `None` where llama.cpp applies no window, whatever the file says.
    pub window_period: Option<u32>,
    /// Which number gives the size of one expert.
    pub expert_size: ExpertSize,
}

/// Which number of the metadata gives the neurons of one expert.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ExpertSize {
    /// `feed_forward_length`, as of a dense layer.
    FeedForward,
    /// `expert_feed_forward_length`, a number of its own.
    Own,
}

/// Every architecture whose inventory is known.
pub const ARCHITECTURES: &[&Architecture] = &[
    &llama::LLAMA,
    &qwen2::QWEN2,
    &qwen3::QWEN3,
    &qwen3::QWEN3_MOE,
    &gpt_oss::GPT_OSS,
    &deepseek2::DEEPSEEK2,
    &glm4moe::GLM4_MOE,
    &granite::GRANITE,
    &granite::GRANITE_MOE,
    &olmo2::OLMO2,
    &gemma::GEMMA2,
    &gemma::GEMMA3,
    &phi3::PHI3,
];

impl Architecture {
    /// The architecture of a name.
    pub fn find(name: &str) -> Option<&'static Self> {
        ARCHITECTURES.iter().copied().find(|architecture| architecture.name == name)
    }
}

impl fmt::Debug for Architecture {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name)
    }
}

/// Names are unique.
impl PartialEq for Architecture {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_architecture_is_sound() {
        let mut names = HashSet::new();
        for architecture in ARCHITECTURES {
            assert!(names.insert(architecture.name), "{} twice", architecture.name);
            assert!(!architecture.description.is_empty());
            for experts in [0, 4] {
                let shape = Shape { architecture, experts, ..Shape::small() };
                let specs = (architecture.inventory)(&shape);
                let unique: HashSet<&str> = specs.iter().map(|spec| spec.name.as_str()).collect();
                assert_eq!(unique.len(), specs.len());
                for spec in &specs {
                    assert!(spec.name.len() < 64, "{}", spec.name);
                    assert!((1..=4).contains(&spec.dimensions.len()), "{}", spec.name);
                    assert!(
                        spec.dimensions.iter().all(|&dimension| dimension > 0),
                        "{}",
                        spec.name
                    );
                    assert_eq!(spec.block.is_some(), spec.role.in_block(), "{}", spec.name);
                }
            }
        }
    }
}
