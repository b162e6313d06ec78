//! Architectures: how GGUF names a kind of model, and which tensors it owns. One file each, one
//! slice for all.

pub mod llama;

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
}

/// Every architecture whose inventory is known.
pub const ARCHITECTURES: &[&Architecture] = &[&llama::LLAMA];

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
