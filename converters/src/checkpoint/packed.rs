//! Recognising weights that another tool has packed into integers (GPTQ, AWQ, bitsandbytes, …).
//!
//! Such a checkpoint has no `.weight` tensors of the usual shape; without this check the user would
//! be told that tensors are missing, not why.

use safetensors::Dtype;

use super::scale::quantization;
use super::{CheckpointError, Config, SourceTensor, SourceType};

/// Endings of names that only packed weights have, whatever `config.json` says.
const PACKED_ENDINGS: [&str; 5] =
    [".qweight", ".weight_packed", ".weight.absmax", "_proj_blocks", ".qzeros"];

/// Refuses a checkpoint whose weights are packed integers.
///
/// The word of `quantization_config` alone is not enough: it also stands in checkpoints that were
/// saved unquantised, and integer tensors (masks, position numbers) stand in ordinary ones. Both
/// together decide, or a telling name.
pub(super) fn refuse(config: &Config, tensors: &[SourceTensor]) -> Result<(), CheckpointError> {
    let settings = quantization(config)?;
    let method = settings.as_ref().and_then(|settings| settings.value("quant_method")?.as_str());
    let is_integer = |tensor: &SourceTensor| matches!(tensor.dtype, SourceType::Other(_));
    let tells = |tensor: &SourceTensor| {
        PACKED_ENDINGS.iter().any(|ending| tensor.name.ends_with(ending)) && is_integer(tensor)
    };
    let holds_weights = |tensor: &SourceTensor| {
        settings.is_some()
            && is_integer(tensor)
            && tensor.dtype != SourceType::Other(Dtype::F8_E8M0)
            && tensor.shape.len() >= 2
            && (tensor.name.ends_with(".weight") || tensor.name.ends_with("_proj"))
    };
    match tensors.iter().find(|tensor| tells(tensor) || holds_weights(tensor)) {
        None => Ok(()),
        Some(tensor) => Err(CheckpointError::Packed {
            method: method.unwrap_or("an unnamed method").to_owned(),
            tensor: tensor.name.clone(),
            found: tensor.dtype.to_string(),
        }),
    }
}
