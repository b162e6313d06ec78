//! What was written: the evidence a conversion hands back.

use nfl_models::gguf::Gguf;
use nfl_models::{Level, TensorType};
use sha2::{Digest, Sha256};
use std::fmt::Write;
use std::path::PathBuf;

/// One file that was written.
#[derive(Debug, Clone, PartialEq)]
pub struct Receipt {
    /// Its level.
    pub level: Level,
    /// Where it is.
    pub path: PathBuf,
    /// Its size.
    pub bytes: u64,
    /// Seconds from the order to the file; files of one pass share them.
    pub seconds: f64,
    /// Its tensors, in the order of the file.
    pub tensors: Vec<ReceiptTensor>,
}

/// One tensor that was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReceiptTensor {
    /// GGUF name.
    pub name: String,
    /// How it is stored.
    pub tensor_type: TensorType,
    /// ggml order.
    pub dimensions: Vec<u64>,
    /// Of its bytes, in hexadecimal, when asked for.
    pub sha256: Option<String>,
}

impl ReceiptTensor {
    /// The tensors of a finished file, with their checksums when asked for.
    pub(crate) fn all(file: &Gguf, checksums: bool) -> Vec<Self> {
        let tensors = file.tensors().iter();
        tensors
            .map(|tensor| Self {
                name: tensor.name.clone(),
                tensor_type: tensor.tensor_type,
                dimensions: tensor.dimensions.clone(),
                sha256: checksums.then(|| hexadecimal(&Sha256::digest(file.data(tensor)))),
            })
            .collect()
    }
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        // writing to a String cannot fail
        let _ = write!(text, "{byte:02x}");
        text
    })
}
