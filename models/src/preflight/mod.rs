//! The check of a model before llama.cpp sees it: refuses what would make llama.cpp abort, hang or
//! compute nonsense, for every architecture.
//!
//! llama.cpp answers most broken files with an error, but some with `GGML_ASSERT`, which ends the
//! process. The rules here are those assertions, read from its loader, vocabulary and CPU operators
//! (llama-cpp-sys-2 0.1.161), and a few faults that it lets pass in silence.

mod parameters;
mod refusal;
mod vocabulary;

use parameters::Keys;
pub use refusal::{Refusal, Warning};

use crate::gguf::{ALIGNMENT_DEFAULT, ALIGNMENT_KEY, Gguf, Metadata, TensorInfo};
use crate::inventory::{Role, is_single_expert};
use crate::tensor::TensorType;

/// Bytes after the last tensor that do no harm.
const TRAILING_BYTES_MAX: u64 = 1 << 20;

/// Checks an open model; gives the warnings when it may run.
pub fn preflight(gguf: &Gguf) -> Result<Vec<Warning>, Refusal> {
    // llama.cpp has every page of a mapped file read, also where no tensor lies: that takes hours
    // for terabytes, be they nothing but holes.
    let bytes = gguf.trailing_bytes();
    if bytes > TRAILING_BYTES_MAX {
        return Err(Refusal::Trailing { bytes });
    }
    check(gguf.metadata(), gguf.tensors())
}

/// The same for metadata and tensors by themselves.
pub fn check(metadata: &Metadata, tensors: &[TensorInfo]) -> Result<Vec<Warning>, Refusal> {
    let architecture = metadata.architecture().ok_or(Refusal::NoArchitecture)?;
    if let Some(kind) = metadata.text("general.type")
        && kind != "model"
    {
        return Err(Refusal::NotAModel(kind.to_owned()));
    }
    if architecture == "clip" {
        return Err(Refusal::NotAModel("image projector".to_owned()));
    }
    let keys = Keys { metadata, architecture };
    if !tensors.is_empty() {
        alignment(metadata)?;
    }
    let mut warnings = Vec::new();
    parameters::sizes(&keys, &mut warnings)?;
    parameters::experts(&keys)?;
    parameters::attention(&keys, tensors)?;
    parameters::rotation_and_norms(&keys)?;
    tensor_types(tensors)?;
    vocabulary::check(metadata, tensors, &mut warnings)?;
    Ok(warnings)
}

/// llama.cpp asserts that the tensors of a mapped file are aligned as ggml wants its buffers.
fn alignment(metadata: &Metadata) -> Result<(), Refusal> {
    match metadata.u64(ALIGNMENT_KEY) {
        Some(value) if !value.is_multiple_of(ALIGNMENT_DEFAULT) => Err(Refusal::Rule {
            key: ALIGNMENT_KEY.to_owned(),
            value: value.to_string(),
            rule: format!("must be a multiple of {ALIGNMENT_DEFAULT}"),
        }),
        _ => Ok(()),
    }
}

/// Types that some operation of ggml's CPU backend would abort on, or call through a null pointer.
fn tensor_types(tensors: &[TensorInfo]) -> Result<(), Refusal> {
    for tensor in tensors {
        let (name, tensor_type) = (&tensor.name, tensor.tensor_type);
        if tensor.elements() == 0 {
            return Err(Refusal::EmptyTensor(name.clone()));
        }
        if is_single_expert(name) {
            return Err(Refusal::SingleExperts(name.clone()));
        }
        let refuse = |rule| Err(Refusal::TensorType { name: name.clone(), tensor_type, rule });
        let added = name.ends_with("norm.weight")
            || name.ends_with("rope_freqs.weight")
            || (name.strip_suffix(".bias").is_some() && tensor.dimensions.len() == 1);
        if added && tensor_type != TensorType::F32 {
            return refuse("must be F32");
        }
        let not_for_products = match tensor_type {
            TensorType::Q8_1
            | TensorType::Q8_K
            | TensorType::F64
            | TensorType::I8
            | TensorType::I16
            | TensorType::I64 => true,
            // Some architectures keep tables of numbers as weights; the usual roles do not.
            TensorType::I32 => Role::of_name(name).0 != Role::Other,
            _ => false,
        };
        if not_for_products && tensor.dimensions.len() > 1 && name.ends_with(".weight") {
            return refuse("a type that ggml does not multiply with");
        }
    }
    Ok(())
}
