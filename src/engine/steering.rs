//! What changes a loaded model for one request: adapters and control vectors.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::options::OptionError;

/// Adapters or control vectors of one request.
pub const STEERINGS_MAX: usize = 32;

/// The largest scale, in magnitude; beyond it nothing but noise comes out.
pub const SCALE_MAX: f32 = 1000.0;

/// A LoRA adapter and how strongly it acts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AdapterUse {
    /// A GGUF file of type adapter.
    pub path: PathBuf,
    /// 1 is as trained, 0 is none, negative is against it.
    pub scale: f32,
}

/// A control vector and how strongly it acts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ControlUse {
    /// A GGUF file with tensors `direction.N`, one for the output of each layer N.
    pub path: PathBuf,
    /// 1 is as made, 0 is none, negative is against it.
    pub scale: f32,
    /// The first and the last layer that it acts on; all when None.
    pub layers: Option<(u32, u32)>,
}

/// Everything that changes the model for a request. Two requests with the same steering may share
/// what was computed.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Steering {
    /// Adapters, which add up.
    pub adapters: Vec<AdapterUse>,
    /// Control vectors, which add up.
    pub controls: Vec<ControlUse>,
}

impl Steering {
    /// Whether the model stays as it is.
    pub fn is_empty(&self) -> bool {
        self.adapters.is_empty() && self.controls.is_empty()
    }

    /// Whether the numbers are in their ranges.
    pub fn check(&self) -> Result<(), OptionError> {
        for (what, count) in
            [("adapters", self.adapters.len()), ("control vectors", self.controls.len())]
        {
            if count > STEERINGS_MAX {
                let range = format!("0 to {STEERINGS_MAX}");
                return Err(OptionError::OutOfRange { what, value: count.to_string(), range });
            }
        }
        let scales = self.adapters.iter().map(|adapter| adapter.scale);
        for scale in scales.chain(self.controls.iter().map(|control| control.scale)) {
            if !(-SCALE_MAX..=SCALE_MAX).contains(&scale) {
                let (what, value) = ("scale", scale.to_string());
                let range = format!("-{SCALE_MAX} to {SCALE_MAX}");
                return Err(OptionError::OutOfRange { what, value, range });
            }
        }
        for (first, last) in self.controls.iter().filter_map(|control| control.layers) {
            if first == 0 || last < first {
                let (what, value) = ("layers of a control vector", format!("{first}-{last}"));
                return Err(OptionError::OutOfRange {
                    what,
                    value,
                    range: "1-1 and up".to_owned(),
                });
            }
        }
        Ok(())
    }
}
