//! The inventory: every tensor that a shape owns, with its role and dimensions, and the check of a
//! file against it.
//!
//! It is the one list behind the converter's completeness check, the quantiser's types by role,
//! `nfl show`, the footprint, and placement.

use std::collections::HashMap;
use std::fmt;

use crate::gguf::TensorInfo;
use crate::hint::Hint;
pub use crate::role::Role;
use crate::shape::Shape;

/// One tensor that a shape owns.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TensorSpec {
    /// Its name in a GGUF file.
    pub name: String,
    /// What it does.
    pub role: Role,
    /// Which block it belongs to; `None` for those of the model as a whole.
    pub block: Option<u32>,
    /// In ggml's order: the first is the length of a row.
    pub dimensions: Vec<u64>,
    /// Whether a file without it is incomplete.
    pub required: bool,
}

impl TensorSpec {
    /// A required tensor of a role.
    pub fn new(role: Role, block: Option<u32>, dimensions: impl Into<Vec<u64>>) -> Self {
        let (name, dimensions) = (role.tensor_name(block), dimensions.into());
        Self { name, role, block, dimensions, required: true }
    }
}

/// Every tensor that a shape owns, those of the model as a whole first, then block by block.
pub fn inventory(shape: &Shape) -> Vec<TensorSpec> {
    (shape.architecture.inventory)(shape)
}

/// A tensor with other dimensions than its shape says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Misshaped {
    /// The tensor.
    pub name: String,
    /// Its dimensions in the file.
    pub found: Vec<u64>,
    /// Its dimensions by the inventory.
    pub expected: Vec<u64>,
}

/// How the tensors of a file differ from the inventory of its shape.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct InventoryError {
    /// Names of tensors that are not there.
    pub missing: Vec<String>,
    /// Names of tensors that no role asks for.
    pub unexpected: Vec<String>,
    /// Tensors with other dimensions.
    pub misshaped: Vec<Misshaped>,
}

impl std::error::Error for InventoryError {}

impl fmt::Display for InventoryError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        /// Names shown of each kind; a wrong shape differs in hundreds.
        const SHOWN: usize = 3;
        let list = |names: &[String]| {
            let more = if names.len() > SHOWN { ", …" } else { "" };
            format!("{}{more}", names[..names.len().min(SHOWN)].join(", "))
        };
        let misshaped: Vec<String> = self
            .misshaped
            .iter()
            .map(|each| format!("{} is {:?}, not {:?}", each.name, each.found, each.expected))
            .collect();
        let kinds = [
            ("missing", &self.missing),
            ("unexpected", &self.unexpected),
            ("misshaped", &misshaped),
        ];
        let parts: Vec<String> = kinds
            .iter()
            .filter(|(_, names)| !names.is_empty())
            .map(|(kind, names)| format!("{} {kind} ({})", names.len(), list(names)))
            .collect();
        write!(formatter, "tensors do not fit the shape: {}", parts.join("; "))
    }
}

impl Hint for InventoryError {
    fn hint(&self) -> Option<String> {
        let legacy = self.unexpected.iter().any(|name| is_single_expert(name));
        Some(if legacy {
            "the file has one tensor for each expert, as before April 2024: convert the original \
             again"
                .to_owned()
        } else {
            "the file is incomplete or of another architecture: convert the original again"
                .to_owned()
        })
    }
}

/// Whether a tensor is that of one expert (`blk.0.ffn_gate.3.weight`), the layout that llama.cpp
/// has given up.
pub(crate) fn is_single_expert(name: &str) -> bool {
    let suffix = name.strip_prefix("blk.").and_then(|rest| rest.split_once('.'));
    let Some((_, suffix)) = suffix else { return false };
    ["ffn_gate.", "ffn_up.", "ffn_down."].iter().any(|part| {
        let expert = suffix.strip_prefix(part).and_then(|rest| rest.strip_suffix(".weight"));
        expert.is_some_and(|expert| expert.parse::<u32>().is_ok())
    })
}

/// Compares the tensors of a file with the inventory of its shape.
///
/// Scales that NVFP4 weights carry beside them (`….scale`, `….input_scale`) are not asked for.
pub fn check_inventory(shape: &Shape, tensors: &[TensorInfo]) -> Result<(), InventoryError> {
    let mut error = InventoryError::default();
    let mut present: HashMap<&str, &TensorInfo> =
        tensors.iter().map(|tensor| (tensor.name.as_str(), tensor)).collect();
    let specs = inventory(shape);
    for spec in &specs {
        match present.remove(spec.name.as_str()) {
            None if spec.required => error.missing.push(spec.name.clone()),
            Some(tensor) if !same_dimensions(&tensor.dimensions, &spec.dimensions) => {
                error.misshaped.push(Misshaped {
                    name: spec.name.clone(),
                    found: tensor.dimensions.clone(),
                    expected: spec.dimensions.clone(),
                });
            }
            _ => {}
        }
    }
    let scale_of_known = |name: &str| {
        let base = name.strip_suffix(".input_scale").or_else(|| name.strip_suffix(".scale"));
        base.is_some_and(|base| Role::of_name(&format!("{base}.weight")).0 != Role::Other)
    };
    // In the file's order, so that the message is the same each time.
    let unexpected = tensors.iter().map(|tensor| tensor.name.as_str());
    let unexpected = unexpected.filter(|name| present.contains_key(name) && !scale_of_known(name));
    error.unexpected = unexpected.map(str::to_owned).collect();
    if error == InventoryError::default() { Ok(()) } else { Err(error) }
}

/// ggml counts four dimensions always, so ones at the end mean nothing.
fn same_dimensions(left: &[u64], right: &[u64]) -> bool {
    let padded = |dimensions: &[u64], index: usize| dimensions.get(index).copied().unwrap_or(1);
    (0..left.len().max(right.len())).all(|index| padded(left, index) == padded(right, index))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn single_experts_are_known() {
        assert!(is_single_expert("blk.0.ffn_gate.3.weight"));
        assert!(!is_single_expert("blk.0.ffn_gate.weight"));
        assert!(!is_single_expert("blk.0.ffn_gate_exps.weight"));
    }
}
